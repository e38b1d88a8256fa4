package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one contender.
type server struct {
	name string
	note string   // beside its name in the table
	mix  []string // what it answers; nil is everything that is not steered
	port int
	cmd  *exec.Cmd
	done chan struct{}
}

func (s *server) title() string {
	if s.note == "" {
		return s.name
	}
	return s.name + " (" + s.note + ")"
}

func (s *server) answers(mix string) bool {
	if s.mix != nil {
		return slices.Contains(s.mix, mix)
	}
	return slices.Contains(plainMixes, mix)
}

// cpu is the processor time of all threads of the server (and of its children:
// some fork).
func (s *server) cpu() (time.Duration, error) {
	var total time.Duration
	for _, pid := range append(children(s.cmd.Process.Pid), s.cmd.Process.Pid) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // the thread has ended
			}
			ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ns)
		}
	}
	return total, nil
}

// cpuSoFar is the processor time of the server and its children by the
// kernel's ticks, threads that have ended counted in: PowerDNS starts one a
// connection.
func (s *server) cpuSoFar() (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	var total time.Duration
	for _, pid := range append(children(s.cmd.Process.Pid), s.cmd.Process.Pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, f := range fields[11:13] { // utime and stime: proc(5) counts from 1, and these from the state, its third
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * tick
		}
	}
	return total, nil
}

func children(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, word := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), children(child)...)
			}
		}
	}
	return all
}

func (s *server) stop() {
	for _, pid := range children(s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// startAll starts every contender that is installed and wanted, and waits until
// each answers.
func startAll(c *config) ([]*server, error) {
	var running []*server
	for _, k := range contenders(c) {
		if len(c.only) > 0 && !slices.Contains(c.only, k.name) || !k.wanted(c.mixes) {
			continue
		}
		if _, err := exec.LookPath(k.program); err != nil {
			fmt.Printf("%s is not installed: left out\n", k.name)
			continue
		}
		s, err := k.start(c)
		if s != nil {
			running = append(running, s)
		}
		if err != nil {
			return running, err
		}
		probe := filepath.Join(c.dir, "probe.queries")
		if err := writeQueries(probe, k.probe()); err != nil {
			return running, err
		}
		if err := waitReady(c, s, probe); err != nil {
			return running, err
		}
	}
	return running, nil
}

func (k *contender) start(c *config) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.dir, k.name+".d")
	for _, sub := range []string{"", "run", "state", "zones"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	zone := filepath.Join(dir, "bench.test.zone")
	if err := writeZone(zone, k.zone); err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("{DIR}", dir, "{ZONE}", zone, "{SIGNED}", c.signed, "{GEO}", c.geo, "{PORT}", fmt.Sprint(port))
	for name, text := range k.files {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(fill.Replace(text)), 0o644); err != nil {
			return nil, err
		}
	}
	if k.program == c.perigee {
		if err := os.Chmod(filepath.Join(dir, "state"), 0o700); err != nil {
			return nil, err
		}
	}
	args := []string{"-c", "0", k.program}
	for _, a := range k.args {
		args = append(args, fill.Replace(a))
	}
	out, err := os.Create(filepath.Join(c.dir, k.name+".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s := &server{name: k.name, note: k.note, mix: k.mix, port: port, done: make(chan struct{})}
	env := append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", max(k.threads, 1)))
	s.cmd = exec.Command("taskset", args...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = out, out, dir
	s.cmd.Env = env
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// freePort finds a port that is free by UDP and TCP.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
