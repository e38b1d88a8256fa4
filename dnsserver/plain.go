package dnsserver

import (
	"encoding/binary"
	"runtime"

	"perigee.example/policy"
	"perigee.example/zones"
)

// The hot path. A plain query has one question of class IN for a common type,
// and an OPT or nothing behind it; and its answer is one RRset, the addresses of
// one endpoint, or nothing. It is answered here, from its first octet to the
// reply's last; plain_names.go has short chains and referrals, which write names.
// Whatever else a query or its answer is, is left to answer.go, which could answer
// the plain ones too, in twice the time: it keeps 3 KiB of state for long chains,
// proofs and compression that these do not have. Tests and fuzzers hold the two
// against each other.

const (
	// A plain name has at most so many octets and labels: what is longer is
	// seldom asked for, and would need more room to be cleared for each query.
	plainOctets = 128
	plainLabels = 16
	// chattersEnd is above the ports of chatters.
	chattersEnd = 512

	// Of flags and the first three counts: QR and OPCODE 0, one question,
	// no answer and no authority.
	plainHead = 1 << 32
	plainMask = (flagQR|opcodeMask)<<48 | 1<<48 - 1

	// Types of less than 64 that resolvers ask for and no rule is about, and
	// of these the ones whose RRsets are copied as they are.
	typeSRV       = 33
	plainTypes    = 1<<64 - 1 - (1 | 1<<typeOPT | 1<<typeDS | 1<<typeRRSIG)
	verbatimTypes = 1<<typeA | 1<<typeTXT | 1<<typeAAAA | 1<<typeSRV
)

// plainly is Answer for a query whose question q has been looked at; false leaves
// it, and dst, as they were.
func (v *View) plainly(dst, packet []byte, q *plainQuestion, c *Context, out *Outcome) ([]byte, bool) {
	if c.Limited || c.From.Port() < chattersEnd {
		return dst, false
	}
	end := headerLen + q.size + 4
	var e edns
	if !e.readPlain(packet[end:], binary.BigEndian.Uint16(packet[10:])) {
		return dst, false
	}
	s := q.zone
	if e.do && s.zone.HasSignatures() {
		return dst, false
	}
	kind, node, records, count, suffix := s.zone.Plain(q.text[:q.size], q.above(s), q.qtype)
	var r plainReply // see View.decide for why not as a literal
	r.flags, r.records, r.count = flagAA, records, count
	switch kind {
	case zones.Found:
		if uint64(1)<<q.qtype&verbatimTypes == 0 { // 0 for a shift of 64 and more
			return dst, false
		}
		r.ttl = binary.BigEndian.Uint32(records[pointerLen+4:])
	case zones.NoData, zones.NXDomain:
		r.records, r.count, r.negative = s.negative.record, 0, &s.negative
		if kind == zones.NXDomain {
			r.rcode = rcodeNXDomain
		}
	case zones.CNAME, zones.Referral:
		return v.plainNames(dst, packet[:end], q, &e, c, out, plainStep{s, kind, node, records, suffix})
	default:
		return dst, false
	}
	*out = Outcome{Decision: policy.Decision{Endpoints: out.Decision.Endpoints[:0], Why: out.Decision.Why[:0]}}
	if kind == zones.Found {
		if st := s.steer.get(node); st != nil && !r.steer(v, st, q, &e, c, out) {
			return dst, false
		}
	}
	b, ok := r.write(dst, packet[:end], q, &e, c, out)
	if ok {
		out.Action, out.Zone, out.QType = Reply, s.origin, q.qtype
	}
	runtime.KeepAlive(v) // what the answer was copied from goes with the zones
	return b, ok
}

// plainQuestion is the question of a plain query.
type plainQuestion struct {
	plainName
	zone  *servedZone // to answer from
	qtype uint16
}

// plainName is a name in lower case.
type plainName struct {
	text    [plainOctets]byte
	labels  [plainLabels]uint8 // where they start
	size    int                // in octets
	nlabels int
}

// look reads the question of a packet and finds its zone. It is false, and zone
// nil, for a query that is not plain.
func (q *plainQuestion) look(v *View, packet []byte) bool {
	q.zone = nil
	if v == nil || v.table == nil || len(packet) < headerLen {
		return false
	}
	if binary.BigEndian.Uint64(packet[2:])&plainMask != plainHead || packet[10] != 0 || packet[11] > 1 || !q.read(packet[headerLen:]) {
		return false
	}
	rest := packet[headerLen+q.size:]
	if len(rest) < 4 || binary.BigEndian.Uint16(rest[2:]) != classIN {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(rest)
	if uint64(1)<<q.qtype&plainTypes == 0 && q.qtype != typeHTTPS && q.qtype != typeSVCB {
		return false
	}
	at := v.table.findAt(q.text[:q.size], q.labels[:q.nlabels], 0)
	if at < 0 {
		return false
	}
	q.zone = v.zones.at(at)
	return true
}

// above is where the labels above the origin of a zone that the name is in start.
func (n *plainName) above(s *servedZone) []uint8 { return n.labels[:n.nlabels-s.labels] }

// read reads the name at the start of b.
func (n *plainName) read(b []byte) bool {
	i, labels := 0, 0
	for {
		if i >= len(b) || i >= plainOctets {
			return false
		}
		label := int(b[i])
		if label == 0 {
			break
		}
		if label > maxLabelLen || labels == plainLabels {
			return false
		}
		n.labels[labels] = uint8(i)
		labels++
		i += 1 + label
	}
	n.size, n.nlabels = i+1, labels
	if n.size > len(b) {
		return false
	}
	lowerTo(n.text[:n.size], b)
	return true
}

// readPlain reads what is behind the question: nothing, or an OPT that asks for
// nothing that depends on more than the query.
func (e *edns) readPlain(b []byte, additional uint16) bool {
	if additional == 0 {
		return len(b) == 0
	}
	if len(b) < optLen || b[0] != 0 || binary.BigEndian.Uint16(b[1:]) != typeOPT || optLen+int(binary.BigEndian.Uint16(b[9:])) != len(b) {
		return false
	}
	return e.read(b[3:9], b[optLen:]) == rcodeNoError && !e.nsid && !e.expire && !e.keepalive
}

// plainReply is what a plain query is answered with.
type plainReply struct {
	records  []byte // as zones.RRset.Wire
	count    int
	ttl      uint32
	flags    uint16 // AA
	rcode    uint16
	scope    int
	steered  bool      // records still need ttl
	negative *negative // that records are of; nil when there is an answer
}

// steer decides for an address name. It is false when the choice is not the
// addresses of one endpoint, or needs an explanation.
func (r *plainReply) steer(v *View, st *steered, q *plainQuestion, e *edns, c *Context, out *Outcome) bool {
	if q.qtype != typeA && q.qtype != typeAAAA {
		return true
	}
	if st.alias || st.mixed {
		return false
	}
	scope, stale := v.decide(st, nil, &e.ecs, c, out)
	if stale || len(out.Decision.Endpoints) != 1 {
		return false
	}
	r.records = v.endpoints[out.Decision.Endpoints[0]].of(q.qtype)
	if r.count = 1; len(r.records) != addressLen(q.qtype) { // a division would have what follows wait
		r.count = len(r.records) / addressLen(q.qtype)
	}
	r.ttl, r.scope, r.steered = seconds(out.Decision.TTL), scope, true
	return r.count > 0
}

// write appends the reply to dst. It is false when it does not fit.
func (r *plainReply) write(dst, query []byte, q *plainQuestion, e *edns, c *Context, out *Outcome) ([]byte, bool) {
	var opt optReply
	e.plainOptions(&opt, c, out)
	size := len(query) + len(r.records) + e.replyLen(&opt, r.rcode)
	if size > e.limit(c.Transport) {
		return dst, false
	}
	base := len(dst)
	b := append(append(dst, query...), r.records...)
	records := b[base+len(query):]
	authority := 0
	switch {
	case r.negative != nil:
		authority = 1
		r.negative.move(records, q.size)
	case r.steered:
		setTTL(records, addressLen(q.qtype), r.ttl)
	}
	r.head(b[base:], authority)
	if e.present { // ARCOUNT is that of the query: the OPT
		b = e.appendOPT(b, &opt, r.rcode, uint8(r.scope), 0)
	}
	r.note(e, out)
	return b, true
}

// setTTL sets the TTL of records of one size.
func setTTL(records []byte, each int, ttl uint32) {
	for ; len(records) >= each; records = records[each:] {
		binary.BigEndian.PutUint32(records[pointerLen+4:], ttl)
	}
}

// plainOptions fills in what the reply's OPT says of our own.
func (e *edns) plainOptions(opt *optReply, c *Context, out *Outcome) {
	if e.cookie.present && c.Cookies != nil {
		opt.cookie = true
		out.ValidCookie, opt.server = e.cookie.check(c.Cookies, c.From.Addr(), c.Now)
	}
}

// head makes the header of a reply from that of the query.
func (r *plainReply) head(h []byte, authority int) {
	binary.BigEndian.PutUint16(h[2:], flagQR|r.flags|binary.BigEndian.Uint16(h[2:])&flagRD|r.rcode)
	binary.BigEndian.PutUint16(h[6:], uint16(r.count))
	binary.BigEndian.PutUint16(h[8:], uint16(authority))
}

// note fills in the outcome.
func (r *plainReply) note(e *edns, out *Outcome) {
	out.Rcode, out.Answers, out.TTL = r.rcode, r.count, r.ttl
	out.HasECS, out.Scope = e.ecs.present, r.scope
}

// negative is the SOA of a zone as it stands behind a question for the origin.
// Behind a longer one it is the same, with what its pointers lead to further on.
type negative struct {
	record   []byte
	pointers []uint16 // where they are in record
	origin   int      // octets of the origin
}

// packNegative makes it, with the packer of all other answers.
func packNegative(z *zones.Zone) negative {
	const fixed = 4 // QTYPE and QCLASS
	origin, set := z.OriginWire(), z.Negative()
	m := message{b: append(make([]byte, headerLen), origin...), limit: maxTCP}
	m.b = append(m.b, make([]byte, fixed)...)
	m.addSet(sectionAuthority, &set, 0, origin)
	n := negative{record: m.b[headerLen+len(origin)+fixed:], origin: len(origin)}
	next := 0
	for _, skip := range [...]int{0, recordFixed, 0} { // before owner, MNAME and RNAME
		next += skip
		for n.record[next] != 0 && n.record[next] < 0xC0 {
			next += 1 + int(n.record[next])
		}
		if n.record[next] == 0 {
			next++
			continue
		}
		n.pointers = append(n.pointers, uint16(next))
		next += pointerLen
	}
	return n
}

// move makes a copy of the record right behind a question whose name has size octets.
func (n *negative) move(record []byte, size int) {
	by := uint16(size - n.origin)
	for _, at := range n.pointers {
		p := record[at : at+pointerLen]
		binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)+by)
	}
}
