package zones

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"runtime"

	"perigee.example/internal/bigmem"
)

// What is known of a node beyond its RRsets.
const (
	flagEmpty uint8 = 1 << iota // an empty non-terminal
	flagCut                     // owns NS and is not the apex
	flagDNAME                   // owns a DNAME
	flagCNAME                   // owns a CNAME
	flagMixed                   // the name as written has upper case
	flagHash                    // owns only NSEC3 and has nothing below it: to queries it does not exist (RFC 5155 §7.2.8)
	flagWild                    // has a child "*"
	flagDead                    // replaced while the image was built: in no index
)

const (
	nodeHead = 4 // flags, length of the name, number of RRsets (2)
	setHead  = 4 // octets of the records (2), number of them (2)
	// nodeAlign is what nodes begin at a multiple of, so that their numbers,
	// which are offsets in these units, have bits to spare.
	nodeAlign = 4
	// goneSets in place of the number of RRsets marks, in an overlay, a name
	// that the base has and the zone has not.
	goneSets = 0xFFFF
)

// image is a compiled zone, or the changed owners of one: three flat blocks
// without a pointer inside, so that the garbage collector has nothing to walk
// in a zone of a million names. It goes when the last Zone that has it does.
//
// A node is one owner name or empty non-terminal: a head, the name relative to
// the origin as written, and its RRsets by type, each a head and its records
// as RRset.Wire has them. Nodes stand in the order of the file.
type image struct {
	arena []byte
	order []uint32 // all nodes in canonical order; 0 is the apex
	slots []uint32 // open addressing, linear probing: a node and, above bits, part of its name's hash
	bits  uint
	apex  uint32 // the node of the apex; 0: the overlay does not have it
	key   hashKey

	blocks  [3]*bigmem.Block
	cleanup runtime.Cleanup
}

// own frees the blocks with the image.
func (m *image) own(blocks ...*bigmem.Block) {
	mapped := false
	for i, b := range blocks {
		m.blocks[i] = b
		mapped = mapped || b.Mapped()
	}
	if mapped {
		m.cleanup = runtime.AddCleanup(m, freeAll, m.blocks)
	}
}

func freeAll(blocks [3]*bigmem.Block) {
	for _, b := range blocks {
		b.Free()
	}
}

// release frees an image that nobody else has.
func (m *image) release() {
	m.cleanup.Stop()
	freeAll(m.blocks)
	m.arena, m.order, m.slots = nil, nil, nil
}

// node is one node, to the end of the arena.
type node []byte

// at is the node of a number; 0 is the apex.
func (m *image) at(n uint32) node {
	if n == 0 {
		n = m.apex
	}
	return m.arena[uint64(n)*nodeAlign:]
}

func (d node) flags() uint8 { return d[0] }
func (d node) name() []byte { return d[nodeHead : nodeHead+int(d[1])] }
func (d node) sets() int    { return int(binary.LittleEndian.Uint16(d[2:])) }
func (d node) gone() bool   { return d.sets() == goneSets }
func (d node) count() int { // of RRsets, tombstones included
	if d.gone() {
		return 0
	}
	return d.sets()
}

// all begins a walk over the RRsets.
func (d node) all() walk { return walk{d[nodeHead+int(d[1]):], d.count()} }

// walk is what is left of a node's RRsets.
type walk struct {
	b    []byte
	left int
}

// next is the next RRset; Type is 0 when there is none.
func (w *walk) next() (wire []byte, rrtype uint16, count int) {
	if w.left == 0 {
		return nil, 0, 0
	}
	w.left--
	end := setHead + int(binary.LittleEndian.Uint16(w.b))
	count = int(binary.LittleEndian.Uint16(w.b[2:]))
	wire = w.b[setHead:end:end]
	w.b = w.b[end:]
	return wire, binary.BigEndian.Uint16(wire[2:]), count
}

// length is how many octets the node takes.
func (d node) length() int {
	w := d.all()
	for w.left > 0 {
		w.next()
	}
	return len(d) - len(w.b)
}

// octets is the whole node.
func (d node) octets() []byte { return d[:d.length()] }

// set finds the records of a type; nil when there are none. Few names have
// more than five types, so that halving would gain nothing.
func (d node) set(rrtype uint16) (wire []byte, count int) {
	at := nodeHead + int(d[1])
	for left := d.count(); left > 0; left-- {
		head := d[at : at+setHead+4] // octets, records, and of the first its owner and type
		end := at + setHead + int(binary.LittleEndian.Uint16(head))
		if t := binary.BigEndian.Uint16(head[setHead+2:]); t >= rrtype {
			if t == rrtype {
				return d[at+setHead : end : end], int(binary.LittleEndian.Uint16(head[2:]))
			}
			break
		}
		at = end
	}
	return nil, 0
}

// has reports whether there is an RRset of a type.
func (d node) has(rrtype uint16) bool {
	wire, _ := d.set(rrtype)
	return wire != nil
}

// rrset is a view of the records of a set.
func rrset(wire []byte, count int) RRset {
	r := RRset{Wire: wire, Count: count, Type: binary.BigEndian.Uint16(wire[2:]), TTL: binary.BigEndian.Uint32(wire[6:])}
	if r.Type == typeRRSIG { // the only ones that need not be alike
		for rest := wire; len(rest) > 0; _, rest = firstRecord(rest) {
			r.TTL = min(r.TTL, binary.BigEndian.Uint32(rest[6:]))
		}
	}
	return r
}

// hashKey makes the hash of a name a secret of this process: nobody can send
// queries that all probe the same slots.
type hashKey struct{ seed, mul uint64 }

func newHashKey() hashKey { return hashKey{rand.Uint64(), rand.Uint64() | 1} }

// label goes on with the hash of a name by one label more, with its length
// octet, in lower case. So one pass from the apex down hashes every name on
// the way.
func (k *hashKey) label(h uint64, l []byte) uint64 {
	for len(l) >= 8 {
		h = mix(h^binary.LittleEndian.Uint64(l), k.mul)
		l = l[8:]
	}
	var tail uint64
	switch n := len(l); {
	case n >= 4:
		tail = uint64(binary.LittleEndian.Uint32(l)) | uint64(binary.LittleEndian.Uint32(l[n-4:]))<<32
	case n > 0:
		tail = uint64(l[0]) | uint64(l[n/2])<<8 | uint64(l[n-1])<<16
	}
	return mix(h^tail^k.seed, k.mul)
}

// mix is the folded product of wyhash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// name is the hash of a whole name below the apex.
func (k *hashKey) name(rel []byte, at *starts) uint64 {
	h := k.seed
	end := len(rel)
	for i := at.split(rel) - 1; i >= 0; i-- {
		h = k.label(h, rel[at[i]:end])
		end = int(at[i])
	}
	return h
}

// find looks up a name below the apex, relative to the origin and in lower
// case; 0 is none.
func (m *image) find(h uint64, rel []byte) uint32 {
	mask := uint32(1)<<m.bits - 1
	tag := uint32(h) &^ mask
	slots := m.slots
	hi, _ := bits.Mul64(h, uint64(len(slots)))
	for i := int(hi); ; {
		s := slots[i]
		if s == 0 {
			return 0
		}
		if s&^mask == tag && m.is(s&mask, rel) {
			return s & mask
		}
		if i++; i == len(slots) {
			i = 0
		}
	}
}

// is reports whether a node has this name.
func (m *image) is(n uint32, rel []byte) bool {
	d := m.arena[uint64(n)*nodeAlign:]
	if int(d[1]) != len(rel) {
		return false
	}
	own := d[nodeHead : nodeHead+len(rel)]
	return bytes.Equal(own, rel) || d[0]&flagMixed != 0 && equalLower(own, rel)
}

// put enters a node that is not in the table.
func (m *image) put(h uint64, n uint32) {
	hi, _ := bits.Mul64(h, uint64(len(m.slots)))
	i := int(hi)
	for m.slots[i] != 0 {
		if i++; i == len(m.slots) {
			i = 0
		}
	}
	m.slots[i] = uint32(h)&^(1<<m.bits-1) | n
}

// replace puts another node in the place of one that is in the table.
func (m *image) replace(h uint64, old, n uint32) {
	mask := uint32(1)<<m.bits - 1
	hi, _ := bits.Mul64(h, uint64(len(m.slots)))
	i := int(hi)
	for m.slots[i]&mask != old {
		if i++; i == len(m.slots) {
			i = 0
		}
	}
	m.slots[i] = m.slots[i]&^mask | n
}

// nodes walks the arena; f is called with the nodes that are in use, and the
// number of RRsets before each, those of dead ones counted in.
func (m *image) nodes(f func(n uint32, d node, sets int)) {
	sets := 0
	for at := nodeAlign; at < len(m.arena); {
		d := node(m.arena[at:])
		size := d.length()
		if d.flags()&flagDead == 0 {
			f(uint32(at/nodeAlign), d, sets)
		}
		sets += d.count()
		at += (size + nodeAlign - 1) / nodeAlign * nodeAlign
	}
}
