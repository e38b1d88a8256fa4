package node

import (
	"errors"
	"log/slog"
	"testing"
)

// TestTooOldStaysBehind: what was read before the entry of a later version is applied
// after it was met. The node is behind all the same.
func TestTooOldStaysBehind(t *testing.T) {
	var told []bool
	n := &Node{log: slog.New(slog.DiscardHandler), dirty: make(chan struct{}, 1), c: Config{Hooks: Hooks{Behind: func(b bool) { told = append(told, b) }}}}
	n.setBehind(false)
	n.stay(errors.New("version 2"))
	n.setBehind(false)
	if len(told) != 2 || !told[1] {
		t.Errorf("told %v", told)
	}
}
