package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// check runs the printed commands as a person would, then kills each node in
// turn. It returns an error that lists what failed.
func (d *demo) check(ctx context.Context, steps []demoStep) error {
	for _, tool := range []string{"bash", "dig", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return withHint(fmt.Errorf("demo --check needs %s", tool), "make tools installs it on Debian")
		}
	}
	sh, err := newDemoShell(ctx)
	if err != nil {
		return err
	}
	defer sh.close()
	keeping, stopKeeping := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); d.keep(keeping) }()
	c := &demoChecker{d: d, sh: sh}
	for _, s := range steps {
		c.step(ctx, s)
	}
	stopKeeping()
	<-kept
	if ctx.Err() == nil {
		c.killEach(ctx)
	}
	fmt.Fprintf(d.out, "\n%d passed, %d failed\n", c.passed, len(c.failures))
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("demo --check was interrupted: %w", err)
	}
	return errors.Join(c.failures...)
}

// demoChecker counts what was seen.
type demoChecker struct {
	d        *demo
	sh       *demoShell
	passed   int
	failures []error
}

// step runs one command and compares; it repeats until s.Within has passed.
func (c *demoChecker) step(ctx context.Context, s demoStep) {
	if s.Say != "" {
		fmt.Fprintf(c.d.out, "\n# %s\n", s.Say)
	}
	fmt.Fprintf(c.d.out, "$ %s\n", s.Cmd)
	deadline := time.Now().Add(s.Within)
	for {
		out, code, err := c.sh.run(s.Cmd)
		problem := compareStep(s, out, code)
		if err != nil {
			problem = err.Error()
		}
		if problem == "" {
			c.passed++
			fmt.Fprint(c.d.out, indent(out))
			return
		}
		if err == nil && ctx.Err() == nil && time.Now().Before(deadline) {
			pause(ctx, 300*time.Millisecond)
			continue
		}
		c.failures = append(c.failures, fmt.Errorf("demo: %s: %s\n%s", s.Cmd, problem, indent(out)))
		fmt.Fprintf(c.d.out, "%s  FAILED: %s\n", indent(out), problem)
		return
	}
}

// compareStep says what is wrong with a command's output, or nothing.
func compareStep(s demoStep, out string, code int) string {
	if code != 0 {
		return fmt.Sprintf("exit %d", code)
	}
	for _, want := range s.Want {
		if !regexp.MustCompile("(?m)" + want).MatchString(out) {
			return fmt.Sprintf("no match for %q", want)
		}
	}
	for _, not := range s.Not {
		if regexp.MustCompile("(?m)" + not).MatchString(out) {
			return fmt.Sprintf("an unwanted match for %q", not)
		}
	}
	return ""
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + strings.TrimRight(line, "\r\n") + "\n")
	}
	return b.String()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// demoShell is one bash that commands are pasted into.
type demoShell struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// endOfCommand marks the end of a command's output; a person's shell shows a
// prompt there.
const endOfCommand = "\x01perigee-demo-end "

// maxStepOutput bounds what one command may print.
const maxStepOutput = 1 << 20

func newDemoShell(ctx context.Context) (*demoShell, error) {
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &demoShell{cmd: cmd, stdin: in, out: bufio.NewReader(out)}, nil
}

// run pastes one command and returns what it printed and its exit code.
func (s *demoShell) run(command string) (string, int, error) {
	if _, err := fmt.Fprintf(s.stdin, "%s\nprintf '\\n%s%%d\\n' $?\n", command, endOfCommand); err != nil {
		return "", 0, err
	}
	var out strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if code, ok := strings.CutPrefix(line, endOfCommand); ok {
			var n int
			if _, err := fmt.Sscan(code, &n); err != nil {
				return "", 0, err
			}
			return strings.TrimSuffix(out.String(), "\n"), n, nil
		}
		if err != nil {
			return out.String(), 0, fmt.Errorf("the shell ended: %w", err)
		}
		if out.Len() < maxStepOutput {
			out.WriteString(line)
		}
	}
}

func (s *demoShell) close() {
	s.stdin.Close()
	_ = s.cmd.Wait() // its last exit code is of no interest
}
