package control

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"perigee.example/origin"
)

// TestLogLostBeforeASnapshot: the log's files are gone, and no snapshot of it was made yet:
// the control node begins a new epoch, and removes nothing for a while.
func TestLogLostBeforeASnapshot(t *testing.T) {
	f := newFleet(t)
	_, release := writeRelease(t, f)
	f.Close()
	if err := os.RemoveAll(filepath.Join(f.c.Dir, "feed", "jetstream")); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	if why := f.feed.Log().EpochWhy(); why == "" {
		t.Error("no new epoch")
	}
	d, err := origin.ParseDigest(release)
	if err != nil {
		t.Fatal(err)
	}
	if swept, err := f.collectAt(bounded(t), f.now(), f.now()); err == nil || swept.Removed > 0 {
		t.Errorf("blobs are removed whose releases are lost: %+v, %v", swept, err)
	}
	wantStatus(t, func() error { _, err := f.local.Activate(bounded(t), "www", "", d, nil); return err }(), 404, "is not sealed here")
}

// TestTrimReadsItsSnapshot: the blob of the newest snapshot rots, so the log, which is all
// that has the state now, stays whole.
func TestTrimReadsItsSnapshot(t *testing.T) {
	f := newFleet(t)
	f.fill(t)
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := spoil(f.c.Dir, f.state.Snapshots[0].Digest); err != nil {
		t.Fatal(err)
	}
	f.now = func() time.Time { return time.Now().Add(96 * time.Hour) }
	if err := f.trim(bounded(t)); err == nil || f.feed.Log().First() != 1 {
		t.Errorf("trimmed to %d behind a snapshot that nobody can read: %v", f.feed.Log().First(), err)
	}
}
