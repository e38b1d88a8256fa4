package txtest

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestParseQuery(t *testing.T) {
	q, err := ParseQuery("WWW.example.test AAAA +ecs=192.0.2.0/24 +tcp +bufsize=512 +nord +do from=127.0.0.1 at=10s +nsid")
	if err != nil {
		t.Fatal(err)
	}
	if !q.TCP || q.At != 10*time.Second || q.From.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("surroundings: %+v", q)
	}
	got, err := Print(q.Wire)
	if err != nil {
		t.Fatal(err)
	}
	want := "status: NOERROR flags:\nquestion: WWW.example.test. IN AAAA\nopt: version 0 udp 512 do\necs 192.0.2.0/24/0\nnsid \n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	// miekg/dns packs the same octets.
	m := new(dns.Msg)
	m.SetQuestion("example.test.", dns.TypeMX)
	m.Id = queryID
	m.SetEdns0(1232, false)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if q, err := ParseQuery("example.test MX"); err != nil || string(q.Wire) != string(packed) {
		t.Errorf("%x, %v\nwant %x", q.Wire, err, packed)
	}
	if q, err := ParseQuery("raw 0102 +tcp"); err != nil || string(q.Wire) != "\x01\x02" || !q.TCP {
		t.Errorf("raw: %+v, %v", q, err)
	}
	for text, want := range map[string]string{
		"": "empty", "raw": "hex", "a.test A +nonsense": "does not know", "a.test NOTYPE": "neither",
		"a.test A at=yesterday": "invalid duration", "a.test A +ecs=1.2.3.4": "no '/'", "a..test A": "a..test", "a.test A from=x": "ParseAddr",
	} {
		if _, err := ParseQuery(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func TestPrint(t *testing.T) {
	m := new(dns.Msg)
	m.SetQuestion("www.example.test.", dns.TypeA)
	m.Response, m.Authoritative = true, true
	rr, err := dns.NewRR("www.example.test. 300 IN A 192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	m.Answer = append(m.Answer, rr)
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 1232}}
	opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 20, Address: []byte{192, 0, 2, 0}})
	m.Extra = append(m.Extra, opt)
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Print(wire)
	want := "status: NOERROR flags: qr aa rd\nquestion: www.example.test. IN A\n" +
		"answer: www.example.test. 300 IN A 192.0.2.1\nopt: version 0 udp 1232\necs 192.0.2.0/24/20\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	if _, err := Print(wire[:40]); err == nil {
		t.Error("a cut message printed without an error")
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("www.example.test A +ecs=192.0.2.0/24 +tcp +bufsize=512 +noedns +nord from=127.0.0.1 at=10s")
	f.Add("raw 00")
	f.Add("x +opt=8:00 +twoopts +edns=1 +questions=2")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "questions=") {
			return // the count may be anything: memory, not correctness
		}
		q, err := ParseQuery(text)
		if err == nil && !strings.Contains(text, "raw") && len(q.Wire) < 12 {
			t.Errorf("%q gives %d octets", text, len(q.Wire))
		}
	})
}
