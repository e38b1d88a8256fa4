package control

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"perigee.example/origin"
)

// slowReader is who takes a backup and stops for a while at its beginning.
type slowReader struct {
	bytes.Buffer
	once        sync.Once
	begun, goOn chan struct{}
}

func (w *slowReader) Write(p []byte) (int, error) {
	w.once.Do(func() {
		close(w.begun)
		<-w.goOn
	})
	return w.Buffer.Write(p)
}

// TestSlowBackupHoldsNothingUp: while somebody takes a backup, blobs are collected and the
// log is trimmed; what is in the backup stays until it is over.
func TestSlowBackupHoldsNothingUp(t *testing.T) {
	f := newFleet(t)
	push := func(text string) Pushed {
		t.Helper()
		dir := t.TempDir()
		writeSite(t, dir, map[string]string{"index.html": text})
		p, err := f.client.Push(bounded(t), PushOptions{Site: "www", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := push("one")
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	push("two")
	saved := &slowReader{begun: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- f.Backup(bounded(t), saved, true) }()
	<-saved.begun
	if _, err := f.command(bounded(t), KindForget, Forget{Site: "www", Releases: []origin.Digest{first.Release}}, free); err != nil {
		t.Error(err)
	}
	later := time.Now().Add(96 * time.Hour)
	if swept, err := f.collectAt(bounded(t), later, later); err != nil || swept.Removed > 0 {
		t.Errorf("while somebody takes a backup: %+v, %v", swept, err)
	}
	for range 2 {
		f.later(t)
	}
	if f.feed.Log().First() == 1 {
		t.Error("the log is not trimmed while somebody takes a backup")
	}
	close(saved.goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "control")
	if head, err := Restore(bounded(t), dir, &saved.Buffer, false); err != nil || head.Blobs < 5 {
		t.Errorf("%+v, %v", head, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	if swept, err := f.collectAt(bounded(t), later, later); err != nil || swept.Removed == 0 || len(f.pinned) != 0 {
		t.Errorf("after it: %+v, %d are kept, %v", swept, len(f.pinned), err)
	}
}
