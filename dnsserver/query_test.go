package dnsserver

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

func TestParseAllocatesNothing(t *testing.T) {
	q, err := txtest.ParseQuery("www.example.test +ecs=192.0.2.0/24 +nsid +do +bufsize=4096")
	if err != nil {
		t.Fatal(err)
	}
	var got query
	if n := testing.AllocsPerRun(100, func() { got.parse(q.Wire) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if zones.FormatName(got.name[:got.nameLen]) != "www.example.test." || got.qtype != typeA || got.qclass != classIN {
		t.Errorf("question: %+v", got)
	}
	e := got.edns
	if !e.present || !e.do || !e.nsid || e.size != 4096 || !e.ecs.present || e.ecs.source != 24 || e.ecs.family != 1 {
		t.Errorf("edns: %+v", e)
	}
}

// FuzzParseQuery holds our parser against miekg/dns: what it takes and that has
// the shape of a query, we take, and both read the same.
func FuzzParseQuery(f *testing.F) {
	for _, text := range []string{
		"www.example.test", "WWW.Example.test AAAA +ecs=192.0.2.0/24 +nsid", "x +noedns", ". NS +do", "a.b +opt=65001:00 +cd",
		"a +twoopts", "a +questions=2", "a +edns=3", `\000\255.a TXT`, "a +opt=8:00012000", "a +qr",
	} {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q.Wire)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		var q query
		rcode, ok := q.parse(packet)
		var m dns.Msg
		err := m.Unpack(packet)
		if !ok {
			if len(packet) >= headerLen && packet[2]&0x80 == 0 {
				t.Errorf("dropped %x", packet)
			}
			return
		}
		records := 0
		for i := 6; i < headerLen; i += 2 {
			records += int(binary.BigEndian.Uint16(packet[i:]))
		}
		switch {
		case rcode == rcodeNoError && records == 0 && err != nil:
			t.Errorf("we take what miekg/dns refuses (%v): %x", err, packet)
		case rcode == rcodeFormErr && err == nil && plain(&m, packet):
			t.Errorf("we refuse what miekg/dns takes: %x", packet)
		case rcode == rcodeNoError && err == nil:
			sameQuestion(t, &q, &m, packet)
			sameEDNS(t, &q, &m, packet)
		}
	})
}

// plain reports whether a message has nothing on which we are stricter: one
// question that is not compressed, no records but one OPT of ours without ECS.
func plain(m *dns.Msg, packet []byte) bool {
	if len(m.Question) != 1 || len(m.Answer)+len(m.Ns) != 0 || len(m.Extra) > 1 ||
		binary.BigEndian.Uint16(packet[4:]) != 1 || binary.BigEndian.Uint32(packet[6:]) != 0 ||
		int(binary.BigEndian.Uint16(packet[10:])) != len(m.Extra) {
		return false // miekg/dns takes fewer records than the header promises
	}
	i := headerLen
	for ; packet[i] != 0; i += 1 + int(packet[i]) {
		if packet[i] > maxLabelLen {
			return false
		}
	}
	if i+5 > len(packet) {
		return false // miekg/dns takes a question without type and class
	}
	if len(m.Extra) == 0 {
		return true
	}
	opt := m.IsEdns0()
	if opt == nil || opt.Hdr.Name != "." {
		return false
	}
	for _, o := range opt.Option {
		if o.Option() == optionECS {
			return false
		}
	}
	return true
}

func sameQuestion(t *testing.T, q *query, m *dns.Msg, packet []byte) {
	if q.id != m.Id || len(m.Question) != 1 {
		t.Fatalf("id %d, %d questions: %x", m.Id, len(m.Question), packet)
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
}

func sameEDNS(t *testing.T, q *query, m *dns.Msg, packet []byte) {
	opt := m.IsEdns0()
	if q.edns.present != (opt != nil) {
		t.Errorf("OPT %v: %x", q.edns.present, packet)
		return
	}
	if opt == nil {
		return
	}
	if q.edns.size != opt.UDPSize() || q.edns.do != opt.Do() || q.edns.version != opt.Version() {
		t.Errorf("edns %+v: %x", q.edns, packet)
	}
	for _, o := range opt.Option {
		if s, ok := o.(*dns.EDNS0_SUBNET); ok {
			if !q.edns.ecs.present || q.edns.ecs.source != s.SourceNetmask || q.edns.ecs.family != s.Family {
				t.Errorf("ecs %+v: %x", q.edns.ecs, packet)
			}
		}
	}
}

// TestReadECS walks every source length of both families with all bits set,
// and one bit too many.
func TestReadECS(t *testing.T) {
	for family, bits := range map[uint16]int{1: 32, 2: 128} {
		for source := range bits + 1 {
			data := binary.BigEndian.AppendUint16(nil, family)
			data = append(data, byte(source), 0)
			for i := range (source + 7) / 8 {
				octet := byte(0xFF)
				if left := source - 8*i; left < 8 {
					octet <<= 8 - left
				}
				data = append(data, octet)
			}
			var e ecs
			if !e.read(data) {
				t.Errorf("family %d source %d refused: %s", family, source, hex.EncodeToString(data))
			}
			if p, ok := e.prefix(); ok != (source > 0) || ok && (p.Bits() != source || p != p.Masked()) {
				t.Errorf("family %d source %d: prefix %v, %v", family, source, p, ok)
			}
			if source%8 != 0 {
				data[len(data)-1] |= 1 << (7 - source%8)
				if e.read(data) {
					t.Errorf("family %d source %d: a bit beyond the prefix is taken: %s", family, source, hex.EncodeToString(data))
				}
			}
			if e.read(append(data, 0)) || source > 0 && e.read(data[:len(data)-1]) {
				t.Errorf("family %d source %d: a wrong length is taken", family, source)
			}
		}
	}
}

func TestTable(t *testing.T) {
	names := []string{"example.test.", "test.", "a.b.c.example.test.", "example.org.", "xn--nxasmq6b.example."}
	var origins [][]byte
	for _, n := range names {
		w, err := wireName(n)
		if err != nil {
			t.Fatal(err)
		}
		origins = append(origins, w)
	}
	tab := newTable(origins)
	for name, want := range map[string]int{
		"example.test.": 0, "www.example.test.": 0, "c.example.test.": 0, "a.b.c.example.test.": 2, "x.a.b.c.example.test.": 2,
		"test.": 1, "other.test.": 1, "example.org.": 3, "org.": -1, ".": -1, "ample.org.": -1, "example.": -1,
	} {
		w, err := wireName(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := tab.find(w, 0); got != want {
			t.Errorf("%s: zone %d, want %d", name, got, want)
		}
	}
}
