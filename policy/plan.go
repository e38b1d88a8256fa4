package policy

import (
	"math"
	"time"
)

// A plan is what is left to decide when the fleet is in one State: for each root
// and region the endpoint, or the Weighted level with the choices that are in. To
// find these on the way took three quarters of a decision: some ten lines of the
// cache, and a branch for each choice, that the kernel's work between two queries
// has thrown out. A plan holds nothing that Decide would not find.
type plan struct {
	set    *Set
	roots  [][]uint16 // by root and region: of leaves; 0 is none, and no slice is none at all
	leaves []leaf
}

// leaf is where the walk from a root ends, or a Weighted level above that.
type leaf struct {
	runners []runner // one needs no race
	hash    uint64   // of the level's name
	ttl     time.Duration
	open    bool
}

// runner is a usable choice.
type runner struct {
	pace float64
	hash uint64
	ttl  time.Duration // of the decision
	to   int
}

// maxPlanning bounds the steps that planning takes, regions × ways to an
// endpoint: some ten milliseconds at each change of the fleet. Roots beyond it
// are decided the long way.
const maxPlanning = 1 << 20

// Prepare makes Decide quicker for st, which must have its last content, and whose
// answers stay the same. It is safe while st is in use.
func (s *Set) Prepare(st *State) {
	if st == nil || len(st.Endpoints) != len(s.cfg.Endpoints) {
		return
	}
	if p := st.plan.Load(); p != nil && p.set == s {
		return
	}
	p := &plan{set: s, roots: make([][]uint16, len(s.roots)), leaves: make([]leaf, 1)}
	budget := maxPlanning
	for i := range s.roots {
		r := &s.roots[i]
		if budget -= r.atlas.regions() * s.ways(r.ref); budget < 0 {
			break
		}
		p.roots[i] = p.root(r, st)
	}
	st.plan.Store(p)
}

// regions is how many the atlas tells apart.
func (a *atlas) regions() int {
	if a.deps == 0 {
		return 1
	}
	return len(a.ranks) / a.deps
}

// root plans for each region of a root.
func (p *plan) root(r *root, st *State) []uint16 {
	list := make([]uint16, r.atlas.regions())
	known := map[leafKey]uint16{}
	for region := range list {
		e := evaluation{s: p.set, atlas: &r.atlas, st: st, region: region}
		for !e.usable(r.ref) && e.level < openAll {
			e.level++
		}
		ref, ttl := e.descend(r.ref, p.set.ttlOf(r.ref))
		key := leafKey{ref: ref, ttl: ttl, level: e.level}
		at, seen := known[key]
		if l, ok := e.leaf(ref, ttl); !ok {
			continue
		} else if !seen || !l.equal(&p.leaves[at]) { // below a Weighted level, regions may differ again
			if len(p.leaves) > math.MaxUint16 {
				return nil
			}
			at = uint16(len(p.leaves))
			known[key] = at
			p.leaves = append(p.leaves, l)
		}
		list[region] = at
	}
	return list
}

// leafKey finds like leaves.
type leafKey struct {
	ref   int32
	ttl   time.Duration
	level leniency
}

func (l *leaf) equal(other *leaf) bool {
	if l.hash != other.hash || l.ttl != other.ttl || l.open != other.open || len(l.runners) != len(other.runners) {
		return false
	}
	for i := range l.runners {
		if l.runners[i] != other.runners[i] {
			return false
		}
	}
	return true
}

// ttlOf is the TTL that a decision from ref begins with.
func (s *Set) ttlOf(ref int32) time.Duration {
	if ref < 0 {
		return DefaultTTL
	}
	return s.nodes[ref].ttl
}

// descend goes from ref, which is usable, to where a draw decides, or to the
// endpoint; ttl is the least TTL on the way.
func (e *evaluation) descend(ref int32, ttl time.Duration) (int32, time.Duration) {
	for ref >= 0 {
		n := &e.s.nodes[ref]
		ttl = min(ttl, n.ttl)
		next := ref
		switch n.kind {
		case Geo, Latency:
			for _, at := range e.ranking(ref) {
				if e.usable(n.to[at]) {
					next = n.to[at]
					break
				}
			}
		case Failover:
			for _, to := range n.to {
				if e.usable(to) {
					next = to
					break
				}
			}
		}
		if next == ref {
			break
		}
		ref = next
	}
	return ref, ttl
}

// leaf is what descend came to. It is false for a Multivalue level, and for one
// below which another draw decides.
func (e *evaluation) leaf(ref int32, ttl time.Duration) (leaf, bool) {
	l := leaf{ttl: ttl, open: e.level > asKnown}
	if ref < 0 {
		l.runners = []runner{{ttl: ttl, to: int(^ref)}}
		return l, true
	}
	n := &e.s.nodes[ref]
	if n.kind != Weighted {
		return l, false
	}
	l.hash = n.hash
	for _, weighed := range [...]bool{true, false} { // as evaluation.weighted has it
		for i, to := range n.to {
			pace := n.paces[i]
			if !weighed {
				pace = 1
			}
			if math.IsInf(pace, 1) || !e.usable(to) {
				continue
			}
			end, least := e.descend(to, ttl)
			if end >= 0 {
				return l, false
			}
			l.runners = append(l.runners, runner{pace: pace, hash: n.hashes[i], ttl: least, to: int(^end)})
		}
		if len(l.runners) > 0 {
			return l, true
		}
	}
	return l, false
}

// planned is the leaf for a root and region; nil when there is none.
func (st *State) planned(s *Set, root Name, region uint16) *leaf {
	if st == nil {
		return nil
	}
	p := st.plan.Load()
	if p == nil || p.set != s || int(region) >= len(p.roots[root]) {
		return nil
	}
	if at := p.roots[root][region]; at > 0 {
		return &p.leaves[at]
	}
	return nil
}

// first is the runner that comes first in the race of a draw. Times are compared
// as integers, which for positive ones is the same, and needs no branch to guess.
func (l *leaf) first(draw uint64) *runner {
	best, at := uint64(math.MaxUint64), 0
	for i := range l.runners {
		r := &l.runners[i]
		t := math.Float64bits(r.pace * minusLog2(mix(draw^r.hash)|1))
		if t < best {
			best, at = t, i
		}
	}
	return &l.runners[at]
}
