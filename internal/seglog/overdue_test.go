package seglog

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (h *hanging) readAt(f *os.File, b []byte, off int64) error {
	h.wait("read")
	return h.osSystem.readAt(f, b, off)
}

// A read that hangs is a miss after a while, and others are misses at once until it
// comes back; nothing is taken for damaged. So with a body of which some has been
// read, and with a value that is being removed meanwhile.
func TestOverdueReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := &hanging{}
		l, err := open(Config{Dir: t.TempDir(), Budget: 8 * testSegment, SegmentBytes: testSegment}, sys)
		if err != nil {
			t.Fatal(err)
		}
		put(t, l, 1, 1000)
		put(t, l, 2, 3*partBytes)
		put(t, l, 3, 1000)
		settle(t, l)
		large := l.Get(key(2), func([]byte) bool { return true })
		reads := make(chan chan struct{}, 1)
		sys.gates = map[string]chan chan struct{}{"read": reads}
		for i, want := range []time.Duration{maxReadWait, 0, 0} {
			begun := time.Now()
			if get(t, l, 1, 1000) {
				t.Error("it has been read after all")
			}
			if took := time.Since(begun); took != want {
				t.Errorf("look-up %d took %v, want %v", i, took, want)
			}
		}
		if _, err := large.WriteRange(discard{}, 0, large.Size()); !errors.Is(err, errOverdue) {
			t.Errorf("the large one: %v", err)
		}
		l.Remove(key(3), 3, false) // by the writing goroutine, which does not read
		if s := l.Stats(); s.Corrupt != 0 || s.Overdue != 4 || !strings.Contains(s.Why, "does not come back") {
			t.Errorf("while it hangs: %+v", s)
		}
		hangs := <-reads
		sys.gates = nil
		close(hangs)
		synctest.Wait()
		if !get(t, l, 1, 1000) || !get(t, l, 2, 3*partBytes) || get(t, l, 3, 1000) || l.Stats().Why != "" {
			t.Errorf("when it has come back: %+v", l.Stats())
		}
		large.Close()
		l.Close()
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// While everything is being given up, nobody waits for a disk that hangs; and what
// has been given up does not come back after a kill.
func TestForgone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, writes := openHanging(t)
		put(t, l, 1, 1000)
		close(<-writes)
		settle(t, l)
		put(t, l, 2, 1000)
		hangs := <-writes
		for i, want := range []time.Duration{maxWait, 0, 0} {
			begun := time.Now()
			l.Remove(key(1), 1, false)
			if took := time.Since(begun); took != want {
				t.Errorf("removal %d took %v, want %v", i, took, want)
			}
		}
		dir := t.TempDir() // as a kill leaves it now
		if err := os.CopyFS(dir, os.DirFS(l.dir)); err != nil {
			t.Fatal(err)
		}
		if again := openUnsynced(t, dir); !again.Suspect() {
			t.Error("after a kill it is trusted")
		} else {
			again.Close()
		}
		close(hangs)
		l.Flush()
		l.Close()
		if again := openUnsynced(t, l.dir); again.Suspect() || again.Has(key(1)) || again.Has(key(2)) {
			t.Errorf("at its end: suspect %v, %+v", again.Suspect(), again.Stats())
		} else {
			again.Close()
		}
	})
}
