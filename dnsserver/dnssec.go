package dnsserver

import (
	"encoding/binary"

	"perigee.example/zones"
)

const (
	// maxDenials is how many NSEC or NSEC3 RRsets prove one step of an answer:
	// for NXDOMAIN of NSEC3 the closest encloser, the next closer name and the
	// wildcard (RFC 5155 §7.2.2).
	maxDenials = 3
	// maxProofs is as many for a whole chain.
	maxProofs = maxDenials * (maxChain + 1)
)

// proofs are the owners of NSEC and NSEC3 RRsets that the authority section is
// to have. They are collected first, since the answer section must be complete
// before anything is written behind it, and since two steps of a chain may need
// the same one.
type proofs struct {
	list [maxProofs]setOwner
	n    int
}

// signed reports whether this answer has signatures of a zone: only for who
// sets DO (RFC 4035 §3.1).
func (a *answer) signed(s *servedZone) bool { return a.q.edns.do && s.zone.HasSignatures() }

// addSigned appends an RRset of a node with its signatures, all or nothing.
// Owner and offset are those of message.addSet; what a wildcard answers has the
// wildcard's signatures (RFC 4035 §3.1.3.3).
func (a *answer) addSigned(sec section, s *servedZone, node zones.NodeID, set *zones.RRset, at int, owner []byte) bool {
	m := &a.m
	k := m.mark(sec)
	ttl := set.TTL
	fits := false
	if set.Type == typeNSEC || set.Type == typeNSEC3 {
		ttl = min(ttl, s.zone.Negative().TTL) // RFC 9077 §3
		fits = m.addAs(sec, set, ttl, at, owner)
	} else {
		fits = m.addSet(sec, set, at, owner)
	}
	if !fits || !a.signed(s) {
		return fits
	}
	sigs, ok := s.zone.Signatures(node, set.Type)
	return m.settle(sec, k, !ok || m.addAs(sec, &sigs, ttl, at, owner))
}

// deny notes what proves the outcome of a lookup of the name at hand.
func (a *answer) deny(s *servedZone, r *zones.Result) {
	if !a.signed(s) {
		return
	}
	var buf [maxDenials]zones.NodeID
	for _, node := range s.zone.Deny(a.name[:a.len], r, buf[:0]) {
		a.prove(setOwner{s, node})
	}
}

func (a *answer) prove(o setOwner) {
	p := &a.proofs
	for i := range p.list[:p.n] {
		if p.list[i] == o {
			return
		}
	}
	if p.n < len(p.list) {
		p.list[p.n] = o
		p.n++
	}
}

// addProofs writes to the authority section what deny noted. It is called when
// the answer section is complete and before anything is additional. Without
// its proof an answer is worth nothing to a validator, so each must come, or TC.
func (a *answer) addProofs() {
	p := &a.proofs
	var owner [maxNameLen]byte
	for _, o := range p.list[:p.n] {
		if a.flags&flagTC != 0 {
			break
		}
		rrtype := uint16(typeNSEC)
		if o.zone.zone.Denial() == zones.NSEC3 {
			rrtype = typeNSEC3
		}
		set, ok := o.zone.zone.RRset(o.node, rrtype)
		if ok && !a.addSigned(sectionAuthority, o.zone, o.node, &set, 0, o.zone.zone.Owner(o.node, owner[:0])) {
			a.flags |= flagTC
		}
	}
	p.n = 0
}

// delegate appends to a referral the DS RRset of the cut, or the proof that it
// has none (RFC 4035 §3.1.4). Both must come, or TC.
func (a *answer) delegate(s *servedZone, r *zones.Result) bool {
	if !a.signed(s) {
		return true
	}
	if set, ok := s.zone.RRset(r.Node, typeDS); ok && !a.addSigned(sectionAuthority, s, r.Node, &set, 0, a.name[r.Suffix:a.len]) {
		a.flags |= flagTC
	}
	a.addProofs()
	return a.flags&flagTC == 0
}

// addAs appends records with another TTL than their own. Their type is one
// whose RDATA is never compressed.
func (m *message) addAs(s section, set *zones.RRset, ttl uint32, at int, owner []byte) bool {
	k := m.mark(s)
	for wire := set.Wire; len(wire) >= pointerLen+recordFixed; {
		fixed := wire[pointerLen : pointerLen+recordFixed]
		end := pointerLen + recordFixed + int(binary.BigEndian.Uint16(fixed[8:]))
		if len(m.b)+end > m.limit { // an owner has two octets or more
			return m.settle(s, k, false)
		}
		at = m.addOwner(at, owner)
		m.b = append(m.b, fixed[:4]...)
		m.b = binary.BigEndian.AppendUint32(m.b, ttl)
		m.b = append(m.b, wire[pointerLen+8:end]...)
		wire = wire[end:]
	}
	m.counted(s, set.Count, ttl)
	return m.settle(s, k, true)
}
