package feed

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// A trimmed log begins with the entry after a snapshot. Who comes from before it
// is told of the snapshot, and its chain goes on across the seam; who is at the seam
// or behind it reads on as ever; and nothing of it is taken for a loss.
func TestTrim(t *testing.T) {
	f := newFleet(t, "fra1")
	es := f.append(t, 10)
	place := func(i int) Position { return es[i-1].Position() }
	if n, all, none := f.Log().After(7), f.Log().After(0), f.Log().After(10); n != 3 || all != 10 || none != 0 {
		t.Errorf("after the seventh there are %d, of all %d, after the last %d", n, all, none)
	}
	if f.Log().First() != 1 {
		t.Fatalf("the log begins at %d", f.Log().First())
	}
	if err := f.Log().Trim(bounded(t), 7); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(bounded(t), DialConfig{ID: "fra1", Addr: f.Addr().String(), TLS: f.ca.node(t, "fra1")}); err == nil || !strings.Contains(err.Error(), "no snapshot") {
		t.Fatalf("without a snapshot: %v", err)
	}
	snap := Snapshot{At: place(8), Digest: "sha256-" + strings.Repeat("0", 64), Size: 100}
	check := func() { f.beginsAt7(t, snap, place) }
	check()
	f.Close()
	f.open(t)
	if err := f.AddNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	check()

	// What this server acknowledged last is trimmed: the others did it while it was away.
	f.Close()
	if err := writeKnown(f.dir, place(3)); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if why := f.Log().EpochWhy(); why != "" {
		t.Fatalf("a new epoch: %s", why)
	}
	f.Close()
	bad := place(6)
	bad.Chain = strings.Repeat("b", 64)
	if err := writeKnown(f.dir, bad); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if why := f.Log().EpochWhy(); why == "" {
		t.Fatal("a chain that does not go on across the seam is taken")
	}

	if err := f.Log().Trim(bounded(t), 1000); err != nil {
		t.Fatal(err)
	}
	if f.Log().First() != f.Log().Head().Seq {
		t.Errorf("all is trimmed but the last: the log begins at %d, its head is %d", f.Log().First(), f.Log().Head().Seq)
	}
	f.append(t, 1)
	for e, err := range f.Log().Entries(bounded(t), 1) {
		if err != nil || e.Seq < f.Log().First() {
			t.Errorf("%d, %v", e.Seq, err)
		}
	}
}

// beginsAt7 follows from everywhere on a log that is trimmed to its seventh entry.
func (f *fleet) beginsAt7(t *testing.T, snap Snapshot, place func(int) Position) {
	t.Helper()
	if err := f.SetSnapshot(snap); err != nil {
		t.Fatal(err)
	}
	if first := f.Log().First(); first != 7 || f.Log().EpochWhy() != "" {
		t.Fatalf("the log begins at %d, new epoch %q", first, f.Log().EpochWhy())
	}
	other := place(6)
	other.Chain = strings.Repeat("a", 64)
	far := Position{Epoch: 9, Seq: 2, Chain: other.Chain}
	for name, c := range map[string]struct {
		from     Position
		snapshot bool
		diverged bool
		first    uint64
	}{
		"a new node":                         {Position{}, true, false, 9},
		"away for long":                      {place(3), true, false, 9},
		"just behind the seam":               {place(6), false, false, 7},
		"after it":                           {place(7), false, false, 8},
		"before it on another log":           {other, true, true, 9},
		"of another epoch, with old numbers": {far, true, true, 9},
	} {
		fo := f.dial(t, "fra1", c.from)
		if (fo.Snapshot() != nil) != c.snapshot || fo.Diverged() != c.diverged || fo.Head() != f.Log().Head() {
			t.Errorf("%s: snapshot %+v, diverged %v", name, fo.Snapshot(), fo.Diverged())
		}
		at := c.from
		if c.snapshot {
			at = fo.Snapshot().At
		}
		e, err := fo.Next(bounded(t))
		if err != nil || e.Seq != c.first || Verify(at, e).Kind != Next {
			t.Errorf("%s: %+v, %v, %s", name, e.Position(), err, Verify(at, e).Why)
		}
		fo.Close()
	}
}

// Another control node trims the log while this one reads it: that is no end of the log,
// and no hole that goes unnoticed.
func TestTrimmedByAnotherWhileRead(t *testing.T) {
	f := newFleet(t)
	f.append(t, 10)
	f.Log().shared = true // which has not heard of the trimming yet
	n := 0
	var broken error
	for e, err := range f.Log().Entries(bounded(t), 1) {
		if broken = err; err != nil {
			break
		}
		if n++; e.Seq == 3 {
			if err := f.stream.Purge(bounded(t), jetstream.WithPurgeSequence(7)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n != 3 || broken == nil || !strings.Contains(broken.Error(), "trimmed by another control node") {
		t.Fatalf("%d entries, then %v", n, broken)
	}
	if err := f.Log().Refresh(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if got := f.Log().First(); got != 7 {
		t.Fatalf("read anew, the log begins at %d", got)
	}
}

// trimmedMeanwhile is the stream of a log that another control node trims to its seventh
// message while this one reads it: the first three were read, the others were not.
type trimmedMeanwhile struct {
	jetstream.Stream
	read sync.WaitGroup // the first three
	once sync.Once
}

func (s *trimmedMeanwhile) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	if seq <= 3 {
		defer s.read.Done()
		return s.Stream.GetMsg(ctx, seq, opts...)
	}
	s.read.Wait()
	var err error
	s.once.Do(func() { err = s.Purge(ctx, jetstream.WithPurgeSequence(7)) })
	if err != nil {
		return nil, err
	}
	return s.Stream.GetMsg(ctx, seq, opts...)
}

// TestTrimWhileAMemberStarts: what another control node removes while this one reads the
// whole log is no damage, and begins no epoch: it is read anew.
func TestTrimWhileAMemberStarts(t *testing.T) {
	f := newFleet(t)
	f.append(t, 10)
	s := &trimmedMeanwhile{Stream: f.stream}
	s.read.Add(3)
	l := f.newLog(s, f.dir, f.log.ingest)
	l.shared = true
	err := openLog(bounded(t), l)
	if err == nil || !strings.Contains(err.Error(), "trimmed by another control node") || l.EpochWhy() != "" {
		t.Fatalf("%v; a new epoch: %q", err, l.EpochWhy())
	}
	l = f.newLog(s, f.dir, f.log.ingest)
	l.shared = true
	if err := openLog(bounded(t), l); err != nil || l.EpochWhy() != "" || l.First() != 7 || l.Head() != f.log.Head() {
		t.Errorf("%v; a new epoch: %q; it begins at %d and ends at %+v", err, l.EpochWhy(), l.First(), l.Head())
	}
}
