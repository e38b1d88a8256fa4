package control

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A control node that has lost its disk is given the keys, and has all that the
// others have: the snapshot that the log begins with, the entries after it, nodes,
// and the blobs of releases that were sealed before.
func TestLostDiskBeginsWithASnapshot(t *testing.T) {
	f := newTrio(t)
	pushed, err := f.push(t, 0, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.clients[0].Purge(patient(t), urlPurge(1, 0), false); err != nil {
		t.Fatal(err)
	}
	if _, err := f.clients[0].NodeAdd(patient(t), "fra1", false); err != nil {
		t.Fatal(err)
	}
	one := f.servers[0]
	if err := one.snapshot(patient(t)); err != nil {
		t.Fatal(err)
	}
	one.mu.Lock()
	made := one.state.Snapshots[0]
	one.mu.Unlock()
	if err := one.feed.Log().Trim(patient(t), made.At.Seq+1); err != nil {
		t.Fatal(err)
	}
	f.everywhere(t, "the snapshot's blob", func(s *Server) bool { _, ok := s.blobs.Has(made.Digest); return ok })

	const lost = 2
	f.servers[lost].Close()
	if err := os.RemoveAll(f.dirs[lost]); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{caCertName, caKeyName, tokensName} {
		b, err := os.ReadFile(filepath.Join(f.dirs[1], name))
		if err == nil {
			err = os.MkdirAll(f.dirs[lost], 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(f.dirs[lost], name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.clients[1].Drain(patient(t), "fra1"); err != nil { // while it is away
		t.Fatal(err)
	}
	s, err := Open(patient(t), f.config(lost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if first := s.feed.Log().First(); first != made.At.Seq+1 || s.feed.Log().EpochWhy() != "" {
		t.Errorf("its log begins at %d, new epoch %q", first, s.feed.Log().EpochWhy())
	}
	picture := func(s *Server) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, err := json.Marshal(map[string]any{"state": s.state, "purges": s.purged.sorted(), "folded": s.folded})
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	for end := time.Now().Add(clusterPatience); picture(s) != picture(f.servers[1]); {
		if time.Now().After(end) {
			t.Fatalf("it knows\n%s\nanother\n%s", picture(s), picture(f.servers[1]))
		}
	}
	if !s.nodes.has("fra1") {
		t.Error("it does not know the node")
	}
	for end := time.Now().Add(clusterPatience); ; {
		if _, ok := s.blobs.Has(pushed.Release); ok {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not get the blobs of a release that the snapshot has")
		}
	}
}
