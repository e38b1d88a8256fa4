package edge

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"perigee.example/internal/arena"
)

const (
	// slotSegment is how many slots are made at once; they do not move, so that
	// the index never copies all it has at once.
	slotSegment = 1 << 12
	// bucketSegment is the same for buckets.
	bucketSegment = 1 << 13
	// slotBytes is charged for each response beside its record and body: its slot,
	// bucket, place in the queues and memory of what left, and what the arena
	// knows of its blocks.
	slotBytes = 192
)

// ref names a stored response in the index; the zero ref none. A slot that is
// used again has another gen.
type ref struct{ id, gen uint32 }

// slot is one stored response. It holds no pointer: the record and the body are
// in the arena, so that the collector has nothing to follow.
type slot struct {
	hash       uint64 // of the key
	meta, body arena.Extent
	next       uint32 // in its bucket, the newer first; or of the free slots
	gen        uint32
	length     uint32        // of the record
	uses       atomic.Uint32 // since it was stored, up to aheadUses; above usesMask its aheadState
}

// usesMask is where the uses stand in slot.uses, aheadShift where its aheadState.
const (
	usesMask   = 1<<16 - 1
	aheadShift = 16
)

// ahead is the state of this life's refreshing.
func (s *slot) ahead() aheadState { return aheadState(s.uses.Load() >> aheadShift) }

// index finds slots by key: a table of chains that grows by one bucket at a time
// (linear hashing), so that no insertion waits for a table to be made anew.
type index struct {
	seed    maphash.Seed
	slots   []*[slotSegment]slot
	heads   []*[bucketSegment]uint32
	buckets uint64
	free    uint32 // first free slot
	last    uint32 // slots that have been used at some time are 1 to last
	count   int
}

func newIndex() index {
	return index{seed: maphash.MakeSeed(), heads: []*[bucketSegment]uint32{new([bucketSegment]uint32)}, buckets: 1}
}

func (x *index) at(id uint32) *slot { return &x.slots[id/slotSegment][id%slotSegment] }

func (x *index) head(b uint64) *uint32 { return &x.heads[b/bucketSegment][b%bucketSegment] }

// bucket is that of a hash: by as many of its bits as number the buckets, or one
// bit less where that bucket is not there yet.
func (x *index) bucket(hash uint64) uint64 {
	mask := uint64(1) << bits.Len64(x.buckets-1)
	if b := hash & (mask - 1); b < x.buckets {
		return b
	}
	return hash & (mask>>1 - 1)
}

func (x *index) hash(key []byte) uint64 { return maphash.Bytes(x.seed, key) }

// insert takes a slot for a hash, the first of its bucket.
func (x *index) insert(hash uint64) uint32 {
	id := x.free
	if id != 0 {
		x.free = x.at(id).next
	} else {
		x.last++
		id = x.last
		if int(id/slotSegment) == len(x.slots) {
			x.slots = append(x.slots, new([slotSegment]slot))
		}
	}
	s := x.at(id)
	s.hash = hash
	s.uses.Store(0)
	h := x.head(x.bucket(hash))
	s.next, *h = *h, id
	x.count++
	if uint64(x.count) > x.buckets {
		x.split()
	}
	return id
}

// split adds a bucket, and gives it its part of the one that had it.
func (x *index) split() {
	b := x.buckets
	if b%bucketSegment == 0 && int(b/bucketSegment) == len(x.heads) {
		x.heads = append(x.heads, new([bucketSegment]uint32))
	}
	x.buckets++
	mask := uint64(1) << bits.Len64(b)
	from, to := x.head(b-mask>>1), x.head(b)
	for id := *from; id != 0; { // both keep their order
		s := x.at(id)
		if s.hash&(mask-1) == b {
			*from, *to = s.next, id
			to = &s.next
		} else {
			from = &s.next
		}
		id = s.next
	}
	*from, *to = 0, 0
}

// remove frees a slot.
func (x *index) remove(id uint32) {
	s := x.at(id)
	h := x.head(x.bucket(s.hash))
	for *h != id {
		h = &x.at(*h).next
	}
	*h = s.next
	s.gen++
	s.meta, s.body = 0, 0
	s.next, x.free = x.free, id
	x.count--
}

// first is the first slot of a chain in which key may be.
func (x *index) first(hash uint64) uint32 { return *x.head(x.bucket(hash)) }

// recordKey is the key that a record is for.
func recordKey(r []byte) []byte {
	return r[recText:binary.LittleEndian.Uint32(r[recHead:])]
}

// record is the record of a slot, which the caller holds.
func (s *slot) record(a *arena.Arena) []byte {
	p, _ := a.Read(s.meta.First())
	return p[:s.length]
}

// is reports whether a slot is for a key.
func (s *slot) is(a *arena.Arena, hash uint64, key []byte) bool {
	return s.hash == hash && bytes.Equal(recordKey(s.record(a)), key)
}
