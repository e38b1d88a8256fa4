package zones

import (
	"bytes"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"sort"
)

// Denial is how a signed zone proves that something is not in it.
type Denial uint8

// The kinds of proof.
const (
	NoDenial Denial = iota // none: the zone is not signed, or has no whole chain
	NSEC                   // names in canonical order (RFC 4034 §4)
	NSEC3                  // hashes of names (RFC 5155)
)

const (
	// maxNSEC3Iterations bounds what one negative answer may cost: about 10 µs
	// for each of three hashes. RFC 9276 §3.1 wants 0. Above it a proof is the
	// apex's record alone: it shows the count, and every validator in use takes
	// a zone with more than 150 for unsigned (§3.2).
	maxNSEC3Iterations = 150

	hashLen  = sha1.Size
	labelLen = 32 // of a hash in base32hex
	// nsec3SHA1 is the one hash algorithm there is (RFC 5155 §11).
	nsec3SHA1 = 1
)

// nsec3Params is what the hashes of a zone are made with.
type nsec3Params struct {
	iterations uint16
	salt       []byte
}

// HasSignatures reports whether any RRSIG stands in the zone.
func (z *Zone) HasSignatures() bool { return z.signatures }

// Denial is how this zone proves that something is not in it. NSEC3 is used
// when the apex has an NSEC3PARAM and the chain that goes with it (RFC 5155
// §7.3, §10.4), else NSEC.
func (z *Zone) Denial() Denial { return z.denial }

// Signatures returns the RRSIG records at a node that cover a type. Each has
// the TTL that the file gave it: whoever sends it gives it that of the RRset
// it is sent with (RFC 4034 §3).
func (z *Zone) Signatures(n NodeID, covered uint16) (RRset, bool) {
	wire, _ := z.node(n).set(typeRRSIG)
	// Records of a set are sorted by RDATA, which begins with the type covered.
	start, end, count := 0, 0, 0
	for end < len(wire) {
		t := binary.BigEndian.Uint16(wire[end+recordHeader:])
		if t > covered {
			break
		}
		end += recordHeader + int(binary.BigEndian.Uint16(wire[end+recordHeader-2:]))
		if t < covered {
			start = end
		} else {
			count++
		}
	}
	if count == 0 {
		return RRset{}, false
	}
	return RRset{Wire: wire[start:end:end], Count: count, Type: typeRRSIG, TTL: binary.BigEndian.Uint32(wire[start+6:])}, true
}

// Deny appends to dst the owners of the NSEC or NSEC3 RRsets that prove what
// Lookup found for name (RFC 4035 §3.1.3, RFC 5155 §7.2): that a type or a
// name does not exist, that no name is closer than the wildcard which answers,
// that a delegation has no DS. It appends at most three, each once, and none
// when there is nothing to prove or no chain to prove it with. It allocates
// nothing when dst has room.
func (z *Zone) Deny(name []byte, r *Result, dst []NodeID) []NodeID {
	switch r.Kind {
	case NoData, NXDomain:
	case Found, CNAME:
		if !r.Wildcard {
			return dst
		}
	case Referral:
		if z.node(r.Node).has(typeDS) {
			return dst
		}
	default:
		return dst
	}
	switch z.denial {
	case NSEC:
		return z.denyNSEC(name, r, dst)
	case NSEC3:
		if z.nsec3.iterations > maxNSEC3Iterations {
			return append(dst, z.nsec3Apex)
		}
		return z.denyNSEC3(name, r, dst)
	}
	return dst
}

// denyNSEC: the NSEC at or before a name either shows its types or covers it.
// An empty non-terminal has none of its own and is covered by the one before,
// whose next name is below it.
func (z *Zone) denyNSEC(name []byte, r *Result, dst []NodeID) []NodeID {
	if !r.Wildcard && r.Kind != NXDomain {
		return append(dst, z.nsecAt(r.Node))
	}
	dst = append(dst, z.nsecBefore(name))
	switch r.Kind {
	case NXDomain:
		var buf [maxNameBytes + 2]byte
		dst = appendOnce(dst, z.nsecBefore(wildcardOf(&buf, name[r.Suffix:])))
	case NoData:
		dst = appendOnce(dst, z.nsecAt(r.Node))
	}
	return dst
}

// wildcardOf puts "*." and a name that is not the longest into buf.
func wildcardOf(buf *[maxNameBytes + 2]byte, name []byte) []byte {
	buf[0], buf[1] = 1, '*'
	return buf[:2+copy(buf[2:], name)]
}

func appendOnce(dst []NodeID, n NodeID) []NodeID {
	for _, had := range dst {
		if had == n {
			return dst
		}
	}
	return append(dst, n)
}

// nsecAt is the last node with NSEC at or before a node.
func (z *Zone) nsecAt(n NodeID) NodeID {
	d := z.node(n)
	if d.has(typeNSEC) {
		return n
	}
	return z.nsecBeforeRelative(d.name())
}

// nsecBefore is the last node with NSEC at or before a name of the zone.
func (z *Zone) nsecBefore(name []byte) NodeID {
	return z.nsecBeforeRelative(name[:len(name)-len(z.origin)])
}

func (z *Zone) nsecBeforeRelative(rel []byte) NodeID {
	var at, own starts
	n := at.split(rel)
	i := sort.Search(len(z.nsec), func(i int) bool {
		other := z.base.at(z.nsec[i]).name()
		return compareNames(other, own[:own.split(other)], rel, at[:n]) > 0
	})
	return NodeID(z.nsec[max(i-1, 0)])
}

// starts is where the labels of a name begin, the root left out.
type starts [maxLabels]uint8

func (s *starts) split(name []byte) int {
	n := 0
	for i := 0; i < len(name) && name[i] != 0 && n < len(s); i += 1 + int(name[i]) {
		s[n] = uint8(i)
		n++
	}
	return n
}

// compareNames orders names as RFC 4034 §6.1 does: by label from the root down,
// as octets in lower case, the absence of one first.
func compareNames(a []byte, aStarts []uint8, b []byte, bStarts []uint8) int {
	for i := 1; i <= len(aStarts) && i <= len(bStarts); i++ {
		x, y := labelAt(a, aStarts[len(aStarts)-i]), labelAt(b, bStarts[len(bStarts)-i])
		for k := 0; k < len(x) && k < len(y); k++ {
			if c, d := lower(x[k]), lower(y[k]); c != d {
				return int(c) - int(d)
			}
		}
		if len(x) != len(y) {
			return len(x) - len(y)
		}
	}
	return len(aStarts) - len(bStarts)
}

func labelAt(name []byte, at uint8) []byte {
	return name[int(at)+1 : int(at)+1+int(name[at])]
}

// denyNSEC3 is RFC 5155 §7.2.2 to §7.2.7.
func (z *Zone) denyNSEC3(name []byte, r *Result, dst []NodeID) []NodeID {
	if !r.Wildcard && r.Kind != NXDomain {
		own := name[r.Suffix:]
		if n, ok := z.hashMatch(own); ok {
			return append(dst, n)
		}
		// An insecure delegation, or an empty non-terminal that only such ones
		// make, in a span that opts out (§7.2.4, §7.2.7).
		dst, _ = z.enclose(name, r.Suffix, r.Suffix+1+int(own[0]), dst)
		return dst
	}
	next := 0 // where the next closer name begins
	for at := 0; at < r.Suffix; at += 1 + int(name[at]) {
		next = at
	}
	if r.Kind == Found || r.Kind == CNAME {
		return append(dst, z.hashCover(name[next:])) // §7.2.6
	}
	dst, suffix := z.enclose(name, next, r.Suffix, dst)
	var buf [maxNameBytes + 2]byte
	return appendOnce(dst, z.hashCover(wildcardOf(&buf, name[suffix:])))
}

// enclose appends the closest provable encloser proof (RFC 5155 §7.2.1) for
// the name at offset next, whose parent is at offset suffix: the record that
// matches the encloser and the one that covers the next closer name. It
// returns the encloser's offset.
func (z *Zone) enclose(name []byte, next, suffix int, dst []NodeID) ([]NodeID, int) {
	for {
		n, ok := z.hashMatch(name[suffix:])
		if ok {
			return appendOnce(append(dst, n), z.hashCover(name[next:])), suffix
		}
		if len(name)-suffix <= len(z.origin) {
			return dst, suffix // not reached: the apex is in the chain
		}
		next, suffix = suffix, suffix+1+int(name[suffix])
	}
}

// hash is the hash of a name in lower-case wire form (RFC 5155 §5).
func (p *nsec3Params) hash(name []byte) [hashLen]byte {
	var buf [maxNameBytes + 255]byte
	n := copy(buf[:], name)
	n += copy(buf[n:], p.salt)
	h := sha1.Sum(buf[:n])
	for range p.iterations {
		n = copy(buf[:], h[:])
		n += copy(buf[n:], p.salt)
		h = sha1.Sum(buf[:n])
	}
	return h
}

// hashMatch finds the NSEC3 of a name.
func (z *Zone) hashMatch(name []byte) (NodeID, bool) {
	h := z.nsec3.hash(name)
	i := z.hashed(&h)
	if i < 0 || !bytes.Equal(z.hashAt(i), h[:]) {
		return 0, false
	}
	return NodeID(z.nsec3Nodes[i]), true
}

// hashCover finds the NSEC3 at or before the hash of a name; before the first
// stands the last (RFC 5155 §3.1.7).
func (z *Zone) hashCover(name []byte) NodeID {
	h := z.nsec3.hash(name)
	i := z.hashed(&h)
	if i < 0 {
		i = len(z.nsec3Nodes) - 1
	}
	return NodeID(z.nsec3Nodes[i])
}

// hashAt is the hash of the i-th link of the chain.
func (z *Zone) hashAt(i int) []byte { return z.hashes[i*hashLen : (i+1)*hashLen] }

// hashed is the index of the last link at or before a hash, or -1.
func (z *Zone) hashed(h *[hashLen]byte) int {
	return sort.Search(len(z.nsec3Nodes), func(i int) bool { return bytes.Compare(z.hashAt(i), h[:]) > 0 }) - 1
}

// chains finds what proves that something does not exist.
func (c *compiler) chains() {
	z := c.z
	if !z.signatures {
		return
	}
	if c.nsec3Chain() {
		z.denial = NSEC3
		return
	}
	var buf [maxNameBytes]byte
	for n, d := range z.sorted() {
		if !d.has(typeNSEC) {
			continue
		}
		if _, above := z.occluder(appendLower(buf[:0], d.name())); above == nil {
			z.nsec = append(z.nsec, uint32(n))
		}
	}
	if len(z.nsec) > 0 && z.nsec[0] == 0 {
		z.denial = NSEC
	}
}

// nsec3Chain looks for the chain of an NSEC3PARAM of the apex. A chain without
// the apex's own record is not one.
func (c *compiler) nsec3Chain() bool {
	z := c.z
	for wire, _ := z.node(Apex).set(typeNSEC3PARAM); len(wire) > 0; {
		var rdata []byte
		rdata, wire = firstRecord(wire)
		// One with flags is of a signer at work (RFC 5155 §4.1.2).
		if !nsec3Head(rdata) || rdata[0] != nsec3SHA1 || rdata[1] != 0 {
			continue
		}
		z.nsec3 = nsec3Params{iterations: binary.BigEndian.Uint16(rdata[2:]), salt: bytes.Clone(rdata[5 : 5+int(rdata[4])])}
		if c.collect() {
			return true
		}
		z.nsec3Nodes, z.hashes = nil, nil
	}
	return false
}

// collect enters the NSEC3 RRsets that go with z.nsec3. Nodes come in canonical
// order, and that of labels in base32hex is that of the hashes.
func (c *compiler) collect() bool {
	z := c.z
	whole := false
	for n, d := range z.sorted() {
		wire, _ := d.set(typeNSEC3)
		own := d.name()
		if wire == nil || len(own) != 1+labelLen || own[0] != labelLen {
			continue
		}
		rdata, _ := firstRecord(wire)
		if !nsec3Head(rdata) || rdata[0] != nsec3SHA1 || binary.BigEndian.Uint16(rdata[2:]) != z.nsec3.iterations ||
			!bytes.Equal(rdata[5:5+int(rdata[4])], z.nsec3.salt) {
			continue
		}
		var label [labelLen]byte
		for i, b := range own[1 : 1+labelLen] {
			label[i] = lower(b)
		}
		hash, err := base32hex.AppendDecode(z.hashes, label[:])
		if err != nil {
			continue
		}
		z.hashes = hash
		z.nsec3Nodes = append(z.nsec3Nodes, uint32(n))
		if hasType(nsec3Types(rdata), typeSOA) {
			z.nsec3Apex, whole = n, true
		}
	}
	if whole && z.nsec3.iterations <= maxNSEC3Iterations {
		n, ok := z.hashMatch(z.origin)
		whole = ok && n == z.nsec3Apex
	}
	return whole
}

var base32hex = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// nsec3Head reports whether rdata has what NSEC3 and NSEC3PARAM begin with:
// algorithm, flags, iterations, salt (RFC 5155 §3.2, §4.2).
func nsec3Head(rdata []byte) bool { return len(rdata) >= 5 && len(rdata) >= 5+int(rdata[4]) }

// nsec3Types is the type bit maps of an NSEC3's RDATA.
func nsec3Types(rdata []byte) []byte {
	rest := rdata[5+int(rdata[4]):]
	if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
		return nil
	}
	return rest[1+int(rest[0]):]
}

// hasType looks a type up in type bit maps (RFC 4034 §4.1.2).
func hasType(maps []byte, rrtype uint16) bool {
	for len(maps) >= 2 && len(maps) >= 2+int(maps[1]) {
		bits := maps[2 : 2+int(maps[1])]
		if maps[0] == byte(rrtype>>8) {
			at := int(rrtype&0xFF) / 8
			return at < len(bits) && bits[at]&(0x80>>(rrtype&7)) != 0
		}
		maps = maps[2+len(bits):]
	}
	return false
}

// lintChain remarks on a signed zone whose negative answers will not validate.
func (c *compiler) lintChain() {
	z := c.z
	if z.Signed() && z.denial == NoDenial {
		c.l.remark(c.apexAt(typeDNSKEY), "sign the zone whole: the apex needs NSEC, or NSEC3PARAM and the NSEC3 that goes with it",
			"%s has a DNSKEY, but no chain of NSEC or NSEC3: validators will take what does not exist for an attack", z.text)
	}
	if z.denial != NSEC3 || z.nsec3.iterations == 0 {
		return
	}
	what := "which costs every server and resolver and hides nothing"
	if z.nsec3.iterations > maxNSEC3Iterations {
		what = "beyond what validators take: to them the zone is unsigned"
	}
	c.l.remark(c.apexAt(typeNSEC3PARAM), "sign with 0 iterations and no salt (RFC 9276 §3.1)",
		"NSEC3 with %d iterations, %s", z.nsec3.iterations, what)
}
