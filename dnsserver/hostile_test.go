package dnsserver_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

// The attacks of docs/rfcs.md ("Hostile queries") that are not conversations.

// allocated returns what a function allocates in all, in octets.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestHostileSectionCounts sends headers alone whose counts promise 65535
// records each. Nobody makes room for them, by UDP or by TCP.
func TestHostileSectionCounts(t *testing.T) {
	_, at := onSockets(t, "127.0.0.1:0")
	const most = 64 << 10
	const times = 50 // of what the test itself allocates each has a fiftieth
	header := []byte{0x2f, 0x1d, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255}
	want := []byte{0x2f, 0x1d, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0} // FORMERR
	for _, network := range []string{"udp", "tcp"} {
		c, err := net.Dial(network, at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		packet, reply := header, want
		if network == "tcp" {
			packet, reply = append([]byte{0, 12}, header...), append([]byte{0, 12}, want...)
		}
		b := make([]byte, 512)
		each := allocated(func() {
			for range times {
				if _, err := c.Write(packet); err != nil {
					t.Fatal(err)
				}
				if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], reply) {
					t.Fatalf("%s: %x, %v, want %x", network, b[:n], err, reply)
				}
			}
		}) / times
		if each > most {
			t.Errorf("%s: %d octets allocated for 12, want at most %d", network, each, most)
		}
	}
}

// TestHostileNames sends names that make a parser run in circles or out of the
// message, as QNAME and as the owner of a record. None costs more than a look.
func TestHostileNames(t *testing.T) {
	k := openEverything(t)
	pointers := func(n int) []byte { // each to the one before, the first to itself
		b := []byte{0xC0, 12}
		for i := range n - 1 {
			b = binary.BigEndian.AppendUint16(b, 0xC000|uint16(12+2*i))
		}
		return b
	}
	tail := []byte{0, 1, 0, 1}
	question := append([]byte("\x06static\x07example\x04test\x00"), tail...)
	for what, body := range map[string][]byte{
		"to itself":                      append([]byte{0xC0, 12}, tail...),
		"forwards":                       append([]byte{0xC0, 14}, append([]byte{0xC0, 12}, tail...)...),
		"beyond the end":                 append([]byte{0xFF, 0xFF}, tail...),
		"into the header":                append([]byte{0xC0, 0}, tail...),
		"126 of them":                    append(pointers(126), tail...),
		"a label, then back to it":       append([]byte("\x03abc\xC0\x0c"), tail...),
		"60 labels that each go back":    append(bytes.Repeat([]byte("\x01a"), 60), append([]byte{0xC0, 12}, tail...)...),
		"half a pointer":                 {0xC0},
		"a label beyond the end":         {63, 'a'},
		"label type 0x40":                append([]byte{0x40, 1, 0}, tail...),
		"label type 0x80":                append([]byte{0x80, 1, 0}, tail...),
		"labels without end":             bytes.Repeat([]byte{1, 'a'}, 2000),
		"256 octets":                     append(append(bytes.Repeat(append([]byte{63}, bytes.Repeat([]byte{'a'}, 63)...), 4), 0), tail...),
		"nothing":                        {},
		"no type and class":              {0},
		"an owner that points to itself": append(append([]byte{}, question...), 0xC0, byte(12+len(question)), 0, 41, 4, 208, 0, 0, 0, 0, 0, 0),
		"an owner without end":           append(append([]byte{}, question...), bytes.Repeat([]byte{1, 'a'}, 1000)...),
		"RDLENGTH beyond the end":        append(append([]byte{}, question...), 0, 0, 41, 4, 208, 0, 0, 0, 0, 255, 255),
	} {
		packet := append([]byte{0x2f, 0x1d, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, body...)
		if bytes.HasPrefix(body, question) {
			packet[11] = 1
		}
		out := checkReply(t, k, packet, dnsserver.UDP)
		if out.Action == dnsserver.Reply && out.Rcode != dns.RcodeFormatError {
			t.Errorf("%s: rcode %d", what, out.Rcode)
		}
		c := &dnsserver.Context{From: txtest.DefaultFrom, Transport: dnsserver.UDP, State: k.state}
		dst := make([]byte, 0, 8192)
		if n := testing.AllocsPerRun(10, func() { k.view.Answer(dst, packet, c, out) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// TestHostileTypesAndClasses asks for types and in classes of the whole range:
// those that are assigned, for private use, and each 61st of the others, or all
// with $PERIGEE_PACKETS.
func TestHostileTypesAndClasses(t *testing.T) {
	k := openEverything(t)
	all := os.Getenv("PERIGEE_PACKETS") != ""
	for _, name := range []string{"signed.test", "x.wild.nsec.test"} {
		q, err := txtest.ParseQuery(name + " +do")
		if err != nil {
			t.Fatal(err)
		}
		at := 12 + len(question(q.Wire)) - 4
		for i := range 1 << 16 {
			if !all && i > 512 && i < 65024 && i%61 != 0 {
				continue
			}
			binary.BigEndian.PutUint16(q.Wire[at+2:], dns.ClassINET)
			binary.BigEndian.PutUint16(q.Wire[at:], uint16(i))
			checkReply(t, k, q.Wire, dnsserver.UDP)
			binary.BigEndian.PutUint16(q.Wire[at:], dns.TypeA)
			binary.BigEndian.PutUint16(q.Wire[at+2:], uint16(i))
			if out := checkReply(t, k, q.Wire, dnsserver.UDP); i != dns.ClassINET && out.Rcode != dns.RcodeRefused {
				t.Fatalf("class %d: rcode %d", i, out.Rcode)
			}
		}
	}
}

// TestHostileReflection lets two servers answer each other, and one itself: a
// reply is never answered, whatever it says and wherever it seems to come from.
func TestHostileReflection(t *testing.T) {
	k := openEverything(t)
	m := newMutator(t, 7, 19)
	us := netip.MustParseAddrPort("192.0.2.53:53")
	out := new(dnsserver.Outcome)
	answered := 0
	for range 20_000 {
		for _, transport := range []dnsserver.Transport{dnsserver.UDP, dnsserver.TCP} {
			c := &dnsserver.Context{From: us, Local: us, Transport: transport, State: k.state, Cookies: k.cookies}
			reply := k.view.Answer(nil, m.next(), c, out)
			if len(reply) == 0 {
				continue
			}
			answered++
			if again := k.view.Answer(nil, reply, c, out); len(again) != 0 || out.Action != dnsserver.Drop {
				t.Fatalf("a reply was answered: %x with %x", reply, again)
			}
		}
	}
	if answered == 0 {
		t.Error("nothing was answered: this test shows nothing")
	}
}

// ordinary is a zone such as there are many.
const ordinary = `$TTL 3600
@ IN SOA ns1 hostmaster 7 3600 900 604800 300
@ IN NS ns1
@ IN NS ns2
@ IN MX 10 mx1
@ IN MX 20 mx2
@ IN A 192.0.2.1
@ IN AAAA 2001:db8::1
@ IN TXT "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 mx -all"
@ IN CAA 0 issue "ca.example.net"
ns1 IN A 192.0.2.53
ns1 IN AAAA 2001:db8::53
ns2 IN A 198.51.100.53
mx1 IN A 192.0.2.25
mx2 IN A 198.51.100.25
www IN CNAME @
_dmarc IN TXT "v=DMARC1; p=reject; rua=mailto:dmarc@example.net"
sub IN NS ns1.sub
sub IN NS ns2.sub
ns1.sub IN A 192.0.2.54
ns2.sub IN A 198.51.100.54
*.wild IN A 192.0.2.9
`

// TestHostileAmplification measures what a forged query by UDP without a good
// cookie can make us send to its victim, for every name and type of ordinary
// zones: at most six times its size, or twenty from a signed zone. (An
// operator's own large TXT may be 1232 octets: the rate limit bounds those.)
func TestHostileAmplification(t *testing.T) {
	types := []string{"A", "AAAA", "NS", "SOA", "MX", "TXT", "CAA", "ANY", "DNSKEY", "DS", "RRSIG", "NSEC", "NSEC3PARAM", "CNAME", "HTTPS"}
	names := []string{"", "ns1.", "mx1.", "www.", "_dmarc.", "sub.", "x.sub.", "x.wild.", "wild.", "no.", "no.no."}
	for how, most := range map[string]float64{"": 6, "example.test nsec\n": 20, "example.test nsec3\n": 20} {
		k := newTalk(t, map[string][]byte{"example.test.zone": []byte(ordinary), "sign": []byte(how)})
		worst, of := 0.0, ""
		for _, name := range names {
			for _, rrtype := range types {
				for _, words := range []string{"", "+noedns", "+do", "+do +bufsize=65535", "+do +nsid +opt=10:2464c4abcf10c957"} {
					text := fmt.Sprintf("%sexample.test %s %s", name, rrtype, words)
					ratio, out := amplification(t, k, text)
					if ratio > worst {
						worst, of = ratio, text
					}
					if out.Rcode == dns.RcodeRefused {
						t.Errorf("%s is refused", text)
					}
				}
			}
		}
		t.Logf("%q: at most %.1f, %s", strings.TrimSpace(how), worst, of)
		if worst >= most {
			t.Errorf("%q: %s is answered with %.1f times its size, want less than %v", how, of, worst, most)
		}
		if how != "" && worst < 2 {
			t.Error("signed answers are no larger than their questions: this test shows nothing")
		}
		// Not ours, a limit: hardly more than the query.
		for _, text := range []string{". ANY", ". NS +do", "example.org ANY +do", "example.org TXT +noedns", "version.bind TXT +class=CH", "example.test AXFR"} {
			if size, reply := sizes(t, k, text); reply > size+12 {
				t.Errorf("%s: %d octets for %d", text, reply, size)
			}
		}
		k.limited = true
		for _, text := range []string{"example.test ANY +do", "example.test DNSKEY +do +opt=10:2464c4abcf10c957", "no.example.test +noedns"} {
			if size, reply := sizes(t, k, text); reply > size+16 {
				t.Errorf("over the rate, %s: %d octets for %d", text, reply, size)
			}
		}
	}
}

func sizes(t *testing.T, k *talk, text string) (query, reply int) {
	t.Helper()
	q, err := txtest.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := k.ask(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 1232 {
		t.Errorf("%s: %d octets by UDP", text, len(b))
	}
	return len(q.Wire), len(b)
}

func amplification(t *testing.T, k *talk, text string) (float64, *dnsserver.Outcome) {
	t.Helper()
	query, reply := sizes(t, k, text)
	_, out, err := k.ask(text)
	if err != nil {
		t.Fatal(err)
	}
	return float64(reply) / float64(query), out
}

// TestHostileChains asks for names whose chains have no end, or one that is far
// off: 9 steps are taken, each of at most a DNAME and a CNAME.
func TestHostileChains(t *testing.T) {
	zone := "$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n" +
		"loop IN CNAME loop\nping IN CNAME pong\npong IN CNAME ping\nd IN DNAME x.d\ne IN DNAME f\nf IN DNAME e\n*.w IN CNAME x.y.w\n*.v IN CNAME x.*.v\n"
	for i := range 20 {
		zone += fmt.Sprintf("c%d IN CNAME c%d\nt%d IN DNAME t%d\n", i, i+1, i, i+1)
	}
	zone += "c20 IN A 192.0.2.1\nwww.t20 IN A 192.0.2.1\n"
	long := strings.Repeat("a", 63)
	zone += "s0 IN HTTPS 0 s1\ns1 IN HTTPS 0 s0\ns2 IN HTTPS 0 loop\ns3 IN HTTPS 0 www.d\n"
	zone += "l IN DNAME " + long + "." + long + ".l\n"
	k := newTalk(t, map[string][]byte{"example.test.zone": []byte(zone)})
	for _, name := range []string{"s0", "s1", "s2", "s3"} { // what comes along ends too
		if out := checkReplyText(t, k, name+".example.test HTTPS +tcp"); out.Answers != 1 {
			t.Errorf("%s HTTPS: %d records in the answer", name, out.Answers)
		}
	}
	const steps = 9
	for text, want := range map[string]struct{ answers, rcode int }{
		"loop": {1, 0}, "ping": {2, 0}, "www.d": {1 + steps, 0}, "www.e": {4, 0}, "q.w": {2, 0}, "c0": {steps, 0}, "c11": {steps, 0}, "c12": {8, 0},
		"www.t0": {2 * steps, 0}, "www.l": {2, dns.RcodeYXDomain}, long + ".l": {2, dns.RcodeYXDomain},
	} {
		for _, rrtype := range []string{"A", "TXT", "AAAA"} {
			out := checkReplyText(t, k, text+".example.test "+rrtype+" +tcp")
			if out.Answers < 1 || out.Answers > 2*steps {
				t.Errorf("%s %s: %d records in the answer", text, rrtype, out.Answers)
			}
			if rrtype == "TXT" && (out.Answers != want.answers || int(out.Rcode) != want.rcode) {
				t.Errorf("%s: %d records, rcode %d, want %d, %d", text, out.Answers, out.Rcode, want.answers, want.rcode)
			}
		}
	}
}

// checkReplyText is checkReply for a query as text.
func checkReplyText(t *testing.T, k *talk, text string) *dnsserver.Outcome {
	t.Helper()
	q, err := txtest.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	transport := dnsserver.UDP
	if q.TCP {
		transport = dnsserver.TCP
	}
	return checkReply(t, k, q.Wire, transport)
}

// TestHostileData serves records of every type with the least and the oddest data
// that a zone file can bring: whoever looks into it for targets or compression
// finds no name there, or none that ends.
func TestHostileData(t *testing.T) {
	served := 0
	for rrtype, name := range dns.TypeToString {
		for _, data := range []string{"", `\# 0`, `\# 1 00`, `\# 2 0000`, `\# 3 000000`, `\# 3 000100`, `\# 4 c00cc00c`, `\# 6 00000361c00c`, `\# 8 0001036161610000`, "0 .", "1 . alpn=h2", "0 x", "1 x", ".", "x"} {
			if rrtype == dns.TypeSOA || rrtype == dns.TypeNS || rrtype == dns.TypeCNAME {
				continue // these have conversations
			}
			text := "$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\nx IN " + name + " " + data + "\n"
			z, _ := zones.Parse("hostile.zone", []byte(text), zones.Options{Origin: "example.test"})
			if z == nil {
				continue
			}
			v, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{z}})
			if err != nil {
				t.Fatal(err)
			}
			served++
			k := &talk{view: v}
			for _, words := range []string{name, name + " +do +tcp", "ANY", "A +noedns"} {
				checkReplyText(t, k, "x.example.test "+words)
			}
		}
	}
	if served < 50 {
		t.Errorf("%d zones were served: this test shows little", served)
	}
}

// TestHostileSignatures sends SIG(0) and TSIG records: nobody verifies anything
// for them, nor takes anything on.
func TestHostileSignatures(t *testing.T) {
	k := openEverything(t)
	for _, rrtype := range []uint16{dns.TypeSIG, dns.TypeTSIG, dns.TypeRRSIG, dns.TypeKEY} {
		m := new(dns.Msg)
		m.SetQuestion("static.example.test.", dns.TypeA)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		wire[11] = 1
		wire = append(wire, 0, byte(rrtype>>8), byte(rrtype), 0, 255, 0, 0, 0, 0, 2, 0)
		wire = append(wire, bytes.Repeat([]byte{0xA5}, 512)...)
		c := &dnsserver.Context{From: txtest.DefaultFrom, Transport: dnsserver.UDP, State: k.state}
		out := new(dnsserver.Outcome)
		dst := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(10, func() { k.view.Answer(dst, wire, c, out) }); n != 0 {
			t.Errorf("type %d: %v allocations", rrtype, n)
		}
		if out.Rcode != 0 || out.Answers != 2 {
			t.Errorf("type %d: %+v", rrtype, out)
		}
	}
}

// BenchmarkCostliestAnswers has the queries that cost the most for their size:
// deep names below a signed zone, chains, and what is not a query.
func BenchmarkCostliestAnswers(b *testing.B) {
	k := openEverything(b)
	deep := strings.Repeat("a.", 118)
	for _, text := range []string{
		"static.example.test", deep + "signed.test +do", deep + "nsec.test +do", deep + "old.signed.test +do", deep + "deep.example.test", "x.sub.signed.test +do",
		"signed.test DNSKEY +do +tcp", "raw 2f1d0100ffffffffffffffff",
	} {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			b.Fatal(err)
		}
		c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP, State: k.state, Cookies: k.cookies}
		dst, out := make([]byte, 0, 4096), new(dnsserver.Outcome)
		b.Run(strings.ReplaceAll(strings.ReplaceAll(text, deep, "118-labels."), " ", "_"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.view.Answer(dst, q.Wire, c, out)
			}
		})
	}
}
