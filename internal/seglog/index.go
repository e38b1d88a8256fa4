package seglog

import (
	"sync"
	"sync/atomic"
)

const (
	// shards cut the index up, so that one grows in milliseconds while the rest
	// is in use.
	shards = 64
	// maxVariants bounds the entries of one key, and so what a look-up reads: of
	// more the oldest goes.
	maxVariants = 32
	firstSlots  = 16
)

// entry says where a record is. It holds no pointer.
type entry struct {
	key, variant uint64
	seg          uint32
	off          uint32 // in units of align
	size         uint32 // of the record
	lead         uint32 // of that, what stands before the body
	kind         kind   // 0: the slot is free
	hot          bool
}

func (e *entry) offset() int64 { return int64(e.off) * align }

// newer reports whether e was written after o.
func (e *entry) newer(o *entry) bool {
	return e.seg > o.seg || e.seg == o.seg && e.off > o.off
}

func (e *entry) at(o *entry) bool { return e.seg == o.seg && e.off == o.off }

// index finds records by key. It is a hash table of open addressing in shards;
// entries of one key stand in one run of slots.
type index struct {
	n      atomic.Int64
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	slots []entry // as many as a power of two
	used  int
}

func (x *index) shard(key uint64) *shard { return &x.shards[key>>58] }

func (s *shard) slot(key uint64) int { return int(key & uint64(len(s.slots)-1)) }

// find appends copies of the entries of key and kind to dst, newest first, and
// says that they are in use.
func (x *index) find(dst []entry, key uint64, k kind) []entry {
	s := x.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == 0 {
		return dst
	}
	for i := s.slot(key); s.slots[i].kind != 0; i = (i + 1) & (len(s.slots) - 1) {
		e := &s.slots[i]
		if e.key != key || e.kind != k {
			continue
		}
		dst = append(dst, *e)
		for j := len(dst) - 1; j > 0 && dst[j].newer(&dst[j-1]); j-- {
			dst[j], dst[j-1] = dst[j-1], dst[j]
		}
	}
	return dst
}

// touch says that the record is in use.
func (x *index) touch(o *entry) {
	s := x.shard(o.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.where(o); i >= 0 && s.slots[i].at(o) {
		s.slots[i].hot = true
	}
}

// has reports whether there is an entry of key at all.
func (x *index) has(key uint64) bool {
	s := x.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == 0 {
		return false
	}
	for i := s.slot(key); s.slots[i].kind != 0; i = (i + 1) & (len(s.slots) - 1) {
		if s.slots[i].key == key {
			return true
		}
	}
	return false
}

// where is the slot of the entry with o's key, variant and kind, or -1.
func (s *shard) where(o *entry) int {
	if s.used == 0 {
		return -1
	}
	for i := s.slot(o.key); s.slots[i].kind != 0; i = (i + 1) & (len(s.slots) - 1) {
		if e := &s.slots[i]; e.key == o.key && e.variant == o.variant && e.kind == o.kind {
			return i
		}
	}
	return -1
}

// put enters e in the place of what had its key, variant and kind.
func (x *index) put(e entry) {
	s := x.shard(e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.where(&e); i >= 0 {
		s.slots[i] = e
		return
	}
	if 4*(s.used+1) > 3*len(s.slots) {
		s.grow()
	}
	i, same, oldest := s.slot(e.key), 0, -1
	for ; s.slots[i].kind != 0; i = (i + 1) & (len(s.slots) - 1) {
		if s.slots[i].key == e.key {
			same++
			if oldest < 0 || s.slots[oldest].newer(&s.slots[i]) {
				oldest = i
			}
		}
	}
	if same >= maxVariants {
		s.slots[oldest] = e
		return
	}
	s.slots[i] = e
	s.used++
	x.n.Add(1)
}

func (s *shard) grow() {
	old := s.slots
	s.slots = make([]entry, max(firstSlots, 2*len(old)))
	for i := range old {
		if old[i].kind == 0 {
			continue
		}
		j := s.slot(old[i].key)
		for s.slots[j].kind != 0 {
			j = (j + 1) & (len(s.slots) - 1)
		}
		s.slots[j] = old[i]
	}
}

// remove takes out the entry with o's key, variant and kind if it is at o's
// place, and reports whether it was, and was in use.
func (x *index) remove(o *entry) (hot, ok bool) {
	s := x.shard(o.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.where(o)
	if i < 0 || !s.slots[i].at(o) {
		return false, false
	}
	hot = s.slots[i].hot
	s.free(i)
	x.n.Add(-1)
	return hot, true
}

// removeKey takes out the values of key: of one variant, or of all. It reports
// whether there were any.
func (x *index) removeKey(key, variant uint64, all bool) bool {
	s := x.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for again := s.used > 0; again; {
		again = false
		for i := s.slot(key); s.slots[i].kind != 0; i = (i + 1) & (len(s.slots) - 1) {
			e := &s.slots[i]
			if e.key == key && e.kind == kindValue && (all || e.variant == variant) {
				s.free(i)
				x.n.Add(-1)
				found, again = true, true
				break
			}
		}
	}
	return found
}

// free empties slot i and closes the gap, so that a search need not step over
// what was removed.
func (s *shard) free(i int) {
	mask := len(s.slots) - 1
	for j := (i + 1) & mask; s.slots[j].kind != 0; j = (j + 1) & mask {
		home := s.slot(s.slots[j].key)
		if (j-home)&mask >= (j-i)&mask {
			s.slots[i] = s.slots[j]
			i = j
		}
	}
	s.slots[i] = entry{}
	s.used--
}

// clear forgets everything.
func (x *index) clear() {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		x.n.Add(int64(-s.used))
		s.slots, s.used = nil, 0
		s.mu.Unlock()
	}
}
