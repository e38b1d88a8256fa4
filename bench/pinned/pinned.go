// Package pinned runs the contenders of a benchmark: each server on the first
// processor, the load on the second, both before whatever else the machine does
// where this is permitted; and it says what a server used. It ends what it
// started, by process ID.
package pinned

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

const (
	serverCore = "0"
	loadCore   = "1"
	// endTimeout is how long a server may take to end before it is killed.
	endTimeout = 5 * time.Second
)

// command puts a program on a core and before others: its nice value, and that
// of its session, which the scheduler sees first. Where that is not permitted it
// runs as it is.
func command(core string, args []string) *exec.Cmd {
	const first = `echo -19 2>/dev/null >/proc/self/autogroup; renice -n -19 -p $$ >/dev/null 2>&1; exec "$@"`
	cmd := exec.Command("taskset", append([]string{"-c", core, "sh", "-c", first, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// Load is a command on the core of the load.
func Load(args ...string) *exec.Cmd { return command(loadCore, args) }

// Server is a running server.
type Server struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a server in a folder, in the foreground; what it says goes to the
// file logPath. beside puts it on the core of the load: an origin.
func Start(dir, logPath string, beside bool, args ...string) (*Server, error) {
	out, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	core := serverCore
	if beside {
		core = loadCore
	}
	s := &Server{cmd: command(core, args), done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = out, out, dir
	s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// Ended reports whether the server has ended.
func (s *Server) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *Server) pids() []int {
	pid := s.cmd.Process.Pid
	return append(children(pid), pid)
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

// CPU is the processor time that all threads of the server and its children have
// used, as the scheduler counts it. Threads that have ended are not in it.
func (s *Server) CPU() (time.Duration, error) {
	var total time.Duration
	for _, pid := range s.pids() {
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

// CPUSoFar is the processor time of the server and its children by the
// kernel's ticks, threads that have ended counted in: PowerDNS starts one a
// connection.
func (s *Server) CPUSoFar() (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	var total time.Duration
	for _, pid := range s.pids() {
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

// Memory is what the server and its children hold, in octets; pages that several
// of them share count once (PSS).
func (s *Server) Memory() (int64, error) {
	var total int64
	for _, pid := range s.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[0] == "Pss:" {
				kib, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, err
				}
				total += kib << 10
			}
		}
	}
	return total, nil
}

// Stop ends the server and its children, and waits for it.
func (s *Server) Stop() {
	for _, pid := range children(s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(endTimeout):
		for _, pid := range s.pids() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-s.done
	}
}

// FreePort finds a port of the loopback address that nobody listens on.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Compile builds a C program of the folder src into dir.
func Compile(src, dir, name string) error {
	out, err := exec.Command("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, name), filepath.Join(src, name+".c")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cc %s.c: %w\n%s", name, err, out)
	}
	return nil
}

// Median is the median of values, 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// Ratio writes a/b for a table.
func Ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}
