// Dns measures what an answer by UDP costs: Perigee beside the name servers
// of Debian and a C program that only echoes, with equal data and queries.
//
//	go run ./bench/dns -perigee bin/perigee [-rounds 3] [-seconds 2] [-only perigee,knot]
//
// Each server runs pinned to the first processor, the load to the second. The
// rounds are interleaved, so that a machine whose speed drifts is unfair to
// nobody. The cost is the processor time of every thread of the server, from
// /proc/PID/task/*/schedstat, by answers. Absolute figures are of one machine
// and one minute: read the ratios.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// config is one run.
type config struct {
	perigee string // the binary
	src     string // folder of echo.c and flood.c
	dir     string // of everything that is made
	rounds  int
	seconds float64
	window  int
	only    []string
	mixes   []string
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("dns: ")
	var c config
	var only, mixes string
	flag.StringVar(&c.perigee, "perigee", "bin/perigee", "the perigee `binary`")
	flag.StringVar(&c.src, "src", "bench", "the `folder` of echo.c and flood.c")
	flag.IntVar(&c.rounds, "rounds", 3, "interleaved rounds")
	flag.Float64Var(&c.seconds, "seconds", 2, "seconds of load for each server in each round")
	flag.IntVar(&c.window, "window", 512, "queries outstanding")
	flag.StringVar(&only, "only", "", "servers, with commas between them (default: all that are installed)")
	flag.StringVar(&mixes, "mix", "mix", "query mixes: mix, referral, cname, large, ecs, steered")
	flag.Parse()
	if only != "" {
		c.only = strings.Split(only, ",")
	}
	c.mixes = strings.Split(mixes, ",")
	if err := run(&c); err != nil {
		log.Fatal(err)
	}
}

func run(c *config) (err error) {
	if c.dir, err = os.MkdirTemp("", "benchdns-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	if c.perigee, err = filepath.Abs(c.perigee); err != nil {
		return err
	}
	for _, name := range []string{"echo", "flood"} {
		out, err := exec.Command("cc", "-O2", "-o", filepath.Join(c.dir, name), filepath.Join(c.src, name+".c")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cc %s.c: %w\n%s", name, err, out)
		}
	}
	if err := writeZone(filepath.Join(c.dir, "bench.test.zone")); err != nil {
		return err
	}
	servers, err := startAll(c)
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	for _, mix := range c.mixes {
		file := filepath.Join(c.dir, mix+".queries")
		if err := writeQueries(file, mix); err != nil {
			return err
		}
		if err := measure(c, servers, mix, file); err != nil {
			return err
		}
	}
	return nil
}

// measure runs the rounds of one mix and prints its table.
func measure(c *config, servers []*server, mix, file string) error {
	results := map[string][]sample{}
	for round := range c.rounds + 1 { // the first warms up
		for _, s := range servers {
			if !s.answers(mix) {
				continue
			}
			r, err := load(c, s, file)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 {
				results[s.name] = append(results[s.name], r)
			}
		}
	}
	floor, mine := median(results["c-echo"]), median(results["perigee"])
	fmt.Printf("\n%s: microseconds of processor time for an answer, %d rounds of %gs, %d queries outstanding\n\n", mix, c.rounds, c.seconds, c.window)
	fmt.Printf("| server | median | range | × floor | perigee / this | answers/s | busy | lost | mean octets | rcodes 0/2/3/5 |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, s := range servers {
		list := results[s.name]
		if len(list) == 0 {
			continue
		}
		m := median(list)
		lo, hi := list[0].cost, list[0].cost
		for _, r := range list {
			lo, hi = min(lo, r.cost), max(hi, r.cost)
		}
		last := list[len(list)-1]
		fmt.Printf("| %s | %.2f | %.2f–%.2f | %s | %s | %.0fk | %.2f | %d | %.0f | %d/%d/%d/%d |\n", s.title(), m, lo, hi, ratio(m, floor), ratio(mine, m),
			last.rate/1000, last.busy, last.lost, last.octets, last.rcodes[0], last.rcodes[2], last.rcodes[3], last.rcodes[5])
	}
	return nil
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func median(list []sample) float64 {
	if len(list) == 0 {
		return 0
	}
	costs := make([]float64, len(list))
	for i, r := range list {
		costs[i] = r.cost
	}
	slices.Sort(costs)
	return costs[len(costs)/2]
}

// sample is one server under load for some seconds.
type sample struct {
	cost   float64 // µs of processor time an answer
	rate   float64 // answers a second
	busy   float64 // share of one processor
	lost   int64
	octets float64 // of an answer
	rcodes [16]int64
}

// load puts the queries to a server and reads what it cost.
func load(c *config, s *server, file string) (r sample, err error) {
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	cmd := exec.Command("taskset", "-c", "1", filepath.Join(c.dir, "flood"), file, fmt.Sprint(s.port), fmt.Sprint(c.seconds), fmt.Sprint(c.window))
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("flood: %w", err)
	}
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	var answers, octets int64
	var seconds float64
	args := []any{&answers, &r.lost, &seconds, &octets}
	for i := range r.rcodes {
		args = append(args, &r.rcodes[i])
	}
	if _, err := fmt.Sscan(string(out), args...); err != nil {
		return r, fmt.Errorf("flood printed %q: %w", out, err)
	}
	if answers == 0 {
		return r, errors.New("no answers")
	}
	used := (after - before).Seconds()
	r.cost = used * 1e6 / float64(answers)
	r.rate, r.busy, r.octets = float64(answers)/seconds, used/seconds, float64(octets)/float64(answers)
	return r, nil
}

// waitReady asks until a server answers.
func waitReady(c *config, s *server, file string) error {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		out, err := exec.Command(filepath.Join(c.dir, "flood"), file, fmt.Sprint(s.port), "0.05", "1").Output()
		var answers int
		if _, scanErr := fmt.Sscan(string(out), &answers); err == nil && scanErr == nil && answers > 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, _ := os.ReadFile(filepath.Join(c.dir, s.name+".log"))
	return fmt.Errorf("%s did not answer within 30 s: %.2000s", s.name, text)
}
