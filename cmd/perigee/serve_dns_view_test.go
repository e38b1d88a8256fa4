package main

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestGeographyOnceAMinute tells of changes at given seconds: the first
// geography is taken at once, later ones a minute apart, each with all that came
// before it, and zones at once, since what is told of at once may be both.
func TestGeographyOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		again := make(chan struct{}, 1)
		var geoNew atomic.Bool
		var geography, zones []int // seconds
		start := time.Now()
		now := func() int { return int(time.Since(start) / time.Second) }
		done := make(chan struct{})
		go func() {
			takeIn(ctx, again, &geoNew, func() { geography = append(geography, now()) }, func() { zones = append(zones, now()) })
			close(done)
		}()
		for _, at := range []struct {
			second int
			geo    bool
		}{{5, true}, {6, true}, {7, false}, {8, true}, {40, false}, {66, false}, {70, true}, {300, true}, {301, false}} {
			time.Sleep(time.Duration(at.second-now()) * time.Second)
			geoNew.Store(at.geo)
			again <- struct{}{}
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		cancel()
		<-done
		if want := []int{5, 65, 125, 300}; !slices.Equal(geography, want) {
			t.Errorf("geography at second %v, want %v", geography, want)
		}
		if want := []int{6, 7, 8, 40, 66, 70, 301}; !slices.Equal(zones, want) {
			t.Errorf("zones at second %v, want %v", zones, want)
		}
	})
}
