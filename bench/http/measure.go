package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"perigee.example/bench/pinned"
)

// saturated is the share of a processor that a server must have used for what it
// answered a second to be what it can.
const saturated = 0.9

// sample is one server under load for some seconds.
type sample struct {
	cost     float64 // µs of processor time an answer
	rate     float64 // answers a second
	busy     float64 // share of one processor
	p50, p99 float64 // µs
	missed   float64 // share of requests that reached the origin
}

// measure puts a mix to a server and reads what it cost. The first round begins
// with everything that can be stored.
func (m *mix) measure(c *config, s *server, round int) (r sample, err error) {
	if round == 0 {
		warm := m.warmFile(c)
		if s.name == "haproxy" && m.name == "chromium" {
			// With both variants it gives the one without gzip to those who take gzip too.
			warm = m.file(c)
		}
		if _, err := load(c, s.port, warm, 0, min(m.conns, len(m.warm)), 1, 0); err != nil {
			return r, fmt.Errorf("warming up: %w", err)
		}
	}
	asked, err := originCount(c)
	if err != nil {
		return r, err
	}
	before, err := s.CPU()
	if err != nil {
		return r, err
	}
	var l loaded
	if m.tls {
		l, err = loadTLS(c, s, m)
	} else {
		l, err = load(c, s.port, m.file(c), c.seconds, m.conns, m.depth, (round+1)*100_000_000)
	}
	if err != nil {
		return r, err
	}
	after, err := s.CPU()
	if err != nil {
		return r, err
	}
	fetched, err := originCount(c)
	if err != nil {
		return r, err
	}
	used := (after - before).Seconds()
	return sample{cost: used * 1e6 / l.answers, rate: l.answers / l.seconds, busy: used / l.seconds, p50: l.p50, p99: l.p99,
		missed: float64(fetched-asked) / l.answers}, nil
}

// loaded is what a load generator saw.
type loaded struct{ answers, seconds, p50, p99 float64 }

// load runs httpload.
func load(c *config, port int, list string, seconds float64, conns, depth, unique int) (l loaded, err error) {
	cmd := pinned.Load(filepath.Join(c.dir, "httpload"), list, c.pool(), fmt.Sprint(port), fmt.Sprint(seconds), fmt.Sprint(conns), fmt.Sprint(depth), fmt.Sprint(unique))
	return runLoad(cmd)
}

// runLoad runs a load generator and reads the line that begins with "result".
func runLoad(cmd *exec.Cmd) (l loaded, err error) {
	var says bytes.Buffer
	cmd.Stderr = &says
	out, err := cmd.Output()
	if err != nil {
		return l, fmt.Errorf("%w: %.2000s", err, says.Bytes())
	}
	var octets int64
	_, line, _ := strings.Cut(string(out), "result ")
	if _, err := fmt.Sscan(line, &l.answers, &l.seconds, &octets, &l.p50, &l.p99); err != nil {
		return l, fmt.Errorf("the load printed %q: %w%s", out, err, says.Bytes())
	}
	if l.answers == 0 {
		return l, errors.New("no answers")
	}
	return l, nil
}

// originCount is how many requests the origin has had.
func originCount(c *config) (int, error) {
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/count", c.origin))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(b))
}

// print prints a mix's table. A round in which a server was not saturated says
// nothing about its capacity, and is left out there.
func (m *mix) print(w io.Writer, c *config, servers []*server, results map[string][]sample) {
	column := func(list []sample, of func(sample) float64) []float64 {
		var values []float64
		for _, r := range list {
			values = append(values, of(r))
		}
		return values
	}
	cost := func(r sample) float64 { return r.cost }
	floor, mine := pinned.Median(column(results["floor"], cost)), pinned.Median(column(results["perigee"], cost))
	fmt.Fprintf(w, "\n%s: microseconds of processor time for an answer, %d rounds of %gs, %d connections\n\n", m.title, c.rounds, c.seconds, m.conns)
	missing, line := "", ""
	if m.misses {
		missing, line = " to the origin |", " --- |"
	}
	fmt.Fprintf(w, "| server | median | range | × floor | perigee / this | requests/s | p50 µs | p99 µs | busy |%s\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |%s\n", missing, line)
	for _, s := range servers {
		list := results[s.name]
		costs := column(list, cost)
		median := pinned.Median(costs)
		full := slices.DeleteFunc(slices.Clone(list), func(r sample) bool { return r.busy < saturated })
		rate := "–"
		if len(full) > 0 {
			rate = fmt.Sprintf("%.1fk", pinned.Median(column(full, func(r sample) float64 { return r.rate }))/1000)
		}
		fmt.Fprintf(w, "| %s | %.2f | %.2f–%.2f | %s | %s | %s | %.0f | %.0f | %.2f |", s.title(), median, slices.Min(costs), slices.Max(costs),
			pinned.Ratio(median, floor), pinned.Ratio(mine, median), rate,
			pinned.Median(column(list, func(r sample) float64 { return r.p50 })), pinned.Median(column(list, func(r sample) float64 { return r.p99 })),
			pinned.Median(column(list, func(r sample) float64 { return r.busy })))
		if m.misses {
			fmt.Fprintf(w, " %.0f %% |", 100*pinned.Median(column(list, func(r sample) float64 { return r.missed })))
		}
		fmt.Fprintln(w)
	}
}
