package dnsserver

import (
	"encoding/binary"
	"runtime"
	"slices"

	"perigee.example/policy"
	"perigee.example/zones"
)

// maxChain bounds how often one answer goes on at another name, by CNAME or
// DNAME. Real chains are 1 or 2; beyond 8 the resolver is left to ask again.
const maxChain = 8

// answer is one query being answered.
type answer struct {
	v   *View
	q   query // by value: a pointer would send it to the heap
	c   *Context
	out *Outcome
	m   message

	rcode uint16
	flags uint16 // AA and TC
	scope int
	opt   optReply
	ede   uint16 // RFC 8914; 0 is none

	// The name that is looked up now, in lower case, and where it stands in
	// the message.
	name   [maxNameLen]byte
	len    int
	at     int
	owners [maxChain + 1]uint16 // where the names before it stand, to notice a loop

	dnames  [maxChain + 1]setOwner // the DNAMEs that are in the answer
	ndnames int
	proofs  proofs
	svcb    setOwner // the SVCB or HTTPS RRset that is the answer, if it is one
}

// setOwner is the owner of an RRset that is to be in an answer once.
type setOwner struct {
	zone *servedZone
	node zones.NodeID
}

// Answer appends the reply to the query in wire form to dst and returns it. It
// is pure, allocates nothing when dst has room and out is reused, and is the
// only path by which a packet is answered.
//
// Room is maxUDP for UDP and 65535 octets for TCP, and some hundred more. With
// Outcome.Action other than Reply, dst comes back as it was.
func (v *View) Answer(dst, packet []byte, c *Context, out *Outcome) []byte {
	var q plainQuestion
	if q.look(v, packet) {
		if reply, ok := v.plainly(dst, packet, &q, c, out); ok {
			return reply
		}
	}
	return v.generally(dst, packet, c, out)
}

// generally is Answer for any query.
func (v *View) generally(dst, packet []byte, c *Context, out *Outcome) []byte {
	*out = Outcome{Action: Drop, Decision: policy.Decision{Endpoints: out.Decision.Endpoints[:0]}}
	a := answer{v: v, c: c, out: out}
	q := &a.q
	var answerable bool
	if a.rcode, answerable = q.parse(packet); !answerable || c.Transport == UDP && chatters(c.From.Port()) {
		return dst
	}
	a.options()
	a.m.b, a.m.base = dst, len(dst)
	a.m.limit = a.m.base + q.edns.limit(c.Transport) - q.edns.replyLen(&a.opt, a.rcode)
	a.m.b = append(a.m.b, packet[:headerLen+q.question]...)
	if a.gate() {
		a.resolve()
		a.addProofs()
		a.addTargets()
	}
	b := a.finish()
	runtime.KeepAlive(v) // what the answer was copied from goes with the zones
	return b
}

// finish writes header and OPT and fills in the outcome.
func (a *answer) finish() []byte {
	q, m, out := &a.q, &a.m, a.out
	ar := m.count[sectionAdditional]
	if q.edns.present {
		a.opt.expire = a.opt.expire && a.opt.expiry != 0
		if m.limit-len(m.b) < edeLen {
			a.ede = 0 // it is only for people
		}
		m.b = q.edns.appendOPT(m.b, &a.opt, a.rcode, uint8(a.scope), a.ede)
		ar++
	}
	h := m.b[m.base:]
	flags := flagQR | q.flags&(opcodeMask|flagRD) | a.flags | a.rcode&0xF
	binary.BigEndian.PutUint16(h[2:], flags)
	qd := uint16(0)
	if q.question > 0 {
		qd = 1
	}
	binary.BigEndian.PutUint16(h[4:], qd)
	binary.BigEndian.PutUint16(h[6:], m.count[sectionAnswer])
	binary.BigEndian.PutUint16(h[8:], m.count[sectionAuthority])
	binary.BigEndian.PutUint16(h[10:], ar)
	out.Action = Reply
	out.Rcode = a.rcode
	out.QType = q.qtype
	out.HasECS = q.edns.ecs.present && a.rcode != rcodeBadVers
	out.Scope = a.scope
	out.TTL = m.ttl
	out.Answers = int(m.count[sectionAnswer])
	out.TC = a.flags&flagTC != 0
	return m.b
}

// resolve is the algorithm of RFC 1034 §4.3.2 over all our zones: a zone looks
// one name up, and a CNAME or DNAME goes on with the next. The RCODE is that
// of the last name (RFC 6604 §3).
func (a *answer) resolve() {
	a.len = a.q.nameLen
	copy(a.name[:a.len], a.q.name[:a.len])
	a.at = headerLen
	for hop := 0; hop <= maxChain; hop++ {
		s := a.v.find(a.name[:a.len], a.q.qtype)
		if s == nil {
			if hop == 0 {
				a.rcode = rcodeRefused // no referral upwards: RFC 8906 §3.1.1
				a.ede = edeNotAuthoritative
				if a.v == nil {
					a.ede = edeNotReady
				}
			}
			return
		}
		if hop == 0 {
			a.flags |= flagAA
			a.out.Zone = s.origin
		}
		a.owners[hop] = uint16(a.at)
		if !a.step(s, hop) {
			return
		}
		for _, at := range a.owners[:hop+1] {
			if a.m.equal(int(at), a.name[:a.len]) {
				return // a loop: what there is of it has been said
			}
		}
	}
}

// step answers for the name at hand out of one zone. It is true when the
// answer goes on at another name.
func (a *answer) step(s *servedZone, hop int) bool {
	var r zones.Result
	s.zone.Lookup(a.name[:a.len], a.q.qtype, &r)
	a.deny(s, &r)
	switch r.Kind {
	case zones.Found:
		a.found(s, r.Node)
	case zones.NoData:
		a.negative(s)
	case zones.NXDomain:
		a.rcode = rcodeNXDomain
		a.negative(s)
	case zones.Referral:
		if hop == 0 {
			a.flags &^= flagAA
		}
		a.refer(s, &r)
	case zones.CNAME:
		return a.alias(s, r.Node)
	case zones.DNAME:
		return a.redirect(s, &r)
	default:
		a.rcode = rcodeServFail // the table and the zone disagree on what is in it
	}
	return false
}

// found answers with the RRset that was asked for.
func (a *answer) found(s *servedZone, node zones.NodeID) {
	a.restrain()
	qtype := a.q.qtype
	if qtype == typeANY {
		qtype = s.anyType(node)
	}
	if st := s.steer.get(node); st != nil {
		switch {
		case !st.alias && (qtype == typeA || qtype == typeAAAA):
			a.addresses(s, node, st, qtype)
			return
		case st.alias && qtype == typeCNAME:
			a.alias(s, node)
			return
		}
	}
	set, ok := s.zone.RRset(node, qtype)
	if !ok {
		a.rcode = rcodeServFail // Lookup found it: never an empty NOERROR
		return
	}
	if qtype == typeSOA && a.at == headerLen {
		// EXPIRE is the last but one of five numbers. A primary's zone does not
		// age (RFC 7314 §3.1).
		a.opt.expiry = binary.BigEndian.Uint32(set.Wire[len(set.Wire)-8:])
	}
	a.addAnswer(s, node, &set)
	if qtype == a.q.qtype && (qtype == typeSVCB || qtype == typeHTTPS) {
		a.svcb = setOwner{s, node}
	}
}

// anyType picks the one RRset that answers a query for ANY (RFC 8482 §4.1).
func (s *servedZone) anyType(node zones.NodeID) uint16 {
	var buf [32]zones.RRset
	sets := s.zone.RRsets(node, buf[:0])
	for i := range sets {
		if sets[i].Type != typeRRSIG {
			return sets[i].Type
		}
	}
	return typeRRSIG
}

// addAnswer appends an RRset of the name at hand to the answer section.
func (a *answer) addAnswer(s *servedZone, node zones.NodeID, set *zones.RRset) {
	if !a.addSigned(sectionAnswer, s, node, set, a.at, nil) {
		a.flags |= flagTC
	}
}

// negative appends the SOA (RFC 2308 §2.1, §2.2). It must come, or TC.
func (a *answer) negative(s *servedZone) {
	set := s.zone.Negative()
	if !a.addSigned(sectionAuthority, s, zones.Apex, &set, 0, s.zone.OriginWire()) {
		a.flags |= flagTC
	}
}

// alias follows a CNAME, steered or not. It is true when the answer goes on.
func (a *answer) alias(s *servedZone, node zones.NodeID) bool {
	if st := s.steer.get(node); st != nil && st.alias {
		if a.decide(st, nil); len(a.out.Decision.Endpoints) > 0 {
			target := a.v.endpoints[a.out.Decision.Endpoints[0]].target
			return a.cname(target, seconds(a.out.Decision.TTL), nil) && a.q.qtype != typeCNAME && a.q.qtype != typeANY
		}
	}
	set, ok := s.zone.RRset(node, typeCNAME)
	if !ok || len(set.Wire) <= pointerLen+recordFixed {
		a.rcode = rcodeServFail
		return false
	}
	var sigs zones.RRset
	if a.signed(s) {
		sigs, _ = s.zone.Signatures(node, typeCNAME)
	}
	return a.cname(set.Wire[pointerLen+recordFixed:], set.TTL, &sigs) && a.q.qtype != typeCNAME && a.q.qtype != typeANY
}

// cname appends a CNAME record of the name at hand, with its signatures if it
// has any, and goes to its target. It is false when the answer ends here.
func (a *answer) cname(target []byte, ttl uint32, sigs *zones.RRset) bool {
	m := &a.m
	k := m.mark(sectionAnswer)
	m.b = append(m.b, 0xC0|byte(a.at>>8), byte(a.at), 0, typeCNAME, 0, classIN)
	m.b = binary.BigEndian.AppendUint32(m.b, ttl)
	m.b = append(m.b, 0, 0)
	at := m.addRdata(typeCNAME, target)
	m.counted(sectionAnswer, 1, ttl)
	if !m.settle(sectionAnswer, k, sigs == nil || m.addAs(sectionAnswer, sigs, ttl, a.at, nil)) {
		a.flags |= flagTC
		return false
	}
	if at >= maxPointer {
		return false // no pointer reaches the next owner: the resolver asks again
	}
	if !lowerName(&a.name, target) {
		a.rcode = rcodeServFail
		return false
	}
	a.len, a.at = len(target), at
	return true
}

// redirect appends a DNAME and the CNAME made from it (RFC 6672 §3.1), and goes
// to the target, also for ANY: nothing is there that could answer it (§3.2). A
// target too long for a name is YXDOMAIN (§2.2).
func (a *answer) redirect(s *servedZone, r *zones.Result) bool {
	set, ok := s.zone.RRset(r.Node, typeDNAME)
	if !ok || len(set.Wire) <= pointerLen+recordFixed {
		a.rcode = rcodeServFail
		return false
	}
	owner := setOwner{s, r.Node}
	if !slices.Contains(a.dnames[:a.ndnames], owner) { // one that leads below itself is said once
		if !a.addSigned(sectionAnswer, s, r.Node, &set, 0, a.name[r.Suffix:a.len]) {
			a.flags |= flagTC
			return false
		}
		a.dnames[a.ndnames] = owner
		a.ndnames++
	}
	target := set.Wire[pointerLen+recordFixed:]
	if r.Suffix+len(target) > maxNameLen {
		a.rcode = rcodeYXDomain
		return false
	}
	var to [maxNameLen]byte
	n := a.rawPrefix(to[:], r.Suffix)
	n += copy(to[n:], target)
	// RFC 6672 §5.3.1: not signed, since the DNAME is.
	return a.cname(to[:n], set.TTL, nil) && a.q.qtype != typeCNAME
}

// rawPrefix copies the first n octets of the name at hand as they stand in the
// message, so that a name made from them keeps its case.
func (a *answer) rawPrefix(to []byte, n int) int {
	b := a.m.b[a.m.base:]
	at, done := a.at, 0
	for done < n {
		if l := int(b[at]); l >= 0xC0 {
			at = (l&0x3F)<<8 | int(b[at+1])
			continue
		}
		k := 1 + int(b[at])
		done += copy(to[done:], b[at:at+k])
		at += k
	}
	return done
}

// refer answers with a referral: the NS of the cut and its glue. Glue below the
// cut must come, or TC (RFC 9471 §3.1); that of sibling names comes if it fits.
func (a *answer) refer(s *servedZone, r *zones.Result) {
	cut := a.name[r.Suffix:a.len]
	set, ok := s.zone.RRset(r.Node, typeNS)
	if !ok {
		a.rcode = rcodeServFail
		return
	}
	if !a.m.addSet(sectionAuthority, &set, 0, cut) {
		a.flags |= flagTC
		return
	}
	if !a.delegate(s, r) {
		return
	}
	if !a.glue(s, &set, cut, glueBelow) {
		a.flags |= flagTC
		return
	}
	if a.glue(s, &set, cut, glueBeside) && a.signed(s) {
		a.glue(s, &set, cut, glueSignatures)
	}
}

// glueKind is one part of a referral's additional section, in order.
type glueKind uint8

const (
	glueBelow      glueKind = iota // addresses below the cut
	glueBeside                     // those of other names
	glueSignatures                 // of the latter; the first to go when room is short (RFC 4035 §3.1.1)
)

// glue appends one part of what the targets of an NS RRset have. It is false
// when something did not fit.
func (a *answer) glue(s *servedZone, ns *zones.RRset, cut []byte, kind glueKind) bool {
	var low [maxNameLen]byte
	fits := true
	wire := ns.Wire
	for len(wire) > pointerLen+recordFixed {
		end := pointerLen + recordFixed + int(binary.BigEndian.Uint16(wire[pointerLen+8:]))
		target := wire[pointerLen+recordFixed : end]
		wire = wire[end:]
		if !lowerName(&low, target) || within(low[:len(target)], cut) != (kind == glueBelow) {
			continue
		}
		node, ok := s.zone.Find(low[:len(target)])
		if !ok {
			continue
		}
		for _, t := range [...]uint16{typeA, typeAAAA} {
			set, ok := s.zone.RRset(node, t)
			if ok && kind == glueSignatures {
				if sigs, ok := s.zone.Signatures(node, t); ok {
					a.m.addAs(sectionAdditional, &sigs, set.TTL, 0, target)
				}
			} else if ok && !a.m.addSet(sectionAdditional, &set, 0, target) {
				fits = false
			}
		}
	}
	return fits
}

// within reports whether name is suffix or below it; both in lower case.
func within(name, suffix []byte) bool {
	for len(name) > len(suffix) {
		name = name[1+int(name[0]):]
	}
	return string(name) == string(suffix)
}
