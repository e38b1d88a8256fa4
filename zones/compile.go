package zones

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	"github.com/miekg/dns"
)

// maxRRset is the largest RRset that fits into a message by TCP with a header,
// the longest question, an OPT record and the longest owner.
const maxRRset = math.MaxUint16 - 12 - (maxNameBytes + 4) - 64 - maxNameBytes

// compiler makes an image from sorted records.
type compiler struct {
	l    *loader
	z    *Zone
	path []uint32 // the nodes from the apex to the last one made
	last []byte   // the key of the last owner
	at   []pos    // where the first record of each RRset stood
	bufs [2][]byte
}

// pos is a place in a file.
type pos struct {
	line uint32
	file uint16
}

func (l *loader) ownerOf(r *record) []byte { return l.names[r.name : r.name+uint32(r.nameLen)] }
func (l *loader) keyOf(r *record) []byte   { return l.keys[r.key : r.key+uint32(r.keyLen)] }
func (l *loader) dataOf(r *record) []byte  { return l.rdata[r.rdata : r.rdata+uint32(r.rdataLen)] }

// compile sorts the records, builds the image, and lints. It returns nil when
// there is no SOA to build a zone around.
func (l *loader) compile() *Zone {
	if int64(len(l.rdata))+int64(recordHeader*len(l.recs)) > math.MaxUint32 || len(l.names) > math.MaxUint32 {
		l.stop(l.open[0].name, 0, "the zone has more than 4 GiB of data", "split the zone")
		return nil
	}
	slices.SortStableFunc(l.recs, func(a, b record) int {
		if a.key != b.key || a.keyLen != b.keyLen {
			if c := bytes.Compare(l.keyOf(&a), l.keyOf(&b)); c != 0 {
				return c
			}
		}
		if c := cmp.Compare(a.rrtype, b.rrtype); c != 0 {
			return c
		}
		return bytes.Compare(l.dataOf(&a), l.dataOf(&b))
	})
	z := &Zone{text: FormatName(l.origin), origin: l.origin, labels: countLabels(l.origin)}
	c := &compiler{l: l, z: z}
	if !c.checkSOA() {
		return nil
	}
	for i := 0; i < len(l.recs); {
		j := i + 1
		for j < len(l.recs) && bytes.Equal(l.keyOf(&l.recs[j]), l.keyOf(&l.recs[i])) {
			j++
		}
		c.owner(l.recs[i:j])
		i = j
	}
	c.link()
	c.index()
	c.chains()
	c.negative()
	c.lint()
	return z
}

func (c *compiler) report(p pos, warning bool, hint, format string, args ...any) {
	c.l.report(Finding{File: c.l.files[p.file].path, Line: int(p.line), Warning: warning, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func posOf(r *record) pos { return pos{line: r.line, file: r.file} }

func typeName(t uint16) string { return dns.Type(t).String() }

// checkSOA finds the one SOA at the apex.
func (c *compiler) checkSOA() bool {
	var apex *record
	for i := range c.l.recs {
		r := &c.l.recs[i]
		if r.rrtype != typeSOA {
			continue
		}
		switch {
		case r.keyLen != 0: // keys are relative to the apex
			c.report(posOf(r), false, "the origin of this file is "+c.z.text+": check the name of the file or of the zone in perigee.toml, and $ORIGIN",
				"SOA at %s, which is not the apex", FormatName(c.l.ownerOf(r)))
		case apex == nil:
			apex = r
		case !bytes.Equal(c.canonical(0, apex), c.canonical(1, r)):
			first, second := posOf(apex), posOf(r)
			if second.line < first.line {
				first, second = second, first
			}
			c.report(second, false, "keep the one with the serial that you mean", "second SOA; the first is on line %d", first.line)
		}
	}
	if apex == nil {
		c.report(pos{}, false, "a zone starts with: @ SOA ns1 hostmaster 1 3600 900 1209600 300", "no SOA at %s", c.z.text)
	}
	return apex != nil
}

// canonical is the RDATA of a record in one of two buffers, for comparing.
func (c *compiler) canonical(buf int, r *record) []byte {
	c.bufs[buf] = appendCanonical(c.bufs[buf][:0], r.rrtype, c.l.dataOf(r))
	return c.bufs[buf]
}

// owner adds a node with the records of one owner, and the empty
// non-terminals above it.
func (c *compiler) owner(recs []record) {
	m := &c.z.img
	name := c.l.ownerOf(&recs[0])
	base := uint32(len(m.names))
	m.names = append(m.names, name...)
	depth := countLabels(name) - c.z.labels
	c.path = c.path[:c.shared(c.l.keyOf(&recs[0]))]
	for d := len(c.path); d <= depth; d++ {
		skip := 0
		for range depth - d {
			skip += 1 + int(name[skip])
		}
		c.path = append(c.path, uint32(len(m.nodes)))
		nd := node{name: base + uint32(skip), size: uint8(len(name) - skip), sets: uint32(len(m.sets)), over: noNode, wild: noNode}
		if d < depth {
			nd.flags |= flagEmpty
		}
		for _, b := range name[skip:] {
			if b != lower(b) {
				nd.flags |= flagMixed
			}
		}
		m.nodes = append(m.nodes, nd)
	}
	c.z.owners++
	c.z.deepest = max(c.z.deepest, c.z.labels+depth)
	nd := &m.nodes[len(m.nodes)-1]
	for i := 0; i < len(recs); {
		j := i + 1
		for j < len(recs) && recs[j].rrtype == recs[i].rrtype {
			j++
		}
		c.rrset(recs[i:j])
		i = j
	}
	nd.nsets = uint16(len(m.sets) - int(nd.sets))
	for _, s := range m.sets[nd.sets:] {
		switch {
		case s.rrtype == typeNS && depth > 0:
			nd.flags |= flagCut
		case s.rrtype == typeDNAME:
			nd.flags |= flagDNAME
		case s.rrtype == typeCNAME:
			nd.flags |= flagCNAME
		}
	}
}

// shared is how many nodes of the current path are at or above the owner with
// this key: each label of a key ends in its only zero.
func (c *compiler) shared(key []byte) int {
	n := 0
	for n < len(key) && n < len(c.last) && key[n] == c.last[n] {
		n++
	}
	c.last = key
	return min(len(c.path), 1+bytes.Count(key[:n], []byte{0}))
}

// rrset packs the records of one RRset, which come sorted.
func (c *compiler) rrset(recs []record) {
	m := &c.z.img
	s := set{at: uint32(len(m.wire)), rrtype: recs[0].rrtype, ttl: recs[0].ttl}
	for _, r := range recs[1:] {
		s.ttl = min(s.ttl, r.ttl)
	}
	// A signature has the TTL of what it covers, and RRSIGs at one name cover
	// RRsets of many TTLs (RFC 4034 §3): these are left alone.
	level := s.rrtype != typeRRSIG
	first := &recs[0]
	uneven := false
	var seen map[string]struct{}
	if len(recs) > 1 {
		seen = make(map[string]struct{}, len(recs))
	}
	for i := range recs {
		r := &recs[i]
		if r.line < first.line && r.file == first.file {
			first = r
		}
		if seen != nil {
			key := string(c.canonical(0, r))
			if _, dup := seen[key]; dup {
				c.report(posOf(r), true, "remove one of the two", "%s %s stands twice with the same data", FormatName(c.l.ownerOf(r)), typeName(r.rrtype))
				continue
			}
			seen[key] = struct{}{}
		}
		ttl := r.ttl
		if level {
			uneven = uneven || r.ttl != s.ttl
			ttl = s.ttl
		}
		m.wire = append(m.wire, 0xC0, 12) // the question's name
		m.wire = binary.BigEndian.AppendUint16(m.wire, r.rrtype)
		m.wire = binary.BigEndian.AppendUint16(m.wire, dns.ClassINET)
		m.wire = binary.BigEndian.AppendUint32(m.wire, ttl)
		m.wire = binary.BigEndian.AppendUint16(m.wire, r.rdataLen)
		m.wire = append(m.wire, c.l.dataOf(r)...)
		s.count++
	}
	s.size = uint32(len(m.wire)) - s.at
	if uneven {
		c.report(posOf(first), true, "give all records of the set one TTL (RFC 2181 §5.2)", "%s %s has records of different TTLs; all get the least, %d", FormatName(c.l.ownerOf(first)), typeName(s.rrtype), s.ttl)
	}
	if s.size > maxRRset {
		c.report(posOf(first), false, "spread the records over several names", "%s %s has %d octets in %d records, which fit in no message", FormatName(c.l.ownerOf(first)), typeName(s.rrtype), s.size, s.count)
	}
	m.sets = append(m.sets, s)
	c.at = append(c.at, posOf(first))
}

// link notes for each node what is above it and whether a wildcard is below.
func (c *compiler) link() {
	m := &c.z.img
	c.path = c.path[:0]
	for i := range m.nodes {
		nd := &m.nodes[i]
		own := m.names[nd.name : nd.name+uint32(nd.size)]
		depth := countLabels(own) - c.z.labels
		c.path = append(c.path[:depth], uint32(i))
		if depth == 0 {
			continue
		}
		parent := &m.nodes[c.path[depth-1]]
		parent.flags &^= flagHash
		if depth == 1 && onlyHash(m.sets[nd.sets:nd.sets+uint32(nd.nsets)]) {
			nd.flags |= flagHash
		}
		nd.over = parent.over
		if nd.over == noNode && parent.flags&(flagCut|flagDNAME) != 0 {
			nd.over = c.path[depth-1]
		}
		if own[0] == 1 && own[1] == '*' {
			parent.wild = uint32(i)
		}
	}
}

// onlyHash reports whether the RRsets of a node are NSEC3 with its signatures.
func onlyHash(sets []set) bool {
	nsec3 := false
	for i := range sets {
		switch sets[i].rrtype {
		case typeNSEC3:
			nsec3 = true
		case typeRRSIG:
		default:
			return false
		}
	}
	return nsec3
}

// index fills the hash table to at most two thirds.
func (c *compiler) index() {
	m := &c.z.img
	size := 4
	for size*2 < len(m.nodes)*3 {
		size *= 2
	}
	m.slots = make([]uint64, size)
	m.seed = maphash.MakeSeed()
	mask := uint64(size - 1)
	var buf []byte
	for n := range m.nodes {
		nd := &m.nodes[n]
		buf = appendLower(buf[:0], m.names[nd.name:nd.name+uint32(nd.size)])
		h := maphash.Bytes(m.seed, buf)
		i := h & mask
		for m.slots[i] != 0 {
			i = (i + 1) & mask
		}
		m.slots[i] = slot(h, n)
	}
	m.nodes, m.sets = slices.Clip(m.nodes), slices.Clip(m.sets)
	m.names, m.wire = slices.Clip(m.names), slices.Clip(m.wire)
}

// negative prepares the SOA for both its uses.
func (c *compiler) negative() {
	z := c.z
	s := z.img.set(0, typeSOA)
	z.soa = z.img.view(s)
	rdata, _ := firstRecord(z.soa.Wire)
	z.serial = binary.BigEndian.Uint32(rdata[len(rdata)-20:])
	z.neg = z.soa
	z.neg.TTL = min(s.ttl, binary.BigEndian.Uint32(rdata[len(rdata)-4:]))
	z.neg.Wire = slices.Clone(z.soa.Wire)
	binary.BigEndian.PutUint32(z.neg.Wire[6:], z.neg.TTL)
}
