// Command bench-cache prints hit ratios of the edge's evictors and of two well-kept
// Go libraries on the same seeded traces, and the processor time of a request.
//
//	go run . [-seed 1] [-objects 500000] [-requests 2000000]
//
// Sizes are one each, since golang-lru knows no others; what is new is stored at
// once. The ratio is that of all requests, the cold start included.
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"text/tabwriter"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/maypok86/otter/v2"

	"perigee.example/internal/evict"
)

// contender is a cache that is asked for a key, and stores what it missed.
type contender interface{ ask(key uint64) (hit bool) }

func main() {
	seed := flag.Uint64("seed", 1, "of the traces")
	objects := flag.Int("objects", 500_000, "how many there are")
	requests := flag.Int("requests", 2_000_000, "of each trace")
	flag.Parse()
	if err := run(*seed, *objects, *requests); err != nil {
		fmt.Fprintln(os.Stderr, "bench-cache:", err)
		os.Exit(1)
	}
}

func run(seed uint64, objects, requests int) error {
	fmt.Printf("seed %d, %d objects, %d requests a trace; hit ratio (ns of CPU a request)\n\n", seed, objects, requests)
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "| trace\t| room\t| S3-FIFO (ours)\t| LRU (ours)\t| golang-lru 2.0.7\t| otter 2.4.0\t|")
	fmt.Fprintln(w, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|")
	for _, t := range traces {
		keys := t.make(rand.New(rand.NewPCG(seed, 1)), objects, requests)
		for _, percent := range []int{1, 10} {
			capacity := objects * percent / 100
			fmt.Fprintf(w, "| %s\t| %d %%\t", t.name, percent)
			for _, make := range []func(int) (contender, error){newOurs(evict.S3FIFO), newOurs(evict.LRU), newHashicorp, newOtter} {
				c, err := make(capacity)
				if err != nil {
					return err
				}
				ratio, ns := measure(c, keys)
				fmt.Fprintf(w, "| %.3f (%.0f)\t", ratio, ns)
			}
			fmt.Fprintln(w, "|")
			w.Flush()
		}
	}
	return nil
}

func measure(c contender, keys []uint64) (ratio, ns float64) {
	hits := 0
	before := cpu()
	for _, k := range keys {
		if c.ask(k) {
			hits++
		}
	}
	n := float64(len(keys))
	return float64(hits) / n, (cpu() - before) / n
}

// cpu is the processor time of the process, in nanoseconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// traces are what caches of web pages see, each made of one random stream.
var traces = []struct {
	name string
	make func(r *rand.Rand, objects, requests int) []uint64
}{
	{"Zipf 0.9", func(r *rand.Rand, objects, requests int) []uint64 {
		z := newZipf(objects)
		keys := make([]uint64, requests)
		for i := range keys {
			keys[i] = z.draw(r)
		}
		return keys
	}},
	{"Zipf 0.9 with scans", func(r *rand.Rand, objects, requests int) []uint64 {
		z := newZipf(objects)
		keys := make([]uint64, 0, requests)
		next := uint64(objects) + 1
		for len(keys) < requests {
			for range 50_000 {
				keys = append(keys, z.draw(r))
			}
			for range 20_000 { // somebody crawls the site, page by page, once
				keys = append(keys, next)
				next++
			}
		}
		return keys[:requests]
	}},
	{"Zipf 0.9, half once", func(r *rand.Rand, objects, requests int) []uint64 {
		z := newZipf(objects)
		keys := make([]uint64, requests)
		next := uint64(objects) + 1
		for i := range keys {
			if r.IntN(2) == 0 {
				keys[i] = z.draw(r)
			} else {
				keys[i] = next
				next++
			}
		}
		return keys
	}},
	{"popularity shifts 4 times", func(r *rand.Rand, objects, requests int) []uint64 {
		z := newZipf(objects)
		keys := make([]uint64, requests)
		for i := range keys {
			era := uint64(i * 4 / requests)
			keys[i] = 1 + (z.draw(r)*2654435761+era*uint64(objects)/4)%uint64(objects)
		}
		return keys
	}},
}

// zipf draws 1 to n, the k-th with a weight of k^-0.9.
type zipf struct{ sums []float64 }

func newZipf(n int) *zipf {
	z := &zipf{make([]float64, n)}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -0.9)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) draw(r *rand.Rand) uint64 {
	i, _ := slices.BinarySearch(z.sums, r.Float64()*z.sums[len(z.sums)-1])
	return uint64(min(i, len(z.sums)-1)) + 1
}

// ours is the edge's evictor over a Go map.
type ours struct {
	q        *evict.Queues
	capacity int
	ids      map[uint64]uint32
	keys     []uint64 // by id
	free     []uint32
}

func newOurs(p evict.Policy) func(int) (contender, error) {
	return func(capacity int) (contender, error) {
		c := &ours{q: evict.New(p), capacity: capacity, ids: make(map[uint64]uint32, capacity), keys: make([]uint64, capacity+2)}
		c.q.Group(int64(capacity))
		for id := capacity; id > 0; id-- {
			c.free = append(c.free, uint32(id))
		}
		return c, nil
	}
}

func (c *ours) ask(key uint64) bool {
	if id, ok := c.ids[key]; ok {
		if c.q.Moves() {
			c.q.Use(id)
		} else {
			c.q.Touch(id)
		}
		return true
	}
	if len(c.free) == 0 {
		id, _ := c.q.Victim(0)
		c.q.Remove(id)
		delete(c.ids, c.keys[id])
		c.free = append(c.free, id)
	}
	id := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	h := key * 0x9e3779b97f4a7c15
	c.q.Add(id, 0, 1, h^h>>29)
	c.ids[key], c.keys[id] = id, key
	return false
}

type hashicorp struct{ c *lru.Cache[uint64, struct{}] }

func newHashicorp(capacity int) (contender, error) {
	c, err := lru.New[uint64, struct{}](capacity)
	return &hashicorp{c}, err
}

func (h *hashicorp) ask(key uint64) bool {
	if _, ok := h.c.Get(key); ok {
		return true
	}
	h.c.Add(key, struct{}{})
	return false
}

type otterCache struct{ c *otter.Cache[uint64, uint64] }

func newOtter(capacity int) (contender, error) {
	c, err := otter.New(&otter.Options[uint64, uint64]{MaximumSize: capacity})
	return &otterCache{c}, err
}

func (o *otterCache) ask(key uint64) bool {
	if _, ok := o.c.GetIfPresent(key); ok {
		return true
	}
	o.c.Set(key, key)
	return false
}
