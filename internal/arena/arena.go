// Package arena holds octets that many read and one writes, outside of the Go
// heap: bodies of a cache. Its memory is one region of slabs, carved into
// blocks by halves (a buddy system). An Extent is a chain of blocks that are
// read one after the other, so that any free blocks serve a body of any size,
// and nothing is refused for want of one long piece.
//
// Contract: an extent has owners, the one who made it first. Retain adds one,
// Release takes one away, and the last Release gives the blocks to others. Who
// holds no ownership reads nothing: what a slice shows then is another's. Each
// owner releases once; one that never does keeps its blocks for good (Stats
// shows them), and one that does twice takes them from another, for which the
// arena panics where it sees it.
//
// The kernel can be given octets by reference (Lend), so that it sends them
// without a copy of its own. Nothing says when it, or who received them on this
// machine, has let go: so the pages of what was lent are never written again.
// When the last owner has released, a goroutine gives the mapping other pages
// before the blocks are another's; those that were lent live as long as the kernel
// has use for them.
//
// First touch of a page costs ten microseconds on some machines, so slabs are
// touched ahead of demand by a goroutine that lives as long as there is
// something to touch; nobody waits for it. Whole free slabs can be given back
// to the system (GiveBack). Where memory cannot be mapped, slabs are Go memory.
package arena

import (
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"perigee.example/internal/bigmem"
)

const (
	// Unit is the smallest block: an extent takes less than one more than its size.
	Unit = 512
	// SlabBytes is the largest block: a slice of a large file is one.
	SlabBytes = 1 << 20
	slabUnits = SlabBytes / Unit
	maxOrder  = 11 // 1<<maxOrder units are a slab
	// hugeFrom is the size from which huge pages are asked for: a smaller arena
	// would take more memory than it holds.
	hugeFrom  = 64 << 20
	pageSize  = 4 << 10
	pageOrder = 3 // 1<<pageOrder units are a page
	// LendFrom is the size from which extents are made of whole pages, so that
	// they can be lent: that is at most a sixteenth more.
	LendFrom = 64 << 10
	// aheadShare is the part of the slabs in use that is touched ahead of
	// demand, at least one slab and at most maxAhead: a burst of misses then
	// finds memory, and an idle process takes none.
	aheadShare = 8
	maxAhead   = 64
	// maxBytes is what units can number.
	maxBytes = (1<<32 - 1 - slabUnits) * Unit
)

const (
	freeBit  = 0x80 // the unit starts a free block
	usedBit  = 0x40 // the unit starts a block of an extent
	orderSet = 0x3f
)

// Extent names a chain of blocks; the zero Extent is empty. It is no pointer:
// the garbage collector does not follow it.
type Extent uint32

// Arena is memory for extents. It is safe for concurrent use.
type Arena struct {
	slabs  []slab // fixed; each comes into use under mu
	region *bigmem.Region

	mu       sync.Mutex
	free     [maxOrder + 1]uint32 // first free block of each order: unit + 1
	whole    int                  // free slabs that have been touched
	cold     []uint32             // slabs without memory, the next to use last
	touching bool                 // a goroutine touches slabs
	returned []Extent             // that were lent, have no owner, and need other pages
	renewing bool                 // a goroutine sees to that
	ceiling  int                  // of slabs with memory: under pressure less than there are
	used     int64                // octets in blocks of extents
}

// slab is SlabBytes of memory and what each of its units is. None of it has
// pointers.
type slab struct {
	mem  []byte
	meta *slabMeta // nil until the slab is first used
}

type slabMeta struct {
	kind [slabUnits]uint8  // freeBit or usedBit and order, at the start of a block
	next [slabUnits]uint32 // unit + 1 of the next block of the extent, or free block
	// refs are the owners of the extent that starts here; in a free block the
	// unit + 1 of the one before in its list.
	refs [slabUnits]atomic.Uint32
	lent [slabUnits / 32]atomic.Uint32 // a bit for each extent that starts here and has been lent
	used int                           // units in blocks of extents; Arena.mu
}

// New makes an arena of at least n octets. It takes address space, not memory.
func New(n int64) (*Arena, error) {
	if n <= 0 || n > maxBytes {
		return nil, fmt.Errorf("arena: %d octets: want 1 to %d", n, int64(maxBytes))
	}
	count := int((n + SlabBytes - 1) / SlabBytes)
	a := &Arena{slabs: make([]slab, count), cold: make([]uint32, count), ceiling: count}
	for i := range a.cold {
		a.cold[i] = uint32(count - 1 - i)
	}
	if r, err := bigmem.Reserve(count*SlabBytes, count*SlabBytes >= hugeFrom); err == nil {
		a.region = r
		for i := range a.slabs {
			a.slabs[i].mem = r.Bytes()[i*SlabBytes : (i+1)*SlabBytes : (i+1)*SlabBytes]
		}
		runtime.AddCleanup(a, (*bigmem.Region).Free, r)
	}
	return a, nil
}

// Footprint is what an extent of n octets takes. In fragmented memory one of
// LendFrom or more may take somewhat less.
func Footprint(n int64) int64 {
	grain := int64(Unit)
	if n >= LendFrom {
		grain = pageSize
	}
	return (n + grain - 1) / grain * grain
}

// Bytes is how much the arena can hold.
func (a *Arena) Bytes() int64 { return int64(len(a.slabs)) * SlabBytes }

// Stats is how the memory is used, in octets.
type Stats struct {
	Used    int64 // in extents
	Touched int64 // taken from the system
}

// Stats looks at the arena.
func (a *Arena) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Stats{Used: a.used, Touched: int64(len(a.slabs)-len(a.cold)) * SlabBytes}
}

func (a *Arena) at(unit uint32) (*slabMeta, uint32) {
	return a.slabs[unit/slabUnits].meta, unit % slabUnits
}

// Retain makes the caller one more owner of e. Some owner must be sure to hold
// e meanwhile. It does nothing for the zero Extent.
func (a *Arena) Retain(e Extent) {
	if e == 0 {
		return
	}
	m, i := a.at(uint32(e) - 1)
	if m.refs[i].Add(1) < 2 {
		panic("arena: an extent without owner is retained")
	}
}

// Release ends one ownership of e. It does nothing for the zero Extent.
func (a *Arena) Release(e Extent) {
	if e == 0 {
		return
	}
	m, i := a.at(uint32(e) - 1)
	if m.kind[i]&usedBit == 0 {
		panic("arena: an extent is released once too often")
	}
	switch left := m.refs[i].Add(^uint32(0)); left {
	case ^uint32(0):
		panic("arena: an extent is released once too often")
	case 0:
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.wasLent(e) {
			a.renewLater(e)
			return
		}
		a.freeChain(uint32(e) - 1)
	}
}

// Owners is how many owners e has.
func (a *Arena) Owners(e Extent) int {
	m, i := a.at(uint32(e) - 1)
	return int(m.refs[i].Load())
}

// Block is a place in an extent: that of its next octets to read.
type Block uint32

// First is the start of an extent, 0 when it is empty.
func (e Extent) First() Block { return Block(e) }

// Read returns the octets at b, all that stand in one piece of memory, and the
// place after them, which is 0 at the end. The last block of an extent may be
// longer than what was written: the caller knows the size. It holds the extent.
func (a *Arena) Read(b Block) ([]byte, Block) {
	unit := uint32(b) - 1
	m, i := a.at(unit)
	s, start, end := unit/slabUnits, i, i
	for {
		end += 1 << (m.kind[i] & orderSet)
		next := m.next[i]
		if next == 0 || end == slabUnits || next-1 != s*slabUnits+end {
			return a.slabs[s].mem[start*Unit : end*Unit : end*Unit], Block(next)
		}
		i = end
	}
}

// take returns a block of an order, or nothing; mu is held, but maybe not throughout.
func (a *Arena) take(order int) (unit uint32, ok bool) {
	from := order
	for from <= maxOrder && a.free[from] == 0 {
		from++
	}
	if from > maxOrder {
		if !a.warm() {
			if a.renewOne() {
				return a.take(order)
			}
			return 0, false
		}
		from = maxOrder
	}
	unit = a.free[from] - 1
	a.unlink(unit, from)
	for ; from > order; from-- {
		a.link(unit+1<<(from-1), from-1)
	}
	m, i := a.at(unit)
	m.kind[i] = usedBit | uint8(order)
	m.next[i] = 0
	m.used += 1 << order
	a.used += Unit << order
	a.touchAhead()
	return unit, true
}

// freeChain frees the blocks of an extent; mu is held.
func (a *Arena) freeChain(unit uint32) {
	for {
		m, i := a.at(unit)
		next := m.next[i]
		a.give(unit, int(m.kind[i]&orderSet))
		if next == 0 {
			return
		}
		unit = next - 1
	}
}

// give frees a block, and joins it with its free other halves; mu is held.
func (a *Arena) give(unit uint32, order int) {
	m, i := a.at(unit)
	m.kind[i] = 0
	m.used -= 1 << order
	a.used -= Unit << order
	for ; order < maxOrder; order++ {
		half := i ^ 1<<order
		if m.kind[half] != freeBit|uint8(order) {
			break
		}
		a.unlink(unit-i+half, order)
		i, unit = min(i, half), unit-i+min(i, half)
	}
	a.link(unit, order)
}

// link and unlink keep the lists of free blocks; mu is held.
func (a *Arena) link(unit uint32, order int) {
	m, i := a.at(unit)
	m.kind[i] = freeBit | uint8(order)
	m.next[i] = a.free[order]
	m.refs[i].Store(0)
	if next := a.free[order]; next != 0 {
		n, j := a.at(next - 1)
		n.refs[j].Store(unit + 1)
	}
	a.free[order] = unit + 1
	if order == maxOrder {
		a.whole++
	}
}

func (a *Arena) unlink(unit uint32, order int) {
	m, i := a.at(unit)
	next, prev := m.next[i], m.refs[i].Load()
	if prev == 0 {
		a.free[order] = next
	} else {
		p, j := a.at(prev - 1)
		p.next[j] = next
	}
	if next != 0 {
		n, j := a.at(next - 1)
		n.refs[j].Store(prev)
	}
	m.kind[i], m.next[i] = 0, 0
	m.refs[i].Store(0)
	if order == maxOrder {
		a.whole--
	}
}

// largest is the order of the largest block that n octets fill.
func largest(n int) int {
	units := uint(n+Unit-1) / Unit
	return min(bits.Len(max(units, 1))-1, maxOrder)
}
