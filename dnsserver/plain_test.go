package dnsserver_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

// checkPlain holds the hot path against the general one: the same outcome, and
// the same message but for how it is compressed. It is false for a query that is
// left to the latter.
func checkPlain(v *dnsserver.View, packet []byte, c *dnsserver.Context, fail func(string)) bool {
	var got, want dnsserver.Outcome
	reply, plain := dnsserver.Plainly(v, nil, packet, c, &got)
	if !plain {
		if len(reply) > 0 {
			fail("the hot path left the query, and something in the reply")
		}
		return false
	}
	general := dnsserver.Generally(v, nil, packet, c, &want)
	for _, out := range []*dnsserver.Outcome{&got, &want} {
		out.Decision.Why = nil
		if len(out.Decision.Endpoints) == 0 {
			out.Decision.Endpoints = nil
		}
	}
	if !reflect.DeepEqual(got, want) {
		fail("the outcome of the hot path differs")
	}
	if bytes.Equal(reply, general) {
		return true
	}
	var one, two dns.Msg
	if one.Unpack(reply) != nil || two.Unpack(general) != nil || !strings.EqualFold(one.String(), two.String()) {
		fail("the reply of the hot path differs")
	}
	return true
}

// What is plain takes the hot path, and nothing else does.
func TestPlainQueries(t *testing.T) {
	k := openEverything(t)
	plain := []string{
		"static.example.test", "STATIC.Example.TEST +noedns", "static.example.test +tcp +bufsize=4096", "www.example.test AAAA +ecs=198.18.1.0/24",
		"chain.example.test", "chain.example.test AAAA +ecs=198.18.1.0/24", "out.example.test +ecs=198.18.1.0/24", "into.example.test +opt=10:2464c4abcf10c957", "www.nsec.test", "sub.example.test NS",
		"www.sub.example.test +noedns", "ns.sub.example.test AAAA +do", "x.open.signed.test +tcp", "www.example.test +ecs=2001:db8:100::/48 +tcp", "www.example.test +do", "text.example.test TXT", "any.example.test", "empty.example.test",
		"example.test AAAA", "ns1.example.test AAAA", "x.ns1.example.test", "X.NS1.example.test MX", "x.empty.example.test", "no.other.test HTTPS",
		"www.other.test SRV", "no.signed.test", "www.signed.test", "x.wild.signed.test", "static.example.test +opt=10:2464c4abcf10c957",
		"static.example.test +ecs=0.0.0.0/0", "www.example.test +opt=65001:00",
	}
	other := []string{
		"alias.example.test", "loop.example.test", "www.old.example.test", "www.deep.example.test", "www.nsec.test +do", "chain.example.test MX", "into.example.test AAAA",
		"chain.example.test CNAME", "x.sub.signed.test +do", "sub.example.test DS", "example.test SOA", "example.test MX", "www.example.org", "example.test AXFR +tcp",
		"www.example.test ANY", "www.example.test +class=CH", "www.example.test +edns=1", "www.example.test +twoopts", "www.example.test +questions=2",
		"www.example.test +opcode=4", "www.example.test +nsid", "www.signed.test +do", "www.signed.test HTTPS", "big.example.test TXT +bufsize=512",
		"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.example.test", strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example.test",
	}
	for i, text := range append(plain, other...) {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		transport := dnsserver.UDP
		if q.TCP {
			transport = dnsserver.TCP
		}
		c := &dnsserver.Context{From: q.From, Transport: transport, State: k.state, Cookies: k.cookies}
		if got := checkPlain(k.view, q.Wire, c, func(what string) { t.Errorf("%s: %s", text, what) }); got != (i < len(plain)) {
			t.Errorf("%s: plain %v", text, got)
		}
	}
}

// The SOA of a negative answer is packed once a zone and moved behind each
// question: wherever its names lead to, and however long the question is.
func TestPlainNegatives(t *testing.T) {
	for _, origin := range []string{"example.test", "."} {
		for _, names := range []string{
			"ns1 hostmaster", "@ @", ". .", "@ .", ". @", "ns1.example.org. hostmaster.ns1.example.org.", "ns1.example.org. ns1.example.org.", "a.b a.b.c.a.b",
			"A.test. B.A.Test.", strings.Repeat("x", 63) + ".test. h." + strings.Repeat("x", 63) + ".test.",
		} {
			text := "$TTL 300\n@ IN SOA " + names + " 7 3600 900 604800 60\n@ IN NS ns1.example.net.\nns1.example.net.example.test. IN A 192.0.2.1\n"
			if origin == "." {
				text += "ns1.example.net. IN A 192.0.2.1\n"
			}
			v, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{parseZone(t, origin, []byte(text))}})
			if err != nil {
				t.Fatal(err)
			}
			for _, question := range []string{
				"example.test", "no.example.test", "NO.Example.Test AAAA +noedns", "b.example.test MX", strings.Repeat("y", 63) + ".h.ns1.example.test", "x.a.b.c.a.b.example.test",
				"no.example.test +opt=10:2464c4abcf10c957 +ecs=192.0.2.0/24", "a.b.c.d.e.f.g.h.i.example.test +tcp",
			} {
				q, err := txtest.ParseQuery(question)
				if err != nil {
					t.Fatal(err)
				}
				c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}
				if !checkPlain(v, q.Wire, c, func(what string) { t.Errorf("zone %s, SOA %s, %s: %s", origin, names, question, what) }) {
					t.Errorf("zone %s, SOA %s: %s is not plain", origin, names, question)
				}
			}
		}
	}
}
