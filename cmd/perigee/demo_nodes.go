package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// demoNode is one process of the demo.
type demoNode struct {
	name  string
	args  []string // after the program's name
	state string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// start starts control, hands a credential to every other node, starts those,
// and waits until each is ready.
func (d *demo) start(ctx context.Context) error {
	control := d.add("ctl", "serve", "control")
	origin := d.add("origin", "serve", "origin", d.path("origin"), "--listen", fmt.Sprintf("127.0.0.1:%d", d.ports.origin))
	others := []*demoNode{d.add("dns1", "serve", "dns")}
	for _, e := range demoEdges {
		others = append(others, d.add(e.Name, "serve", "edge", e.Name))
	}
	for _, n := range []*demoNode{control, origin} {
		if err := d.launch(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range others {
		if err := os.MkdirAll(n.state, 0o700); err != nil {
			return err
		}
		add := exec.CommandContext(ctx, d.exe, "-c", d.path("perigee.toml"), "--control", "unix:"+d.path("state", "ctl", "admin.sock"),
			"node", "add", n.name, "--out", n.state+"/node.pem")
		if text, err := add.CombinedOutput(); err != nil {
			return fmt.Errorf("demo: node add %s: %w: %s", n.name, err, text)
		}
	}
	for _, n := range others {
		if err := d.launch(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) add(name string, args ...string) *demoNode {
	n := &demoNode{name: name, state: d.path("state", name)}
	n.args = append(args, "-c", d.path("perigee.toml"), "--state", n.state)
	d.nodes = append(d.nodes, n)
	return n
}

func (d *demo) node(name string) *demoNode {
	for _, n := range d.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// launch starts a node's process, writes its pid file, and waits until its
// admin socket answers that it is ready.
func (d *demo) launch(ctx context.Context, n *demoNode) error {
	logFile, err := os.OpenFile(d.path(n.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(d.exe, n.args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which ends them in order
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(done)
	}()
	n.mu.Lock()
	n.cmd, n.done = cmd, done
	n.mu.Unlock()
	if err := os.WriteFile(d.path(n.name+".pid"), fmt.Appendln(nil, cmd.Process.Pid), 0o644); err != nil {
		return err
	}
	return d.ready(ctx, n, done)
}

// ready waits until a node says that it serves.
func (d *demo) ready(ctx context.Context, n *demoNode, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		local, err := askLocal(ctx, n.state)
		if err == nil && local.Ready {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("demo: %s ended at its start: %s", n.name, d.lastLines(n))
		case <-ctx.Done():
			return fmt.Errorf("demo: %s was not ready within %s: %w: %s", n.name, demoStart, errors.Join(ctx.Err(), err), d.lastLines(n))
		case <-tick.C:
		}
	}
}

// lastLines is the end of a node's log.
func (d *demo) lastLines(n *demoNode) string {
	text, _ := os.ReadFile(d.path(n.name + ".log"))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func (n *demoNode) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd.Process.Pid
}

// ended is closed when the node's present process has ended.
func (n *demoNode) ended() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.done
}

// kill ends a node as a power cut would, and waits until it is gone.
func (n *demoNode) kill() {
	n.mu.Lock()
	cmd, done := n.cmd, n.done
	n.mu.Unlock()
	_ = cmd.Process.Kill() // it may be gone already
	<-done
}

// keep starts again, a while later, whatever node ends, until ctx is done.
func (d *demo) keep(ctx context.Context) {
	var wg sync.WaitGroup
	for _, n := range d.nodes {
		wg.Go(func() { d.keepNode(ctx, n) })
	}
	wg.Wait()
}

func (d *demo) keepNode(ctx context.Context, n *demoNode) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.ended():
		}
		fmt.Fprintf(d.out, "\n%s ended; it is started again in %s\n", n.name, demoRestart)
		select {
		case <-ctx.Done():
			return
		case <-time.After(demoRestart):
		}
		if err := d.launch(ctx, n); err != nil {
			fmt.Fprintln(d.out, err)
			continue
		}
		fmt.Fprintf(d.out, "%s is up again, pid %d\n", n.name, n.pid())
	}
}

// stopGrace is how long a node may take to end before it is killed.
const stopGrace = 10 * time.Second

// stop ends every node, politely first.
func (d *demo) stop() {
	var wg sync.WaitGroup
	for _, n := range d.nodes {
		n.mu.Lock()
		cmd, done := n.cmd, n.done
		n.mu.Unlock()
		if cmd == nil {
			continue
		}
		wg.Go(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
			select {
			case <-done:
			case <-time.After(stopGrace):
				_ = cmd.Process.Kill()
				<-done
			}
		})
	}
	wg.Wait()
}

// intro shows the configuration and who runs.
func (d *demo) intro() {
	text, err := os.ReadFile(d.path("perigee.toml"))
	if err == nil {
		fmt.Fprintf(d.out, "%s:\n\n", d.path("perigee.toml"))
		for line := range strings.Lines(string(text)) {
			fmt.Fprint(d.out, "    ", line)
		}
	}
	fmt.Fprintf(d.out, "\nEvery node is a process of its own, with its own state folder below %s:\n\n", d.path("state"))
	for _, n := range d.nodes {
		fmt.Fprintf(d.out, "  %-7s pid %-7d perigee %s\n", n.name, n.pid(), strings.Join(n.args[:len(n.args)-4], " "))
	}
	fmt.Fprintf(d.out, "\nCountry data: %s\n", geoAttribution)
	fmt.Fprintf(d.out, "\nPaste into another terminal:\n")
}
