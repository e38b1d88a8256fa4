package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"perigee.example/internal/config"
	"perigee.example/internal/sysmem"
)

const (
	// minHeap is what must be left beside the store of an edge for all else:
	// connections, sites, releases, the feed. A fleet's edge takes some 60 MiB, and
	// a thousand misses at once as much again.
	minHeap = 256 << 20
	// pressureEvery is how often an edge looks at what memory is left. A burst of
	// a second is within what the kernel can take from caches of files.
	pressureEvery = time.Second
)

// heapLimit is what the Go heap may take beside an edge's store: nine tenths of
// what is left, since the kernel's side of connections needs some too. 0 is that
// nobody knows.
func heapLimit(m sysmem.Memory, store int64) (int64, bool) {
	if m.Total == 0 {
		return 0, true
	}
	limit := (m.Total - store) / 10 * 9
	return limit, limit >= minHeap
}

// limitHeap tells the collector what the Go heap may take (GOMEMLIMIT, which
// wins if it is set), or refuses a store that leaves too little for it.
func limitHeap(cfg *config.Config, c *config.Edge, root fs.FS) error {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	m := sysmem.Read(root)
	limit, enough := heapLimit(m, c.CacheMemory)
	if !enough {
		path := "edge." + c.Name + ".cache.memory"
		if c.CacheMemory == cfg.Cache.Memory {
			path = "cache.memory"
		}
		most := (m.Total - minHeap/9*10) >> 20
		hint := fmt.Sprintf("write %dMiB at most, or set GOMEMLIMIT to what the rest may take", most)
		if most < 1 {
			hint = "an edge needs a machine, or a control group, with more memory"
		}
		return cfg.ErrorAt(path, fmt.Sprintf("a store of %d MiB leaves %d MiB of %d MiB (%s) for all else: %d MiB are needed",
			c.CacheMemory>>20, max(0, limit>>20), m.Total>>20, m.Source, minHeap>>20), hint)
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit)
	}
	return nil
}

// yield gives memory of the store back while the system is short of it.
func (p *edgePart) yield(ctx context.Context, budget int64, root fs.FS) error {
	pressure, now := sysmem.NewPressure(budget), budget
	tick := time.NewTicker(pressureEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m := sysmem.Read(root)
		next := pressure.Next(m, time.Now())
		if next == now {
			continue
		}
		switch {
		case now == budget:
			p.s.log.Warn("memory is short: the edge's store gives some back", "edge", p.name, "available", m.Available, "of", m.Total, "by", m.Source, "store", next)
		case next == budget:
			p.s.log.Info("memory is there again: the edge's store may use all of its own", "edge", p.name, "available", m.Available)
		}
		p.edge.SetMemory(next)
		now = next
	}
}
