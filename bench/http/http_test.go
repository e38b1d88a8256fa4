package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/bench/pinned"
)

// world is a floor that runs, with everything that a run needs.
func world(t *testing.T) *config {
	for _, program := range []string{"cc", "taskset"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	c := &config{src: "..", dir: t.TempDir(), draws: 1000}
	if err := prepare(c); err != nil {
		t.Fatal(err)
	}
	s, err := startOrigin(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return c
}

// TestLoad: the floor answers what every mix asks, whole, in pieces and
// pipelined, and the load sees that it does.
func TestLoad(t *testing.T) {
	c := world(t)
	for _, name := range mixNames() {
		if name == "memory" {
			continue
		}
		m, err := newMix(c, name)
		if err != nil {
			t.Fatal(err)
		}
		before, err := originCount(c)
		if err != nil {
			t.Fatal(err)
		}
		list := append(m.warm, m.requests[:min(100, len(m.requests))]...)
		for len(list) < 40 {
			list = append(list, list...)
		}
		file := filepath.Join(c.dir, "some.list")
		if err := writeList(file, list); err != nil {
			t.Fatal(err)
		}
		l, err := load(c, c.origin, file, 0, 3, m.depth, 7)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		after, err := originCount(c)
		if err != nil {
			t.Fatal(err)
		}
		if int(l.answers) != len(list) || after-before != len(list) {
			t.Errorf("%s: %v answers, %d at the origin, want %d", name, l.answers, after-before, len(list))
		}
	}
}

// TestLoadSees: an answer that is not what was asked for ends the run: other
// octets, another length, another status.
func TestLoadSees(t *testing.T) {
	c := world(t)
	good := request{head: fill(bareHead, path(4096, 1024)), from: 4096, size: 1024}
	for want, change := range map[string]func(*request){
		"other octets":   func(q *request) { q.from++ },
		"another length": func(q *request) { q.size++ },
		"another status": func(q *request) { q.head = fill(bareHead, "/nowhere") },
	} {
		bad := good
		change(&bad)
		file := filepath.Join(c.dir, "bad.list")
		if err := writeList(file, []request{good, bad}); err != nil {
			t.Fatal(err)
		}
		if _, err := load(c, c.origin, file, 0, 1, 1, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the load said %v, want %q", err, want)
		}
	}
}

// TestConfigs: no configuration is left with a word to put in.
func TestConfigs(t *testing.T) {
	c := &config{dir: t.TempDir()}
	known := []string{"{DIR}", "{PORT}", "{TLS}", "{EXTRA}", "{ORIGIN}", "{POOL}", "{CERTS}", "{DISK}"}
	for _, k := range contenders(c) {
		for name, text := range k.files {
			for _, word := range known {
				text = strings.ReplaceAll(text, word, "")
			}
			for line := range strings.Lines(text) {
				if i := strings.IndexByte(line, '{'); i >= 0 && i+1 < len(line) && line[i+1] >= 'A' && line[i+1] <= 'Z' {
					t.Errorf("%s, %s: %q", k.name, name, line)
				}
			}
		}
	}
}

// TestPrintRejects: a round in which a server was not saturated says nothing
// about its capacity.
func TestPrintRejects(t *testing.T) {
	var out strings.Builder
	m := &mix{title: "some", conns: 1}
	servers := []*server{{Server: &pinned.Server{}, name: "perigee"}, {Server: &pinned.Server{}, name: "other"}}
	m.print(&out, &config{rounds: 3, seconds: 2}, servers, map[string][]sample{
		"perigee": {{cost: 4, rate: 9000, busy: 0.5}, {cost: 5, rate: 2000, busy: 0.95}, {cost: 6, rate: 1000, busy: 0.99}},
		"other":   {{cost: 10, rate: 3000, busy: 0.89}},
	})
	got := out.String()
	for _, want := range []string{"| perigee | 5.00 | 4.00–6.00 | – | 1.00 | 2.0k | 0 | 0 | 0.95 |", "| other | 10.00 | 10.00–10.00 | – | 0.50 | – |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
