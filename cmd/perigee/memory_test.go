package main

import (
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"perigee.example/internal/config"
)

// TestLimitHeap (F13): the Go heap gets nine tenths of what the store leaves, of
// the machine or of the control group; a store that leaves too little is refused
// with where it is written and what to write.
func TestLimitHeap(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	parse := func(memory string) (*config.Config, *config.Edge) {
		cfg, err := config.Parse("perigee.toml", []byte("version = 1\n[cache]\nmemory = \""+memory+"\"\n[edge.fra1]\naddresses = [\"192.0.2.1\"]\nlisten = [\"192.0.2.1:80\"]\n"), "")
		if err != nil {
			t.Fatal(err)
		}
		return cfg, cfg.Edge("fra1")
	}
	root := fstest.MapFS{
		"proc/meminfo":     {Data: []byte("MemTotal: 8388608 kB\nMemAvailable: 8000000 kB\n")},
		"proc/self/cgroup": {Data: []byte("4:memory:/perigee\n")},
		"sys/fs/cgroup/memory/perigee/memory.limit_in_bytes": {Data: []byte("1073741824\n")},
		"sys/fs/cgroup/memory/perigee/memory.usage_in_bytes": {Data: []byte("1000\n")},
	}
	cfg, e := parse("512MiB")
	if err := limitHeap(cfg, e, root); err != nil {
		t.Fatal(err)
	}
	if got := debug.SetMemoryLimit(-1); got>>20 != 460 {
		t.Errorf("the heap may take %d MiB", got>>20)
	}
	cfg, e = parse("900MiB")
	err := limitHeap(cfg, e, root)
	if err == nil {
		t.Fatal("900 of 1024 MiB are taken")
	}
	for _, want := range []string{"perigee.toml:3", "cache.memory", "111 MiB of 1024 MiB (/sys/fs/cgroup/memory/perigee/memory.limit_in_bytes)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if ce, ok := err.(*config.Error); !ok || !strings.Contains(ce.Hint, "write 739MiB at most") {
		t.Errorf("hint: %+v", err)
	}
	cfg, e = parse("739MiB")
	if err := limitHeap(cfg, e, root); err != nil {
		t.Errorf("what the hint says is refused: %v", err)
	}
	if err := limitHeap(cfg, e, fstest.MapFS{}); err != nil {
		t.Errorf("where nothing is known: %v", err)
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	cfg, e = parse("900MiB")
	if err := limitHeap(cfg, e, root); err != nil {
		t.Errorf("with GOMEMLIMIT: %v", err)
	}
}
