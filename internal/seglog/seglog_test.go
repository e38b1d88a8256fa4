package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testSegment = 4 << 20

// openTest opens a log in dir with small segments.
func openTest(t *testing.T, dir string, segments int, change ...func(*Config)) *Log {
	t.Helper()
	c := Config{Dir: dir, Budget: int64(segments) * testSegment, SegmentBytes: testSegment}
	for _, f := range change {
		f(&c)
	}
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// body is what the value of key n is, of a size of its own: nobody can take one
// for another.
func body(n uint64, size int) []byte {
	r := rand.New(rand.NewPCG(n, 7))
	unit := make([]byte, 4096) // and each 4 KiB begins with its number
	for i := 0; i < len(unit); i += 8 {
		binary.LittleEndian.PutUint64(unit[i:], r.Uint64())
	}
	b := bytes.Repeat(unit, size/len(unit)+1)
	for i := 0; i < len(b); i += len(unit) {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)^n)
	}
	return b[:size:size]
}

func headOf(n uint64) []byte { return fmt.Appendf(nil, "head of %d", n) }

// key spreads n as a hash does.
func key(n uint64) uint64 { return partKey(n, 1<<20) }

func put(t *testing.T, l *Log, n uint64, size int) {
	t.Helper()
	if err := l.Put(Item{Key: key(n), Variant: n, Head: headOf(n), Body: [][]byte{body(n, size)}}); err != nil {
		t.Fatalf("put %d: %v", n, err)
	}
}

// settle waits until all that was put can be found.
func settle(t *testing.T, l *Log) {
	t.Helper()
	l.Flush()
	if n := l.inFlight.Load(); n != 0 {
		t.Fatalf("%d records are still to be written", n)
	}
}

// bytesOf is the whole body of an object.
func bytesOf(o *Object) ([]byte, error) {
	var b bytes.Buffer
	_, err := o.WriteRange(&b, 0, o.Size())
	return b.Bytes(), err
}

// get reads a value. A wrong byte ends the test; ok is false for a miss.
func get(t *testing.T, l *Log, n uint64, size int) (ok bool) {
	t.Helper()
	o := l.Get(key(n), func(head []byte) bool { return bytes.Equal(head, headOf(n)) })
	if o == nil {
		return false
	}
	defer o.Close()
	b, err := bytesOf(o)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("get %d: %v", n, err)
		}
		return false
	}
	if !bytes.Equal(b, body(n, size)) {
		t.Fatalf("get %d: the body is wrong: %d octets", n, len(b))
	}
	return true
}

func TestPutGet(t *testing.T) {
	l := openTest(t, t.TempDir(), 8)
	sizes := []int{0, 1, 7, 8, 9, blockBytes - 1, blockBytes, blockBytes + 1, 300_000, partBytes - 1, partBytes, partBytes + 1, 3*partBytes + 17}
	for i, size := range sizes {
		put(t, l, uint64(i), size)
	}
	settle(t, l)
	for i, size := range sizes {
		if !get(t, l, uint64(i), size) {
			t.Errorf("a value of %d octets is missing", size)
			continue
		}
		o := l.Get(key(uint64(i)), func([]byte) bool { return true })
		want := body(uint64(i), size)
		for range 20 {
			start := rand.Int64N(int64(size) + 1)
			n := rand.Int64N(int64(size) - start + 1)
			var got bytes.Buffer
			if err := o.Verify(start, n); err != nil {
				t.Fatal(err)
			}
			if _, err := o.WriteRange(&got, start, n); err != nil || !bytes.Equal(got.Bytes(), want[start:start+n]) {
				t.Fatalf("octets %d to %d of %d: %v", start, start+n, size, err)
			}
		}
		if _, err := o.WriteRange(&bytes.Buffer{}, int64(size), 1); err == nil {
			t.Error("octets behind the end were given out")
		}
		o.Close()
	}
	if l.Get(key(99), func([]byte) bool { return true }) != nil {
		t.Error("a key that was never put is found")
	}
}

// Values of one key: the newest that is wanted; each takes the place of the one
// of its variant; there is a bound.
func TestVariants(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, 4)
	for v := range uint64(maxVariants + 8) {
		for _, text := range []string{"old", "new"} {
			if err := l.Put(Item{Key: 5, Variant: v, Head: fmt.Appendf(nil, "%s %d", text, v)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	settle(t, l)
	check := func(l *Log) {
		t.Helper()
		var seen []string
		if l.Get(5, func(h []byte) bool { seen = append(seen, string(h)); return false }) != nil {
			t.Error("a value that nobody wanted")
		}
		if len(seen) != maxVariants || seen[0] != fmt.Sprintf("new %d", maxVariants+7) || seen[maxVariants-1] != "new 8" {
			t.Errorf("variants: %q", seen)
		}
	}
	check(l)
	l.Remove(5, 20, false)
	if o := l.Get(5, func(h []byte) bool { return string(h) == "new 20" }); o != nil {
		t.Error("a variant that was removed is found")
	}
	l.Remove(5, 0, true)
	if l.Has(5) {
		t.Error("a key that was removed is found")
	}
	l.Close()
	if l = openTest(t, dir, 4); l.Has(5) {
		t.Error("a key that was removed is found after a restart")
	}
}

// What was there before a restart is there after it: from the saved index and,
// for what has none, from the records.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, 8)
	const n = 100
	for i := range uint64(n) {
		put(t, l, i, 150_000) // three segments and a part
	}
	settle(t, l)
	l.Note([]byte("a note"), true)
	l.Close()
	for _, lose := range []string{"nothing", "every index", "the state"} {
		switch lose {
		case "every index":
			names, _ := filepath.Glob(filepath.Join(dir, "*"+indexExt))
			if len(names) < 3 {
				t.Fatalf("%d indexes", len(names))
			}
			for _, name := range names {
				os.Remove(name)
			}
		case "the state":
			os.Remove(filepath.Join(dir, stateName))
		}
		l := openTest(t, dir, 8)
		if l.Suspect() != (lose == "the state") {
			t.Errorf("without %s: suspect is %v", lose, l.Suspect())
		}
		if s := l.Stats(); s.Records != n || s.Corrupt != 0 {
			t.Errorf("without %s: %+v", lose, s)
		}
		for i := range uint64(n) {
			if !get(t, l, i, 150_000) {
				t.Fatalf("without %s: value %d is missing", lose, i)
			}
		}
		if notes := l.Notes(); len(notes) != 1 || string(notes[0]) != "a note" {
			t.Errorf("without %s: notes %q", lose, notes)
		}
		l.Close()
	}
}

// Suspect stays until it has been acted upon.
func TestSuspect(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, 4)
	put(t, l, 1, 10)
	settle(t, l)
	l.Close()
	os.WriteFile(filepath.Join(dir, stateName), []byte("perigee-seglog 1 open another-boot\n"), 0o600)
	for range 2 {
		l = openTest(t, dir, 4)
		if !l.Suspect() {
			t.Fatal("the machine went down, and the log is not suspect")
		}
		l.Close()
	}
	l = openTest(t, dir, 4)
	if err := l.Settled(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if l = openTest(t, dir, 4); l.Suspect() || !get(t, l, 1, 10) {
		t.Error("it was settled")
	}
	l.Close()
	// So is one whose files are damaged, wherever a removal may have stood.
	for _, ext := range []string{indexExt, segmentExt} {
		l = openTest(t, dir, 4)
		put(t, l, 2, 10)
		put(t, l, 3, 10)
		l.Close()
		names, _ := filepath.Glob(filepath.Join(dir, "*"+ext))
		last := names[len(names)-1]
		b, _ := os.ReadFile(last)
		b[segmentHead+1] ^= 1
		os.WriteFile(last, b, 0o600)
		if ext == segmentExt {
			os.Remove(strings.TrimSuffix(last, ext) + indexExt)
		}
		if l = openTest(t, dir, 4); !l.Suspect() || l.Stats().Corrupt == 0 {
			t.Errorf("a damaged %s: suspect %v, %+v", ext, l.Suspect(), l.Stats())
		}
		l.Settled()
		l.Close()
	}
}

// The oldest makes way; what is in use does not; the budget holds.
func TestEvict(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, 6, func(c *Config) {
		c.Live = func(head []byte) bool { return !bytes.Equal(head, headOf(3)) }
	})
	put(t, l, 1, 100_000) // in use
	put(t, l, 2, 100_000) // not
	put(t, l, 3, 100_000) // in use, and purged
	put(t, l, 4, partBytes+5)
	for i := range uint64(250) {
		settle(t, l)
		get(t, l, 1, 100_000)
		get(t, l, 3, 100_000)
		get(t, l, 4, partBytes+5)
		put(t, l, 1000+i, 200_000)
		if s := l.Stats(); s.Bytes > s.Budget {
			t.Fatalf("more than the budget: %+v", s)
		}
	}
	settle(t, l)
	s := l.Stats()
	if !get(t, l, 1, 100_000) || !get(t, l, 4, partBytes+5) {
		t.Errorf("what was in use made way: %+v", s)
	}
	if get(t, l, 2, 100_000) || get(t, l, 3, 100_000) || s.Evicted < 5 || s.Again == 0 || s.Corrupt != 0 || s.Why != "" {
		t.Errorf("what was not in use, or purged, is still there: %+v", s)
	}
	l.Close()
	if l = openTest(t, dir, 6); !get(t, l, 1, 100_000) || !get(t, l, 4, partBytes+5) || get(t, l, 2, 100_000) {
		t.Error("after a restart it is otherwise")
	}
	l.Close()
	l = openTest(t, dir, 4)
	if s := l.Stats(); s.Bytes > s.Budget || s.Segments == 0 {
		t.Errorf("with a smaller budget: %+v", s)
	}
}

// A reader keeps what it reads, though the log has let go of it.
func TestHeld(t *testing.T) {
	l := openTest(t, t.TempDir(), 4)
	put(t, l, 1, 3*partBytes)
	settle(t, l)
	o := l.Get(key(1), func([]byte) bool { return true })
	for i := range uint64(150) {
		if err := l.Put(Item{Key: key(2 + i), Body: [][]byte{body(2+i, 200_000)}}); err != nil && !errors.Is(err, errNotWriting) {
			t.Fatal(err)
		}
		settle(t, l)
		if s := l.Stats(); s.Bytes > s.Budget {
			t.Fatalf("more than the budget: %+v", s)
		}
	}
	b, err := bytesOf(o)
	if err != nil || !bytes.Equal(b, body(1, 3*partBytes)) {
		t.Errorf("what was being read has changed: %v", err)
	}
	o.Close()
	held := func() int64 {
		l.segs.mu.RLock()
		defer l.segs.mu.RUnlock()
		return l.segs.held
	}
	for range 1000 { // the writer, too, holds what it makes room with
		if held() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d bytes are held by nobody", held())
}

func TestStream(t *testing.T) {
	l := openTest(t, t.TempDir(), 8)
	for n, size := range []int{0, 5, partBytes, 5*partBytes + 1} {
		s := l.Create(key(uint64(n)), uint64(n))
		b := body(uint64(n), size)
		for len(b) > 0 {
			m := min(len(b), 1+rand.IntN(50_000))
			if _, err := s.Write(b[:m]); err != nil {
				t.Fatal(err)
			}
			b = b[m:]
		}
		if err := s.Commit(headOf(uint64(n)), time.Time{}); err != nil {
			t.Fatal(err)
		}
		settle(t, l)
		if !get(t, l, uint64(n), size) {
			t.Errorf("a stream of %d octets is missing", size)
		}
	}
	s := l.Create(1, 1)
	for i := 0; ; i++ {
		if _, err := s.Write(make([]byte, partBytes)); err != nil {
			if !errors.Is(err, ErrTooLarge) || i != 8 {
				t.Errorf("after %d parts: %v", i, err)
			}
			break
		}
	}
	if s.Commit(nil, time.Time{}) == nil || l.Get(1, func([]byte) bool { return true }) != nil {
		t.Error("a value of more than its share is kept")
	}
	var all []*Stream
	for l.Create(2, 2) != nil {
		if all = append(all, nil); len(all) > maxStreams {
			t.Fatal("streams have no bound")
		}
	}
	if len(all) != maxStreams {
		t.Errorf("%d streams at a time", len(all))
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, 4)
	if _, err := Open(Config{Dir: dir, Budget: 4 * testSegment, SegmentBytes: testSegment}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second log: %v", err)
	}
	l.Close()
	openTest(t, dir, 4)
	if _, err := Open(Config{Dir: t.TempDir(), Budget: 3 * testSegment, SegmentBytes: testSegment}); err == nil {
		t.Error("a budget without room")
	}
	for budget, want := range map[int64]int64{MinBudget: 64 << 20, 10 << 30: 160 << 20, 100 << 30: 256 << 20, 4 << 40: 1 << 30} {
		if got := SegmentBytes(budget); got != want {
			t.Errorf("a budget of %d: segments of %d, want %d", budget, got, want)
		}
	}
}
