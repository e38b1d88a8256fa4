// Package evict says which objects of a cache leave when room is wanted. It
// knows numbers alone: an object is an id of the caller's, a size and a hash of
// its key; nothing in it is a pointer to an object, so that a million of them
// cost the garbage collector nothing.
//
// S3FIFO is that of Yang et al., "FIFO queues are all you need for cache
// eviction" (SOSP 2023), by octets: what is new goes through a small queue,
// a tenth of the room, and only what is asked for again there, or was lately,
// reaches the main one. So what is asked for once, however much of it comes,
// passes through a tenth of the cache. LRU lets the least recently used go.
//
// Objects are in groups, each with queues of its own. Everything but Touch and
// Uses is the caller's to lock; these two may run beside each other and beside
// reads, and not beside the rest.
package evict

import "sync/atomic"

// Policy is a way to choose.
type Policy uint8

const (
	S3FIFO Policy = iota
	LRU
)

const (
	// smallShare is the part of a group's budget that its small queue has.
	smallShare = 10
	// maxFrequency is how many uses count: two bits.
	maxFrequency = 3
	// maxChances bounds the objects that one choice gives another chance, so
	// that no insertion takes long when all are in use; the next one then goes.
	maxChances = 256
	// segment is how many nodes are made at once. They do not move.
	segment = 1 << 12
)

const (
	inNone = iota
	inSmall
	inMain
)

type node struct {
	prev, next uint32 // ids; towards the head, towards the tail
	size       int64
	hash       uint64
	group      uint32
	frequency  atomic.Uint32 // uses since it was looked at, up to maxFrequency
	in         uint8
}

type queue struct {
	head, tail uint32 // the newest, the oldest; 0 is none
	bytes      int64
}

type group struct {
	budget      int64
	small, main queue
}

// Queues is the order of objects. Ids begin at 1; they should be dense.
type Queues struct {
	policy Policy
	nodes  []*[segment]node
	groups []group
	ghost  ghost
	count  int
}

// New makes empty queues.
func New(p Policy) *Queues { return &Queues{policy: p} }

// Moves reports whether a use has to be told by Use, under the caller's lock,
// and not by Touch.
func (q *Queues) Moves() bool { return q.policy == LRU }

// Group makes a group and returns its number; groups begin at 0.
func (q *Queues) Group(budget int64) uint32 {
	q.groups = append(q.groups, group{budget: budget})
	return uint32(len(q.groups) - 1)
}

// SetBudget changes what a group may take. The queues only need it for the
// share of the small one: who asks for victims decides when.
func (q *Queues) SetBudget(g uint32, budget int64) { q.groups[g].budget = budget }

// Bytes is the size of all objects of a group.
func (q *Queues) Bytes(g uint32) int64 { return q.groups[g].small.bytes + q.groups[g].main.bytes }

func (q *Queues) at(id uint32) *node { return &q.nodes[id/segment][id%segment] }

// Add puts a new object in a group. hash is that of its key, from all 64 bits,
// and not to be guessed by who chooses keys.
func (q *Queues) Add(id, g uint32, size int64, hash uint64) {
	for int(id/segment) >= len(q.nodes) {
		q.nodes = append(q.nodes, new([segment]node))
	}
	n := q.at(id)
	n.size, n.hash, n.group = size, hash, g
	n.frequency.Store(0)
	in := uint8(inSmall)
	if q.policy == LRU || q.ghost.take(hash) {
		in = inMain
	}
	q.push(id, in)
	q.count++
}

// Standing is how an object stands in its queues.
type Standing struct {
	in        uint8
	frequency uint32
}

// Standing is that of an object, to be given to the one that replaces it: a page
// that has been fetched anew is as much in use as it was.
func (q *Queues) Standing(id uint32) Standing {
	n := q.at(id)
	return Standing{n.in, n.frequency.Load()}
}

// Set gives an object the standing of another. The zero Standing changes nothing.
func (q *Queues) Set(id uint32, s Standing) {
	if s.in == inNone {
		return
	}
	q.at(id).frequency.Store(s.frequency)
	if s.in != q.at(id).in {
		q.unlink(id)
		q.push(id, s.in)
	}
}

// Touch notes a use of an object.
func (q *Queues) Touch(id uint32) {
	n := q.at(id)
	if f := n.frequency.Load(); f < maxFrequency {
		n.frequency.Store(f + 1) // of two at once one may be lost, which is no harm
	}
}

// Use notes a use where Moves says so.
func (q *Queues) Use(id uint32) {
	in := q.at(id).in
	q.unlink(id)
	q.push(id, in)
}

// Size is that of an object.
func (q *Queues) Size(id uint32) int64 { return q.at(id).size }

// GroupOf is the group of an object.
func (q *Queues) GroupOf(id uint32) uint32 { return q.at(id).group }

// Remove takes an object out, whatever the reason.
func (q *Queues) Remove(id uint32) {
	q.unlink(id)
	q.at(id).in = inNone
	q.count--
}

// Victim is the object of a group that is to leave; the caller removes it.
// ok is false when the group is empty.
func (q *Queues) Victim(g uint32) (id uint32, ok bool) {
	p := &q.groups[g]
	for chances := 0; ; chances++ {
		last := chances >= maxChances
		switch {
		case p.small.tail == 0 && p.main.tail == 0:
			return 0, false
		case p.small.tail != 0 && (p.main.tail == 0 || p.small.bytes > p.budget/smallShare):
			id = p.small.tail
			n := q.at(id)
			if n.frequency.Load() == 0 || last {
				q.ghost.add(n.hash, q.count)
				return id, true
			}
			n.frequency.Store(0)
			q.unlink(id)
			q.push(id, inMain)
		default:
			id = p.main.tail
			n := q.at(id)
			f := n.frequency.Load()
			if f == 0 || last || q.policy == LRU {
				return id, true
			}
			n.frequency.Store(f - 1)
			q.unlink(id)
			q.push(id, inMain)
		}
	}
}

// Groups is how many groups there are.
func (q *Queues) Groups() int { return len(q.groups) }

func (q *Queues) queue(n *node) *queue {
	if n.in == inSmall {
		return &q.groups[n.group].small
	}
	return &q.groups[n.group].main
}

func (q *Queues) push(id uint32, in uint8) {
	n := q.at(id)
	n.in = in
	l := q.queue(n)
	n.prev, n.next = 0, l.head
	if l.head != 0 {
		q.at(l.head).prev = id
	} else {
		l.tail = id
	}
	l.head = id
	l.bytes += n.size
}

func (q *Queues) unlink(id uint32) {
	n := q.at(id)
	l := q.queue(n)
	if n.prev != 0 {
		q.at(n.prev).next = n.next
	} else {
		l.head = n.next
	}
	if n.next != 0 {
		q.at(n.next).prev = n.prev
	} else {
		l.tail = n.prev
	}
	l.bytes -= n.size
}
