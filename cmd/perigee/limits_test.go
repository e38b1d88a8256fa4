package main

import (
	"path/filepath"
	"reflect"
	"testing"

	"perigee.example/edge"
	"perigee.example/internal/config"
)

// TestClientLimitDefaults: an edge made by a Go program is bounded as one of
// perigee.toml is.
func TestClientLimitDefaults(t *testing.T) {
	cfg, err := config.Load(filepath.Join("..", "..", "internal", "config", "template.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := clientLimits(cfg), edge.DefaultLimits(); !reflect.DeepEqual(got, want) {
		t.Errorf("perigee.toml gives %+v, a library's edge %+v", got, want)
	}
}
