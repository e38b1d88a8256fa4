package control

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
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

// TestBeginningOfTheLogLost: the log's first file is gone, and no snapshot of it was made:
// the head is as it was, so no epoch begins, and yet nothing is removed for a while.
func TestBeginningOfTheLogLost(t *testing.T) {
	f := newFleet(t)
	writeRelease(t, f)
	if _, err := f.local.Drain(bounded(t), "fra1"); err != nil { // nothing of the release is left
		t.Fatal(err)
	}
	if err := f.feed.Log().Trim(bounded(t), f.head()); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	if why := f.feed.Log().EpochWhy(); why != "" || f.feed.Log().First() == 1 {
		t.Fatalf("this tests nothing: the log begins with %d, %s", f.feed.Log().First(), why)
	}
	later := f.now().Add(2 * blobAge)
	if swept, err := f.collectAt(bounded(t), later, later); err == nil || swept.Removed > 0 {
		t.Errorf("blobs are removed whose releases are lost: %+v, %v", swept, err)
	}
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

// TestBeginsWithAnOlderSnapshot: the newest snapshot is at another control node, which is
// away; with the one before, and the entries after that, the state is the same.
func TestBeginsWithAnOlderSnapshot(t *testing.T) {
	f := newFleet(t)
	f.fill(t)
	f.later(t)
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	want := f.picture(t)
	older, newest := f.state.Snapshots[0], f.state.Snapshots[1]
	if _, err := f.Server.blobs.Sweep(func(d origin.Digest) bool { return d != newest.Digest }, time.Now().Add(48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Server.blobs.Has(newest.Digest); ok {
		t.Fatal("the newest snapshot is here still: this tests nothing")
	}
	f.peers = newPeers(&Cluster{Peers: []ClusterPeer{{Name: "ctl2", Blobs: "127.0.0.1:1"}}}, &tls.Config{})
	f.mu.Lock()
	ctx := bounded(t)
	err := f.begin(ctx, f.feed.Log().First())
	at := f.folded
	if ctx.Err() != nil {
		t.Error("it waits for the newest as long as it may")
	}
	if err == nil {
		err = f.catchUp(bounded(t))
	}
	f.mu.Unlock()
	if err != nil || at != older.At {
		t.Fatalf("begun at %+v, the older snapshot is of %+v: %v", at, older.At, err)
	}
	if got := f.picture(t); got != want {
		t.Fatalf("begun with the older one\n%s\nbefore\n%s", got, want)
	}
}

// TestUnknownEntryIsNotFoldedAway: a control node of a newer version, which is gone for
// now, has written what this one does not know. It stays on the log, whatever its age.
func TestUnknownEntryIsNotFoldedAway(t *testing.T) {
	f := newFleet(t)
	if _, err := f.local.Drain(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	e, err := f.feed.Log().Append(bounded(t), "teleport", map[string]string{"edge": "fra1"})
	if err != nil {
		t.Fatal(err)
	}
	f.now = func() time.Time { return time.Now().Add(96 * time.Hour) }
	for range 2 { // also after a start
		if err := f.snapshotDue(bounded(t)); err == nil || !strings.Contains(err.Error(), "teleport") || !strings.Contains(err.Error(), "update perigee") {
			t.Errorf("a snapshot without an entry that is not known: %v", err)
		}
		if err := f.trim(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if first := f.feed.Log().First(); first > e.Seq {
			t.Fatalf("the log begins with %d, and %d is in no snapshot", first, e.Seq)
		}
		f.restart(t)
		f.now = func() time.Time { return time.Now().Add(96 * time.Hour) }
	}
}

// TestLossIsRememberedBehindASnapshot: the entry that says that entries were lost is
// trimmed before three days are over, since so many came after it; nothing is removed
// until they are, also after a start.
func TestLossIsRememberedBehindASnapshot(t *testing.T) {
	f := newFleet(t)
	f.fill(t)
	f.Close()
	if err := os.RemoveAll(filepath.Join(f.c.Dir, "feed", "jetstream")); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	for range 2 {
		if err := f.snapshot(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.feed.Log().Trim(bounded(t), f.head()); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	if f.lostAt.IsZero() {
		t.Fatal("nobody knows any more that entries were lost")
	}
	if swept, err := f.collectAt(bounded(t), f.now().Add(2*blobAge), f.now().Add(2*blobAge)); err == nil || swept.Removed > 0 {
		t.Errorf("two days after: %+v, %v", swept, err)
	}
	f.now = func() time.Time { return time.Now().Add(lostKeep + time.Hour) }
	var b bytes.Buffer
	if _, err := f.writeSnapshot(bounded(t), &b); err != nil || bytes.Contains(b.Bytes(), []byte("LostAt")) {
		t.Errorf("three days after, a snapshot has it still, which older versions refuse: %.200s, %v", b.Bytes(), err)
	}
}
