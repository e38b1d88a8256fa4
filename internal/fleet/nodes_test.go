package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyWithin is how long a process may take until it serves, on a machine with much to do.
	readyWithin = 60 * time.Second
	// endWithin is how long one that is told to end may take: [health] drain and 15 s, and room.
	endWithin = 40 * time.Second
	lookEvery = 50 * time.Millisecond
	// lastLines is how much of a log is shown.
	lastLines = 40
)

// node is a process of the fleet on a host of its own.
type node struct {
	name string
	host *host
	dir  string // state folder
	disk *disk  // nil: it cannot lose power
	args []string
	log  string
	up   func() bool // whether it serves

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts the process; what it prints is appended to its log.
func (n *node) start(bin string, env []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return fmt.Errorf("%s runs already", n.name)
	}
	f, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(f, "--- started at %s\n", time.Now().Format("15:04:05.000"))
	cmd := exec.Command(bin, n.args...)
	cmd.Env, cmd.Dir = env, n.dir
	cmd.Stdout, cmd.Stderr = f, f
	if err := n.host.do(cmd.Start); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed most of the time
		close(done)
	}()
	n.cmd, n.done = cmd, done
	return nil
}

// signal ends the process. One that is told to end and does not is an error.
func (n *node) signal(sig os.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	defer func() { n.cmd = nil }()
	if err := n.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.done:
	case <-time.After(endWithin):
		_ = n.cmd.Process.Kill()
		<-n.done
		return fmt.Errorf("%s still ran %v after %v", n.name, endWithin, sig)
	}
	if code := n.cmd.ProcessState.ExitCode(); sig == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("%s: exit %d after SIGTERM", n.name, code)
	}
	return nil
}

// stop has the process stand still, as it does when its machine does.
func (n *node) stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd.Process.Signal(syscall.SIGSTOP)
}

func (n *node) ended() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return true
	}
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// ready waits until the process serves.
func (n *node) ready() error {
	for end := time.Now().Add(readyWithin); time.Now().Before(end); time.Sleep(lookEvery) {
		if n.up() {
			return nil
		}
		if n.ended() {
			return fmt.Errorf("%s ended by itself:\n%s", n.name, tail(n.log))
		}
	}
	return fmt.Errorf("%s does not serve after %v:\n%s", n.name, readyWithin, tail(n.log))
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-lastLines):], "")
}

// badLog is what no process may print, whatever happens to it.
var badLog = regexp.MustCompile(`(?m)^(panic:|fatal error:|WARNING: DATA RACE).*$`)

// disk is a file system of a node's own that can lose power: XFS on a loop
// device. (ext4 hides that a sync before a rename is missing.)
type disk struct{ image, at string }

// diskBytes is more than mkfs.xfs asks for, with room for an edge's disk tier; the file is sparse.
const diskBytes = 1 << 30

// newDisk makes and mounts a file system. The mount is in this world's own mount
// namespace, and ends with it; the loop device goes with the mount.
func newDisk(image, at string) (*disk, error) {
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close(), run("mkfs.xfs", "-q", image), os.MkdirAll(at, 0o700)); err != nil {
		return nil, err
	}
	d := &disk{image, at}
	return d, d.mount()
}

func (d *disk) mount() error {
	// Other tests take loop devices, too: one may be gone between look and use.
	var err error
	for range 5 {
		if err = run("mount", "-o", "loop", d.image, d.at); err == nil {
			return nil
		}
		time.Sleep(lookEvery)
	}
	return err
}

func (d *disk) unmount() error { return run("umount", d.at) }

// losePower stops the file system as it is on the device: what was not synced is gone.
func (d *disk) losePower() error { return run("xfs_io", "-x", "-c", "shutdown", d.at) }

// The rig proves itself: of two files written alike the one that was synced is there
// after a loss of power.
func (d *disk) proof() error {
	for _, name := range []string{"synced", "lost"} {
		f, err := os.Create(filepath.Join(d.at, name))
		if err != nil {
			return err
		}
		if _, err := f.WriteString(name); err != nil {
			return err
		}
		if name == "synced" {
			err = errors.Join(f.Sync(), syncDir(d.at))
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := errors.Join(d.losePower(), d.unmount(), d.mount()); err != nil {
		return err
	}
	if b, err := os.ReadFile(filepath.Join(d.at, "synced")); err != nil || string(b) != "synced" {
		return fmt.Errorf("what was synced is gone: %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(d.at, "lost")); err == nil && len(b) > 0 {
		return fmt.Errorf("what was not synced is there: this is no loss of power")
	}
	return errors.Join(os.Remove(filepath.Join(d.at, "synced")), os.RemoveAll(filepath.Join(d.at, "lost")))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyDir copies files and folders.
func copyDir(from, to string) error { return os.CopyFS(to, os.DirFS(from)) }

// build builds the perigee that the fleet runs, with the race detector if this test
// has it, and with a mutant's tag.
func build(dir, tags string, race bool) (string, error) {
	bin := filepath.Join(dir, "perigee")
	args := []string{"build", "-o", bin, "-tags", tags}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "perigee.example/cmd/perigee")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return bin, nil
}
