package zones

import (
	"bytes"
	"iter"
	"runtime"
)

// inOverlay is the bit of a NodeID that says that the node is in the overlay.
const inOverlay NodeID = 1 << 31

// node is the node of an ID.
func (z *Zone) node(n NodeID) node {
	if top := z.overlay; top != nil {
		if n&inOverlay != 0 {
			return top.at(uint32(n &^ inOverlay))
		}
		if n == Apex && top.apex != 0 {
			return top.at(0)
		}
	}
	return z.base.at(uint32(n))
}

// find looks up a name below the apex, relative to the origin and in lower
// case; the node is nil when there is none.
func (z *Zone) find(h uint64, rel []byte) (NodeID, node) {
	if top := z.overlay; top != nil {
		if n := top.find(h, rel); n != 0 {
			d := top.at(n)
			if d.gone() {
				return 0, nil
			}
			return NodeID(n) | inOverlay, d
		}
	}
	n := z.base.find(h, rel)
	if n == 0 {
		return 0, nil
	}
	return NodeID(n), z.base.at(n)
}

// relative finds the labels that a name in lower-case wire form has before the
// origin; depth is how many. It is false for what is not a name of the zone.
func (z *Zone) relative(name []byte, at *starts) (depth int, ok bool) {
	end := len(name) - len(z.origin)
	if end < 0 || len(name) > maxNameBytes || !bytes.Equal(name[end:], z.origin) {
		return 0, false
	}
	for i := 0; i < end; i += 1 + int(name[i]) {
		if name[i] == 0 || name[i] > maxLabelBytes || i+1+int(name[i]) > end {
			return 0, false
		}
		at[depth] = uint8(i)
		depth++
	}
	return depth, true
}

// Lookup resolves name and type by RFC 1034 §4.3.2 within z. name is in
// lower-case wire form; one that is malformed is NotInZone. DS at a cut is
// answered by the parent (RFC 4035 §3.1.4.1); qtype ANY is Found on every node
// that owns data.
//
// It walks down from the apex as the algorithm has it. Empty non-terminals are
// nodes, so the first name that is not there ends the walk, and the hash of
// each name goes on from that of the one above: one probe a label, and no more
// of them for a name of a hundred labels that does not exist.
func (z *Zone) Lookup(name []byte, qtype uint16, r *Result) {
	*r = Result{}
	var at starts
	depth, ok := z.relative(name, &at)
	if !ok {
		r.Kind = NotInZone
		return
	}
	h := z.base.key.seed
	end := len(name) - len(z.origin)
	suffix := end // where the name of the node n begins
	n, d := Apex, z.node(Apex)
	for i := depth - 1; i >= 0; i-- {
		if d.flags()&(flagCut|flagDNAME) != 0 {
			z.occluded(n, d, suffix, r)
			return
		}
		start := int(at[i])
		h2 := z.base.key.label(h, name[start:suffix])
		child, cd := z.find(h2, name[start:end])
		if cd == nil || cd.flags()&flagHash != 0 {
			r.Suffix = suffix
			z.missing(n, d, h, name[suffix:end], qtype, r)
			return
		}
		h, suffix, n, d = h2, start, child, cd
	}
	if d.flags()&flagCut != 0 && qtype != typeDS {
		z.occluded(n, d, suffix, r)
		return
	}
	// A DNAME redirects what is below its owner, not the owner (RFC 6672 §2.3).
	z.match(n, d, qtype, r)
}

// Plain is Lookup and RRset in one for the most common outcomes: Found, with the
// records and how many they are, NoData, NXDomain, CNAME, with its record, and
// Referral, with the NS records of the cut and where its name begins. Any other is
// 0, and Lookup's. name is well formed, in lower case and in the zone, qtype is
// not DS; labels are where those before the origin start.
func (z *Zone) Plain(name []byte, labels []uint8, qtype uint16) (kind Kind, n NodeID, wire []byte, count, suffix int) {
	h := z.base.key.seed
	end := len(name) - len(z.origin)
	suffix = end
	n, d := Apex, z.node(Apex)
	for i := len(labels) - 1; i >= 0; i-- {
		if d.flags()&(flagCut|flagDNAME) != 0 {
			break
		}
		start := int(labels[i])
		h2 := z.base.key.label(h, name[start:suffix])
		child, cd := z.find(h2, name[start:end])
		if cd == nil || cd.flags()&flagHash != 0 {
			if d.flags()&flagWild == 0 {
				return NXDomain, n, nil, 0, 0
			}
			var buf [maxNameBytes + 2]byte
			star := append(append(buf[:0], 1, '*'), name[suffix:end]...)
			if n, d = z.find(z.base.key.label(h, star[:2]), star); d.flags()&flagCut != 0 {
				return 0, 0, nil, 0, 0
			}
			suffix = 0
			break
		}
		h, suffix, n, d = h2, start, child, cd
	}
	switch flags := d.flags(); {
	case flags&flagCut != 0:
		wire, count = d.set(typeNS)
		return Referral, n, wire, count, suffix
	case flags&flagDNAME != 0 && suffix > 0:
		return 0, 0, nil, 0, 0
	}
	wire, count = d.set(qtype)
	switch {
	case wire != nil:
		return Found, n, wire, count, 0
	case d.flags()&flagCNAME != 0:
		wire, count = d.set(typeCNAME)
		return CNAME, n, wire, count, 0
	}
	return NoData, n, nil, 0, 0
}

// missing answers for a name below its closest encloser n (RFC 4592 §3.3.1),
// whose hash is h and whose name relative to the origin is rel.
func (z *Zone) missing(n NodeID, d node, h uint64, rel []byte, qtype uint16, r *Result) {
	if d.flags()&flagWild == 0 {
		r.Kind, r.Node = NXDomain, n
		return
	}
	var buf [maxNameBytes + 2]byte
	star := append(append(buf[:0], 1, '*'), rel...)
	n, d = z.find(z.base.key.label(h, star[:2]), star)
	r.Wildcard = true
	z.match(n, d, qtype, r)
}

// match matches the RRsets of a node against the type.
func (z *Zone) match(n NodeID, d node, qtype uint16, r *Result) {
	r.Node = n
	switch {
	case d.sets() == 0:
		r.Kind = NoData
	case qtype == typeANY || d.has(qtype):
		r.Kind = Found
	case d.flags()&flagCNAME != 0:
		r.Kind = CNAME
	default:
		r.Kind = NoData
	}
	runtime.KeepAlive(z)
}

// occluded answers for a name at or below the cut, or below the DNAME, that n
// owns. A node with both counts as a cut: RFC 1034 §4.3.2 looks for it first.
func (z *Zone) occluded(n NodeID, d node, suffix int, r *Result) {
	r.Kind = DNAME
	if d.flags()&flagCut != 0 {
		r.Kind = Referral
	}
	r.Node, r.Suffix = n, suffix
	runtime.KeepAlive(z)
}

// occluder finds the topmost zone cut or DNAME owner strictly above a name
// that is relative to the origin and in lower case.
func (z *Zone) occluder(rel []byte) (NodeID, node) {
	var at starts
	h := z.base.key.seed
	end := len(rel)
	n, d := Apex, z.node(Apex)
	for i := at.split(rel) - 1; i >= 0 && d != nil; i-- {
		if d.flags()&(flagCut|flagDNAME) != 0 {
			return n, d
		}
		h = z.base.key.label(h, rel[at[i]:end])
		end = int(at[i])
		n, d = z.find(h, rel[end:])
	}
	return 0, nil
}

// Find returns the node of exactly this name, with no wildcard, cut or alias
// rule: for glue, for targets of additional data, and for steering.
func (z *Zone) Find(name []byte) (NodeID, bool) {
	var at starts
	depth, ok := z.relative(name, &at)
	if !ok || depth == 0 {
		return Apex, ok
	}
	h := z.base.key.seed
	rel := name[:len(name)-len(z.origin)]
	end := len(rel)
	for i := depth - 1; i >= 0; i-- {
		h = z.base.key.label(h, rel[at[i]:end])
		end = int(at[i])
	}
	n, d := z.find(h, rel)
	runtime.KeepAlive(z)
	return n, d != nil
}

// RRset returns the RRset of a type at a node; ok is false when there is none.
func (z *Zone) RRset(n NodeID, rrtype uint16) (rrs RRset, ok bool) {
	wire, count := z.node(n).set(rrtype)
	if wire == nil {
		return RRset{}, false
	}
	return rrset(wire, count), true
}

// RRsets appends every RRset at a node to dst, by type, signatures too.
func (z *Zone) RRsets(n NodeID, dst []RRset) []RRset {
	for w := z.node(n).all(); w.left > 0; {
		wire, _, count := w.next()
		dst = append(dst, rrset(wire, count))
	}
	return dst
}

// Owner appends the owner name of a node, in wire form and, up to the origin,
// as written, to dst.
func (z *Zone) Owner(n NodeID, dst []byte) []byte {
	dst = append(append(dst, z.node(n).name()...), z.origin...)
	runtime.KeepAlive(z)
	return dst
}

// Names yields every owner name, in lower-case wire form, with its node in
// canonical order (RFC 4034 §6.1). Empty non-terminals are left out; names
// below a zone cut are not. The slice is only valid within the loop's body.
// A nil Zone has none.
func (z *Zone) Names() iter.Seq2[[]byte, NodeID] {
	return func(yield func([]byte, NodeID) bool) {
		if z == nil {
			return
		}
		buf := make([]byte, 0, maxNameBytes)
		for n, d := range z.sorted() {
			if d.sets() == 0 {
				continue
			}
			buf = append(appendLower(buf[:0], d.name()), z.origin...)
			if !yield(buf, n) {
				return
			}
		}
	}
}

// sorted yields all nodes in canonical order.
func (z *Zone) sorted() iter.Seq2[NodeID, node] {
	return func(yield func(NodeID, node) bool) {
		defer runtime.KeepAlive(z)
		c := z.cursor()
		for n, d := c.live(); d != nil; n, d = c.live() {
			if !yield(n, d) {
				return
			}
		}
	}
}

// compareRelative orders names that are relative to the same origin.
func compareRelative(a, b []byte) int {
	var as, bs starts
	return compareNames(a, as[:as.split(a)], b, bs[:bs.split(b)])
}
