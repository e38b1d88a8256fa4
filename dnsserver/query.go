package dnsserver

import "encoding/binary"

// Sizes and counts of the wire format.
const (
	headerLen   = 12  // RFC 1035 §4.1.1
	maxNameLen  = 255 // RFC 1035 §2.3.4, with the root's zero octet
	maxLabelLen = 63
	// maxQueryRecords bounds the questions and records walked in one query. A
	// true query has one question, an OPT and perhaps a TSIG; sixteen leaves
	// room for what is not invented yet and keeps a hostile one cheap.
	maxQueryRecords = 16
)

// RCODEs: RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 6891 §9.
const (
	rcodeNoError  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeYXDomain = 6
	rcodeBadVers  = 16

	rcodeBadCookie = 23 // RFC 7873 §8
)

// Flags of the header's second 16 bits (RFC 1035 §4.1.1).
const (
	flagQR = 0x8000
	flagAA = 0x0400
	flagTC = 0x0200
	flagRD = 0x0100

	opcodeMask  = 0x7800
	opcodeQuery = 0
)

// Types that the answer path must know (IANA "Resource Record (RR) TYPEs").
const (
	typeA      = 1
	typeNS     = 2
	typeCNAME  = 5
	typeSOA    = 6
	typePTR    = 12
	typeMX     = 15
	typeTXT    = 16
	typeAAAA   = 28
	typeDNAME  = 39
	typeOPT    = 41
	typeDS     = 43
	typeRRSIG  = 46
	typeNSEC   = 47
	typeNSEC3  = 50
	typeSVCB   = 64
	typeHTTPS  = 65
	typeNXNAME = 128
	typeTKEY   = 249
	typeTSIG   = 250
	typeIXFR   = 251
	typeAXFR   = 252
	typeMAILB  = 253
	typeMAILA  = 254
	typeANY    = 255

	classIN = 1
	classCH = 3
)

// query is a parsed query. It holds no reference to the packet.
type query struct {
	id     uint16
	flags  uint16 // as they came
	qtype  uint16
	qclass uint16
	// question is the length of the question section to echo, 0 when there is
	// none that can be echoed. A sound query without one asks for a cookie.
	question int
	nameLen  int
	name     [maxNameLen]byte // QNAME in lower case
	edns     edns
}

// parse reads a query. It returns false for what must not be answered at all,
// and else the RCODE of what is wrong with the query, or rcodeNoError. The
// packet is looked at once from front to back; nothing in it makes the parser
// go backwards, because a pointer is never followed.
func (q *query) parse(b []byte) (rcode uint16, ok bool) {
	q.question, q.nameLen, q.qtype, q.qclass = 0, 0, 0, 0
	q.edns = edns{}
	if len(b) < headerLen {
		return 0, false
	}
	q.id = binary.BigEndian.Uint16(b)
	q.flags = binary.BigEndian.Uint16(b[2:])
	if q.flags&flagQR != 0 {
		return 0, false // a response: answering it could loop
	}
	rcode = q.parseBody(b)
	if q.flags&opcodeMask != opcodeQuery {
		return rcodeNotImp, true // whatever the body is: its rules are the opcode's
	}
	return rcode, true
}

// chatters reports whether a UDP port is that of a service which answers
// whatever it gets: echo, daytime, quote, chargen, time, kpasswd. A query with
// that source is forged, to make two servers talk to each other for ever; our
// NOTIMP is food for chargen as its text is for us. Port 53 is none of them:
// there are resolvers that ask from it, and a server's replies have QR set.
func chatters(port uint16) bool {
	switch port {
	case 7, 13, 17, 19, 37, 464:
		return true
	}
	return false
}

// parseBody reads the four sections. Even when it finds a fault it goes on as
// far as it can, to learn whether there is an OPT: its reply must have one then
// (RFC 6891 §7).
func (q *query) parseBody(b []byte) uint16 {
	qd := int(binary.BigEndian.Uint16(b[4:]))
	an := int(binary.BigEndian.Uint16(b[6:]))
	ns := int(binary.BigEndian.Uint16(b[8:]))
	ar := int(binary.BigEndian.Uint16(b[10:]))
	if qd+an+ns+ar > maxQueryRecords {
		return rcodeFormErr
	}
	rcode := uint16(rcodeNoError)
	off := headerLen
	for i := range qd {
		end := skipName(b, off)
		if end < 0 || end+4 > len(b) {
			return rcodeFormErr
		}
		if i == 0 && !q.readQuestion(b[off:end+4]) {
			rcode = rcodeFormErr
		}
		off = end + 4
	}
	if qd > 1 {
		q.question, rcode = 0, rcodeFormErr // RFC 9619 §4
	}
	// A query has no answers, and in the authority section nothing but the
	// client's SOA of an IXFR (RFC 1995 §3).
	if an != 0 || (ns != 0 && q.qtype != typeIXFR) {
		rcode = rcodeFormErr
	}
	fault := q.walkRecords(b, off, an+ns, ar)
	if rcode == rcodeNoError {
		rcode = fault
	}
	// No question is a question about the server's cookie (RFC 7873 §5.4).
	if qd == 0 && rcode == rcodeNoError && !q.edns.cookie.present {
		rcode = rcodeFormErr
	}
	return rcode
}

// readQuestion takes the question b over. It is false when the name is
// compressed: there is nothing before it that a pointer could point to
// (RFC 1035 §4.1.4).
func (q *query) readQuestion(b []byte) bool {
	nameLen := len(b) - 4
	q.qtype = binary.BigEndian.Uint16(b[nameLen:])
	q.qclass = binary.BigEndian.Uint16(b[nameLen+2:])
	if b[nameLen-1] != 0 || !lowerName(&q.name, b[:nameLen]) {
		return false
	}
	q.nameLen = nameLen
	q.question = len(b)
	return true
}

// walkRecords walks the records of the answer and authority sections, before
// of them, and of the additional section, in which it reads the OPT.
func (q *query) walkRecords(b []byte, off, before, additional int) uint16 {
	rcode := uint16(rcodeNoError)
	for i := range before + additional {
		end := skipName(b, off)
		if end < 0 || end+10 > len(b) {
			return rcodeFormErr
		}
		rdata := end + 10
		next := rdata + int(binary.BigEndian.Uint16(b[end+8:]))
		if next > len(b) {
			return rcodeFormErr
		}
		if binary.BigEndian.Uint16(b[end:]) == typeOPT {
			// One OPT, of the root, in the additional section (RFC 6891 §6.1.1).
			misplaced := i < before || end != off+1 || q.edns.present
			fault := q.edns.read(b[end+2:end+8], b[rdata:next])
			if misplaced {
				fault = rcodeFormErr
			}
			// A fault of form outweighs BADVERS.
			if fault == rcodeFormErr || rcode == rcodeNoError {
				rcode = fault
			}
		}
		off = next
	}
	return rcode
}

// skipName returns the offset after the name at off, or -1. A pointer ends a
// name and is not followed. Label types 0x40 and 0x80 are unknown (RFC 6891 §5
// retired the one that was tried).
func skipName(b []byte, off int) int {
	start := off
	for off < len(b) {
		switch n := int(b[off]); {
		case n == 0:
			if off+1-start > maxNameLen {
				return -1
			}
			return off + 1
		case n >= 0xC0:
			if off+2 > len(b) {
				return -1
			}
			return off + 2
		case n > maxLabelLen:
			return -1
		default:
			off += 1 + n
		}
	}
	return -1
}

// lowerName copies an uncompressed wire name in lower case. It is false when
// name is not one: a label passes the end, or the root comes early or never.
func lowerName(dst *[maxNameLen]byte, name []byte) bool {
	if len(name) > maxNameLen {
		return false
	}
	off := 0
	for off < len(name) {
		n := int(name[off])
		if n > maxLabelLen || off+1+n > len(name) {
			return false
		}
		if n == 0 {
			lowerTo(dst[:off+1], name)
			return off+1 == len(name)
		}
		off += 1 + n
	}
	return false
}

// lowerTo fills dst with the start of an uncompressed wire name in lower case:
// eight octets at a time, the last ones perhaps twice. The octets with lengths
// are below those of the letters.
func lowerTo(dst, name []byte) {
	n := len(dst)
	name = name[:n]
	if n < 8 {
		for i := range name {
			dst[i] = lower(name[i])
		}
		return
	}
	for i := 0; i+8 < n; i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], lower8(binary.LittleEndian.Uint64(name[i:])))
	}
	binary.LittleEndian.PutUint64(dst[n-8:], lower8(binary.LittleEndian.Uint64(name[n-8:])))
}

// lower8 is lower for eight octets at once. Without their highest bits the
// octets can be added to and none carries into the next: the sum's highest bit
// then says which are at least 'A', and which beyond 'Z'.
func lower8(x uint64) uint64 {
	const ones = 0x0101010101010101
	seven := x &^ (0x80 * ones)
	upper := (seven + (0x80-'A')*ones) &^ (seven + (0x7F-'Z')*ones) &^ x & (0x80 * ones)
	return x | upper>>2
}

// lower is the ASCII lower case: no other octet has one (RFC 4343 §3).
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
