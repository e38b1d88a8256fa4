package policy

import (
	"math"
	"time"
)

// leniency is how far a decision has opened because all choices were out.
type leniency uint8

const (
	asKnown  leniency = iota // by health and an operator's word
	openDown                 // what is down counts as up; what an operator took out stays out
	openAll                  // nothing else exists: everything counts as up
)

// admits reports whether an endpoint may be chosen. A drain outranks ForceUp:
// forcing overrules health, not the wish to empty a machine.
func (l leniency) admits(e *EndpointState) bool {
	switch {
	case l == openAll:
		return true
	case e.Draining || e.Force == ForceDown:
		return false
	case l == openDown || e.Force == ForceUp:
		return true
	}
	return e.Health != Down
}

// evaluation is one Decide under way.
type evaluation struct {
	s      *Set
	atlas  *atlas
	st     *State
	d      *Decision
	region int
	key    uint64 // see blockKey
	now    time.Duration
	only   []bool // as in Query
	level  leniency
}

// Decide fills d with the answer for q, from the compiled tables. It allocates
// nothing when d is reused, and is safe for concurrent use. A nil State, or an
// endpoint that it does not cover, is Unknown.
//
// An endpoint that is its own root answers with DefaultTTL.
func (s *Set) Decide(root Name, q *Query, st *State, d *Decision) {
	r := &s.roots[root]
	client := normal(q.Client)
	where := r.atlas.locate(client)
	key := blockKey(q.Draw, client.Addr().Is4(), where.start, where.length)
	d.Endpoints, d.Why = d.Endpoints[:0], d.Why[:0]
	d.Scope = where.scope
	if l := st.planned(s, root, where.region); l != nil && q.Only == nil {
		to := &l.runners[0]
		if len(l.runners) > 1 {
			to = l.first(levelDraw(key, l.hash, l.ttl, q.Now))
		}
		d.Endpoints, d.TTL, d.Open = append(d.Endpoints, to.to), to.ttl, l.open
		return
	}
	d.TTL, d.Open = s.ttlOf(r.ref), false
	e := evaluation{s: s, atlas: &r.atlas, st: st, d: d, region: int(where.region), key: key, now: q.Now, only: q.Only}
	for !e.choose(r.ref, d.TTL) {
		if e.level == openAll { // of those that Only leaves there is none here
			d.Open = false
			return
		}
		e.level++
		d.Open = true
	}
}

var unknown EndpointState

func (e *evaluation) state(i int32) *EndpointState {
	if e.st == nil || int(i) >= len(e.st.Endpoints) {
		return &unknown
	}
	return &e.st.Endpoints[i]
}

// ranking is the order in which node ref, a Geo or Latency one, tries its
// choices for this client.
func (e *evaluation) ranking(ref int32) []uint16 {
	return e.s.nodes[ref].rankings[e.atlas.ranks[e.region*e.atlas.deps+int(e.atlas.pos[ref])]]
}

// usable reports whether ref would answer: an endpoint that is in, or a policy
// with a usable choice.
func (e *evaluation) usable(ref int32) bool {
	if ref < 0 {
		i := ^ref
		return (e.only == nil || int(i) < len(e.only) && e.only[i]) && e.level.admits(e.state(i))
	}
	n := &e.s.nodes[ref]
	if n.kind == Geo || n.kind == Latency {
		for _, at := range e.ranking(ref) {
			if e.usable(n.to[at]) {
				return true
			}
		}
		return false
	}
	for _, to := range n.to {
		if e.usable(to) {
			return true
		}
	}
	return false
}

// choose appends the endpoints that ref answers with; it is false, and nothing
// has changed, when ref is not usable. To find that out on the way, and not by a
// walk of its own before, halves what a healthy fleet costs. ttl is the least TTL
// met on the way to ref.
func (e *evaluation) choose(ref int32, ttl time.Duration) bool {
	if ref < 0 {
		if !e.usable(ref) {
			return false
		}
		e.d.Endpoints = append(e.d.Endpoints, int(^ref))
		return true
	}
	n := &e.s.nodes[ref]
	ttl = min(ttl, n.ttl)
	chosen := false
	switch n.kind {
	case Geo, Latency:
		for _, at := range e.ranking(ref) {
			if chosen = e.choose(n.to[at], ttl); chosen {
				break
			}
		}
	case Failover:
		for _, to := range n.to {
			if chosen = e.choose(to, ttl); chosen {
				break
			}
		}
	case Weighted:
		at := e.weighted(n, levelDraw(e.key, n.hash, ttl, e.now))
		chosen = at >= 0 && e.choose(n.to[at], ttl)
	case Multivalue:
		chosen = e.several(n, ttl)
	}
	if chosen {
		e.d.TTL = min(e.d.TTL, ttl)
	}
	return chosen
}

// weighted returns which choice of a weighted level is taken, or -1 when none is
// usable: of those that are, the one that comes first in the race that draw starts
// (rendezvous hashing). Each comes first as often as its share of the weights says.
// What goes out, or is given another weight, changes nothing in the times of the
// others: so only its own clients move, spread over the rest in proportion, and come
// back when it does. Choices of weight 0 run when nothing else is left; then all alike.
func (e *evaluation) weighted(n *node, draw uint64) int {
	best, at := math.Inf(1), -1
	for i, pace := range n.paces {
		if t := pace * raceTime(draw, n.hashes[i]); t < best && e.usable(n.to[i]) {
			best, at = t, i
		}
	}
	if at >= 0 {
		return at
	}
	for i := range n.to {
		if t := raceTime(draw, n.hashes[i]); t < best && e.usable(n.to[i]) {
			best, at = t, i
		}
	}
	return at
}

// several appends the answers of a multivalue level: its usable choices with
// the highest hashes of draw and name (rendezvous hashing), which is a draw
// without replacement in which one choice that goes or comes changes one
// answer. A nested policy counts as one choice and gives its first endpoint;
// an endpoint that two choices lead to stands once. It is false when no choice is
// usable.
func (e *evaluation) several(n *node, ttl time.Duration) bool {
	draw := levelDraw(e.key, n.hash, ttl, e.now)
	var best [MaxAnswers]struct {
		hash uint64
		to   int32
	}
	found := 0
	for i, to := range n.to {
		hash := mix(draw ^ n.hashes[i])
		if found == n.answers && hash <= best[found-1].hash || !e.usable(to) {
			continue
		}
		if found < n.answers {
			found++
		}
		at := found - 1
		for ; at > 0 && best[at-1].hash < hash; at-- {
			best[at] = best[at-1]
		}
		best[at].hash, best[at].to = hash, to
	}
	first := len(e.d.Endpoints)
next:
	for _, b := range best[:found] {
		at := len(e.d.Endpoints)
		e.choose(b.to, ttl)
		for _, old := range e.d.Endpoints[first:at] {
			if old == e.d.Endpoints[at] {
				e.d.Endpoints = e.d.Endpoints[:at]
				continue next
			}
		}
		e.d.Endpoints = e.d.Endpoints[:at+1]
	}
	return found > 0
}
