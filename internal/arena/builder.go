package arena

import "math/bits"

// Builder fills a new extent from its start, and owns it until the caller takes
// it (End) or drops it. It is not safe for concurrent use, but what it has filled
// may be read meanwhile by who was given those slices.
type Builder struct {
	a           *Arena
	first, last uint32 // unit + 1
	size        int64  // octets in all blocks
}

// Build starts an extent.
func (a *Arena) Build() Builder { return Builder{a: a} }

// Next adds a block and returns its memory, of n octets at most, to be written
// whole before the next; it holds anything. nil is that there is no room.
func (b *Builder) Next(n int) []byte {
	if n <= 0 {
		panic("arena: a block of no octets")
	}
	a := b.a
	a.mu.Lock()
	defer a.mu.Unlock()
	order := largest(n)
	if b.size >= LendFrom {
		order = max(order, pageOrder)
	}
	unit, ok := a.take(order)
	for !ok && order > 0 {
		order--
		unit, ok = a.take(order)
	}
	if !ok {
		return nil
	}
	m, i := a.at(unit)
	if b.first == 0 {
		b.first = unit + 1
		m.refs[i].Store(1)
	} else {
		p, j := a.at(b.last - 1)
		p.next[j] = unit + 1
	}
	b.last = unit + 1
	b.size += Unit << order
	mem := a.slabs[unit/slabUnits].mem[i*Unit : (i+1<<order)*Unit]
	return mem[:min(len(mem), n):min(len(mem), n)]
}

// Write adds octets at the end, which must be that of a block: it is for whole
// extents. false is that there is no room for all; then the caller drops.
func (b *Builder) Write(p []byte) bool {
	for len(p) > 0 {
		mem := b.Next(len(p))
		if mem == nil {
			return false
		}
		p = p[copy(mem, p):]
	}
	return true
}

// End makes the extent of the first size octets; what is beyond is free again.
// The caller is its owner.
func (b *Builder) End(size int64) Extent {
	e := b.Finish(size)
	*b = Builder{a: b.a}
	return e
}

// Finish is End for a caller that leaves the ownership with the builder: no
// more is added, and Drop ends it.
func (b *Builder) Finish(size int64) Extent {
	a, e := b.a, Extent(b.first)
	a.mu.Lock()
	defer a.mu.Unlock()
	if size > b.size {
		panic("arena: more octets than were built")
	}
	if size == 0 && e != 0 {
		a.freeChain(b.first - 1)
		e, b.first = 0, 0
	}
	for at, left := uint32(e), size; at != 0; {
		m, i := a.at(at - 1)
		order := int(m.kind[i] & orderSet)
		if left > Unit<<order {
			at, left = m.next[i], left-Unit<<order
			continue
		}
		rest := m.next[i]
		m.next[i] = 0
		need := uint32((left + Unit - 1) / Unit)
		if size >= LendFrom && order >= pageOrder {
			need = wholePages(need)
		}
		a.trim(at-1, order, need)
		if rest != 0 {
			a.freeChain(rest - 1)
		}
		break
	}
	b.size = size
	return e
}

// wholePages rounds units up to pages.
func wholePages(units uint32) uint32 { return (units + 1<<pageOrder - 1) >> pageOrder << pageOrder }

// trim keeps the first need units of an extent's last block; mu is held.
func (a *Arena) trim(unit uint32, order int, need uint32) {
	for order > 0 && need < 1<<order {
		order--
		half := unit + 1<<order
		m, i := a.at(unit)
		h, j := a.at(half)
		m.kind[i], h.kind[j] = usedBit|uint8(order), usedBit|uint8(order)
		h.next[j] = 0
		if need <= 1<<order {
			a.give(half, order)
			continue
		}
		m.next[i] = half + 1
		unit, need = half, need-1<<order
	}
}

// Drop gives the blocks back, unless somebody else owns the extent too.
func (b *Builder) Drop() {
	if b.first != 0 {
		b.a.Release(Extent(b.first))
	}
	*b = Builder{a: b.a}
}

// Piece makes an extent of n octets, SlabBytes at most, in one piece of memory,
// and returns that to be written. The caller is its owner. ok is false when there
// is no piece so long, though there may be room in smaller ones.
func (a *Arena) Piece(n int) (e Extent, mem []byte, ok bool) {
	if n <= 0 || n > SlabBytes {
		return 0, nil, false
	}
	units := int(Footprint(int64(n)) / Unit)
	order := bits.Len(uint(units - 1))
	a.mu.Lock()
	defer a.mu.Unlock()
	unit, ok := a.take(order)
	if !ok {
		return 0, nil, false
	}
	a.trim(unit, order, uint32(units))
	m, i := a.at(unit)
	m.refs[i].Store(1)
	return Extent(unit + 1), a.slabs[unit/slabUnits].mem[i*Unit : i*Unit+uint32(n)], true
}
