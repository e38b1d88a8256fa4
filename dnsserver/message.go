package dnsserver

import (
	"encoding/binary"

	"perigee.example/zones"
)

const (
	// maxCompressible is the number of label starts that later names may point
	// to. A reply with a chain, NS and glue has some thirty.
	maxCompressible = 48
	// maxCompressing bounds the suffixes and labels that are compared for the
	// sake of compression in one reply; beyond it names are written out. A
	// referral to 13 name servers takes 130; without a bound, one query for
	// a name of a hundred labels below a DNAME took milliseconds.
	maxCompressing = 1024
	// maxPointer is the first offset that a pointer cannot reach (RFC 1035 §4.1.4).
	maxPointer = 0x4000

	recordFixed = 10 // TYPE, CLASS, TTL, RDLENGTH
	pointerLen  = 2
)

// section is one of the three that hold records.
type section uint8

const (
	sectionAnswer section = iota
	sectionAuthority
	sectionAdditional
)

// message is a reply in the making: header and question stand, records are
// appended RRset by RRset, whole or not at all.
type message struct {
	b     []byte
	base  int // where in b the message begins
	limit int // what len(b) may reach before the OPT is added
	count [3]uint16
	ttl   uint32 // the least TTL in the answer section

	// Offsets, from base, of labels that a name may point to; those of the
	// question are entered when first needed.
	known    [maxCompressible]knownName
	nknown   int
	question bool
	compared int // see maxCompressing
}

// knownName is a name that stands in the message.
type knownName struct {
	at   uint16
	size uint8 // its octets without compression: what is longer or shorter is another
}

// mark is a state to fall back to when an RRset does not fit.
type mark struct {
	size, nknown int
	count        uint16
	ttl          uint32
}

func (m *message) mark(s section) mark {
	return mark{len(m.b), m.nknown, m.count[s], m.ttl}
}

// settle keeps what was written since k, or takes all of it back when it does
// not fit.
func (m *message) settle(s section, k mark, fits bool) bool {
	if fits && len(m.b) <= m.limit {
		return true
	}
	m.b = m.b[:k.size]
	m.nknown, m.count[s], m.ttl = k.nknown, k.count, k.ttl
	return false
}

// addSet appends an RRset whose owner stands at offset at of the message; at 0
// means that owner is to be written. It is false when the RRset does not fit.
func (m *message) addSet(s section, set *zones.RRset, at int, owner []byte) bool {
	k := m.mark(s)
	wire := set.Wire
	if at == headerLen && !compressed(set.Type) {
		if len(m.b)+len(wire) > m.limit {
			return false
		}
		m.b = append(m.b, wire...)
		m.counted(s, set.Count, set.TTL)
		return true
	}
	fits := true
	for fits && len(wire) >= pointerLen+recordFixed {
		fixed := wire[pointerLen : pointerLen+recordFixed]
		end := pointerLen + recordFixed + int(binary.BigEndian.Uint16(fixed[8:]))
		rdata := wire[pointerLen+recordFixed : end]
		wire = wire[end:]
		at = m.addOwner(at, owner)
		if !compressed(set.Type) && len(m.b)+recordFixed+len(rdata) > m.limit {
			fits = false // seen before it is copied, so that dst need not grow
			break
		}
		m.b = append(m.b, fixed...)
		m.addRdata(set.Type, rdata)
		fits = len(m.b) <= m.limit
	}
	m.counted(s, set.Count, set.TTL)
	return m.settle(s, k, fits)
}

func (m *message) counted(s section, n int, ttl uint32) {
	if s == sectionAnswer && (m.count[s] == 0 || ttl < m.ttl) {
		m.ttl = ttl
	}
	m.count[s] += uint16(n)
}

// addOwner appends the owner of a record: a pointer to at, or the name. It
// returns where the next record of the set may point to.
func (m *message) addOwner(at int, owner []byte) int {
	if at != 0 {
		m.b = append(m.b, 0xC0|byte(at>>8), byte(at))
		return at
	}
	at = m.addName(owner)
	if at >= maxPointer {
		return 0
	}
	return at
}

// compressed reports whether names in the RDATA of a type are compressed:
// those of RFC 1035 that we meet, and never a later type's (RFC 3597 §4).
func compressed(rrtype uint16) bool {
	switch rrtype {
	case typeNS, typeCNAME, typeSOA, typePTR, typeMX:
		return true
	}
	return false
}

// addRdata appends RDATA, after RDLENGTH has been, and corrects RDLENGTH when
// compression made it shorter. It returns the offset of the (first) name.
func (m *message) addRdata(rrtype uint16, rdata []byte) int {
	start := len(m.b)
	if !compressed(rrtype) {
		m.b = append(m.b, rdata...)
		return start - m.base
	}
	if rrtype == typeMX {
		m.b = append(m.b, rdata[:2]...)
		rdata = rdata[2:]
	}
	n := nameLen(rdata)
	at := m.addName(rdata[:n])
	rdata = rdata[n:]
	if rrtype == typeSOA {
		n = nameLen(rdata)
		m.addName(rdata[:n])
		rdata = rdata[n:]
	}
	m.b = append(m.b, rdata...)
	binary.BigEndian.PutUint16(m.b[start-2:], uint16(len(m.b)-start))
	return at
}

// addName appends a name, with its longest known suffix as a pointer, and
// returns the offset at which the whole name can be read.
func (m *message) addName(name []byte) int {
	m.knowQuestion()
	start := len(m.b) - m.base
	for i := 0; name[i] != 0 && m.compared < maxCompressing; i += 1 + int(name[i]) {
		if at := m.find(name[i:]); at != 0 {
			m.b = append(m.b, name[:i]...)
			m.b = append(m.b, 0xC0|byte(at>>8), byte(at))
			m.know(start, i, len(name))
			if i == 0 {
				return at
			}
			return start
		}
	}
	m.b = append(m.b, name...)
	m.know(start, len(name)-1, len(name))
	return start
}

// knowQuestion enters the labels of the question's name.
func (m *message) knowQuestion() {
	if m.question {
		return
	}
	m.question = true
	q := m.b[m.base+headerLen:]
	size := nameLen(q)
	m.know(headerLen, size-1, size)
}

// know enters the labels in the first n octets of the name at an offset, which
// has size octets without compression.
func (m *message) know(at, n, size int) {
	for end := at + n; at < end && at < maxPointer && m.nknown < maxCompressible; {
		m.known[m.nknown] = knownName{uint16(at), uint8(size)}
		m.nknown++
		label := 1 + int(m.b[m.base+at])
		at += label
		size -= label
	}
}

// find returns the offset of a known name that equals name, or 0.
func (m *message) find(name []byte) int {
	m.compared++
	for _, k := range m.known[:m.nknown] {
		if int(k.size) == len(name) && m.equal(int(k.at), name) {
			return int(k.at)
		}
	}
	return 0
}

// equal compares the name at an offset of the message, whose pointers are our
// own and so point backwards, with an uncompressed one, without case.
func (m *message) equal(at int, name []byte) bool {
	b := m.b[m.base:]
	for {
		n := int(b[at])
		if n >= 0xC0 {
			at = (n&0x3F)<<8 | int(b[at+1])
			continue
		}
		if n != int(name[0]) {
			return false
		}
		if n == 0 {
			return true
		}
		for i := 1; i <= n; i++ {
			if lower(b[at+i]) != lower(name[i]) {
				return false
			}
		}
		at += 1 + n
		name = name[1+n:]
		m.compared++
	}
}

// nameLen is the length of the well-formed, uncompressed name at the start of b.
func nameLen(b []byte) int {
	i := 0
	for b[i] != 0 {
		i += 1 + int(b[i])
	}
	return i + 1
}
