package dnsserver_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
)

// everything is a View in which every branch of the answer path can be reached.
const everything = `
-- example.test.zone --
$TTL 300
@ IN SOA ns1 hostmaster 7 3600 900 604800 60
@ IN NS ns1
@ IN MX 10 www
ns1 IN A 127.0.0.53
www IN A 192.0.2.99
www IN AAAA 2001:db8::99
static IN A 192.0.2.1
static IN A 192.0.2.2
text IN TXT "some text" "more"
big IN TXT "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
* IN A 192.0.2.3
a.empty IN A 192.0.2.4
chain IN CNAME chain2
chain2 IN CNAME www
loop IN CNAME loop
out IN CNAME www.example.org.
into IN CNAME www.other.test.
alias IN CNAME www.fallback.example.
old IN DNAME new
www.new IN A 192.0.2.5
deep IN DNAME x.deep
sub IN NS ns.sub
sub IN NS ns.example.org.
ns.sub IN A 127.0.0.54
-- other.test.zone --
$TTL 300
@ IN SOA ns1.example.test. hostmaster 7 3600 900 604800 60
@ IN NS ns1.example.test.
www IN A 192.0.2.9
-- signed.test.zone --
$TTL 300
@ IN SOA ns1.example.test. hostmaster 7 3600 900 604800 60
@ IN NS ns1.example.test.
www IN A 192.0.2.9
www IN HTTPS 1 . alpn=h2
*.wild IN A 192.0.2.10
a.empty IN A 192.0.2.11
old IN DNAME nsec.test.
sub IN NS ns.sub
sub IN DS 12345 13 2 0123456789012345678901234567890123456789012345678901234567890123
ns.sub IN A 127.0.0.54
open IN NS ns1.example.test.
-- nsec.test.zone --
$TTL 300
@ IN SOA ns1.example.test. hostmaster 7 3600 900 604800 60
@ IN NS ns1.example.test.
www IN CNAME www.signed.test.
*.wild IN A 192.0.2.12
-- sign --
signed.test nsec3
nsec.test nsec
-- perigee.toml --
[dns]
nsid = "ns1"
[edge.fra1]
location  = [50.11, 8.68]
addresses = ["192.0.2.10", "2001:db8::10"]
listen    = ["127.0.0.1:8080"]
[edge.iad1]
location  = [38.95, -77.45]
addresses = ["192.0.2.20", "2001:db8::20"]
listen    = ["127.0.0.1:8081"]
[endpoint.cdn-a]
target = "a.cdn.example."
[endpoint.cdn-b]
target = "static.example.test."
[policy.canary]
by      = "weighted"
ttl     = "30s"
weights = { fra1 = 70, iad1 = 30 }
[policy.map]
by  = "geo"
[policy.map.map]
DE      = "fra1"
US      = "iad1"
default = "canary"
[policy.cdns]
by      = "weighted"
weights = { cdn-a = 1, cdn-b = 1 }
[zone."example.test"]
file = "example.test.zone"
[zone."example.test".steer]
www   = "map"
alias = "cdns"
-- geo --
198.18.0.0/20 EU DE
198.19.0.0/16 NA US
2001:db8:100::/40 NA US
`

// openEverything is the View of everything, ready to be asked.
func openEverything(t testing.TB) *talk {
	t.Helper()
	files := map[string][]byte{}
	name := ""
	for line := range strings.Lines(everything) {
		if inner, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(inner, " --\n")
			continue
		}
		files[name] = append(files[name], line...)
	}
	k := newTalk(t, files)
	if k.err != nil {
		t.Fatal(k.err)
	}
	return k
}

// queries reach every branch; they seed the fuzzers too.
var queries = []string{
	"www.example.test", "www.example.test AAAA +ecs=198.18.1.0/24", "www.example.test +ecs=2001:db8:100::/48 +tcp", "www.example.test ANY",
	"static.example.test +noedns", "text.example.test TXT", "big.example.test TXT +bufsize=512", "any.example.test", "empty.example.test",
	"x.empty.example.test +nsid +do", "chain.example.test", "loop.example.test", "out.example.test", "into.example.test", "alias.example.test",
	"www.old.example.test", "www.deep.example.test", "sub.example.test NS", "www.sub.example.test", "example.test SOA", "example.test MX",
	"www.example.org", "example.test TYPE128", "example.test AXFR +tcp", "www.example.test +edns=1", "www.example.test +twoopts",
	"www.example.test +questions=2", "www.example.test +opcode=4", "www.example.test +class=CH", "www.example.test +ecs=0.0.0.0/0",
	"static.example.test +opt=10:2464c4abcf10c957 +opt=11", "static.example.test +tcp +opt=11 +opt=10:2464c4abcf10c957010000005cf79f111f8130c3eee29480",
	"www.signed.test +do", "no.signed.test +do", "x.wild.signed.test +do", "empty.signed.test AAAA +do", "x.sub.signed.test +do", "open.signed.test +do",
	"sub.signed.test DS +do", "www.old.signed.test +do", "www.old.signed.test +do +tcp", "www.signed.test HTTPS", "www.signed.test ANY +do", "signed.test DNSKEY +do",
	"no.nsec.test +do", "x.wild.nsec.test MX +do", "www.nsec.test AAAA +do", "signed.test SOA +opt=9 +do", "no.old.signed.test +do +bufsize=512", "version.bind TXT +class=CH",
	". +questions=0 +opt=10:2464c4abcf10c957", "static.example.test +tcp +opt=11:0001",
	"no.other.test", "X.ns1.Example.test AAAA", "ns1.example.test AAAA +ecs=198.18.1.0/24", "no.signed.test +opt=10:2464c4abcf10c957",
}

func TestAnswerAllocatesNothing(t *testing.T) {
	k := openEverything(t)
	dst := make([]byte, 0, 4096)
	out := new(dnsserver.Outcome)
	for _, text := range queries {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP, Now: q.At, State: k.state, Cookies: k.cookies}
		if n := testing.AllocsPerRun(100, func() { k.view.Answer(dst, q.Wire, c, out) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func TestAnswerAppends(t *testing.T) {
	k := openEverything(t)
	for _, text := range queries {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}
		alone := k.view.Answer(nil, q.Wire, c, new(dnsserver.Outcome))
		behind := k.view.Answer([]byte("prefix"), q.Wire, c, new(dnsserver.Outcome))
		if string(behind) != "prefix"+string(alone) {
			t.Errorf("%s: behind other octets the reply differs", text)
		}
	}
}

func TestNilView(t *testing.T) {
	q, err := txtest.ParseQuery("www.example.test +nsid")
	if err != nil {
		t.Fatal(err)
	}
	var v *dnsserver.View
	out := new(dnsserver.Outcome)
	text, err := txtest.Print(v.Answer(nil, q.Wire, &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}, out))
	if err != nil || out.Rcode != dns.RcodeRefused || !strings.HasPrefix(text, "status: REFUSED flags: qr rd\n") {
		t.Errorf("%+v, %v\n%s", out, err, text)
	}
}

func TestOutcome(t *testing.T) {
	k := openEverything(t)
	for text, want := range map[string]dnsserver.Outcome{
		"www.example.test +ecs=198.18.1.0/24": {Action: dnsserver.Reply, Zone: "example.test.", QType: 1, Steered: true, HasECS: true, Scope: 20, TTL: 60},
		"static.example.test":                 {Action: dnsserver.Reply, Zone: "example.test.", QType: 1, TTL: 300},
		"chain.example.test":                  {Action: dnsserver.Reply, Zone: "example.test.", QType: 1, Steered: true, TTL: 30},
		"big.example.test TXT +bufsize=512":   {Action: dnsserver.Reply, Zone: "example.test.", QType: 16, TC: true},
		"x.empty.example.test":                {Action: dnsserver.Reply, Zone: "example.test.", QType: 1, Rcode: 3},
		"www.example.test +edns=1":            {Action: dnsserver.Reply, QType: 1, Rcode: 16},
		"www.example.org":                     {Action: dnsserver.Reply, QType: 1, Rcode: 5},
		"www.example.test +qr":                {Action: dnsserver.Drop},
	} {
		_, out, err := k.ask(text)
		if err != nil {
			t.Fatal(err)
		}
		if out.Steered != (len(out.Decision.Endpoints) > 0) {
			t.Errorf("%s: steered %v with endpoints %v", text, out.Steered, out.Decision.Endpoints)
		}
		got := *out
		got.Decision, got.Root = want.Decision, want.Root
		if !sameOutcome(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", text, got, want)
		}
	}
}

func sameOutcome(a, b dnsserver.Outcome) bool {
	return a.Action == b.Action && a.Zone == b.Zone && a.Rcode == b.Rcode && a.QType == b.QType && a.Steered == b.Steered &&
		a.HasECS == b.HasECS && a.Scope == b.Scope && a.TTL == b.TTL && a.TC == b.TC
}

// checkReply holds what is true of every reply whatever the query is, and
// returns the outcome.
func checkReply(t testing.TB, k *talk, packet []byte, transport dnsserver.Transport) *dnsserver.Outcome {
	t.Helper()
	c := &dnsserver.Context{From: netip.MustParseAddrPort("198.19.1.53:5353"), Transport: transport, Now: time.Hour, State: k.state, Cookies: k.cookies, Idle: 10 * time.Second, Limited: k.limited}
	out := new(dnsserver.Outcome)
	given := bytes.Clone(packet)
	reply := k.view.Answer(nil, packet, c, out)
	fail := func(what string) {
		t.Helper()
		t.Errorf("%s\nquery %s\nreply %s", what, hex.EncodeToString(packet), hex.EncodeToString(reply))
	}
	if !bytes.Equal(given, packet) {
		fail("the query was written to")
	}
	checkPlain(k.view, packet, c, fail)
	if again := k.view.Answer(nil, packet, c, new(dnsserver.Outcome)); !bytes.Equal(reply, again) {
		fail("a second call answers otherwise")
	}
	silent := len(packet) < 12 || packet[2]&0x80 != 0
	if silent != (out.Action == dnsserver.Drop) || silent != (len(reply) == 0) {
		fail("answered what must be dropped, or dropped what must be answered")
	}
	if silent {
		return out
	}
	limit := 65535
	if transport == dnsserver.UDP {
		limit = 1232
	}
	if len(reply) > limit {
		fail("too long")
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		fail("does not parse: " + err.Error())
		return out
	}
	if !bytes.Equal(reply[:2], packet[:2]) || reply[2]&0x79 != packet[2]&0x79 || !m.Response || m.RecursionAvailable || m.Zero || m.AuthenticatedData || m.CheckingDisabled {
		fail("header")
	}
	if m.Truncated != out.TC || m.Rcode != int(out.Rcode) {
		fail("outcome and header differ")
	}
	if n := int(binary.BigEndian.Uint16(reply[4:])); n > 1 || n == 1 && !bytes.HasPrefix(packet[12:], question(reply)) {
		fail("question is not echoed")
	}
	if m.Rcode == dns.RcodeServerFailure {
		fail("SERVFAIL on a sound View")
	}
	if m.Rcode == dns.RcodeSuccess && m.Opcode == dns.OpcodeQuery && len(m.Question) == 1 && !m.Truncated && len(m.Answer)+len(m.Ns) == 0 {
		fail("an empty NOERROR")
	}
	if m.IsEdns0() == nil && len(reply) > 512 && transport == dnsserver.UDP {
		fail("over 512 octets without EDNS")
	}
	checkRRsets(&m, fail)
	return out
}

// question is the question section of a message with one question.
func question(b []byte) []byte {
	i := 12
	for b[i] != 0 {
		i += 1 + int(b[i])
	}
	return b[12 : i+5]
}

// checkRRsets demands equal TTLs in an RRset and no record twice (RFC 2181 §5).
func checkRRsets(m *dns.Msg, fail func(string)) {
	type key struct {
		name   string
		rrtype uint16
		covers uint16 // of an RRSIG, whose TTL is that of what it covers
	}
	ttl := map[key]uint32{}
	seen := map[string]bool{}
	for _, rr := range append(append([]dns.RR(nil), m.Answer...), m.Ns...) {
		h := rr.Header()
		k := key{name: strings.ToLower(h.Name), rrtype: h.Rrtype}
		if sig, ok := rr.(*dns.RRSIG); ok {
			k.covers = sig.TypeCovered
		}
		if had, ok := ttl[k]; ok && had != h.Ttl {
			fail("TTLs of one RRset differ")
		}
		ttl[k] = h.Ttl
		if s := strings.ToLower(rr.String()); seen[s] {
			fail("twice: " + s)
		} else {
			seen[s] = true
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range queries {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q.Wire, q.TCP)
	}
	k := openEverything(f)
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		transport := dnsserver.UDP
		if tcp {
			transport = dnsserver.TCP
		}
		checkReply(t, k, packet, transport)
	})
}
