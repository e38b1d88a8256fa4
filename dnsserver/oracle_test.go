package dnsserver

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/internal/txtest"
)

// The parser of queries is our own; miekg/dns is another implementation of the
// same format, and judges it: both take the same messages, and read the same
// from them. Where they differ, strictness says why we refuse, and unread what
// we do not look at.

// strictness names the rule by which we refuse a message that the library
// takes; empty is none.
func strictness(m *dns.Msg, packet []byte) string {
	promised := func(i int) int { return int(binary.BigEndian.Uint16(packet[i:])) }
	total := promised(4) + promised(6) + promised(8) + promised(10)
	switch {
	case total > maxQueryRecords:
		return "more records than a query has"
	case promised(4) > 1:
		return "more than one question (RFC 9619)"
	case promised(4) != len(m.Question) || promised(6) != len(m.Answer) || promised(8) != len(m.Ns) || promised(10) != len(m.Extra):
		return "fewer records than the header promises"
	case promised(6) != 0 || promised(8) != 0 && (promised(4) == 0 || m.Question[0].Qtype != dns.TypeIXFR):
		return "records where a query has none"
	case promised(4) == 0:
		return "no question, and no COOKIE (RFC 7873 §5.4)"
	}
	at := headerLen
	for ; packet[at] != 0; at += 1 + int(packet[at]) {
		if packet[at] > maxLabelLen {
			return "a compressed question"
		}
	}
	if at+5 > len(packet) {
		return "a question without type and class"
	}
	return strictOPT(m, packet)
}

// strictOPT is strictness about OPT.
func strictOPT(m *dns.Msg, packet []byte) string {
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == typeOPT {
			return "an OPT in another section (RFC 6891 §6.1.1)"
		}
	}
	opts, named := 0, false
	walkRecordsOf(packet, func(owner []byte, rrtype uint16, _ []byte) {
		if rrtype == typeOPT {
			opts++
			named = named || len(owner) != 1 // the library takes a pointer to a zero octet
		}
	})
	switch {
	case opts > 1:
		return "more than one OPT (RFC 6891 §6.1.1)"
	case named:
		return "an OPT that is not at the root (RFC 6891 §6.1.2)"
	}
	subnets, why := 0, ""
	walkOptions(packet, func(code uint16, data []byte) {
		switch {
		case why != "":
		case code == optionECS:
			if subnets++; subnets > 1 {
				why = "more than one client subnet"
			} else if len(data) >= 4 {
				why = strictSubnet(data[2], data[3], data[4:])
			}
		case code == optionCookie && len(data) != 8 && (len(data) < 16 || len(data) > 40):
			why = "a cookie of a length that none has (RFC 7873 §5.2.2)"
		}
	})
	return why
}

// strictSubnet is strictness about a client subnet.
func strictSubnet(source, scope byte, addr []byte) string {
	switch {
	case scope != 0:
		return "a client subnet with a SCOPE (RFC 7871 §6)"
	case len(addr) != (int(source)+7)/8:
		return "a client subnet with more or fewer octets than its prefix has (RFC 7871 §6)"
	case source%8 != 0 && addr[len(addr)-1]<<(source%8) != 0:
		return "a client subnet with bits beyond its prefix (RFC 7871 §6)"
	}
	return ""
}

// walkRecordsOf yields the owner, type and data of each record of a message that has
// at most one question, and reports whether the octets end with a record.
func walkRecordsOf(packet []byte, yield func(owner []byte, rrtype uint16, data []byte)) bool {
	off := headerLen
	if binary.BigEndian.Uint16(packet[4:]) > 0 {
		off = skipName(packet, off) + 4
	}
	for off < len(packet) {
		end := skipName(packet, off)
		if end < 0 || end+10 > len(packet) {
			return false
		}
		next := end + 10 + int(binary.BigEndian.Uint16(packet[end+8:]))
		if next > len(packet) {
			return false
		}
		yield(packet[off:end], binary.BigEndian.Uint16(packet[end:]), packet[end+10:next])
		off = next
	}
	return true
}

// walkOptions yields the options of every OPT.
func walkOptions(packet []byte, yield func(code uint16, data []byte)) {
	walkRecordsOf(packet, func(_ []byte, rrtype uint16, data []byte) {
		for rrtype == typeOPT && len(data) >= 4 {
			n := 4 + int(binary.BigEndian.Uint16(data[2:]))
			if n > len(data) {
				return
			}
			yield(binary.BigEndian.Uint16(data), data[4:n])
			data = data[n:]
		}
	})
}

// unread names what the library may have against a message that we take: it
// reads all of it, and we what a query needs.
func unread(packet []byte) string {
	why := ""
	whole := walkRecordsOf(packet, func(_ []byte, rrtype uint16, _ []byte) {
		if rrtype != typeOPT {
			why = "the owner and data of a record that is not OPT"
		}
	})
	walkOptions(packet, func(code uint16, _ []byte) {
		switch code {
		case optionECS, optionCookie, optionNSID:
		default:
			why = "the data of an option that we do not know, or of which none is wanted"
		}
	})
	if !whole && why == "" {
		why = "octets behind the last record"
	}
	return why
}

// oracle compares what both make of a packet. It returns the outcome in a word,
// for a tally.
func oracle(t *testing.T, packet []byte) string {
	t.Helper()
	var q query
	rcode, ok := q.parse(packet)
	if !ok {
		if len(packet) >= headerLen && packet[2]&0x80 == 0 {
			t.Errorf("dropped: %x", packet)
		}
		return "dropped"
	}
	var m dns.Msg
	err := m.Unpack(packet)
	switch {
	case rcode == rcodeNotImp:
		if packet[2]>>3&0xF == opcodeQuery {
			t.Errorf("NOTIMP for a query: %x", packet)
		}
		return "another opcode"
	case rcode == rcodeFormErr && err != nil:
		return "both refuse"
	case rcode == rcodeFormErr:
		why := strictness(&m, packet)
		if why == "" {
			t.Errorf("we refuse what the library takes: %x", packet)
		}
		return "we alone refuse: " + why
	case rcode == rcodeBadVers && err != nil:
		return "we do not read: the options of another version (RFC 6891 §6.1.3)"
	case err != nil:
		why := unread(packet)
		if why == "" {
			t.Errorf("we take what the library refuses (%v): %x", err, packet)
		}
		return "we do not read: " + why
	}
	if rcode == rcodeBadVers {
		if opt := m.IsEdns0(); opt == nil || opt.Version() == 0 {
			t.Errorf("BADVERS for version 0: %x", packet)
		}
		return "another version"
	}
	sameQuestion(t, &q, &m, packet)
	sameEDNS(t, &q, &m, packet)
	return "both take"
}

func sameQuestion(t *testing.T, q *query, m *dns.Msg, packet []byte) {
	t.Helper()
	if q.id != m.Id || (q.question > 0) != (len(m.Question) == 1) || len(m.Question) > 1 {
		t.Errorf("id %d, %d questions: %x", m.Id, len(m.Question), packet)
		return
	}
	if len(m.Question) == 0 {
		return
	}
	buf := make([]byte, 256)
	n, err := dns.PackDomainName(m.Question[0].Name, buf, 0, nil, false)
	if err != nil {
		return // miekg/dns reads some names that it cannot write
	}
	if !bytes.Equal(bytes.ToLower(buf[:n]), bytes.ToLower(q.name[:q.nameLen])) {
		t.Errorf("name %x, miekg/dns reads %x", q.name[:q.nameLen], buf[:n])
	}
	if q.qtype != m.Question[0].Qtype || q.qclass != m.Question[0].Qclass {
		t.Errorf("type %d class %d: %x", q.qtype, q.qclass, packet)
	}
	if q.flags&flagRD != 0 != m.RecursionDesired || q.flags&flagTC != 0 != m.Truncated {
		t.Errorf("flags %x: %x", q.flags, packet)
	}
}

func sameEDNS(t *testing.T, q *query, m *dns.Msg, packet []byte) {
	t.Helper()
	e := &q.edns
	opt := m.IsEdns0()
	if e.present != (opt != nil) {
		t.Errorf("OPT %v: %x", e.present, packet)
		return
	}
	if opt == nil {
		return
	}
	if e.size != opt.UDPSize() || e.do != opt.Do() || e.version != opt.Version() {
		t.Errorf("edns %+v: %x", e, packet)
	}
	var nsid, expire, keepalive, subnet, cookie bool
	for _, o := range opt.Option {
		switch o := o.(type) {
		case *dns.EDNS0_NSID:
			nsid = true
		case *dns.EDNS0_EXPIRE:
			expire = true
		case *dns.EDNS0_TCP_KEEPALIVE:
			keepalive = true
		case *dns.EDNS0_COOKIE:
			if ours := append(bytes.Clone(e.cookie.client[:]), e.cookie.server[:e.cookie.size]...); !cookie && o.Cookie != hexOf(ours) {
				t.Errorf("cookie %x: %x", ours, packet)
			}
			cookie = true
		case *dns.EDNS0_SUBNET:
			subnet = true
			if e.ecs.source != o.SourceNetmask || e.ecs.family != o.Family {
				t.Errorf("ecs %+v: %x", e.ecs, packet)
			}
			if p, has := e.ecs.prefix(); has {
				if a, ok := netip.AddrFromSlice(o.Address); !ok || a.Unmap() != p.Addr().Unmap() {
					t.Errorf("ecs %v, miekg/dns reads %v: %x", p, o.Address, packet)
				}
			}
		}
	}
	if e.nsid != nsid || e.expire != expire || e.keepalive != keepalive || e.ecs.present != subnet || e.cookie.present != cookie {
		t.Errorf("options %+v: %x", e, packet)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	s := make([]byte, 0, 2*len(b))
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// oracleSeeds are queries that have everything that we read.
var oracleSeeds = []string{
	"www.example.test", "WWW.Example.test AAAA +ecs=192.0.2.0/24 +nsid", "x +noedns", ". NS +do", "a.b +opt=65001:00 +cd",
	"a +twoopts", "a +questions=2", "a +edns=3", `\000\255.a TXT`, "a +opt=8:00012000", "a +qr", "a IXFR", "a SOA +opt=9 +opt=11",
	"a +opt=10:2464c4abcf10c957", "a +opt=10:2464c4abcf10c957010000005cf79f111f8130c3eee29480 +ecs=2001:db8::/32", ". +questions=0 +opt=10:2464c4abcf10c957",
	"a +opcode=5", "a +opt=8:000000000000 +opt=12:0000",
}

// FuzzParseQuery looks for a message that the two parsers read in two ways.
func FuzzParseQuery(f *testing.F) {
	for _, text := range oracleSeeds {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q.Wire)
	}
	f.Fuzz(func(t *testing.T, packet []byte) { oracle(t, packet) })
}

// TestParserAgainstLibrary compares the two over mutated packets, 100,000 of
// them or as many as $PERIGEE_PACKETS says.
func TestParserAgainstLibrary(t *testing.T) {
	n := 100_000
	if text := os.Getenv("PERIGEE_PACKETS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("PERIGEE_PACKETS: %v", err)
		}
	}
	const seed1, seed2 = 1035, 6891
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	var seeds [][]byte
	for _, text := range oracleSeeds {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, q.Wire)
	}
	tally := map[string]int{}
	for i := range n {
		p := bytes.Clone(seeds[rnd.IntN(len(seeds))])
		for range 1 + rnd.IntN(2) {
			at := rnd.IntN(len(p))
			switch rnd.IntN(4) {
			case 0:
				p[at] ^= 1 << rnd.IntN(8)
			case 1:
				p[at] = byte(rnd.Uint32())
			case 2:
				p = append(p[:at:at], p[min(at+1, len(p)-1):]...)
			case 3:
				p = append(p[:at:at], append([]byte{byte(rnd.IntN(4))}, p[at:]...)...)
			}
		}
		tally[oracle(t, p)]++
		if t.Failed() {
			t.Fatalf("packet %d of seed %d, %d", i, seed1, seed2)
		}
	}
	for what, times := range tally {
		t.Logf("%8d %s", times, what)
	}
	if tally["both take"] < n/10 || tally["both refuse"] < n/10 {
		t.Errorf("of %d packets both take %d and refuse %d: the mutations are too strong or too weak", n, tally["both take"], tally["both refuse"])
	}
}
