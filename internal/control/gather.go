package control

import (
	"encoding/json"
	"sync"
	"time"

	"perigee.example/feed"
)

const (
	// maxShared bounds the purges that share an entry of the log.
	maxShared = 1000
	// maxSharedBytes bounds their JSON: an entry's other fields need a few
	// hundred bytes beside it.
	maxSharedBytes = feed.MaxEntryBytes - 1<<10
	// gatherFor is how long after the beginning of an entry that several callers
	// shared the next one begins, if it is not full before. Every entry costs
	// each node a sync of its disk, so callers in a crowd share theirs.
	gatherFor = 5 * time.Millisecond
)

// gather lets purges that come at the same time share entries of the log: one
// entry is being written while the next one fills. A caller alone never waits
// for others: only after an entry that several callers shared does the next one
// stay open for a moment.
//
// An entry is on the log whole or not at all, and nobody is told before it is:
// a crash leaves all of its purges acknowledged-to-be, or none.
type gather struct {
	// write appends one entry of these purges and returns its number.
	write func(kind string, body any) (seq uint64, err error)

	mu      sync.Mutex
	waiting []*gathered
	bytes   int           // of waiting
	running bool          // a goroutine writes what is waiting
	full    chan struct{} // one token when waiting fills an entry
}

// gathered is one purge on its way to the log.
type gathered struct {
	body   json.RawMessage
	caller *caller
	seq    uint64
}

// caller waits for all of its purges.
type caller struct {
	left int
	err  error // the first of its purges that failed
	done chan struct{}
}

func newGather(write func(kind string, body any) (uint64, error)) *gather {
	return &gather{write: write, full: make(chan struct{}, 1)}
}

// submit puts purges on the log, in their order, and returns the number of the
// entry that each is in. When it fails some may be there: purging again does no harm.
func (g *gather) submit(ps []Purge) ([]uint64, error) {
	c := &caller{left: len(ps), done: make(chan struct{})}
	items := make([]*gathered, len(ps))
	for i := range ps {
		body, err := json.Marshal(&ps[i])
		if err != nil {
			return nil, err
		}
		items[i] = &gathered{body: body, caller: c}
	}
	if len(items) == 0 {
		return nil, nil
	}
	g.mu.Lock()
	for _, it := range items {
		g.bytes += len(it.body) + 1
	}
	g.waiting = append(g.waiting, items...)
	if g.isFull() {
		select {
		case g.full <- struct{}{}:
		default:
		}
	}
	if !g.running {
		g.running = true
		go g.run()
	}
	g.mu.Unlock()
	<-c.done
	seqs := make([]uint64, len(items))
	for i, it := range items {
		seqs[i] = it.seq
	}
	return seqs, c.err
}

// isFull is called with mu held.
func (g *gather) isFull() bool { return len(g.waiting) >= maxShared || g.bytes >= maxSharedBytes }

// run writes entries until nothing is waiting.
func (g *gather) run() {
	shared, begun := false, time.Time{}
	for {
		if shared {
			g.linger(begun.Add(gatherFor))
		}
		g.mu.Lock()
		batch := g.next()
		if len(batch) == 0 {
			g.running = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		begun = time.Now()
		seq, err := g.write(entryOf(batch))
		shared = false
		for _, it := range batch {
			shared = shared || it.caller != batch[0].caller
			it.seq = seq
			if it.caller.err == nil {
				it.caller.err = err
			}
			if it.caller.left--; it.caller.left == 0 {
				close(it.caller.done)
			}
		}
	}
}

// linger waits until then, or until an entry is full.
func (g *gather) linger(until time.Time) {
	g.mu.Lock()
	full := g.isFull()
	g.mu.Unlock()
	if full {
		return
	}
	select {
	case <-g.full: // of an entry that is written by now
	default:
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.full:
	}
}

// next takes what fits into one entry off what is waiting. Called with mu held.
func (g *gather) next() []*gathered {
	n, bytes := 0, 0
	for n < len(g.waiting) && n < maxShared && (n == 0 || bytes+len(g.waiting[n].body)+1 <= maxSharedBytes) {
		bytes += len(g.waiting[n].body) + 1
		n++
	}
	batch := g.waiting[:n:n]
	g.bytes -= bytes
	if g.waiting = g.waiting[n:]; len(g.waiting) == 0 {
		g.waiting = nil
	}
	return batch
}

// entryOf is the entry for a batch: one purge alone is an entry of its own kind.
func entryOf(batch []*gathered) (kind string, body any) {
	if len(batch) == 1 {
		return KindPurge, batch[0].body
	}
	bodies := make([]json.RawMessage, len(batch))
	for i, it := range batch {
		bodies[i] = it.body
	}
	return KindPurges, map[string]any{"purges": bodies}
}
