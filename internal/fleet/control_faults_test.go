package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"perigee.example/internal/control"
)

const (
	// watched is how long a control node is looked at while something is wrong with it,
	// idleCPU the processor time that it may use meanwhile: one that turns in a loop
	// uses all of it.
	watched = 2 * time.Second
	idleCPU = time.Second
	// idlers are connections that take its descriptors.
	idlers = 100
)

// TestControlFaults has a control node, as a process, lose the right to write to its
// disk (F11) and run out of descriptors (F12): it refuses, does not turn in a loop,
// does not end, and goes on by itself when it can; all that it acknowledged is there.
func TestControlFaults(t *testing.T) {
	if !ownWorld(t) {
		return
	}
	w := newWorld(t, map[string]string{self: "eu.5", "ctl1": "eu.10"})
	base := t.TempDir()
	r := &rig{t: t, w: w, base: base, bins: buildAll(t, ""), controls: controls[:1], begun: time.Now(), nodes: map[string]*node{}, faulty: map[string]wrong{}}
	r.environment()
	defer r.close()
	if err := os.WriteFile(filepath.Join(base, "perigee.toml"), []byte(fmt.Sprintf(powerTOML, w.hosts["ctl1"].addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.define("ctl1", "control")
	if err := r.startControl(); err != nil {
		t.Fatal(err)
	}
	added, err := r.api.NodeAdd(t.Context(), "reader", false)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := control.ParseCredentials([]byte(added.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	f := &faulted{r: r, n: r.nodes["ctl1"], p: &promised{purges: map[string]uint64{}, started: map[string]bool{}}}
	pid := f.n.cmd.Process.Pid
	for _, part := range []struct {
		name string
		run  func() error
	}{{"F11", f.readOnly}, {"F12", f.noDescriptors}} {
		if err := errors.Join(f.purgeWell(part.name+"/before"), part.run(), f.purgeWell(part.name+"/after")); err != nil {
			t.Fatalf("%s: %v\n%s", part.name, err, tail(f.n.log))
		}
		if f.n.ended() || f.n.cmd.Process.Pid != pid {
			t.Fatalf("%s: the control node ended:\n%s", part.name, tail(f.n.log))
		}
		if err := f.p.check(t.Context(), r, reader); err != nil {
			t.Fatalf("%s: %v", part.name, err)
		}
	}
}

// faulted is a control node with something wrong.
type faulted struct {
	r *rig
	n *node
	p *promised
}

// purge purges one URL, and notes it if it is acknowledged.
func (f *faulted) purge(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, watched)
	defer cancel()
	got, err := f.r.api.Purge(ctx, control.Purge{URL: "http://shop." + zone + "/" + path}, false)
	if err == nil {
		f.p.purges[got.URL] = got.Seq
	}
	return err
}

// purgeWell purges until it is acknowledged.
func (f *faulted) purgeWell(path string) (err error) {
	for end := time.Now().Add(wellWithin); time.Now().Before(end); time.Sleep(lookEvery) {
		if err = f.purge(f.r.t.Context(), path); err == nil {
			return nil
		}
	}
	return fmt.Errorf("no purge is taken %v after nothing is broken: %w", wellWithin, err)
}

// readOnly: the file system of its state can only be read, for whoever opens a file.
func (f *faulted) readOnly() error {
	if err := errors.Join(run("mount", "--bind", f.n.dir, f.n.dir), run("mount", "-o", "remount,bind,ro", f.n.dir)); err != nil {
		return err
	}
	before, err := status(f.r.api)
	if err != nil {
		return err
	}
	var refused *control.Error
	if err := f.purge(f.r.t.Context(), "read-only"); !errors.As(err, &refused) || refused.Status != 507 || !strings.Contains(err.Error(), "read-only") {
		return fmt.Errorf("a purge on a disk that can only be read: %v, want 507", err)
	}
	now, err := status(f.r.api)
	if err != nil {
		return fmt.Errorf("its state cannot be read meanwhile: %w", err)
	}
	if now.Head.Seq != before.Head.Seq {
		return fmt.Errorf("it was refused, and is on the log: seq %d, %d before", now.Head.Seq, before.Head.Seq)
	}
	if err := f.still(); err != nil {
		return err
	}
	return run("umount", f.n.dir)
}

// noDescriptors: as many connections as it takes, that do nothing.
func (f *faulted) noDescriptors() error {
	pid := f.n.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return err
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open) + 8), Max: before.Max}, nil); err != nil {
		return err
	}
	for range idlers {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(f.n.host.addr, 7440).String(), asks)
		if err != nil {
			return fmt.Errorf("the door is shut: %w", err)
		}
		defer c.Close()
	}
	if now, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err != nil || len(now) < len(open)+4 {
		return fmt.Errorf("it has %d descriptors, %d before, %v: this shows nothing", len(now), len(open), err)
	}
	for i := range 3 { // taken or not: what is acknowledged counts
		_ = f.purge(f.r.t.Context(), fmt.Sprint("no-descriptors/", i))
	}
	if err := f.still(); err != nil {
		return err
	}
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil)
}

// still looks at what the process uses while nothing is asked of it.
func (f *faulted) still() error {
	before, err := cpuOf(f.n.cmd.Process.Pid)
	if err != nil {
		return err
	}
	time.Sleep(watched)
	after, err := cpuOf(f.n.cmd.Process.Pid)
	if err == nil && after-before > idleCPU {
		err = fmt.Errorf("it used %v of a processor in %v", after-before, watched)
	}
	return err
}

// cpuOf is the processor time that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from the state on
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2) // USER_HZ is 100
}
