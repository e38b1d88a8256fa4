package evict

const (
	ghostWays = 8 // places of one bucket: a line of the processor's cache
	minGhosts = 1 << 10
)

// ghost remembers the hashes of objects that lately left a small queue: as many
// as there are objects. A place is 32 bits of a hash and when it came, in
// buckets of ghostWays, of which the oldest makes way. In some 2^-13 of cases a
// stranger passes for known, which only costs the small queue.
type ghost struct {
	slots []uint64 // hash<<32 | time; 0 is empty
	now   uint32
	keep  uint32 // how many additions a hash is remembered for
}

func (g *ghost) bucket(fp uint32) []uint64 {
	n := uint32(len(g.slots) / ghostWays)
	i := fp % n * ghostWays
	return g.slots[i : i+ghostWays]
}

func fingerprint(hash uint64) uint32 { return uint32(hash>>32) ^ uint32(hash) }

// add remembers a hash, of count objects that there are.
func (g *ghost) add(hash uint64, count int) {
	g.keep = uint32(max(count, minGhosts))
	if int(g.keep) > len(g.slots)*3/4 {
		g.grow()
	}
	g.now++
	g.put(uint64(fingerprint(hash))<<32 | uint64(g.now))
}

func (g *ghost) put(slot uint64) {
	b := g.bucket(uint32(slot >> 32))
	oldest := 0
	for i, s := range b {
		if s == 0 || s>>32 == slot>>32 {
			oldest = i
			break
		}
		if g.now-uint32(s) > g.now-uint32(b[oldest]) {
			oldest = i
		}
	}
	b[oldest] = slot
}

// grow makes room for twice as many, and keeps what there is.
func (g *ghost) grow() {
	old := g.slots
	g.slots = make([]uint64, max(2*len(old), 2*minGhosts))
	for _, s := range old {
		if s != 0 {
			g.put(s)
		}
	}
}

// take reports whether a hash is remembered, and forgets it.
func (g *ghost) take(hash uint64) bool {
	if len(g.slots) == 0 {
		return false
	}
	fp := fingerprint(hash)
	b := g.bucket(fp)
	for i, s := range b {
		if s != 0 && uint32(s>>32) == fp {
			b[i] = 0
			return g.now-uint32(s) < g.keep
		}
	}
	return false
}
