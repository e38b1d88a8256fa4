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

	"perigee.example/bench/pinned"
)

// config is one run.
type config struct {
	perigee string // the binary
	beside  string // another one, such as that of the commit before
	src     string // folder of echo.c and flood.c
	dir     string // of everything that is made
	rounds  int
	seconds float64
	window  int
	only    []string
	mixes   []string
	coredns string
	rate    int    // queries a second of the mix that is paced
	signed  string // the signed zone, if there is one
	geo     string // the country data
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("dns: ")
	var c config
	var only, mixes string
	flag.StringVar(&c.perigee, "perigee", "bin/perigee", "the perigee `binary`")
	flag.StringVar(&c.beside, "beside", "", "another perigee `binary`, to compare with")
	flag.StringVar(&c.src, "src", "bench", "the `folder` of echo.c and flood.c")
	flag.IntVar(&c.rounds, "rounds", 3, "interleaved rounds")
	flag.Float64Var(&c.seconds, "seconds", 2, "seconds of load for each server in each round")
	flag.IntVar(&c.window, "window", 512, "queries outstanding")
	flag.StringVar(&only, "only", "", "servers, with commas between them (default: all that are installed)")
	flag.StringVar(&mixes, "mix", "mix", "query mixes: mix, referral, cname, large, truncated, signed, ecs, steered, weighted, tcp, paced")
	flag.StringVar(&c.coredns, "coredns", "coredns", "the CoreDNS `binary`")
	flag.IntVar(&c.rate, "rate", 30_000, "queries a second of the mix paced")
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
	if c.beside != "" {
		if c.beside, err = filepath.Abs(c.beside); err != nil {
			return err
		}
	}
	for _, name := range []string{"echo", "flood"} {
		if err := pinned.Compile(c.src, c.dir, name); err != nil {
			return err
		}
	}
	c.geo = filepath.Join(c.dir, "country.mmdb")
	if err := writeGeo(filepath.Join(c.src, "..", "internal", "geo", "builtin-country.mmdb.gz"), c.geo); err != nil {
		return err
	}
	if c.signed, err = signZone(c.dir); err != nil {
		return err
	}
	if c.signed == "" {
		return errors.New("ldns-signzone is not installed (Debian: ldnsutils): the signed zone cannot be made")
	}
	servers, err := startAll(c)
	defer func() {
		for _, s := range servers {
			s.Stop()
		}
	}()
	if err != nil {
		return err
	}
	for _, mix := range c.mixes {
		file := filepath.Join(c.dir, mix+".queries")
		write := writeQueries
		if mix == "tcp" {
			write = writeText
		}
		if err := write(file, mix); err != nil {
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
			r, err := load(c, s, mix, file)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 {
				results[s.name] = append(results[s.name], r)
			}
		}
	}
	floor, mine := median(results["c-echo"]), median(results["perigee"])
	how := fmt.Sprintf("%d queries outstanding", c.window)
	switch mix {
	case "tcp":
		how = "16 connections, 256 queries outstanding"
	case "paced":
		how = fmt.Sprintf("%d queries a second", c.rate)
	}
	fmt.Printf("\n%s: microseconds of processor time for an answer, %d rounds of %gs, %s\n\n", mix, c.rounds, c.seconds, how)
	fmt.Printf("| server | median | range | × floor | perigee / this | answers/s | busy | lost | p50/p99 µs | mean octets | rcodes 0/2/3/5 |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
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
		fmt.Printf("| %s | %.2f | %.2f–%.2f | %s | %s | %.0fk | %.2f | %d | %d/%d | %.0f | %d/%d/%d/%d |\n", s.title(), m, lo, hi, pinned.Ratio(m, floor), pinned.Ratio(mine, m),
			last.rate/1000, last.busy, last.lost, middle(list, func(r sample) int { return r.p50 }), middle(list, func(r sample) int { return r.p99 }),
			last.octets, last.rcodes[0], last.rcodes[2], last.rcodes[3], last.rcodes[5])
	}
	return nil
}

// middle is the median of one figure.
func middle(list []sample, of func(sample) int) int {
	all := make([]int, len(list))
	for i, r := range list {
		all[i] = of(r)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func median(list []sample) float64 {
	costs := make([]float64, len(list))
	for i, r := range list {
		costs[i] = r.cost
	}
	return pinned.Median(costs)
}

// sample is one server under load for some seconds.
type sample struct {
	cost   float64 // µs of processor time an answer
	rate   float64 // answers a second
	busy   float64 // share of one processor
	lost   int64
	octets float64 // of an answer
	p50    int     // microseconds until an answer; with many queries outstanding mostly their queue
	p99    int
	rcodes [16]int64
}

// load puts the queries to a server and reads what it cost.
func load(c *config, s *server, mix, file string) (r sample, err error) {
	cpu := s.CPU
	if mix == "tcp" {
		cpu = s.CPUSoFar
	}
	before, err := cpu()
	if err != nil {
		return r, err
	}
	var answers int64
	var seconds, octets float64
	if mix == "tcp" {
		answers, seconds, octets, err = streams(c, s, file, &r)
	} else {
		answers, seconds, octets, err = flood(c, s, mix, file, &r)
	}
	if err != nil {
		return r, err
	}
	after, err := cpu()
	if err != nil {
		return r, err
	}
	if answers == 0 {
		return r, errors.New("no answers")
	}
	used := (after - before).Seconds()
	r.cost = used * 1e6 / float64(answers)
	r.rate, r.busy, r.octets = float64(answers)/seconds, used/seconds, octets/float64(answers)
	return r, nil
}

// flood is load by UDP.
func flood(c *config, s *server, mix, file string, r *sample) (answers int64, seconds, octets float64, err error) {
	args := []string{filepath.Join(c.dir, "flood"), file, fmt.Sprint(s.port), fmt.Sprint(c.seconds), fmt.Sprint(c.window)}
	if mix == "paced" {
		args = append(args, fmt.Sprint(c.rate))
	}
	out, err := pinned.Load(args...).Output()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("flood: %w", err)
	}
	fields := []any{&answers, &r.lost, &seconds, &octets, &r.p50, &r.p99}
	for i := range r.rcodes {
		fields = append(fields, &r.rcodes[i])
	}
	if _, err := fmt.Sscan(string(out), fields...); err != nil {
		return 0, 0, 0, fmt.Errorf("flood printed %q: %w", out, err)
	}
	return answers, seconds, octets, nil
}

// streams is load by TCP, pipelined, by dnsperf.
func streams(c *config, s *server, file string, r *sample) (answers int64, seconds, octets float64, err error) {
	out, err := pinned.Load("dnsperf", "-m", "tcp", "-s", "127.0.0.1", "-p", fmt.Sprint(s.port), "-d", file,
		"-c", "16", "-q", "256", "-T", "1", "-l", fmt.Sprint(max(int(c.seconds), 1))).CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("dnsperf: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Queries completed":
			_, err = fmt.Sscan(value, &answers)
		case "Queries lost":
			_, err = fmt.Sscan(value, &r.lost)
		case "Run time (s)":
			_, err = fmt.Sscan(value, &seconds)
		case "Average packet size":
			var request float64
			_, err = fmt.Sscanf(value, "request %f, response %f", &request, &octets)
		case "Response codes":
			for code, at := range map[string]int{"NOERROR": 0, "SERVFAIL": 2, "NXDOMAIN": 3, "REFUSED": 5} {
				if _, rest, found := strings.Cut(value, code+" "); found {
					fmt.Sscan(rest, &r.rcodes[at])
				}
			}
		}
		if err != nil {
			return 0, 0, 0, fmt.Errorf("dnsperf printed %q: %w", line, err)
		}
	}
	return answers, seconds, octets * float64(answers), nil
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
