package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"perigee.example/bench/pinned"
)

// server is one contender.
type server struct {
	name string
	note string   // beside its name in the table
	mix  []string // what it answers; nil is everything that is not steered
	port int
	*pinned.Server
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

// startAll starts every contender that is installed and wanted, and waits until
// each answers.
func startAll(c *config) ([]*server, error) {
	var running []*server
	for _, k := range contenders(c) {
		if k.program == "" || len(c.only) > 0 && !slices.Contains(c.only, k.name) || !k.wanted(c.mixes) {
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
	port, err := pinned.FreePort()
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
	if _, own := k.files["perigee.toml"]; own {
		if err := os.Chmod(filepath.Join(dir, "state"), 0o700); err != nil {
			return nil, err
		}
	}
	args := []string{"env", fmt.Sprintf("GOMAXPROCS=%d", max(k.threads, 1)), k.program}
	for _, a := range k.args {
		args = append(args, fill.Replace(a))
	}
	run, err := pinned.Start(dir, filepath.Join(c.dir, k.name+".log"), false, args...)
	if err != nil {
		return nil, err
	}
	return &server{name: k.name, note: k.note, mix: k.mix, port: port, Server: run}, nil
}
