package dnsserver

import (
	"encoding/binary"

	"perigee.example/zones"
)

// maxTargets bounds the names whose data come with one SVCB or HTTPS answer.
// Real sets have one or two; eight names with two addresses of each family fill
// a UDP reply.
const maxTargets = 8

// svcbTarget is a name that an SVCB or HTTPS answer leads to.
type svcbTarget struct {
	name  []byte // as it stands in a zone; nil is the owner of the answer
	alias bool   // AliasMode: the name's own SVCB or HTTPS RRset comes first (RFC 9460 §2.4.2)
}

// targets is where an SVCB or HTTPS answer leads, each name once.
type targets struct {
	list [maxTargets]svcbTarget
	n    int
}

func (t *targets) enter(name []byte, alias bool) {
	for _, old := range t.list[:t.n] {
		if old.alias == alias && equalNames(old.name, name) {
			return
		}
	}
	if t.n < len(t.list) {
		t.list[t.n] = svcbTarget{name, alias}
		t.n++
	}
}

// enterSet enters the TargetNames of an SVCB or HTTPS RRset. In ServiceMode "."
// is the owner; in AliasMode it says that there is no service (RFC 9460 §2.5).
func (t *targets) enterSet(set *zones.RRset, owner []byte) {
	const priority = 2 // octets of SvcPriority; 0 is AliasMode
	for wire := set.Wire; len(wire) > pointerLen+recordFixed; {
		end := pointerLen + recordFixed + int(binary.BigEndian.Uint16(wire[pointerLen+8:]))
		rdata := wire[pointerLen+recordFixed : end]
		wire = wire[end:]
		n := targetLen(rdata[min(priority, len(rdata)):])
		if n == 0 {
			continue
		}
		alias := rdata[0]|rdata[1] == 0
		switch {
		case n > 1:
			t.enter(rdata[priority:priority+n], alias)
		case !alias:
			t.enter(owner, false)
		}
	}
}

// targetLen is the length of the name at the start of b, or 0 when there is
// none: nothing has looked into the RDATA of these types before.
func targetLen(b []byte) int {
	for i := 0; i < len(b) && i < maxNameLen && b[i] <= maxLabelLen; i += 1 + int(b[i]) {
		if b[i] == 0 {
			return i + 1
		}
	}
	return 0
}

// addTargets puts into the additional section what a client of an SVCB or
// HTTPS answer needs next (RFC 9460 §4.1): the addresses of each TargetName
// that is in a zone of ours, and in AliasMode what that name's own SVCB or
// HTTPS RRset leads to. A steered name stands there as it would answer a query
// for its addresses, and the reply has its scope. What does not fit is left out.
func (a *answer) addTargets() {
	from := a.svcb
	if from.zone == nil || a.flags&flagTC != 0 {
		return
	}
	set, ok := from.zone.zone.RRset(from.node, a.q.qtype)
	if !ok {
		return
	}
	owner := a.name[:a.len]
	hosted := false
	var t targets
	t.enterSet(&set, nil)
	for i := 0; i < t.n; i++ {
		switch to := t.list[i]; {
		case to.name != nil && !equalNames(to.name, owner):
			a.addTarget(&t, to)
		case !to.alias && !hosted: // its SVCB or HTTPS RRset is the answer
			a.addHost(from.zone, from.node, a.at, nil)
			hosted = true
		}
	}
}

// addTarget appends what one name has, and enters where it leads.
func (a *answer) addTarget(t *targets, to svcbTarget) {
	var low [maxNameLen]byte
	if !lowerName(&low, to.name) {
		return
	}
	name := low[:len(to.name)]
	s := a.v.find(name, a.q.qtype)
	if s == nil {
		return
	}
	var r zones.Result
	s.zone.Lookup(name, a.q.qtype, &r)
	if r.Wildcard && a.signed(s) {
		return // it would be worth nothing without its proof (RFC 4035 §3.1.3.3)
	}
	switch r.Kind {
	case zones.CNAME:
		if target := a.addCNAME(s, r.Node, to.name); target != nil {
			t.enter(target, to.alias)
		}
	case zones.Found, zones.NoData:
		set, ok := s.zone.RRset(r.Node, a.q.qtype)
		if !to.alias || !ok {
			a.addHost(s, r.Node, 0, to.name)
		} else if a.addSigned(sectionAdditional, s, r.Node, &set, 0, to.name) {
			t.enterSet(&set, to.name)
		}
	}
}

// addHost appends a name's addresses, steered or not. Owner and offset are
// those of message.addSet.
func (a *answer) addHost(s *servedZone, node zones.NodeID, at int, owner []byte) {
	st := s.steer.get(node)
	scope, count := a.scope, a.m.count[sectionAdditional]
	for _, rrtype := range [...]uint16{typeA, typeAAAA} {
		set, ok := s.zone.RRset(node, rrtype)
		if !ok {
			continue // steering creates nothing
		}
		if st != nil && !st.alias {
			a.choose(st, rrtype)
			if found, _ := a.addSteered(sectionAdditional, rrtype, at, owner); found {
				continue
			}
		}
		a.addSigned(sectionAdditional, s, node, &set, at, owner)
	}
	if a.m.count[sectionAdditional] == count {
		a.scope = scope // nothing fitted: the client did not matter
	}
}

// addCNAME appends a CNAME, steered or not, and returns its target.
func (a *answer) addCNAME(s *servedZone, node zones.NodeID, owner []byte) []byte {
	scope := a.scope
	if st := s.steer.get(node); st != nil && st.alias {
		if a.decide(st, nil); len(a.out.Decision.Endpoints) > 0 {
			m := &a.m
			target := a.v.endpoints[a.out.Decision.Endpoints[0]].target
			ttl := seconds(a.out.Decision.TTL)
			k := m.mark(sectionAdditional)
			m.addOwner(0, owner)
			m.b = append(m.b, 0, typeCNAME, 0, classIN)
			m.b = binary.BigEndian.AppendUint32(m.b, ttl)
			m.b = append(m.b, 0, 0)
			m.addRdata(typeCNAME, target)
			m.counted(sectionAdditional, 1, ttl)
			if m.settle(sectionAdditional, k, true) {
				return target
			}
			a.scope = scope
			return nil
		}
	}
	set, ok := s.zone.RRset(node, typeCNAME)
	if !ok || len(set.Wire) <= pointerLen+recordFixed || !a.addSigned(sectionAdditional, s, node, &set, 0, owner) {
		return nil
	}
	return set.Wire[pointerLen+recordFixed:]
}

// equalNames compares two uncompressed names without case.
func equalNames(x, y []byte) bool {
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if lower(x[i]) != lower(y[i]) {
			return false
		}
	}
	return true
}
