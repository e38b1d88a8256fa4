package zones

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/miekg/dns"
)

// Records returns the records of an RRset in presentation form (RFC 1035 §5.1),
// sorted, with owner, a name in wire form, before each: absolute names, blanks
// between the fields. What has no form of its own has that of RFC 3597.
func (s RRset) Records(owner []byte) []string {
	var list []string
	for wire := s.Wire; len(wire) > 0; {
		ttl := binary.BigEndian.Uint32(wire[6:])
		var rdata []byte
		rdata, wire = firstRecord(wire)
		list = append(list, fmt.Sprintf("%s %d IN %s", FormatName(owner), ttl, recordText(s.Type, rdata)))
	}
	slices.Sort(list)
	return list
}

// recordText is the type and the data of a record.
func recordText(rrtype uint16, rdata []byte) string {
	name := typeName(rrtype)
	head := dns.RR_Header{Name: ".", Rrtype: rrtype, Class: dns.ClassINET, Rdlength: uint16(len(rdata))}
	if rr, _, err := dns.UnpackRRWithHeader(head, rdata, 0); err == nil && len(rdata) > 0 {
		if _, unknown := rr.(*dns.RFC3597); !unknown {
			return name + " " + rr.String()[len(rr.Header().String()):]
		}
	}
	return fmt.Sprintf("%s \\# %d %x", name, len(rdata), rdata)
}

// Difference returns what a change takes away and what it brings, as Records
// has it. A record that both sides have alike is in neither.
func (c Change) Difference() (removed, added []string) {
	old, now := c.Old.Records(c.Owner), c.New.Records(c.Owner)
	without := func(a, b []string) (rest []string) {
		for _, r := range a {
			if _, both := slices.BinarySearch(b, r); !both {
				rest = append(rest, r)
			}
		}
		return rest
	}
	return without(old, now), without(now, old)
}

// WriteText writes the zone as a flat master file: absolute names, and data in
// the form of RFC 3597, which keeps every octet.
func (z *Zone) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	z.writeText(b)
	return b.Flush()
}
