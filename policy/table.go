package policy

import (
	"math/bits"
	"runtime"
	"slices"

	"perigee.example/internal/bigmem"
)

const (
	// topBits is how many leading bits of a unit find its bucket: arrays of
	// 256 KiB, of which the networks in use touch a part.
	topBits = 16

	// oneBlock marks the head of a bucket that lies in one block, crowded that of
	// one with an index. The low cellBits of a head are those of a cell, or say
	// where; what is between counts.
	oneBlock = 1 << 31
	crowded  = 1 << 30
	cellBits = 24

	// perStep is how many blocks of a bucket share an entry of its index, and how
	// many it has without one: of IPv4 a line of the cache.
	perStep = 16

	// maxWalk bounds the blocks that are looked at, one by one, to find what
	// covers most of a client that is larger than they are. Beyond, it is
	// known before.
	maxWalk = 32
)

// table is the blocks of one family in address order, packed into cells:
//
//	the unit at which the block begins, without its topBits | its length (8 bits) | its region (16 bits)
//
// so that of IPv4 a block takes 4 octets, of IPv6 8, and the few cells that a
// search compares lie in one or two lines of the cache. It holds no pointers
// but those of its slices.
//
// Blocks are aligned to their size. So a bucket, which is all units with the
// same topBits, lies in one block whole, or begins with one of its own.
type table[C uint32 | uint64] struct {
	// heads is by topBits. Of a bucket that lies in one block it has oneBlock and
	// that block's length and region, as a cell: of countries' IPv4 seven in eight
	// do, and a client in one is found in this array alone. Of one with up to
	// perStep cells it has how many, and the first. Of any other it has crowded,
	// its stepBits, and the first entry in steps.
	heads []uint32
	cells []C
	first []uint32 // by topBits, and one more: the first cell that begins there or behind
	steps []uint32 // see makeSteps
	wide  []wide   // by middle

	memory *memory // of all but wide; nil when it is Go's
}

// memory owns a region. Who reads the table keeps the atlas that it is part of
// (runtime.KeepAlive), and so this.
type memory struct{ region *bigmem.Region }

// hugePage is the size of one. A table that would not fill half of one stays where it is.
const hugePage = 2 << 20

// settle moves a table to huge pages, where the system has them to give: a client
// is found by some four lines of the cache on as many pages, far apart, and with
// small ones the processor mostly has to look each page up first.
func (t *table[C]) settle() {
	size := 4*(len(t.heads)+len(t.first)+len(t.steps)) + t.cellSize()*len(t.cells)
	if size < hugePage/2 {
		return
	}
	r, err := bigmem.Reserve((size+hugePage-1)&^(hugePage-1), true)
	if err != nil {
		return // small pages do as well
	}
	rest := r.Bytes()
	take := func(n int) []byte {
		b := rest[:n:n]
		rest = rest[n:]
		return b
	}
	cells := bigmem.Words[C](take(t.cellSize() * len(t.cells)))
	copy(cells, t.cells)
	t.cells = cells
	for _, list := range [...]*[]uint32{&t.heads, &t.first, &t.steps} {
		words := bigmem.Words[uint32](take(4 * len(*list)))
		copy(words, *list)
		*list = words
	}
	t.memory = &memory{r}
	runtime.AddCleanup(t.memory, func(r *bigmem.Region) { r.Free() }, r)
}

// cellSize is the octets of a cell.
func (t *table[C]) cellSize() int { return bits.Len64(uint64(^C(0))) / 8 }

// wide is an inner node of the binary trie of blocks with more than maxWalk
// blocks below it. Its two halves meet where a block begins, and at no other
// node's middle: the blocks cover the whole space.
type wide struct {
	middle uint32 // that block
	mostly uint16 // the region that covers most of it
	deep   uint8  // the length of the longest block in it
}

// rest is the number of bits of a unit behind topBits.
func (f family) rest() int { return f.maxBits - topBits }

// shift is where in a cell the start of its block stands.
func (t *table[C]) shift(f family) int { return bits.Len64(uint64(^C(0))) - f.rest() }

func newTable[C uint32 | uint64](f family, runs []run[uint16], blocks, regions int) table[C] {
	t := table[C]{heads: make([]uint32, 1<<topBits), cells: make([]C, 0, blocks), first: make([]uint32, 1<<topBits+1)}
	shift, next, last := t.shift(f), 0, 0 // the first bucket without its first cell, and that of the cell before
	cut(f, runs, func(start uint64, length int, region uint16) {
		if top := int(start >> f.rest()); top >= next {
			t.makeSteps(f, last)
			fill(t.first[next:top+1], uint32(len(t.cells)))
			next, last = top+1, top
		}
		t.cells = append(t.cells, C(start&(1<<f.rest()-1))<<shift|C(length)<<16|C(region))
	})
	t.makeSteps(f, last)
	fill(t.first[next:], uint32(len(t.cells)))
	for i := range t.heads {
		switch n := t.first[i+1] - t.first[i]; {
		case n <= 1: // one cell is of the whole bucket, none of a larger block
			t.heads[i] = oneBlock | uint32(t.cells[t.first[i+1]-1])&(1<<cellBits-1)
		case n <= perStep:
			t.heads[i] = n<<cellBits | t.first[i]
		}
	}
	s := summary[C]{t: &t, f: f, at: make([]uint32, regions)}
	s.node(0, len(t.cells), 0, 0)
	t.wide = s.wide
	slices.SortFunc(t.wide, func(a, b wide) int { return int(a.middle) - int(b.middle) })
	t.settle()
	return t
}

// fill sets all of list. Of a small world most of the table is made here.
func fill(list []uint32, value uint32) {
	if len(list) == 0 {
		return
	}
	list[0] = value
	for n := 1; n < len(list); n *= 2 {
		copy(list[n:], list[:n])
	}
}

// stepBits is how many bits behind topBits the index of a bucket of n blocks
// has entries for; 0 for none.
func (f family) stepBits(n uint32) int { return min(bits.Len32((n-1)/perStep), f.rest()) }

// makeSteps makes the entries of steps for a bucket that has all its cells, the
// last ones so far: for each value of the next stepBits, the first cell that begins
// there or behind it.
func (t *table[C]) makeSteps(f family, bucket int) {
	at, end := t.first[bucket], uint32(len(t.cells))
	if end-at <= perStep {
		return
	}
	shift, k := t.shift(f), f.stepBits(end-at)
	t.heads[bucket] = crowded | uint32(k)<<cellBits | uint32(len(t.steps))
	for v := range uint64(1) << k {
		for at < end && uint64(t.cells[at]>>shift) < v<<(f.rest()-k) {
			at++
		}
		t.steps = append(t.steps, at)
	}
	t.steps = append(t.steps, end)
}

// find returns the cell of the block that holds unit u.
func (t *table[C]) find(f family, u uint64) int {
	top, low := u>>f.rest(), u&(1<<f.rest()-1)
	head := t.heads[top]
	lo, count := head&(1<<cellBits-1), head>>cellBits
	hi := lo + count
	switch {
	case head >= oneBlock:
		return int(t.first[top+1]) - 1
	case head >= crowded:
		at := lo + uint32(low>>(f.rest()-int(count&^(crowded>>cellBits))))
		lo, hi = t.steps[at], t.steps[at+1]
	}
	// Before the first cell that begins behind u. Halving would guess wrong at each
	// second step, so it does not branch: a borrow is a cell that begins behind u.
	above := low<<t.shift(f) | (1<<24 - 1)
	for n := hi - lo; n > 0; {
		half := (n + 1) / 2
		_, behind := bits.Sub64(above, uint64(t.cells[lo+half-1]), 0)
		lo += half &^ -uint32(behind)
		n -= half
	}
	return int(lo) - 1
}

func (t *table[C]) locate(f family, u uint64, length int) area {
	if head := t.heads[u>>f.rest()]; head >= oneBlock {
		if own := int(uint8(head >> 16)); length >= own {
			return area{region: uint16(head), scope: own, start: u &^ (f.size(own) - 1), length: own}
		}
	}
	at := t.find(f, u)
	cell := t.cells[at]
	if own := int(uint8(cell >> 16)); length >= own {
		return area{region: uint16(cell), scope: own, start: u &^ (f.size(own) - 1), length: own}
	}
	region, deep := t.most(f, at, u, length)
	return area{region: region, scope: deep, start: u, length: length}
}

// most returns the region that covers most of a client that is larger than the
// blocks in it, of which the first is cells[at], and the length of the longest.
// On a tie it is the region that comes first in address order.
func (t *table[C]) most(f family, at int, u uint64, length int) (region uint16, deep int) {
	end := t.find(f, u+f.size(length)-1) + 1
	if end-at > maxWalk {
		middle := uint32(t.find(f, u+f.size(length+1)))
		i, _ := slices.BinarySearchFunc(t.wide, middle, func(w wide, middle uint32) int { return int(w.middle) - int(middle) })
		return t.wide[i].mostly, int(t.wide[i].deep)
	}
	var met [maxWalk]struct {
		region uint16
		cover  uint64
	}
	n := 0
	for _, cell := range t.cells[at:end] {
		own := int(uint8(cell >> 16))
		deep = max(deep, own)
		i := 0
		for i < n && met[i].region != uint16(cell) {
			i++
		}
		if i == n {
			met[i].region = uint16(cell)
			n++
		}
		met[i].cover += f.size(own)
	}
	best := met[0]
	for _, m := range met[1:n] {
		if m.cover > best.cover {
			best = m
		}
	}
	return best.region, deep
}

// summary finds the wide nodes of a table. Every node has what its halves have,
// so no block is looked at more than once.
type summary[C uint32 | uint64] struct {
	t    *table[C]
	f    family
	list []cover  // of nodes whose other half is still to come, one behind the other
	at   []uint32 // by region: its place in list + 1, while a node is summed up
	wide []wide
}

// cover is how many units of a node a region has. The regions of a node stand in
// address order.
type cover struct {
	region uint16
	units  uint64
}

// node sums up the node whose blocks are cells[lo:hi] at the end of list, and
// returns the length of the longest block in it.
func (s *summary[C]) node(lo, hi int, start uint64, length int) (deep int) {
	base := len(s.list)
	if hi-lo <= maxWalk {
		for _, cell := range s.t.cells[lo:hi] {
			own := int(uint8(cell >> 16))
			deep = max(deep, own)
			s.add(cover{uint16(cell), s.f.size(own)})
		}
		s.forget(base)
		return deep
	}
	middle := start + s.f.size(length+1)
	split := s.t.find(s.f, middle)
	deep = s.node(lo, split, start, length+1)
	half := len(s.list)
	deep = max(deep, s.node(split, hi, middle, length+1))
	second := s.list[half:]
	s.list = s.list[:half]
	for i, c := range s.list[base:] {
		s.at[c.region] = uint32(base + i + 1)
	}
	for _, c := range second { // which lies where add may write, but never before it
		s.add(c)
	}
	s.forget(base)
	best := s.list[base]
	for _, c := range s.list[base:] {
		if c.units > best.units {
			best = c
		}
	}
	s.wide = append(s.wide, wide{middle: uint32(split), mostly: best.region, deep: uint8(deep)})
	return deep
}

// add adds units to the node that is being summed up.
func (s *summary[C]) add(c cover) {
	if at := s.at[c.region]; at > 0 {
		s.list[at-1].units += c.units
		return
	}
	s.list = append(s.list, c)
	s.at[c.region] = uint32(len(s.list))
}

// forget ends the summing up of the node whose list begins at base.
func (s *summary[C]) forget(base int) {
	for _, c := range s.list[base:] {
		s.at[c.region] = 0
	}
}
