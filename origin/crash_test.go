package origin

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faultyDisk fails from its n-th operation on, as if the process had died
// there; or only at it, as a disk does. When it dies it can also lose what was
// not synced, as a machine does.
type faultyDisk struct {
	disk
	root  *os.Root
	n     int   // operations until the fault; below 0: none
	err   error // nil: dead from here on
	done  bool
	count int

	unsynced map[string]bool   // temporary files whose content is not synced
	renamed  map[string]string // names that are not synced, to what lay there before
	before   map[string][]byte
}

var errDead = errors.New("the process is dead")

func newFaulty(root *os.Root, n int, err error) *faultyDisk {
	return &faultyDisk{disk: rootDisk{root}, root: root, n: n, err: err,
		unsynced: map[string]bool{}, before: map[string][]byte{}, renamed: map[string]string{}}
}

// step counts one operation and fails it when it is due.
func (d *faultyDisk) step() error {
	d.count++
	switch {
	case d.n < 0 || d.count <= d.n:
		return nil
	case d.err == nil:
		d.done = true
		return errDead
	case !d.done:
		d.done = true
		return d.err
	}
	return nil
}

func (d *faultyDisk) create(name string) (writeSyncer, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.disk.create(name)
	if err != nil {
		return nil, err
	}
	d.unsynced[name] = true
	return &faultyFile{f, d, name}, nil
}

func (d *faultyDisk) rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	old, err := d.root.ReadFile(to)
	if err == nil {
		d.before[to] = old
	}
	d.renamed[to] = from
	if d.unsynced[from] {
		d.unsynced[to] = true
	}
	return d.disk.rename(from, to)
}

func (d *faultyDisk) remove(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.disk.remove(name)
}

func (d *faultyDisk) syncDir(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	for to := range d.renamed {
		if path.Dir(to) == path.Clean(name) {
			delete(d.renamed, to)
		}
	}
	return d.disk.syncDir(name)
}

// losePower undoes what was not synced: content first, then names.
func (d *faultyDisk) losePower(t *testing.T) {
	t.Helper()
	for name := range d.unsynced {
		if err := os.Truncate(filepath.Join(d.root.Name(), name), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for to := range d.renamed {
		err := d.root.Remove(to)
		if old, ok := d.before[to]; ok {
			err = d.root.WriteFile(to, old, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

type faultyFile struct {
	writeSyncer
	d    *faultyDisk
	name string
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.d.step(); err != nil {
		n, _ := f.writeSyncer.Write(b[:len(b)/2]) // torn
		return n, err
	}
	return f.writeSyncer.Write(b)
}

func (f *faultyFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	delete(f.d.unsynced, f.name)
	return f.writeSyncer.Sync()
}

// faults are what can happen at a step.
var faults = []struct {
	name  string
	err   error // nil: the process dies
	power bool  // and the machine with it
}{
	{"kill", nil, false},
	{"power loss", nil, true},
	{"disk full", syscall.ENOSPC, false},
	{"I/O error", syscall.EIO, false},
	{"read-only", syscall.EROFS, false},
}

// maxSteps is more than any save has: the loops below must end before it.
const maxSteps = 20

// F1, F6, F9, F10, F11: whatever happens at whichever step of a Put, the blob
// is then there whole or not at all, and there if Put said so.
func TestPutFaults(t *testing.T) {
	for _, fault := range faults {
		dir := filepath.Join(t.TempDir(), "blobs")
		for n := 0; ; n++ {
			if n == maxSteps {
				t.Fatalf("%s: no Put succeeds within %d steps", fault.name, n)
			}
			content := fmt.Sprint("the content of blob ", n)
			d := DigestOf([]byte(content))
			b, err := OpenBlobs(dir)
			if err != nil {
				t.Fatal(err)
			}
			faulty := newFaulty(b.root, n, fault.err)
			b.disk = faulty
			putErr := b.Put(d, int64(len(content)), strings.NewReader(content))
			if faulty.done == (putErr == nil) {
				t.Fatalf("%s at step %d: error %v", fault.name, n, putErr)
			}
			if fault.err != nil && putErr != nil {
				if !errors.Is(putErr, fault.err) {
					t.Errorf("%s at step %d: error %v", fault.name, n, putErr)
				}
				if _, ok := b.Has(d); ok {
					t.Errorf("%s at step %d: not acknowledged, but there", fault.name, n)
				}
				// The disk works again: so does Put, in the same process.
				if err := b.Put(d, int64(len(content)), strings.NewReader(content)); err != nil {
					t.Errorf("%s at step %d: the next Put: %v", fault.name, n, err)
				}
				putErr = nil
			}
			if fault.power {
				faulty.losePower(t)
			}
			b.Close()
			if b, err = OpenBlobs(dir); err != nil {
				t.Fatal(err)
			}
			if err := b.Verify(d); err != nil && (putErr == nil || !errors.Is(err, fs.ErrNotExist)) {
				t.Errorf("%s at step %d: Put said %v, then: %v", fault.name, n, putErr, err)
			}
			if entries, err := os.ReadDir(filepath.Join(dir, tempDir)); err != nil || len(entries) != 0 {
				t.Errorf("%s at step %d: left %v, %v", fault.name, n, entries, err)
			}
			b.Close()
			if !faulty.done {
				if n < 4 {
					t.Errorf("%s: a Put took %d steps: does it sync?", fault.name, n)
				}
				break
			}
		}
	}
}

// F2: whatever happens at whichever step of an Activate, the site has then
// exactly its old release or the new one, and the new one if Activate said so.
func TestActivateFaults(t *testing.T) {
	for _, fault := range faults {
		s := openStore(t)
		one, two := s.push("a", "1"), s.push("a", "2")
		for n := 0; ; n++ {
			if n == maxSteps {
				t.Fatalf("%s: no Activate succeeds within %d steps", fault.name, n)
			}
			before, after := uint64(2*n+1), uint64(2*n+2)
			s.activate("www", one, before, epoch)
			faulty := newFaulty(s.rel.root, n, fault.err)
			s.rel.disk = faulty
			err := s.rel.Activate("www", two, after, epoch)
			if faulty.done == (err == nil) {
				t.Fatalf("%s at step %d: error %v", fault.name, n, err)
			}
			if err != nil {
				s.wantActive("www", one, before) // this process serves what it knows to be durable
			}
			if fault.err != nil && err != nil {
				s.activate("www", two, after, epoch) // the disk works again
				err = nil
			}
			if fault.power {
				faulty.losePower(t)
			}
			s.reopen()
			got := s.rel.Site("www")
			if got == nil || got.Active != one && got.Active != two || got.Generation != map[Digest]uint64{one: before, two: after}[got.Active] {
				t.Errorf("%s at step %d: site is %+v", fault.name, n, got)
			} else if err == nil && got.Active != two {
				t.Errorf("%s at step %d: acknowledged, but the old release is there", fault.name, n)
			}
			if d := s.rel.Damage(); d != nil {
				t.Errorf("%s at step %d: damage %v", fault.name, n, d)
			}
			if !faulty.done {
				break
			}
		}
	}
}

// The rig proves itself: a save without syncs is caught losing data.
func TestPowerLossRig(t *testing.T) {
	root, err := openRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	d := newFaulty(root, -1, nil)
	f, err := d.create("tmp/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), d.rename("tmp/x", "x"), d.syncDir(".")); err != nil {
		t.Fatal(err)
	}
	d.losePower(t)
	if got, err := root.ReadFile("x"); err != nil || len(got) != 0 {
		t.Errorf("a file that was not synced kept its content: %q, %v", got, err)
	}
}

// crashRounds of killing a real process: enough to hit every step now and
// then; more by -count.
const crashRounds = 12

// F1, F2: a process that pushes and activates release after release is killed
// at random; what it had told to be done is done, and all is whole.
func TestKill(t *testing.T) {
	if dir := os.Getenv("ORIGIN_KILL_DIR"); dir != "" {
		pushForever(t, dir)
		return
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	last := uint64(0)
	for round := range crashRounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "ORIGIN_KILL_DIR="+dir)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		acked, lines := last, bufio.NewScanner(stdout)
		for lines.Scan() {
			n, err := strconv.ParseUint(strings.TrimPrefix(lines.Text(), "activated "), 10, 64)
			if err != nil {
				t.Errorf("round %d: the process said %q", round, lines.Text())
				_ = cmd.Process.Kill()
				break
			}
			if acked == last { // the first since its start
				kill.Reset(time.Duration(random.IntN(60_000)) * time.Microsecond)
			}
			acked = n
		}
		_ = cmd.Wait() // it was killed
		kill.Stop()
		last = checkAfterKill(t, dir, round, acked)
	}
	if last == 0 {
		t.Error("no process got as far as one activation: the test tests nothing")
	}
}

// checkAfterKill opens what a killed process left.
func checkAfterKill(t *testing.T, dir string, round int, acked uint64) uint64 {
	t.Helper()
	s := &store{t: t, dir: dir}
	s.open()
	defer s.close()
	damage, err := s.rel.Verify(t.Context())
	if err != nil || damage != nil {
		t.Errorf("round %d: damage %v, %v", round, damage, err)
	}
	site := s.rel.Site("www")
	if site == nil {
		if acked != 0 {
			t.Errorf("round %d: generation %d was acknowledged, the site is gone", round, acked)
		}
		return 0
	}
	if site.Generation != acked && site.Generation != acked+1 {
		t.Errorf("round %d: generation %d was acknowledged, the site has %d", round, acked, site.Generation)
	}
	want := DigestOf(fmt.Append(nil, site.Generation))
	if site.Manifest.Files["n.txt"].Digest != want {
		t.Errorf("round %d: generation %d has another generation's content", round, site.Generation)
	}
	return site.Generation
}

// pushForever is the process that is killed.
func pushForever(t *testing.T, dir string) {
	s := &store{t: t, dir: dir}
	s.open()
	n := uint64(0)
	if site := s.rel.Site("www"); site != nil {
		n = site.Generation
	}
	for {
		n++
		id := s.push("n.txt", fmt.Sprint(n), "big.bin", strings.Repeat(fmt.Sprintln(n), 20_000))
		s.activate("www", id, n, time.Now())
		fmt.Printf("activated %d\n", n)
	}
}
