package zones

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/miekg/dns"

	"perigee.example/internal/bigmem"
)

// compiler makes a zone of what a builder has gathered.
type compiler struct {
	*builder
	apexPos []pos // of the RRsets of the apex
}

func typeName(t uint16) string { return dns.Type(t).String() }

// TypeName is the mnemonic of a record type, or TYPE and its number (RFC 3597 §5).
func TypeName(t uint16) string { return typeName(t) }

// compile closes the arena, lints, and builds the indexes. It returns nil when
// there is no SOA to build a zone around.
//
// The order of the steps keeps the peak low: what one needs goes before the
// next begins, so that a reload has the old zone, the new one, and little more.
func (l *loader) compile() *Zone {
	c := &compiler{builder: l.b}
	z := c.z
	defer c.free()
	c.flush()
	c.join()
	if l.stopped || !c.checkSOA() {
		return nil
	}
	c.closeApex()
	c.arena.Resize(c.used)
	c.arena.Clip()
	c.m.arena = c.arena.Bytes()
	c.negative()
	c.lint()
	c.slots.Free()
	c.lines.Free()
	order := c.sort()
	c.hashOwners()
	slots := c.index()
	c.chains()
	c.lintChain()
	arena := c.arena
	c.arena = bigmem.Block{}
	c.m.own(&arena, order, slots)
	return z
}

// free gives back what a load that failed has left.
func (b *builder) free() {
	b.arena.Free()
	b.slots.Free()
	b.lines.Free()
}

// checkSOA finds the one SOA at the apex; what is elsewhere has been refused.
func (c *compiler) checkSOA() bool {
	var apex *record
	for i := range c.apex {
		r := &c.apex[i]
		if r.rrtype != typeSOA {
			continue
		}
		if apex == nil {
			apex = r
		} else if a, b := c.canonical(apex), c.canonical(r); !bytes.Equal(a, b) {
			c.l.fault(r.pos, "keep the one with the serial that you mean", "second SOA; the first is on line %d", apex.line)
		}
	}
	if apex == nil {
		c.l.fault(pos{}, "a zone starts with: @ SOA ns1 hostmaster 1 3600 900 1209600 300", "no SOA at %s", c.z.text)
	}
	return apex != nil
}

func (c *compiler) canonical(r *record) []byte {
	return appendCanonical(nil, r.rrtype, r.of(c.apexData))
}

// closeApex writes the apex, whose records may stand anywhere in the file.
func (c *compiler) closeApex() {
	first := c.nsets
	c.m.apex = c.write(nil, c.apexFlags, c.apex, c.apexData)
	for i := first; i < c.nsets; i++ {
		c.apexPos = append(c.apexPos, c.posOf(i))
	}
	c.apex, c.apexData = nil, nil
}

// apexAt is where the RRset of a type at the apex stood.
func (c *compiler) apexAt(rrtype uint16) pos {
	w := c.m.at(0).all()
	for i := 0; w.left > 0; i++ {
		if _, t, _ := w.next(); t == rrtype {
			return c.apexPos[i]
		}
	}
	return pos{}
}

// negative prepares the SOA for both its uses.
func (c *compiler) negative() {
	z := c.z
	c.m.nodes(func(n uint32, d node, _ int) {
		if d.sets() > 0 {
			z.owners++
		}
	})
	z.setSOA()
}

// setSOA takes the SOA from the apex.
func (z *Zone) setSOA() {
	z.soa, _ = z.RRset(Apex, typeSOA)
	rdata, _ := firstRecord(z.soa.Wire)
	z.serial = binary.BigEndian.Uint32(rdata[len(rdata)-20:])
	z.neg = z.soa
	z.neg.TTL = min(z.soa.TTL, binary.BigEndian.Uint32(rdata[len(rdata)-4:]))
	z.neg.Wire = slices.Clone(z.soa.Wire)
	binary.BigEndian.PutUint32(z.neg.Wire[6:], z.neg.TTL)
}

// sort makes the index of the nodes in canonical order. A node and four octets
// of its sort key are one number; where these are alike, the next four decide.
func (c *compiler) sort() *bigmem.Block {
	m := c.m
	n := 0
	m.nodes(func(uint32, node, int) { n++ })
	var scratch bigmem.Block
	defer scratch.Free()
	scratch.Resize(8 * n)
	keyed := bigmem.Words[uint64](scratch.Bytes())
	i := 0
	var last, key []byte
	sorted := true
	m.nodes(func(id uint32, d node, _ int) {
		if id == m.apex {
			id = 0
		}
		keyed[i] = uint64(id)
		i++
		if sorted {
			last, key = key, appendKey(last[:0], d.name())
			sorted = bytes.Compare(last, key) <= 0
		}
	})
	if !sorted {
		m.sortFrom(keyed, 0)
	}
	order := new(bigmem.Block)
	order.Resize(4 * n)
	m.order = bigmem.Words[uint32](order.Bytes())
	for i, k := range keyed {
		m.order[i] = uint32(k)
	}
	return order
}

// sortFrom sorts nodes whose sort keys are alike up to skip.
func (m *image) sortFrom(nodes []uint64, skip int) {
	var buf [2 * maxNameBytes]byte
	common := -1 // how much of the keys is alike from skip on
	var first []byte
	for _, k := range nodes {
		key := appendKey(buf[:0], m.at(uint32(k)).name())[skip:]
		if common < 0 {
			first, common = bytes.Clone(key), len(key)
			continue
		}
		n := 0
		for n < common && n < len(key) && key[n] == first[n] {
			n++
		}
		common = n
	}
	skip += common
	for i, k := range nodes {
		key := appendKey(buf[:0], m.at(uint32(k)).name())
		var four [4]byte
		copy(four[:], key[min(skip, len(key)):])
		nodes[i] = uint64(binary.BigEndian.Uint32(four[:]))<<32 | uint64(uint32(k))
	}
	slices.Sort(nodes)
	for len(nodes) > 0 {
		n := 1
		for n < len(nodes) && nodes[n]>>32 == nodes[0]>>32 {
			n++
		}
		// A key that ends here has a zero where others go on with one, which
		// closes a label too: what is next decides.
		if n <= fewNodes {
			m.sortFew(nodes[:n])
		} else {
			m.sortFrom(nodes[:n], skip)
		}
		nodes = nodes[n:]
	}
}

// fewNodes is up to how many nodes are compared with each other by name.
const fewNodes = 8

func (m *image) sortFew(nodes []uint64) {
	for i := range nodes {
		for j := i; j > 0 && compareRelative(m.at(uint32(nodes[j-1])).name(), m.at(uint32(nodes[j])).name()) > 0; j-- {
			nodes[j-1], nodes[j] = nodes[j], nodes[j-1]
		}
	}
}

// hashOwners marks the nodes that only NSEC3 has made.
func (c *compiler) hashOwners() {
	if !c.z.signatures {
		return
	}
	m := c.m
	for i, n := range m.order {
		d := m.at(n)
		own := d.name()
		if n == 0 || len(own) != 1+int(own[0]) || !onlyHash(d) {
			continue
		}
		// What is below it would be next.
		if i+1 < len(m.order) {
			if next := m.at(m.order[i+1]).name(); len(next) > len(own) && equalFoldTail(next, own) {
				continue
			}
		}
		d[0] |= flagHash
	}
}

// equalFoldTail reports whether name ends in tail, whatever the case.
func equalFoldTail(name, tail []byte) bool {
	var low [maxNameBytes]byte
	return equalLower(name[len(name)-len(tail):], appendLower(low[:0], tail))
}

// onlyHash reports whether the RRsets of a node are NSEC3 with its signatures.
func onlyHash(d node) bool {
	nsec3 := false
	for w := d.all(); w.left > 0; {
		switch _, t, _ := w.next(); t {
		case typeNSEC3:
			nsec3 = true
		case typeRRSIG:
		default:
			return false
		}
	}
	return nsec3
}

// index fills the hash table to three quarters. Bits of a slot that the node
// does not need hold part of the hash, which keeps most probes off the arena.
func (c *compiler) index() *bigmem.Block {
	slots := new(bigmem.Block)
	slots.Resize(4 * max(4, len(c.m.order)*4/3))
	c.m.slots = bigmem.Words[uint32](slots.Bytes())
	c.m.bits = uint(bits.Len32(uint32(len(c.m.arena) / nodeAlign)))
	var low []byte
	c.m.nodes(func(n uint32, d node, _ int) {
		if n != c.m.apex {
			low = appendLower(low[:0], d.name())
			c.m.put(c.m.key.name(low, &c.at), n)
		}
	})
	return slots
}
