package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An edge under steady load keeps its descriptors and, when it is watched for
// long enough to tell, its heap.
func TestEdgeSoak(t *testing.T) {
	t.Parallel()
	d := fewSoak
	if text := os.Getenv(envEdgeSoak); text != "" {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", envEdgeSoak, err)
		}
	}
	r := newCrashRig(t, filepath.Join(t.TempDir(), "state"))
	scrape := freeAddr(t)
	config := filepath.Join(r.dir, "perigee.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, string(text)+"[metrics]\nlisten = \""+scrape+"\"\n")
	p := r.start(true)
	const samples = 40
	var heap, files [samples]float64
	r.run(0, func() {
		r.load.dying.Store(false) // it is not: it is watched
		for i := range samples {
			time.Sleep(d / samples)
			heap[i], files[i] = metric(t, scrape, "go_memstats_heap_inuse_bytes"), metric(t, scrape, "process_open_fds")
		}
		r.load.dying.Store(true)
		p.kill()
	})
	r.check(p)
	most := func(of []float64) (m float64) {
		for _, v := range of {
			m = max(m, v)
		}
		return m
	}
	early, late := samples/4, 3*samples/4
	t.Logf("%v: %d answers right, %d hits; heap %.0f MiB, then %.0f MiB; descriptors %.0f, then %.0f", d, r.load.right.Load(), r.load.hits.Load(),
		most(heap[early:late])/(1<<20), most(heap[late:])/(1<<20), most(files[early:late]), most(files[late:]))
	if most(files[late:]) > most(files[early:late])+2*crashClients {
		t.Errorf("descriptors grow: %v", files)
	}
	if d >= time.Minute && most(heap[late:]) > 1.3*most(heap[early:late])+8<<20 {
		t.Errorf("the heap grows: %v", heap)
	}
}

// metric is a metric without labels.
func metric(t *testing.T, addr, name string) float64 {
	for _, line := range strings.Split(httpText(t, "http://"+addr+"/metrics"), "\n") {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Error(err)
			}
			return n
		}
	}
	t.Errorf("no metric %s", name)
	return 0
}
