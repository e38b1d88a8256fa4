package feed

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestRestoreWritesTheSameLog: numbers, chain and epochs; a rollback begins a new
// epoch above every number, and both are there after the next start.
func TestRestoreWritesTheSameLog(t *testing.T) {
	ctx := bounded(t)
	src, err := OpenServer(ctx, ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := src.Log().Append(ctx, "purge", map[string]any{"n": 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.log.newEpoch(ctx, "for the test", src.log.Head()); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Log().Append(ctx, "purge", map[string]any{"n": 2}); err != nil {
		t.Fatal(err)
	}
	read := func(l *Log) (es []Entry) {
		for e, err := range l.Entries(ctx, 1) {
			if err != nil {
				t.Fatal(err)
			}
			es = append(es, e)
		}
		return es
	}
	want := read(src.log)
	src.Close()
	seq := func(es []Entry, last error) func(func(Entry, error) bool) {
		return func(yield func(Entry, error) bool) {
			for _, e := range es {
				if !yield(e, nil) {
					return
				}
			}
			if last != nil {
				yield(Entry{}, last)
			}
		}
	}
	dir := t.TempDir()
	head, err := Restore(ctx, dir, seq(want, nil))
	if err != nil || head != want[len(want)-1].Position() {
		t.Fatalf("head %+v, %v", head, err)
	}
	if _, err := Restore(ctx, dir, seq(want, nil)); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over a log that is there: %v", err)
	}
	again, err := Rollback(ctx, dir, "the backup was old")
	if err != nil || again.Epoch != head.Epoch+1 || again.Seq != head.Seq+rollbackGap+1 {
		t.Fatalf("rolled back to %+v, %v", again, err)
	}
	s, err := OpenServer(ctx, ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	got := read(s.log)
	if s.log.Head() != again || s.log.EpochWhy() != "" {
		t.Errorf("head %+v, new epoch %q", s.log.Head(), s.log.EpochWhy())
	}
	s.Close()
	same := func(a, b Entry) bool {
		return a.Position() == b.Position() && a.Kind == b.Kind && string(a.Body) == string(b.Body)
	}
	if len(got) != len(want)+1 || !slices.EqualFunc(got[:len(want)], want, same) || got[len(want)].Kind != KindEpoch {
		t.Errorf("%d entries come back of %d", len(got), len(want))
	}
	for _, e := range got { // whoever is new reads it all the same
		if last := (Position{}); Verify(last, e).Kind == Duplicate {
			t.Errorf("seq %d counts as read", e.Seq)
		}
	}
	changed := slices.Clone(want)
	changed[1].Body = []byte(`{"n":3}`)
	for what, in := range map[string]func(func(Entry, error) bool){
		"an entry that is missing": seq([]Entry{want[0], want[2]}, nil),
		"one that was changed":     seq(changed, nil),
		"one that comes twice":     seq([]Entry{want[0], want[0]}, nil),
		"a reader that fails":      seq(want[:2], errors.New("cut off")),
	} {
		if _, err := Restore(ctx, t.TempDir(), in); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}
