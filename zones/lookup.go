package zones

import (
	"bytes"
	"hash/maphash"
	"iter"
)

// What is known of a node beyond its RRsets.
const (
	flagEmpty uint8 = 1 << iota // an empty non-terminal
	flagCut                     // owns NS and is not the apex
	flagDNAME                   // owns a DNAME
	flagCNAME                   // owns a CNAME
	flagMixed                   // the name as written has upper case
	flagHash                    // owns only NSEC3 and has nothing below it: to queries it does not exist (RFC 5155 §7.2.8)
)

// noNode stands where a node has none of something.
const noNode = ^uint32(0)

// node is one owner name or empty non-terminal.
type node struct {
	name  uint32 // offset in names
	sets  uint32 // index of the first in sets
	over  uint32 // the topmost zone cut or DNAME owner strictly above, or noNode: then all here is occluded
	wild  uint32 // the child "*", or noNode
	nsets uint16
	size  uint8 // octets of the name
	flags uint8
}

// set is one RRset; the records stand in wire as RRset.Wire says.
type set struct {
	at, size uint32
	ttl      uint32
	count    uint16
	rrtype   uint16
}

// image is a compiled zone: flat arrays without a pointer inside, so that the
// garbage collector has nothing to walk in a zone of a million names.
type image struct {
	nodes  []node   // in canonical order; node 0 is the apex
	sets   []set    // those of one node side by side, by type
	names  []byte   // names as written; an empty non-terminal shares its first descendant's
	wire   []byte   // packed records
	nsec   []uint32 // the nodes with NSEC, in canonical order; empty when NSEC3 is used
	nsec3  []uint32 // the nodes of the NSEC3 chain, in the order of their hashes
	hashes []byte   // those hashes, side by side
	slots  []uint64 // open addressing, linear probing: the hash's upper half and the node + 1
	seed   maphash.Seed
}

// slot is the entry of the hash table for a hash and a node.
func slot(hash uint64, n int) uint64 { return hash&^0xffff_ffff | uint64(n+1) }

// find looks up a name in lower-case wire form.
func (m *image) find(name []byte) (uint32, bool) {
	mask := uint64(len(m.slots) - 1)
	h := maphash.Bytes(m.seed, name)
	for i := h & mask; ; i = (i + 1) & mask {
		s := m.slots[i]
		if s == 0 {
			return 0, false
		}
		if (s^h)>>32 != 0 {
			continue
		}
		n := uint32(s) - 1
		nd := &m.nodes[n]
		own := m.names[nd.name : nd.name+uint32(nd.size)]
		if nd.flags&flagMixed == 0 {
			if bytes.Equal(own, name) {
				return n, true
			}
		} else if equalLower(own, name) {
			return n, true
		}
	}
}

// set finds the RRset of a type at a node by halving.
func (m *image) set(n uint32, rrtype uint16) *set {
	nd := &m.nodes[n]
	sets := m.sets[nd.sets : nd.sets+uint32(nd.nsets)]
	for len(sets) > 0 {
		mid := len(sets) / 2
		switch s := &sets[mid]; {
		case s.rrtype == rrtype:
			return s
		case s.rrtype < rrtype:
			sets = sets[mid+1:]
		default:
			sets = sets[:mid]
		}
	}
	return nil
}

// Lookup resolves name and type by RFC 1034 §4.3.2 within z. name is in
// lower-case wire form; one that is malformed is NotInZone. DS at a cut is
// answered by the parent (RFC 4035 §3.1.4.1); qtype ANY is Found on every node
// that owns data.
func (z *Zone) Lookup(name []byte, qtype uint16, r *Result) {
	*r = Result{}
	if n, ok := z.exists(name); ok {
		z.exact(n, name, qtype, r)
		return
	}
	n, ok := z.encloser(name)
	if !ok {
		r.Kind = NotInZone
		return
	}
	nd := &z.img.nodes[n]
	switch {
	case nd.over != noNode:
		z.occluded(nd.over, name, r)
	case nd.flags&(flagCut|flagDNAME) != 0:
		z.occluded(n, name, r)
	case nd.wild != noNode:
		r.Wildcard = true
		z.at(nd.wild, qtype, r)
		r.Suffix = len(name) - int(nd.size)
	default:
		r.Kind, r.Node, r.Suffix = NXDomain, NodeID(n), len(name)-int(nd.size)
	}
}

// exists finds the node of a name, but for one that is the hash of another.
func (z *Zone) exists(name []byte) (uint32, bool) {
	n, ok := z.img.find(name)
	if ok && z.img.nodes[n].flags&flagHash != 0 {
		return 0, false
	}
	return n, ok
}

// exact answers for a name that exists.
func (z *Zone) exact(n uint32, name []byte, qtype uint16, r *Result) {
	nd := &z.img.nodes[n]
	switch {
	case nd.over != noNode:
		z.occluded(nd.over, name, r)
	case nd.flags&flagCut != 0 && qtype != typeDS:
		z.occluded(n, name, r)
	default:
		// A DNAME redirects what is below its owner, not the owner (RFC 6672 §2.3).
		z.at(n, qtype, r)
	}
}

// at matches the RRsets of a node against the type.
func (z *Zone) at(n uint32, qtype uint16, r *Result) {
	nd := &z.img.nodes[n]
	r.Node = NodeID(n)
	switch {
	case nd.nsets == 0:
		r.Kind = NoData
	case qtype == typeANY || z.img.set(n, qtype) != nil:
		r.Kind = Found
	case nd.flags&flagCNAME != 0:
		r.Kind = CNAME
	default:
		r.Kind = NoData
	}
}

// occluded answers for a name at or below the cut, or below the DNAME, that n
// owns. A node with both counts as a cut: RFC 1034 §4.3.2 looks for it first.
func (z *Zone) occluded(n uint32, name []byte, r *Result) {
	nd := &z.img.nodes[n]
	r.Kind = DNAME
	if nd.flags&flagCut != 0 {
		r.Kind = Referral
	}
	r.Node, r.Suffix = NodeID(n), len(name)-int(nd.size)
}

// encloser finds the closest encloser (RFC 4592 §3.3.1) of a name that does
// not exist. Empty non-terminals are nodes, so a name exists only if every
// name between it and the apex does, and halving the labels finds the last.
func (z *Zone) encloser(name []byte) (uint32, bool) {
	var starts [maxLabels + 1]uint8
	n := 0
	for i := 0; ; n++ {
		if i >= len(name) || n > maxLabels || i >= maxNameBytes {
			return 0, false
		}
		starts[n] = uint8(i)
		if name[i] == 0 {
			if i != len(name)-1 {
				return 0, false
			}
			break
		}
		if name[i] > maxLabelBytes {
			return 0, false
		}
		i += 1 + int(name[i])
	}
	hi := n - z.labels // the apex, which exists
	if hi <= 0 || !bytes.Equal(name[starts[hi]:], z.origin) {
		return 0, false
	}
	found := uint32(0)
	for lo := max(1, n-z.deepest); lo < hi; {
		mid := int(uint(lo+hi) / 2)
		if id, ok := z.exists(name[starts[mid]:]); ok {
			found, hi = id, mid
		} else {
			lo = mid + 1
		}
	}
	return found, true
}

// Find returns the node of exactly this name, with no wildcard, cut or alias
// rule: for glue, for targets of additional data, and for steering.
func (z *Zone) Find(name []byte) (NodeID, bool) {
	n, ok := z.img.find(name)
	return NodeID(n), ok
}

// RRset returns the RRset of a type at a node; ok is false when there is none.
func (z *Zone) RRset(n NodeID, rrtype uint16) (rrs RRset, ok bool) {
	s := z.img.set(uint32(n), rrtype)
	if s == nil {
		return RRset{}, false
	}
	return z.img.view(s), true
}

// RRsets appends every RRset at a node to dst, by type, signatures too.
func (z *Zone) RRsets(n NodeID, dst []RRset) []RRset {
	nd := &z.img.nodes[n]
	for i := range z.img.sets[nd.sets : nd.sets+uint32(nd.nsets)] {
		dst = append(dst, z.img.view(&z.img.sets[int(nd.sets)+i]))
	}
	return dst
}

func (m *image) view(s *set) RRset {
	end := s.at + s.size
	return RRset{Wire: m.wire[s.at:end:end], Count: int(s.count), Type: s.rrtype, TTL: s.ttl}
}

// Owner appends the owner name of a node, in wire form and as written, to dst.
func (z *Zone) Owner(n NodeID, dst []byte) []byte {
	nd := &z.img.nodes[n]
	return append(dst, z.img.names[nd.name:nd.name+uint32(nd.size)]...)
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
		for i := range z.img.nodes {
			nd := &z.img.nodes[i]
			if nd.flags&flagEmpty != 0 {
				continue
			}
			buf = appendLower(buf[:0], z.img.names[nd.name:nd.name+uint32(nd.size)])
			if !yield(buf, NodeID(i)) {
				return
			}
		}
	}
}
