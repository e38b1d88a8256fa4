package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// loss compares what an answer costs from a zone of 10,000 names and from one
// of a million: CPU time of the server for each reply that dnsperf, on another
// core, has. 15 % of the questions are for names that do not exist.
func (b *bench) loss() error {
	if _, err := exec.LookPath("dnsperf"); err != nil {
		fmt.Fprintln(os.Stderr, "dnssize: dnsperf is not installed: the cost of an answer is left out")
		return nil
	}
	root, err := os.MkdirTemp("", "dnssize-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	sizes := []int{10_000, 1_000_000}
	var running []asked
	for _, n := range sizes {
		a, err := b.serve(filepath.Join(root, strconv.Itoa(n)), data{names: n})
		if err != nil {
			return err
		}
		defer a.end()
		running = append(running, a)
	}
	costs := make([][]float64, len(sizes))
	for range max(3, b.rounds) {
		for i, a := range running {
			cost, err := a.round(b.client)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], cost)
		}
	}
	fmt.Println("CPU time of an answer, dnsperf over loopback")
	for i, n := range sizes {
		slices.Sort(costs[i])
		fmt.Printf("%10d names %6.2f µs (%.2f to %.2f)\n", n, costs[i][len(costs[i])/2], costs[i][0], costs[i][len(costs[i])-1])
	}
	fmt.Println()
	return nil
}

// asked is a server that answers, and the questions for it.
type asked struct {
	cmd       *exec.Cmd
	port      int
	questions string
}

func (a *asked) end() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	_ = a.cmd.Wait()
}

func (b *bench) serve(dir string, d data) (a asked, err error) {
	last, err := d.write(filepath.Join(dir, "zones"))
	if err != nil {
		return a, err
	}
	if a.port, err = freePort(); err != nil {
		return a, err
	}
	args, err := configurePerigee(dir, filepath.Join(dir, "zones"), a.port, d)
	if err != nil {
		return a, err
	}
	a.questions = filepath.Join(dir, "questions")
	if err := writeQuestions(a.questions, d.names); err != nil {
		return a, err
	}
	a.cmd = exec.Command("taskset", append([]string{"-c", b.core, b.bin}, args...)...)
	if err := a.cmd.Start(); err != nil {
		return a, err
	}
	for begin := time.Now(); !answers(a.port, last); {
		if time.Since(begin) > time.Minute {
			a.end()
			return a, errors.New("perigee does not answer")
		}
	}
	return a, nil
}

func writeQuestions(path string, names int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		miss := ""
		if rng.IntN(100) < 15 {
			miss = "x"
		}
		fmt.Fprintf(w, "%shost%08d.zone00000.test A\n", miss, rng.IntN(names))
	}
	return errors.Join(w.Flush(), f.Close())
}

var (
	completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	lost      = regexp.MustCompile(`Queries lost:\s+(\d+)`)
)

// round is the CPU time of one answer in microseconds, over four seconds.
func (a *asked) round(core string) (float64, error) {
	before, err := cpuOf(a.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	out, err := exec.Command("taskset", "-c", core, "dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(a.port), "-d", a.questions, "-l", "4", "-c", "4", "-q", "400").Output()
	if err != nil {
		return 0, err
	}
	after, err := cpuOf(a.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	m, l := completed.FindSubmatch(out), lost.FindSubmatch(out)
	if m == nil || l == nil || strings.TrimSpace(string(l[1])) != "0" {
		return 0, fmt.Errorf("dnsperf: %s", out)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil || n == 0 {
		return 0, fmt.Errorf("dnsperf completed %q queries", m[1])
	}
	return float64((after - before).Microseconds()) / float64(n), nil
}
