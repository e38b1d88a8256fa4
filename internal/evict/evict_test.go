package evict

import (
	"container/list"
	"math/rand/v2"
	"testing"
)

// cache is a whole cache of numbers, by octets.
type cache struct {
	q        *Queues
	capacity int64
	bytes    int64
	ids      map[uint64]uint32
	keys     map[uint32]uint64
	free     []uint32
	last     uint32
	group    uint32
}

func newCache(p Policy, capacity int64) *cache {
	c := &cache{q: New(p), capacity: capacity, ids: map[uint64]uint32{}, keys: map[uint32]uint64{}}
	c.group = c.q.Group(capacity)
	return c
}

func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// ask reports a hit, and stores what was missed.
func (c *cache) ask(key uint64, size int64) bool {
	if id, ok := c.ids[key]; ok {
		if c.q.Moves() {
			c.q.Use(id)
		} else {
			c.q.Touch(id)
		}
		return true
	}
	for c.bytes+size > c.capacity {
		id, ok := c.q.Victim(c.group)
		if !ok {
			return false
		}
		c.remove(id)
	}
	id := c.last + 1
	if n := len(c.free); n > 0 {
		id, c.free = c.free[n-1], c.free[:n-1]
	} else {
		c.last = id
	}
	c.q.Add(id, c.group, size, mix(key))
	c.ids[key], c.keys[id] = id, key
	c.bytes += size
	return false
}

func (c *cache) remove(id uint32) {
	c.bytes -= c.q.Size(id)
	c.q.Remove(id)
	delete(c.ids, c.keys[id])
	delete(c.keys, id)
	c.free = append(c.free, id)
}

// check walks the queues: each object is in one, once, and the sums agree.
func (c *cache) check(t *testing.T) {
	t.Helper()
	seen := 0
	g := &c.q.groups[c.group]
	for in, l := range map[uint8]*queue{inSmall: &g.small, inMain: &g.main} {
		var sum int64
		prev := uint32(0)
		for id := l.head; id != 0; id = c.q.at(id).next {
			n := c.q.at(id)
			if n.in != in || n.prev != prev || c.keys[id] == 0 {
				t.Fatalf("id %d: in %d, not %d; before it %d, not %d", id, n.in, in, n.prev, prev)
			}
			sum += n.size
			seen++
			prev = id
		}
		if prev != l.tail || sum != l.bytes {
			t.Fatalf("the last is %d, not %d; %d octets, %d counted", prev, l.tail, sum, l.bytes)
		}
	}
	if seen != len(c.ids) || c.q.count != seen || c.q.Bytes(c.group) != c.bytes || c.bytes > c.capacity {
		t.Fatalf("%d objects in queues, %d known, %d counted; %d octets of %d", seen, len(c.ids), c.q.count, c.bytes, c.capacity)
	}
}

// TestQueues: whatever is asked for and removed, the queues hold together.
func TestQueues(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		c := newCache(Policy(seed%2), 20_000)
		for range 5000 {
			key := 1 + uint64(rng.ExpFloat64()*50)
			if id, ok := c.ids[key]; ok && rng.IntN(20) == 0 {
				st := c.q.Standing(id)
				c.remove(id)
				c.ask(key, 1+rng.Int64N(1000))
				c.q.Set(c.ids[key], st)
				if c.q.Standing(c.ids[key]) != st {
					t.Fatal("what replaces another does not stand as it did")
				}
				continue
			}
			c.ask(key, 1+rng.Int64N(1000))
		}
		c.check(t)
		for {
			id, ok := c.q.Victim(c.group)
			if !ok {
				break
			}
			c.remove(id)
		}
		c.check(t)
		if c.bytes != 0 {
			t.Errorf("seed %d: %d octets are left", seed, c.bytes)
		}
	}
}

// TestLRU: hits and misses are those of a plain list.
func TestLRU(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	c := newCache(LRU, 100)
	order, at := list.New(), map[uint64]*list.Element{}
	for i := range 20_000 {
		key := 1 + uint64(rng.ExpFloat64()*80)
		e, want := at[key]
		if want {
			order.MoveToFront(e)
		} else {
			at[key] = order.PushFront(key)
			if order.Len() > 100 {
				delete(at, order.Remove(order.Back()).(uint64))
			}
		}
		if got := c.ask(key, 1); got != want {
			t.Fatalf("request %d for %d: hit %v, want %v", i, key, got, want)
		}
	}
}

// TestScan: with S3-FIFO what is used survives any number of objects that are
// asked for once; and what comes back soon is in the main queue at once.
func TestScan(t *testing.T) {
	c := newCache(S3FIFO, 100)
	for range 2 {
		for key := range uint64(50) {
			c.ask(1+key, 1)
		}
	}
	for key := range uint64(100_000) {
		c.ask(1000+key, 1)
	}
	for key := range uint64(50) {
		if !c.ask(1+key, 1) {
			t.Errorf("%d was driven out by a scan", 1+key)
		}
	}
	back := uint64(1000 + 100_000 - 70) // it left the small queue a moment ago
	if c.ask(back, 1) || c.q.Standing(c.ids[back]).in != inMain {
		t.Error("what comes back is not known")
	}
	if c.ask(1005, 1) || c.q.Standing(c.ids[1005]).in != inSmall {
		t.Error("what left long ago still counts as known")
	}
}

// TestChancesAreBounded: when all is in use one insertion does not look at all.
func TestChancesAreBounded(t *testing.T) {
	c := newCache(S3FIFO, 100_000)
	for range 5 {
		for key := range uint64(100_000) {
			c.ask(1+key, 1)
		}
	}
	oldest := c.q.groups[0].small.tail
	if id, ok := c.q.Victim(0); !ok || id > oldest+maxChances {
		t.Errorf("the victim is number %d of 100,000", id)
	}
	c.check(t)
}

// TestGhost: hashes are known as long as there are objects, whatever grows.
func TestGhost(t *testing.T) {
	var g ghost
	const n = 50_000
	for i := range uint64(n) {
		g.add(mix(i), int(i))
	}
	known := 0
	for i := range uint64(n) {
		if g.take(mix(i)) {
			known++
		}
	}
	if known < n*9/10 {
		t.Errorf("%d of %d are known", known, n)
	}
	strangers := 0
	for i := range uint64(n) {
		g.add(mix(i), n)
		if g.take(mix(i + 1<<40)) {
			strangers++
		}
	}
	if strangers > n/500 {
		t.Errorf("%d of %d strangers are known", strangers, n)
	}
}

func BenchmarkAsk(b *testing.B) {
	c := newCache(S3FIFO, 10_000)
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.01, 1, 1<<20)
	for b.Loop() {
		c.ask(1+z.Uint64(), 1)
	}
}
