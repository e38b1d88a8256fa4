package feed

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait in these tests; it is only reached on failure.
const patience = time.Minute

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// fleet is a listening server and its CA. Nodes named in admitted may connect.
type fleet struct {
	*Server
	ca  *authority
	dir string

	mu       sync.Mutex
	admitted map[string]bool
}

func newFleet(t *testing.T, nodes ...string) *fleet {
	t.Helper()
	f := &fleet{ca: newAuthority(t), dir: t.TempDir(), admitted: map[string]bool{}}
	f.open(t)
	for _, n := range nodes {
		f.admit(n, true)
		if err := f.AddNode(bounded(t), n); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fleet) open(t *testing.T) {
	t.Helper()
	srv, err := OpenServer(bounded(t), ServerConfig{
		Dir: f.dir, Listen: "127.0.0.1:0", TLS: f.ca.server(t),
		Admit: func(id string, _ *x509.Certificate) bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.admitted[id]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Server = srv
	t.Cleanup(srv.Close)
}

func (f *fleet) admit(id string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.admitted[id] = ok
}

func (f *fleet) dial(t *testing.T, id string, from Position) *Follower {
	t.Helper()
	fo, err := Dial(bounded(t), DialConfig{ID: id, Addr: f.Addr().String(), TLS: f.ca.node(t, id), From: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fo.Close)
	return fo
}

func (f *fleet) append(t *testing.T, n int) []Entry {
	t.Helper()
	var out []Entry
	for i := range n {
		e, err := f.Log().Append(bounded(t), "purge", map[string]any{"url": fmt.Sprintf("http://a.example/<%d>&", i)})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// read takes n entries, verifying each, and acknowledges them.
func read(t *testing.T, f *Follower, at Position, n int) Position {
	t.Helper()
	for range n {
		e, err := f.Next(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		if v := Verify(at, e); v.Kind != Next {
			t.Fatalf("seq %d after %d: %v %s", e.Seq, at.Seq, v.Kind, v.Why)
		}
		if err := f.Ack(e); err != nil {
			t.Fatal(err)
		}
		at = e.Position()
	}
	return at
}

func TestFollowFromTheStartThenLiveThenAfterAbsence(t *testing.T) {
	f := newFleet(t, "fra1")
	f.append(t, 3)
	fo := f.dial(t, "fra1", Position{})
	if fo.Head().Seq != 3 || fo.Diverged() {
		t.Fatalf("head %+v, diverged %v; want seq 3, false", fo.Head(), fo.Diverged())
	}
	at := read(t, fo, Position{}, 3)
	f.append(t, 2)
	at = read(t, fo, at, 2)
	fo.Close()

	// Away for more entries than any batch, then back from its own position.
	const missed = fetchBatch + 20
	last := f.append(t, missed)
	fo = f.dial(t, "fra1", at)
	if at = read(t, fo, at, missed); at != last[missed-1].Position() {
		t.Fatalf("caught up to %+v, want %+v", at, last[missed-1].Position())
	}
	fo.Close()

	// A node whose state is gone reads from the start, whatever it acknowledged.
	read(t, f.dial(t, "fra1", Position{}), Position{}, 5+missed)
}

func TestLogSurvivesReopenAndGoesOn(t *testing.T) {
	f := newFleet(t, "fra1")
	f.append(t, 2)
	head := f.Log().Head()
	f.Close()
	f.open(t)
	if got := f.Log().Head(); got != head || f.Log().EpochWhy() != "" {
		t.Fatalf("after reopen head %+v (new epoch: %q), want %+v", got, f.Log().EpochWhy(), head)
	}
	if err := f.AddNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	e := f.append(t, 1)[0]
	if e.Seq != 3 || e.Epoch != 1 {
		t.Fatalf("entry after reopen: epoch %d seq %d, want 1, 3", e.Epoch, e.Seq)
	}
	read(t, f.dial(t, "fra1", head), head, 1)
}

func TestEntriesYieldFromASeq(t *testing.T) {
	f := newFleet(t)
	f.append(t, 5)
	var got []uint64
	for e, err := range f.Log().Entries(bounded(t), 3) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Seq)
	}
	if fmt.Sprint(got) != "[3 4 5]" {
		t.Fatalf("entries from 3: %v", got)
	}
}

func TestReportsCarryTheCertificatesName(t *testing.T) {
	f := newFleet(t, "fra1")
	got := make(chan string, 1)
	f.Reports(func(node, kind string, payload []byte) { got <- node + " " + kind + " " + string(payload) })
	fo := f.dial(t, "fra1", Position{})
	if err := fo.Report("watermark", []byte(`{"seq":7}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-got:
		if r != `fra1 watermark {"seq":7}` {
			t.Fatalf("report %q", r)
		}
	case <-time.After(patience):
		t.Fatal("no report came")
	}
	if err := fo.Report("watermark", bytes.Repeat([]byte("x"), MaxReportBytes+1)); err == nil {
		t.Fatal("a report over the limit was taken")
	}
	if err := fo.Report(kindStart, nil); err == nil {
		t.Fatal("a start report was taken")
	}
}

func TestAppendRefusesWhatReceiversWouldRefuse(t *testing.T) {
	f := newFleet(t)
	for name, c := range map[string]struct {
		kind string
		body any
	}{
		"array body":    {"purge", []int{1}},
		"no kind":       {"", map[string]int{}},
		"wildcard kind": {"purge.*", map[string]int{}},
		"epoch":         {KindEpoch, map[string]int{}},
		"too large":     {"purge", map[string]string{"url": strings.Repeat("x", MaxEntryBytes)}},
		"no JSON":       {"purge", func() {}},
	} {
		if e, err := f.Log().Append(bounded(t), c.kind, c.body); err == nil {
			t.Errorf("%s: appended as seq %d", name, e.Seq)
		}
	}
	if h := f.Log().Head(); h.Seq != 0 {
		t.Fatalf("head %+v after refused entries", h)
	}
	if e := f.append(t, 1)[0]; e.Seq != 1 {
		t.Fatalf("first entry has seq %d", e.Seq)
	}
}

func TestSecondWriterGetsConflict(t *testing.T) {
	f := newFleet(t)
	f.append(t, 1)
	// A second control node, as far as the log can tell: its own idea of the head.
	l := f.Log()
	other := &Log{js: l.js, stream: l.stream, dir: t.TempDir(), ingest: l.ingest, log: l.log, now: time.Now, free: freeBytes}
	if err := openLog(bounded(t), other); err != nil {
		t.Fatal(err)
	}
	f.append(t, 1)
	if _, err := other.Append(bounded(t), "drain", map[string]string{"edge": "fra1"}); !errors.Is(err, ErrConflict) {
		t.Fatalf("stale writer got %v, want ErrConflict", err)
	}
	// Having learned the head, it may decide anew.
	e, err := other.Append(bounded(t), "drain", map[string]string{"edge": "fra1"})
	if err != nil || e.Seq != 3 {
		t.Fatalf("second try: seq %d, %v; want 3", e.Seq, err)
	}
}

func TestRemovedNodeIsCutWithinFiveSeconds(t *testing.T) {
	f := newFleet(t, "fra1", "iad1")
	fra, iad := f.dial(t, "fra1", Position{}), f.dial(t, "iad1", Position{})
	f.admit("fra1", false)
	if err := f.RemoveNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-fra.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the removed node is still connected")
	}
	if _, err := fra.Next(bounded(t)); !errors.Is(err, ErrLost) {
		t.Fatalf("Next after removal: %v, want ErrLost", err)
	}
	if _, err := Dial(bounded(t), DialConfig{ID: "fra1", Addr: f.Addr().String(), TLS: f.ca.node(t, "fra1")}); err == nil {
		t.Fatal("the removed node connected again")
	}
	f.append(t, 1)
	read(t, iad, Position{}, 1) // the other one noticed nothing
}

func TestInProcessFollowNeedsNoDoor(t *testing.T) {
	srv, err := OpenServer(bounded(t), ServerConfig{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if srv.Addr() != nil {
		t.Fatalf("listens on %v", srv.Addr())
	}
	if err := srv.AddNode(bounded(t), "solo"); err != nil {
		t.Fatal(err)
	}
	fo, err := srv.Follow(bounded(t), "solo", Position{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Log().Append(bounded(t), "drain", map[string]string{"edge": "fra1"}); err != nil {
		t.Fatal(err)
	}
	read(t, fo, Position{}, 1)
}

func TestListeningServerNeedsCertificates(t *testing.T) {
	if srv, err := OpenServer(bounded(t), ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0"}); err == nil {
		srv.Close()
		t.Fatal("a door without TLS was opened")
	}
}

func TestAddressInUseIsSaidAtOnce(t *testing.T) {
	f := newFleet(t)
	begun := time.Now()
	srv, err := OpenServer(bounded(t), ServerConfig{
		Dir: t.TempDir(), Listen: f.Addr().String(), TLS: f.ca.server(t), Admit: func(string, *x509.Certificate) bool { return false },
	})
	if err == nil {
		srv.Close()
		t.Fatal("two servers on one address")
	}
	if !strings.Contains(err.Error(), "in use") || time.Since(begun) > patience {
		t.Fatalf("after %s: %v", time.Since(begun), err)
	}
}

func TestFullDiskIsRefusedAndForgiven(t *testing.T) {
	f := newFleet(t)
	f.append(t, 1)
	left := uint64(minFree - 1)
	f.Log().free = func(string) (uint64, error) { return left, nil }
	if _, err := f.Log().Append(bounded(t), "drain", map[string]string{"edge": "fra1"}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), f.dir) {
		t.Fatalf("with %d bytes left: %v", left, err)
	}
	left = minFree
	if e := f.append(t, 1)[0]; e.Seq != 2 {
		t.Fatalf("after room was made: seq %d, want 2", e.Seq)
	}
}

// A node that asks for its place over and over costs a disk write each time.
func TestStartRequestsAreBounded(t *testing.T) {
	f := newFleet(t, "fra1", "iad1")
	nc, _ := thief(t, f, "fra1")
	refused := 0
	for range maxStarts + 5 {
		msg, err := nc.Request("report.fra1.start", []byte(`{"epoch":0,"seq":0,"chain":""}`), patience)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(msg.Data), "too often") {
			refused++
		}
	}
	if refused == 0 {
		t.Fatalf("%d requests were all answered", maxStarts+5)
	}
	f.dial(t, "iad1", Position{}) // the other one is not held back
}

// F9: a disk that takes nothing any more. JetStream may acknowledge what is in its
// memory all the same; we do not, and go on when the disk does.
func TestNothingIsAcknowledgedWhileTheHeadCannotBeSaved(t *testing.T) {
	f := newFleet(t)
	if _, err := f.Log().Append(bounded(t), "drain", map[string]string{"edge": "a"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.dir, knownName)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if e, err := f.Log().Append(bounded(t), "drain", map[string]string{"edge": "b"}); err == nil {
		t.Errorf("acknowledged as seq %d", e.Seq)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	e, err := f.Log().Append(bounded(t), "drain", map[string]string{"edge": "c"})
	if err != nil || e.Seq != 3 {
		t.Fatalf("seq %d, %v; want 3", e.Seq, err)
	}
	if known, _, err := readKnown(f.dir); err != nil || known != e.Position() {
		t.Errorf("known is %+v, %v", known, err)
	}
}
