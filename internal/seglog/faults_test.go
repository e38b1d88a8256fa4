package seglog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the faults; 0 draws one")

func newRand(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// damage flips a bit of a file, zeroes a stretch of it, or cuts it short.
func damage(t *testing.T, r *rand.Rand, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return
	}
	at := r.Int64N(info.Size())
	switch n := r.IntN(100); {
	case n < 90:
		var b [1]byte
		f.ReadAt(b[:], at)
		b[0] ^= 1 << r.IntN(8)
		_, err = f.WriteAt(b[:], at)
	case n < 99:
		_, err = f.WriteAt(make([]byte, min(1+r.Int64N(8192), info.Size()-at)), at)
	default:
		err = f.Truncate(at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const faultyValues = 150

func faultySize(n uint64) int { return int(n*n%9000) + int(n%3)*30_000 } // to 70 KB

// F7: ten thousand flips, holes and cuts, in files that are read again at a
// start, and in files that are open: never a wrong byte, each a miss and a count.
func TestRot(t *testing.T) {
	r := newRand(t)
	base := t.TempDir()
	l := openTest(t, base, 12)
	for i := range uint64(faultyValues) {
		put(t, l, i, faultySize(i))
	}
	put(t, l, faultyValues, 2*partBytes+1)
	l.Close()
	files, _ := filepath.Glob(filepath.Join(base, "*.[si]*"))
	const rounds, each = 25, 400
	misses, starts := 0, 0
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(round))
		if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		open := round%2 == 0
		var l *Log
		if open {
			l = openTest(t, dir, 12)
		}
		for range each {
			damage(t, r, filepath.Join(dir, filepath.Base(files[r.IntN(len(files))])))
		}
		if !open {
			l = openTest(t, dir, 12)
		}
		gone := 0
		for i := range uint64(faultyValues) {
			if !get(t, l, i, faultySize(i)) {
				gone++
			}
		}
		if !get(t, l, faultyValues, 2*partBytes+1) {
			gone++
		}
		s := l.Stats()
		if gone == 0 || s.Corrupt == 0 || open && s.Corrupt != uint64(gone) {
			t.Errorf("round %d (open %v): %d of %d values are gone, and %d damaged records were counted", round, open, gone, faultyValues+1, s.Corrupt)
		}
		misses, starts = misses+gone, starts+1
		l.Close()
		os.RemoveAll(dir)
	}
	t.Logf("%d faults in %d rounds: %d misses of %d reads, no wrong byte", rounds*each, starts, misses, starts*(faultyValues+1))
}

// errOnce is an EIO that comes once.
var errOnce = errors.New("once")

// failing is a disk with errors.
type failing struct {
	osSystem
	mu    sync.Mutex
	errs  map[string]error // by operation
	dead  string           // the file whose one sync failed
	again int              // syncs of it after that
}

func (f *failing) do(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.errs[op]
}

func (f *failing) set(op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs[op] = err
}

func (f *failing) create(path string, size int64) (*os.File, error) {
	if err := f.do("create"); err != nil {
		return nil, err
	}
	return f.osSystem.create(path, size)
}

func (f *failing) writeAt(file *os.File, b []byte, off int64) error {
	if err := f.do("write"); err != nil {
		file.WriteAt(b[:len(b)/2], off) // torn
		return err
	}
	return f.osSystem.writeAt(file, b, off)
}

func (f *failing) readAt(file *os.File, b []byte, off int64) error {
	if err := f.do("read"); err != nil {
		return err
	}
	return f.osSystem.readAt(file, b, off)
}

func (f *failing) sync(file *os.File) error {
	err := f.do("sync")
	f.mu.Lock()
	if f.dead == file.Name() {
		f.again++
	}
	if err == errOnce {
		f.dead, f.errs["sync"], err = file.Name(), nil, syscall.EIO
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.osSystem.sync(file)
}

func (f *failing) remove(path string) error {
	if err := f.do("remove"); err != nil {
		return err
	}
	return f.osSystem.remove(path)
}

// lines counts what is logged.
type lines struct {
	stopped, again, wiped, dead atomic.Int32
}

func (l *lines) Write(b []byte) (int, error) {
	for text, n := range map[string]*atomic.Int32{"writing has stopped": &l.stopped, "writing again": &l.again, "everything is dropped": &l.wiped, "could not be synced": &l.dead} {
		if strings.Contains(string(b), text) {
			n.Add(1)
		}
	}
	return len(b), nil
}

func openFailing(t *testing.T, dir string) (*Log, *failing, *lines) {
	t.Helper()
	sys, said := &failing{errs: map[string]error{}}, &lines{}
	l, err := open(Config{Dir: dir, Budget: 8 * testSegment, SegmentBytes: testSegment, Log: slog.New(slog.NewTextHandler(said, nil))}, sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.retry = time.Millisecond
	return l, sys, said
}

// F9, F10, F11: a disk that is full, read-only or failing, or a limit on the size
// of files, costs what cannot be written and no more. It is said once, and is
// over when it is over.
func TestFailingWrites(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EFBIG, syscall.EMFILE, syscall.ENOENT} {
		for _, ops := range []string{"write", "create", "create write"} {
			t.Run(fmt.Sprintf("%v at %s", err, ops), func(t *testing.T) {
				l, sys, said := openFailing(t, t.TempDir())
				put(t, l, 1, 1000)
				settle(t, l)
				for _, op := range strings.Fields(ops) {
					sys.set(op, err)
				}
				for i := uint64(2); said.stopped.Load() == 0; i++ {
					if i == 1000 {
						t.Fatal("nothing has failed")
					}
					l.Put(Item{Key: key(i), Variant: i, Head: headOf(i), Body: [][]byte{body(i, 50_000)}})
					l.Flush()
				}
				for i := range uint64(100) {
					l.Put(Item{Key: key(i), Variant: i, Head: headOf(i), Body: [][]byte{body(i, 1000)}})
				}
				l.Flush()
				if s := l.Stats(); s.Dropped == 0 || s.Bytes > s.Budget || said.stopped.Load() != 1 && ops == "create write" {
					t.Errorf("while it fails: %+v, said %d times", s, said.stopped.Load())
				}
				if ops != "write" && l.Stats().Why == "" {
					t.Error("no reason is given")
				}
				if err == syscall.EIO && !get(t, l, 1, 1000) { // a full disk may have cost it
					t.Error("what was written is no longer read")
				}
				sys.set("write", nil)
				sys.set("create", nil)
				eventually(t, "it writes again", func() bool {
					put := l.Put(Item{Key: key(7), Variant: 7, Head: headOf(7), Body: [][]byte{body(7, 500)}})
					l.Flush()
					return put == nil && get(t, l, 7, 500) && l.Stats().Why == "" && said.again.Load() > 0
				})
				l.Close()
				l = openTest(t, l.dir, 8)
				if !get(t, l, 7, 500) {
					t.Error("after a restart it is gone")
				}
			})
		}
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

// F9: a file that could not be synced is dead: it is dropped, and not synced
// again; what is in the others stays.
func TestFailingSync(t *testing.T) {
	l, sys, said := openFailing(t, t.TempDir())
	put(t, l, 1, 1000)
	for i := uint64(2); l.Stats().Segments < 2; i++ {
		put(t, l, i, 100_000)
		l.Flush()
	}
	eventually(t, "the first segment is sealed", func() bool { return len(l.segs.unsynced()) == 1 })
	put(t, l, 500, 1000) // into the second
	l.Flush()
	sys.set("sync", errOnce)
	for i := uint64(1000); said.dead.Load() == 0; i++ {
		if i == 2000 {
			t.Fatal("no sync has failed")
		}
		put(t, l, i, 100_000)
		l.Flush()
	}
	if !get(t, l, 1, 1000) || get(t, l, 500, 1000) || l.Stats().Dead != 1 {
		t.Errorf("the wrong file was given up: %+v", l.Stats())
	}
	if sys.again != 0 {
		t.Error("a file was synced again after that had failed")
	}
	put(t, l, 501, 1000)
	l.Flush()
	if !get(t, l, 501, 1000) {
		t.Error("nothing is kept any more")
	}
}

// What Remove and Note say is not lost while values stay: where it cannot be
// written, all goes, and the next start finds nothing either.
func TestFailingRemove(t *testing.T) {
	for _, what := range []string{"remove", "note", "large note", "synced note"} {
		for _, unlink := range []error{nil, syscall.EROFS} {
			t.Run(fmt.Sprintf("%s, unlink: %v", what, unlink), func(t *testing.T) {
				dir := t.TempDir()
				l, sys, said := openFailing(t, dir)
				put(t, l, 1, 1000)
				put(t, l, 2, 1000)
				settle(t, l)
				before, _ := filepath.Glob(filepath.Join(dir, "*"+segmentExt))
				sys.set("remove", unlink)
				if what == "synced note" {
					sys.set("sync", syscall.EIO)
				} else {
					sys.set("write", syscall.EROFS)
					sys.set("create", syscall.EROFS)
				}
				switch what {
				case "remove":
					l.Remove(key(1), 1, false)
				case "note":
					l.Note([]byte("x"), false)
				case "large note":
					l.Note(make([]byte, maxNoteBytes+1), false)
				case "synced note":
					l.Note([]byte("x"), true)
				}
				if get(t, l, 1, 1000) || get(t, l, 2, 1000) {
					t.Error("a value is still found")
				}
				l.Flush()
				sys.set("remove", nil)
				eventually(t, "all is dropped", func() bool {
					for _, name := range before {
						if _, err := os.Stat(name); err == nil {
							return false
						}
					}
					return said.wiped.Load() == 1
				})
				for _, op := range []string{"write", "create", "sync"} {
					sys.set(op, nil)
				}
				eventually(t, "it writes again", func() bool {
					l.Put(Item{Key: key(3), Variant: 3, Head: headOf(3), Body: [][]byte{body(3, 10)}})
					l.Flush()
					return get(t, l, 3, 10)
				})
				l.Close()
				l = openTest(t, dir, 8)
				if get(t, l, 1, 1000) || get(t, l, 2, 1000) || !get(t, l, 3, 10) {
					t.Error("after a restart it is otherwise")
				}
			})
		}
	}
}

// A disk that cannot be read is a disk of misses.
func TestFailingReads(t *testing.T) {
	l, sys, _ := openFailing(t, t.TempDir())
	put(t, l, 1, 100_000)
	put(t, l, 2, 100_000)
	settle(t, l)
	sys.set("read", syscall.EIO)
	if get(t, l, 1, 100_000) || l.Stats().Corrupt != 1 {
		t.Errorf("an unreadable value: %+v", l.Stats())
	}
	sys.set("read", nil)
	if get(t, l, 1, 100_000) || !get(t, l, 2, 100_000) {
		t.Error("the unreadable one alone is gone")
	}
}

// FuzzScan: whatever a segment and its index hold, reading them ends, and gives
// out nothing that was not put.
func FuzzScan(f *testing.F) {
	seg := &segment{id: 1, nonce: 7}
	rec := encode(header{kind: kindValue, key: key(1), variant: 1, total: 20}, headOf(1), [][]byte{body(1, 20)})
	mixNonce(rec, 7)
	f.Add(append(bytes.Clone(rec), rec...), encodeIndex(seg, []entry{{key: 1, off: 8, size: uint32(len(rec)), lead: headerBytes, kind: kindValue}}))
	f.Add([]byte{}, []byte(indexMagic))
	f.Add(append(make([]byte, 100), rec...), []byte{})
	f.Fuzz(func(t *testing.T, data, index []byte) {
		if len(data) > 1<<20 {
			return
		}
		dir := t.TempDir()
		head := make([]byte, segmentHead)
		copy(head, segmentMagic)
		head[len(segmentMagic)] = 7
		os.WriteFile(filepath.Join(dir, "00000001"+segmentExt), append(head, data...), 0o600)
		os.WriteFile(filepath.Join(dir, "00000001"+indexExt), index, 0o600)
		l := openUnsynced(t, dir)
		defer l.Close()
		for _, n := range []uint64{1, 2} {
			get(t, l, n, 20)
		}
	})
}
