package dnsserver

import (
	"encoding/binary"
	"net/netip"
	"time"

	"perigee.example/policy"
	"perigee.example/zones"
)

// decide asks the policy. The scopes of a chain join in the longest.
func (a *answer) decide(st *steered, only []bool) {
	scope, stale := a.v.decide(st, only, &a.q.edns.ecs, a.c, a.out)
	if stale {
		a.ede = edeStale
	}
	a.scope = max(a.scope, scope)
}

// decide asks the policy and notes its decision in out. Nothing of the question
// but the name enters, unless only leaves endpoints out. scope is that of the
// reply's ECS, 0 when the client is not known by one.
func (v *View) decide(st *steered, only []bool, e *ecs, c *Context, out *Outcome) (scope int, stale bool) {
	// Field by field: a literal would be made aside and copied, by halves that its
	// parts are not written in, for which the processor waits.
	var q policy.Query
	q.Draw = policy.ResolverDraw(c.Seed, c.From.Addr())
	q.Now, q.Only = c.Now, only
	client, fromECS := e.prefix()
	if !fromECS {
		addr := c.From.Addr().Unmap().WithZone("")
		client = netip.PrefixFrom(addr, addr.BitLen())
	}
	q.Client = client
	state := c.State
	if state == nil || len(state.Endpoints) != len(v.endpoints) {
		state = v.unknown
	}
	d := &out.Decision
	v.policies.Decide(st.root, &q, state, d)
	out.Steered, out.Root, out.Policies, out.Only = true, st.root, v.policies, only
	if fromECS {
		scope = e.scope(d.Scope)
	}
	return scope, state.Stale
}

// choose decides for an address name: once for A and AAAA alike. Where their
// endpoints may differ in families and none of the chosen has the one asked
// for, it is chosen among those that have it.
func (a *answer) choose(st *steered, rrtype uint16) {
	a.decide(st, nil)
	if !st.mixed {
		return
	}
	for _, i := range a.out.Decision.Endpoints {
		if len(a.v.endpoints[i].of(rrtype)) > 0 {
			return
		}
	}
	a.decide(st, a.v.having(rrtype))
}

// addresses answers with the addresses of the endpoints that the policy chose.
// When it chose none, the zone's own RRset answers: never nothing.
func (a *answer) addresses(s *servedZone, node zones.NodeID, st *steered, rrtype uint16) {
	a.choose(st, rrtype)
	found, fits := a.addSteered(sectionAnswer, rrtype, a.at, nil)
	if !fits {
		a.flags |= flagTC
	}
	if found {
		return
	}
	if set, ok := s.zone.RRset(node, rrtype); ok {
		a.addAnswer(s, node, &set)
	} else {
		a.rcode = rcodeServFail
	}
}

// addSteered appends the addresses of the endpoints that were decided on, all
// or nothing. Owner and offset are those of message.addSet.
func (a *answer) addSteered(sec section, rrtype uint16, at int, owner []byte) (found, fits bool) {
	m := &a.m
	k := m.mark(sec)
	size := addressLen(rrtype)
	ttl := seconds(a.out.Decision.TTL)
	n, first := 0, 0 // first is where the first record would begin if its owner were a pointer
	for _, i := range a.out.Decision.Endpoints {
		for wire := a.v.endpoints[i].of(rrtype); len(wire) >= size; wire = wire[size:] {
			if n > 0 && duplicate(m.b[first:], wire[:size]) {
				continue
			}
			at = m.addOwner(at, owner)
			if n == 0 {
				first = len(m.b) - pointerLen
			}
			fixed := len(m.b)
			m.b = append(m.b, wire[pointerLen:size]...)
			binary.BigEndian.PutUint32(m.b[fixed+4:], ttl)
			n++
			if at == 0 { // so far behind that no pointer reaches the owner
				return true, m.settle(sec, k, false)
			}
		}
	}
	m.counted(sec, n, ttl)
	return n > 0, m.settle(sec, k, true)
}

// duplicate reports whether the address of rec is among those of records,
// which are all of its size.
func duplicate(records, rec []byte) bool {
	const rdata = pointerLen + recordFixed
	for ; len(records) >= len(rec); records = records[len(rec):] {
		if string(records[rdata:len(rec)]) == string(rec[rdata:]) {
			return true
		}
	}
	return false
}

// seconds is a policy's TTL on the wire.
func seconds(d time.Duration) uint32 { return uint32(max(d, 0) / time.Second) }
