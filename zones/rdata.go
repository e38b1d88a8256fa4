package zones

import "encoding/binary"

// The types that the loader and Lookup know by name.
const (
	typeA      = 1
	typeNS     = 2
	typeCNAME  = 5
	typeSOA    = 6
	typePTR    = 12
	typeMX     = 15
	typeTXT    = 16
	typeKEY    = 25
	typeAAAA   = 28
	typeSRV    = 33
	typeDNAME  = 39
	typeDS     = 43
	typeRRSIG  = 46
	typeNSEC   = 47
	typeDNSKEY = 48
	typeNSEC3  = 50

	typeNSEC3PARAM = 51
	typeANY        = 255
)

// layouts say what the RDATA of types with names in them look like, and of the
// commonest others: n a name, s a character string, S one or more of these, 1 to
// 9 as many octets, + one or more octets, * any octets. The parser lets short
// RDATA in RFC 3597 form through, so the loader checks against this.
var layouts = map[uint16]string{
	typeA: "4", typeNS: "n", 3: "n", 4: "n", typeCNAME: "n", typeSOA: "nn488", 7: "n", 8: "n", 9: "n",
	12: "n", 13: "ss", 14: "nn", typeMX: "2n", 16: "S", 17: "nn", 18: "2n", 21: "2n", 26: "2nn",
	typeAAAA: "88", typeSRV: "6n", 35: "4sssn", 36: "2n", typeDNAME: "n", typeDS: "4+", 44: "2+",
	typeRRSIG: "99n+", typeNSEC: "n+", typeDNSKEY: "4+", 52: "3+", 64: "2n*", 65: "2n*", 99: "S", 257: "1s*",
}

// walkRdata checks rdata against the layout of its type and calls name, if not
// nil, for each domain name in it. Types without a layout always pass.
func walkRdata(rrtype uint16, rdata []byte, name func(at, end int)) bool {
	layout, ok := layouts[rrtype]
	if !ok {
		return true
	}
	at := 0
	for _, c := range layout {
		n := 0
		switch c {
		case 'n':
			if n = nameLen(rdata[at:]); n == 0 {
				return false
			}
			if name != nil {
				name(at, at+n)
			}
		case 's':
			if at >= len(rdata) {
				return false
			}
			n = 1 + int(rdata[at])
		case 'S':
			for n = 0; at+n < len(rdata); n += 1 + int(rdata[at+n]) {
			}
			if n == 0 {
				return false
			}
		case '+', '*':
			n = len(rdata) - at
			if n == 0 && c == '+' {
				return false
			}
		default:
			n = int(c - '0')
		}
		if at += n; at > len(rdata) {
			return false
		}
	}
	return at == len(rdata)
}

// appendCanonical appends rdata with the names in it in lower case, for telling
// duplicates (RFC 2181 §5 with RFC 4343 §3).
func appendCanonical(dst []byte, rrtype uint16, rdata []byte) []byte {
	base := len(dst)
	dst = append(dst, rdata...)
	walkRdata(rrtype, rdata, func(at, end int) {
		for i := base + at; i < base+end; i++ {
			dst[i] = lower(dst[i])
		}
	})
	return dst
}

// firstRecord returns the RDATA of the first record of a packed RRset and what
// follows it.
func firstRecord(wire []byte) (rdata, rest []byte) {
	end := recordHeader + int(binary.BigEndian.Uint16(wire[recordHeader-2:]))
	return wire[recordHeader:end], wire[end:]
}

// recordHeader is what stands before RDATA in a packed record: pointer, TYPE,
// CLASS, TTL, RDLENGTH.
const recordHeader = 12
