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
	"sync/atomic"
	"syscall"
	"time"

	"perigee.example/internal/txtest"
)

const (
	// readyWithin is how long a process may take until it serves, on a machine with much to do.
	readyWithin = 3 * time.Minute
	// endWithin is how long one that is told to end may take: [health] drain and 15 s, and room.
	endWithin = 40 * time.Second
	lookEvery = 50 * time.Millisecond
	// lastLines is how much of a log is shown.
	lastLines = 40
	// diskBytes is more than mkfs.xfs asks for, with room for an edge's disk tier.
	diskBytes = 1 << 30
)

// node is a process of the fleet on a host of its own.
type node struct {
	name string
	host *host
	dir  string       // state folder
	disk *txtest.Disk // nil: it cannot lose power
	args []string
	log  string
	up   func() bool // whether it serves
	dead atomic.Bool // its disk is, and it has outlived that

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
