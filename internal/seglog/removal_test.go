package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// hanging is a disk whose next operations wait until the test lets each go on.
type hanging struct {
	osSystem
	gates   map[string]chan chan struct{} // by operation; nil: it does not wait
	removed func(path string)
}

func (h *hanging) wait(op string) {
	if gate := h.gates[op]; gate != nil {
		on := make(chan struct{})
		gate <- on
		<-on
	}
}

func (h *hanging) writeAt(f *os.File, b []byte, off int64) error {
	if strings.HasSuffix(f.Name(), segmentExt) && off >= segmentHead {
		h.wait("write")
	}
	return h.osSystem.writeAt(f, b, off)
}

func (h *hanging) remove(path string) error {
	if h.removed != nil {
		h.removed(path)
	}
	return h.osSystem.remove(path)
}

// openHanging opens a log in which each write of records waits for the test.
func openHanging(t *testing.T) (l *Log, writes chan chan struct{}) {
	t.Helper()
	writes = make(chan chan struct{})
	l, err := open(Config{Dir: t.TempDir(), Budget: 8 * testSegment, SegmentBytes: testSegment}, &hanging{gates: map[string]chan chan struct{}{"write": writes}})
	if err != nil {
		t.Fatal(err)
	}
	return l, writes
}

// What was handed over before a removal is not found in the moment in which it has
// been written, and the removal has not.
func TestRemovalOfWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, writes := openHanging(t)
		put(t, l, 1, 1000)
		value := <-writes // after flushAfter; it is not on disk yet
		removed := make(chan struct{})
		go func() {
			l.Remove(key(1), 1, false)
			close(removed)
		}()
		synctest.Wait()
		close(value)
		removal := <-writes // the value is on disk, the removal is not
		if get(t, l, 1, 1000) {
			t.Error("the value is found while it is being removed")
		}
		close(removal)
		<-removed
		if get(t, l, 1, 1000) {
			t.Error("the value is found after it was removed")
		}
		l.Close()
	})
}

// A removal that a hanging disk does not take gives everything up: also what was
// handed over before it, and is written when the disk goes on.
func TestRemovalWhileTheDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, writes := openHanging(t)
		put(t, l, 1, 1000)
		hangs := <-writes
		put(t, l, 2, 1000) // waits behind that
		for n := uint64(10); len(l.work) < cap(l.work); n++ {
			put(t, l, n, 10)
		}
		l.Remove(key(2), 2, false)
		go func() {
			for w := range writes {
				close(w)
			}
		}()
		close(hangs)
		l.Flush()
		if get(t, l, 1, 1000) || get(t, l, 2, 1000) {
			t.Error("a value of before is found")
		}
		// What comes while the files are still being removed may go with them.
		for n := uint64(1000); ; n++ {
			put(t, l, n, 1000)
			settle(t, l)
			if get(t, l, n, 1000) {
				break
			}
			if n == 2000 {
				t.Fatal("no value of after is found")
			}
		}
		l.Close()
		close(writes)
		l = openTest(t, l.dir, 8)
		if get(t, l, 1, 1000) || get(t, l, 2, 1000) {
			t.Error("a value of before is found after a restart")
		}
		l.Close()
	})
}

// unsynced is a disk that nobody waits for: nothing here loses power.
type unsynced struct{ osSystem }

func (unsynced) sync(*os.File) error { return nil }

func (unsynced) save(path string, b []byte) error { return os.WriteFile(path, b, 0o600) }

func openUnsynced(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := open(Config{Dir: dir, Budget: 4 * testSegment, SegmentBytes: testSegment}, unsynced{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// killedAfter is a folder as a kill leaves it, whose last record is the removal
// of value 1 or, with whole, value 2; and the file and place where that begins.
func killedAfter(t *testing.T, whole bool) (dir, file string, at int) {
	t.Helper()
	live := t.TempDir()
	l := openTest(t, live, 8)
	put(t, l, 1, 1000)
	settle(t, l)
	at = int(l.w.cur.end)
	if whole {
		if err := l.Put(Item{Key: key(2), Variant: 2, Head: body(2, 3*pageBytes)}); err != nil {
			t.Fatal(err)
		}
		settle(t, l)
	} else {
		l.Remove(key(1), 1, false)
	}
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"+segmentExt))
	return dir, names[0], at
}

// A bit that flips in the last record, which is a removal, is no write that was
// cut short: the log says that it is not to be trusted. So with a file that was cut.
func TestRottenEnd(t *testing.T) {
	dir, file, at := killedAfter(t, false)
	good, err := os.ReadFile(file)
	state, err2 := os.ReadFile(filepath.Join(dir, stateName))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	good = good[:at+2*pageBytes] // the rest is nothing
	damaged := map[string][]byte{}
	for i := range headerBytes {
		b := bytes.Clone(good)
		b[at+i] ^= 1 << (i % 8)
		damaged[fmt.Sprint("flip ", i)] = b
		if i > 0 {
			damaged[fmt.Sprint("cut ", i)] = good[:at+i]
		}
	}
	damaged["nonce"] = bytes.Clone(good)
	damaged["nonce"][len(segmentMagic)] ^= 1
	for name, b := range damaged {
		again := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(again, stateName), state, 0o600), os.WriteFile(filepath.Join(again, filepath.Base(file)), b, 0o600)); err != nil {
			t.Fatal(err)
		}
		l := openUnsynced(t, again)
		if get(t, l, 1, 1000) && !l.Suspect() {
			t.Errorf("%s: what was removed is back, and the log is trusted", name)
		}
		l.Close()
	}
}

// A write that a kill has cut short at the end of a page is what it is.
func TestTornEnd(t *testing.T) {
	dir, file, at := killedAfter(t, true)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[(at+pageBytes)&^(pageBytes-1):])
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if l := openTest(t, dir, 8); l.Suspect() || !get(t, l, 1, 1000) || l.Has(key(2)) {
		t.Errorf("suspect %v: %+v", l.Suspect(), l.Stats())
	}
}

// That a log is not to be trusted is written down before what shows it is gone.
func TestSuspectAtOnce(t *testing.T) {
	dir, file, _ := killedAfter(t, false)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 // it is no segment any more
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	looked := false
	sys := &hanging{removed: func(path string) {
		if path != file {
			return
		}
		looked = true
		if state, err := os.ReadFile(filepath.Join(dir, stateName)); err != nil || !strings.Contains(string(state), stateSuspect) {
			t.Errorf("the file is removed, and the state is %q, %v", state, err)
		}
	}}
	l, err := open(Config{Dir: dir, Budget: 8 * testSegment, SegmentBytes: testSegment}, sys)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if !looked || !l.Suspect() {
		t.Errorf("the file was removed: %v; suspect: %v", looked, l.Suspect())
	}
}
