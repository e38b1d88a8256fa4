package dnsserver_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

// delegating is a random zone of cuts and chains whose names share what they can:
// few labels, in both cases.
func delegating(rnd *rand.Rand) string {
	name := func() string {
		labels := []string{}
		for range 1 + rnd.IntN(3) {
			labels = append(labels, []string{"a", "A", "b", "ab", "x", "sub"}[rnd.IntN(6)])
		}
		switch end := rnd.IntN(8); end {
		case 0:
			return strings.Join(labels, ".") + ".test."
		case 1:
			return strings.Join(labels, ".") + ".other.Example."
		case 2:
			return strings.Repeat(labels[0]+".", 1+rnd.IntN(12)) + "example.test."
		case 3:
			return []string{".", "example.test.", "test.", strings.Repeat("x", 63) + "." + strings.Repeat("y", 60) + ".test."}[rnd.IntN(4)]
		}
		return strings.Join(labels, ".")
	}
	var b strings.Builder
	b.WriteString("$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n")
	for _, i := range rnd.Perm(6)[:3+rnd.IntN(4)] {
		switch owner := []string{"sub", "a", "b.a", "x", "*", "ab.b"}[i]; rnd.IntN(3) {
		case 0:
			for range 1 + rnd.IntN(5) {
				fmt.Fprintf(&b, "%s %d IN NS %s\n", owner, 60, name())
			}
		case 1:
			fmt.Fprintf(&b, "%s %d IN CNAME %s\n", owner, rnd.IntN(900), name())
		default:
			for range 1 + rnd.IntN(2) {
				fmt.Fprintf(&b, "%s IN A 192.0.2.%d\n%s IN AAAA 2001:db8::%d\n", owner, rnd.IntN(256), owner, rnd.IntN(256))
			}
		}
	}
	return b.String()
}

// Referrals and chains of random zones are what the general path makes of them,
// whatever their names share.
func TestPlainNames(t *testing.T) {
	const seed1, seed2 = 1034, 1035
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	loaded, referrals, chains := 0, 0, 0
	for range 1000 {
		text := delegating(rnd)
		zone, _ := zones.Parse("example.test.zone", []byte(text), zones.Options{Origin: "example.test"})
		if zone == nil {
			continue // such as a CNAME beside other data
		}
		loaded++
		v, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{zone}})
		if err != nil {
			t.Fatal(err)
		}
		for range 12 {
			asked := []string{"", "a.", "x.", "b.a.", "ab.x.b."}[rnd.IntN(5)] + []string{"sub", "A", "b.a", "x", "nothing", "ab.b"}[rnd.IntN(6)] + ".Example.test" +
				[]string{"", " AAAA", " TXT", " MX"}[rnd.IntN(4)] + []string{"", " +noedns", " +ecs=192.0.2.0/24", " +tcp", " +bufsize=512"}[rnd.IntN(5)]
			q, err := txtest.ParseQuery(asked)
			if err != nil {
				t.Fatal(err)
			}
			c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}
			if !checkPlain(v, q.Wire, c, func(what string) { t.Fatalf("seed %d, %d: %s: %s\n%s", seed1, seed2, asked, what, text) }) {
				continue
			}
			var out dnsserver.Outcome
			reply := v.Answer(nil, q.Wire, c, &out)
			if first := 12 + len(question(reply)); reply[2]&4 == 0 { // no AA
				referrals++
			} else if out.Answers > 0 && reply[first+3] == byte(dns.TypeCNAME) {
				chains++
			}
		}
	}
	t.Logf("%d zones, %d referrals, %d chains", loaded, referrals, chains)
	if loaded < 500 || referrals < 1000 || chains < 300 {
		t.Error("too few came up")
	}
}
