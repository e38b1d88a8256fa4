package zones

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const signedHead = `
$TTL 300
@ SOA ns1 hostmaster 7 3600 900 1209600 60
@ NS ns1
@ DNSKEY 257 3 15 AAAA
@ RRSIG SOA 15 2 300 20600101000000 20200101000000 1 @ AAAA
@ RRSIG NS 15 2 300 20600101000000 20200101000000 1 @ AAAA
@ RRSIG NS 13 2 300 20600101000000 20200101000000 2 @ AAAA
ns1 A 192.0.2.1
`

func TestSignatures(t *testing.T) {
	z := mustParse(t, "example.test", signedHead)
	for rrtype, want := range map[uint16]int{typeSOA: 1, typeNS: 2, typeA: 0, typeDNSKEY: 0, 65000: 0} {
		set, ok := z.Signatures(Apex, rrtype)
		if ok != (want > 0) || set.Count != want {
			t.Errorf("%s: %d signatures, want %d", typeName(rrtype), set.Count, want)
		}
		for wire := set.Wire; len(wire) > 0; {
			var rdata []byte
			if rdata, wire = firstRecord(wire); uint16(rdata[0])<<8|uint16(rdata[1]) != rrtype {
				t.Errorf("%s: a signature of %d", typeName(rrtype), rdata[:2])
			}
		}
	}
	n, _ := z.Find(wireName(t, "ns1.example.test"))
	if _, ok := z.Signatures(n, typeA); ok || !z.HasSignatures() {
		t.Error("ns1 has a signature, or the zone has none")
	}
	if mustParse(t, "example.test", lookupZone).HasSignatures() {
		t.Error("an unsigned zone has signatures")
	}
}

// TestDenial: which chain a zone has, and what the loader says of it.
func TestDenial(t *testing.T) {
	apex := strings.ToLower(dns.HashName("example.test.", dns.SHA1, 0, ""))
	many := strings.ToLower(dns.HashName("example.test.", dns.SHA1, 151, ""))
	record := func(hash string, iterations int) string {
		return fmt.Sprintf("%s NSEC3 1 0 %d - %s NS SOA RRSIG DNSKEY NSEC3PARAM\n", hash, iterations, hash)
	}
	for _, c := range []struct {
		name, text string
		want       Denial
		remark     string
	}{
		{"none", "", NoDenial, "no chain of NSEC or NSEC3"},
		{"nsec", "@ NSEC ns1 NS SOA\n", NSEC, ""},
		{"no nsec at the apex", "ns1 NSEC @ A\n", NoDenial, "no chain"},
		{"nsec3", "@ NSEC3PARAM 1 0 0 -\n" + record(apex, 0), NSEC3, ""},
		{"upper case", "@ NSEC3PARAM 1 0 0 -\n" + record(strings.ToUpper(apex), 0), NSEC3, ""},
		{"both", "@ NSEC ns1 NS SOA\n@ NSEC3PARAM 1 0 0 -\n" + record(apex, 0), NSEC3, ""},
		{"nsec3 without parameters", "@ NSEC ns1 NS SOA\n" + record(apex, 0), NSEC, ""},
		{"parameters of a chain that is not there", "@ NSEC ns1 NS SOA\n@ NSEC3PARAM 1 0 0 AABB\n" + record(apex, 0), NSEC, ""},
		{"parameters of a signer at work", "@ NSEC ns1 NS SOA\n@ NSEC3PARAM 1 128 0 -\n" + record(apex, 0), NSEC, ""},
		{"the second parameters", "@ NSEC3PARAM 1 0 1 -\n@ NSEC3PARAM 1 0 0 -\n" + record(apex, 0), NSEC3, ""},
		{"another algorithm", "@ NSEC ns1 NS SOA\n@ NSEC3PARAM 2 0 0 -\n" + record(apex, 0), NSEC, ""},
		{"a hash that is not the apex's", "@ NSEC3PARAM 1 0 0 -\n" + record(many, 0), NoDenial, "no chain"},
		{"some iterations", "@ NSEC3PARAM 1 0 10 -\n" + record(strings.ToLower(dns.HashName("example.test.", dns.SHA1, 10, "")), 10), NSEC3, "10 iterations, which costs"},
		{"many iterations", "@ NSEC3PARAM 1 0 151 -\n" + record(many, 151), NSEC3, "151 iterations, beyond"},
		{"data cut short", "@ NSEC ns1 NS SOA\n@ TYPE51 \\# 4 01000000\n0123456789abcdefghijklmnopqrstuv TYPE50 \\# 5 0100000009\n", NSEC, ""},
	} {
		z, findings := Parse("test.zone", []byte(signedHead+c.text), Options{Origin: "example.test"})
		if z == nil {
			t.Errorf("%s: %s", c.name, show(findings))
			continue
		}
		if z.Denial() != c.want {
			t.Errorf("%s: denial %d, want %d", c.name, z.Denial(), c.want)
		}
		if got := show(findings); (got == "") != (c.remark == "") || !strings.Contains(got, c.remark) {
			t.Errorf("%s: %q, want %q", c.name, got, c.remark)
		}
		checkZone(t, z)
	}
}

// TestHash has another implementation hash the same names.
func TestHash(t *testing.T) {
	const seed = 5155
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		name := randomName(rng, 4)
		p := nsec3Params{iterations: uint16(rng.IntN(4)), salt: make([]byte, rng.IntN(9))}
		for i := range p.salt {
			p.salt[i] = byte(rng.Uint32())
		}
		h := p.hash(wireName(t, name))
		want := dns.HashName(name, dns.SHA1, p.iterations, fmt.Sprintf("%X", p.salt))
		if got := base32hex.EncodeToString(h[:]); !strings.EqualFold(got, want) {
			t.Fatalf("seed %d: %s %+v: %s, want %s", seed, name, p, got, want)
		}
	}
	// The longest salt and name fit.
	long := nsec3Params{salt: bytes.Repeat([]byte{1}, 255)}
	long.hash(bytes.Repeat([]byte{0}, maxNameBytes))
}

// TestCompareNames has the keys that the loader sorts by say what the order is.
func TestCompareNames(t *testing.T) {
	const seed = 4034
	rng := rand.New(rand.NewPCG(seed, 0))
	random := func() []byte {
		var name []byte
		for range 1 + rng.IntN(4) {
			n := 1 + rng.IntN(3)
			name = append(name, byte(n))
			for range n {
				name = append(name, "\x00\x01aAbZ\xff"[rng.IntN(7)])
			}
		}
		return append(name, 0)
	}
	for range 20_000 {
		a, b := random(), random()
		var x, y starts
		got := compareNames(a, x[:x.split(a)], b, y[:y.split(b)])
		if want := bytes.Compare(appendKey(nil, a), appendKey(nil, b)); (got < 0) != (want < 0) || (got > 0) != (want > 0) {
			t.Fatalf("seed %d: %q and %q: %d, want %d", seed, a, b, got, want)
		}
	}
}

func TestDenyAllocatesNothing(t *testing.T) {
	apex := dns.HashName("example.test.", dns.SHA1, 0, "")
	for _, text := range []string{"@ NSEC ns1 NS SOA\nns1 NSEC @ A\n", "@ NSEC3PARAM 1 0 0 -\n" + apex + " NSEC3 1 0 0 - " + apex + " SOA\n"} {
		z := mustParse(t, "example.test", signedHead+text)
		for _, name := range []string{"nothing.example.test", "x.y.ns1.example.test", "ns1.example.test"} {
			asked := wireName(t, name)
			var buf [3]NodeID
			var r Result
			if n := testing.AllocsPerRun(100, func() {
				z.Lookup(asked, dns.TypeMX, &r)
				if len(z.Deny(asked, &r, buf[:0])) == 0 {
					t.Errorf("%s: nothing denies it", name)
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}

func BenchmarkDeny(b *testing.B) {
	apex := dns.HashName("example.test.", dns.SHA1, 0, "")
	for name, text := range map[string]string{"NSEC": "@ NSEC ns1 NS SOA\nns1 NSEC @ A\n", "NSEC3": "@ NSEC3PARAM 1 0 0 -\n" + apex + " NSEC3 1 0 0 - " + apex + " SOA\n"} {
		b.Run(name, func(b *testing.B) {
			z := mustParse(b, "example.test", signedHead+text)
			asked := wireName(b, "nothing.example.test")
			var buf [3]NodeID
			var r Result
			z.Lookup(asked, dns.TypeA, &r)
			for b.Loop() {
				z.Deny(asked, &r, buf[:0])
			}
		})
	}
}
