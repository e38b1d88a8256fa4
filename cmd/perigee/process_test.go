package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"perigee.example/internal/fakes3"
)

// raceReport begins each report of the race detector.
const raceReport = "WARNING: DATA RACE"

// process is a perigee in the background of a test. What it prints is in a
// file, so that a test can wait for a line of it.
type process struct {
	name string
	log  string // the file
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts a program with everything that it prints going to log,
// which is appended to.
func startProcess(name, log string, cmd *exec.Cmd) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its state says how it ended
		close(p.done)
	}()
	return p, nil
}

// end sends a signal and expects the process to end with exit 0 within
// endWithin.
func (p *process) end(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(endWithin):
		return fmt.Errorf("%s still runs %s after %v", p.name, endWithin, sig)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s: exit %d after %v, want 0", p.name, code, sig)
	}
	return nil
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// text is what the process has printed.
func (p *process) text() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// background is the processes of one script.
type background struct {
	tb     testing.TB
	dir    string
	mu     sync.Mutex
	byName map[string]*process
	bucket *fakes3.Server // of scriptBucket
}

type backgroundKey struct{}

func backgroundOf(ts *testscript.TestScript) *background {
	return ts.Value(backgroundKey{}).(*background)
}

// endAll kills what a script left running, and fails the test for a data race
// in any process, also in those that were killed.
func (b *background) endAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.byName {
		p.kill()
		text := p.text()
		if strings.Contains(text, raceReport) {
			b.tb.Errorf("%s: a data race", p.name)
		}
		if b.tb.Failed() {
			b.tb.Logf("%s printed:\n%s", p.name, text)
		}
	}
}

func (b *background) get(ts *testscript.TestScript, name string) *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.byName[name]
	if p == nil {
		ts.Fatalf("no process was started as %s", name)
	}
	return p
}

// scriptEnv is what a process in the background takes over from its script.
var scriptEnv = []string{"PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "TZ", "STATE_DIRECTORY", "PERIGEE_CONFIG", "PERIGEE_CONTROL", "PERIGEE_TOKEN_FILE", "PERIGEE_NEXT"}

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) < 2, "start NAME PROGRAM [ARG…]")
	b := backgroundOf(ts)
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.byName[args[0]]; old != nil && !old.ended() {
		ts.Fatalf("%s runs already", args[0])
	}
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range scriptEnv {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	p, err := startProcess(args[0], filepath.Join(b.dir, args[0]+".log"), cmd)
	ts.Check(err)
	b.byName[args[0]] = p
}

func scriptLog(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, len(args) != 2, "log NAME REGEXP")
	p := backgroundOf(ts).get(ts, args[0])
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if neg {
		if found := re.FindString(p.text()); found != "" {
			ts.Fatalf("%s printed %q", args[0], found)
		}
		return
	}
	ended := false
	ok := poll(eventuallyScript, func() bool {
		if ended {
			return true
		}
		ended = p.ended() // look once more after its end
		return re.MatchString(p.text())
	})
	if !ok || !re.MatchString(p.text()) {
		ts.Fatalf("%s never printed %q (ended: %t)", args[0], args[1], p.ended())
	}
}

// scriptSignals are the signals that scripts may send.
var scriptSignals = map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) != 2 || scriptSignals[args[1]] == nil, "signal NAME HUP|TERM|INT")
	ts.Check(backgroundOf(ts).get(ts, args[0]).cmd.Process.Signal(scriptSignals[args[1]]))
}

func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) < 1 || len(args) > 2, "end NAME [TERM|INT]")
	sig := "TERM"
	if len(args) > 1 {
		sig = args[1]
	}
	if scriptSignals[sig] == nil {
		ts.Check(errors.New("no signal is called " + sig))
	}
	ts.Check(backgroundOf(ts).get(ts, args[0]).end(scriptSignals[sig]))
}

func scriptKill(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) != 1, "kill9 NAME")
	backgroundOf(ts).get(ts, args[0]).kill()
}
