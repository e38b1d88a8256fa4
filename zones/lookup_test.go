package zones

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func wireName(t testing.TB, text string) []byte {
	t.Helper()
	w, err := ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return appendLower(nil, w)
}

func mustParse(t testing.TB, origin, text string) *Zone {
	t.Helper()
	z, findings := Parse("test.zone", []byte(text), Options{Origin: origin})
	if z == nil {
		t.Fatalf("zone does not load: %v\n%s", findings, text)
	}
	return z
}

const lookupZone = `
$TTL 300
@            SOA   ns1 hostmaster 7 3600 900 1209600 60
@            NS    ns1
ns1          A     192.0.2.1
Mixed.CASE   A     192.0.2.2
a.b.c        TXT   "below empty non-terminals"
*.wild       TXT   "wildcard"
*.wild       A     192.0.2.3
host.wild    A     192.0.2.4
x.ent.wild   A     192.0.2.5
alias        CNAME mixed.case
*.cwild      CNAME ns1
old          DNAME new
old          TXT   "the owner is not redirected"
sub          NS    ns.sub
sub          NS    ns.sibling
sub          DS    1 13 2 ( 0000000000000000000000000000000000000000000000000000000000000000 )
ns.sub       A     192.0.2.6
deep.ns.sub  A     192.0.2.7
unsigned     NS    ns1
a.*.odd      A     192.0.2.8
`

func TestLookup(t *testing.T) {
	z := mustParse(t, "example.test", lookupZone)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string // kind, node, "*" when Wildcard, suffix
	}{
		{"example.test", dns.TypeSOA, "found example.test. 0"},
		{"example.test", dns.TypeNS, "found example.test. 0"},
		{"example.test", dns.TypeDS, "nodata example.test. 0"},
		{"example.test", dns.TypeANY, "found example.test. 0"},
		{"ns1.example.test", dns.TypeA, "found ns1.example.test. 0"},
		{"ns1.example.test", dns.TypeAAAA, "nodata ns1.example.test. 0"},
		{"mixed.case.example.test", dns.TypeA, "found Mixed.CASE.example.test. 0"},
		{"case.example.test", dns.TypeA, "nodata CASE.example.test. 0"},
		// RFC 8020 and RFC 4592 §2.2.2: an empty non-terminal exists, and so does each above it.
		{"b.c.example.test", dns.TypeTXT, "nodata b.c.example.test. 0"},
		{"c.example.test", dns.TypeTXT, "nodata c.example.test. 0"},
		{"x.c.example.test", dns.TypeTXT, "nxdomain c.example.test. 2"},
		{"x.example.test", dns.TypeA, "nxdomain example.test. 2"},
		// RFC 4592 §3.3: the wildcard below the closest encloser, and no other.
		{"foo.wild.example.test", dns.TypeTXT, "found *.wild.example.test. * 4"},
		{"foo.bar.wild.example.test", dns.TypeTXT, "found *.wild.example.test. * 8"},
		{"foo.wild.example.test", dns.TypeMX, "nodata *.wild.example.test. * 4"},
		{"wild.example.test", dns.TypeTXT, "nodata wild.example.test. 0"},
		{"*.wild.example.test", dns.TypeTXT, "found *.wild.example.test. 0"},
		{"a.*.wild.example.test", dns.TypeTXT, "nxdomain *.wild.example.test. 2"},
		{"host.wild.example.test", dns.TypeTXT, "nodata host.wild.example.test. 0"},
		{"x.host.wild.example.test", dns.TypeTXT, "nxdomain host.wild.example.test. 2"},
		{"ent.wild.example.test", dns.TypeTXT, "nodata ent.wild.example.test. 0"},
		{"y.ent.wild.example.test", dns.TypeTXT, "nxdomain ent.wild.example.test. 2"},
		{"foo.odd.example.test", dns.TypeA, "nodata *.odd.example.test. * 4"},
		{"alias.example.test", dns.TypeA, "cname alias.example.test. 0"},
		{"alias.example.test", dns.TypeCNAME, "found alias.example.test. 0"},
		{"alias.example.test", dns.TypeANY, "found alias.example.test. 0"},
		{"foo.cwild.example.test", dns.TypeA, "cname *.cwild.example.test. * 4"},
		// RFC 6672 §2.3: what is below the owner is redirected, the owner is not.
		{"old.example.test", dns.TypeTXT, "found old.example.test. 0"},
		{"old.example.test", dns.TypeA, "nodata old.example.test. 0"},
		{"a.b.old.example.test", dns.TypeA, "dname old.example.test. 4"},
		{"sub.example.test", dns.TypeNS, "referral sub.example.test. 0"},
		{"sub.example.test", dns.TypeA, "referral sub.example.test. 0"},
		{"sub.example.test", dns.TypeANY, "referral sub.example.test. 0"},
		{"sub.example.test", dns.TypeDS, "found sub.example.test. 0"},
		{"unsigned.example.test", dns.TypeDS, "nodata unsigned.example.test. 0"},
		{"ns.sub.example.test", dns.TypeA, "referral sub.example.test. 3"},
		{"deep.ns.sub.example.test", dns.TypeDS, "referral sub.example.test. 8"},
		{"nothere.sub.example.test", dns.TypeA, "referral sub.example.test. 8"},
		{"test", dns.TypeA, "notinzone"},
		{"anexample.test", dns.TypeA, "notinzone"},
		{".", dns.TypeA, "notinzone"},
	} {
		var r Result
		z.Lookup(wireName(t, c.name), c.qtype, &r)
		if got := describe(z, &r); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.Type(c.qtype), got, c.want)
		}
	}
}

func TestLookupInTheRoot(t *testing.T) {
	z := mustParse(t, ".", "$TTL 300\n@ SOA a.test. h 1 2 3 4 5\n@ NS a.test.\na.test A 192.0.2.1\n*.wild TXT x\ncom NS a.test.\n")
	for name, want := range map[string]string{
		".":           "nodata . 0",
		"test.":       "nodata test. 0",
		"nothere.":    "nxdomain . 8",
		"x.y.wild.":   "nodata *.wild. * 4",
		"example.com": "referral com. 8",
	} {
		var r Result
		z.Lookup(wireName(t, name), typeA, &r)
		if got := describe(z, &r); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func describe(z *Zone, r *Result) string {
	if r.Kind == NotInZone {
		return r.Kind.String()
	}
	star := ""
	if r.Wildcard {
		star = "* "
	}
	return fmt.Sprintf("%s %s %s%d", r.Kind, FormatName(z.Owner(r.Node, nil)), star, r.Suffix)
}

func TestLookupAllocatesNothing(t *testing.T) {
	z := mustParse(t, "example.test", lookupZone)
	var names [][]byte
	for _, n := range []string{"ns1", "mixed.case", "x.y.z.c", "foo.wild", "a.b.old", "ns.sub", "b.c"} {
		names = append(names, wireName(t, n+".example.test"))
	}
	var r Result
	sets := make([]RRset, 0, 8)
	owner := make([]byte, 0, maxNameBytes)
	if n := testing.AllocsPerRun(100, func() {
		for _, name := range names {
			z.Lookup(name, dns.TypeA, &r)
			z.RRset(r.Node, dns.TypeA)
			sets = z.RRsets(r.Node, sets[:0])
			owner = z.Owner(r.Node, owner[:0])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// model is RFC 1034 §4.3.2 as written, over maps, with RFC 4592, RFC 6672 and
// RFC 4035 §3.1.4.1: slow, and independent of the image.
type model struct {
	origin string
	data   map[string]map[uint16]bool
	exists map[string]bool
}

func newModel(origin string, rrs []dns.RR) *model {
	m := &model{origin: origin, data: map[string]map[uint16]bool{}, exists: map[string]bool{}}
	for _, rr := range rrs {
		name := strings.ToLower(rr.Header().Name)
		if m.data[name] == nil {
			m.data[name] = map[uint16]bool{}
		}
		m.data[name][rr.Header().Rrtype] = true
		for name != origin {
			m.exists[name] = true
			_, name, _ = strings.Cut(name, ".")
		}
		m.exists[origin] = true
	}
	return m
}

// lookup walks down from the apex label by label.
func (m *model) lookup(name string, qtype uint16) string {
	if name != m.origin && !strings.HasSuffix(name, "."+m.origin) {
		return "notinzone"
	}
	labels := []string{}
	if name != m.origin {
		labels = strings.Split(strings.TrimSuffix(name, "."+m.origin), ".")
	}
	at := m.origin
	match := func(node, star string) string {
		types, suffix := m.data[node], len(name)-len(at)
		switch {
		case len(types) == 0:
			return fmt.Sprintf("nodata %s %s%d", node, star, suffix)
		case qtype == dns.TypeANY, types[qtype]:
			return fmt.Sprintf("found %s %s%d", node, star, suffix)
		case types[dns.TypeCNAME]:
			return fmt.Sprintf("cname %s %s%d", node, star, suffix)
		}
		return fmt.Sprintf("nodata %s %s%d", node, star, suffix)
	}
	for {
		last := len(labels) == 0
		if at != m.origin && m.data[at][dns.TypeNS] && !(last && qtype == dns.TypeDS) {
			return fmt.Sprintf("referral %s %d", at, len(name)-len(at))
		}
		if last {
			return match(at, "")
		}
		if m.data[at][dns.TypeDNAME] {
			return fmt.Sprintf("dname %s %d", at, len(name)-len(at))
		}
		next := labels[len(labels)-1] + "." + at
		if !m.exists[next] {
			if m.exists["*."+at] {
				return match("*."+at, "* ")
			}
			return fmt.Sprintf("nxdomain %s %d", at, len(name)-len(at))
		}
		at, labels = next, labels[:len(labels)-1]
	}
}

// randomName draws from few labels, so that names meet.
func randomName(rng *rand.Rand, most int) string {
	labels := []string{"a", "b", "c", "*", "aa"}
	name := ""
	for range rng.IntN(most + 1) {
		name += labels[rng.IntN(len(labels))] + "."
	}
	return name + "example.test."
}

func TestLookupAgreesWithTheRFC(t *testing.T) {
	types := []uint16{dns.TypeA, dns.TypeTXT, dns.TypeNS, dns.TypeCNAME, dns.TypeDNAME, dns.TypeDS}
	data := []string{"A 192.0.2.1", "TXT x", "NS ns.example.net.", "CNAME x.example.net.", "DNAME y.example.net.", "DS 1 13 2 00"}
	kinds := map[string]int{}
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		text := "$TTL 60\nexample.test. SOA ns.example.net. h.example.net. 1 2 3 4 5\nexample.test. NS ns.example.net.\n"
		plain := map[string]bool{}
		alias := map[string]bool{"example.test.": true}
		for range 2 + rng.IntN(12) {
			name, i := randomName(rng, 4), rng.IntN(len(types))
			if types[i] == dns.TypeCNAME {
				if plain[name] || alias[name] {
					continue
				}
				alias[name] = true
			} else {
				if alias[name] && name != "example.test." || types[i] == dns.TypeNS && strings.HasPrefix(name, "*.") || types[i] == dns.TypeDNAME && rng.IntN(2) == 0 {
					continue
				}
				plain[name] = true
			}
			text += name + " " + data[i] + "\n"
		}
		var rrs []dns.RR
		zp := dns.NewZoneParser(strings.NewReader(text), "", "")
		for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
			rrs = append(rrs, rr)
		}
		m := newModel("example.test.", rrs)
		z, findings := Parse("random.zone", []byte(text), Options{Origin: "example.test"})
		if z == nil {
			// Several DNAMEs or so: TestLint has what is refused.
			if len(findings) == 0 {
				t.Fatalf("seed %d: no zone and no finding", seed)
			}
			kinds["refused"]++
			continue
		}
		for range 200 {
			name, qtype := randomName(rng, 6), types[rng.IntN(len(types))]
			if rng.IntN(20) == 0 {
				qtype = dns.TypeANY
			}
			if rng.IntN(50) == 0 {
				name = strings.TrimSuffix(name, "test.") + "net."
			}
			var r Result
			z.Lookup(wireName(t, name), qtype, &r)
			samePlain(t, z, wireName(t, name), qtype, &r)
			got, want := describe(z, &r), m.lookup(name, qtype)
			kinds[strings.Fields(got)[0]]++
			if got != want {
				t.Fatalf("seed %d: %s %s: %s, want %s\n%s", seed, name, dns.Type(qtype), got, want, text)
			}
		}
	}
	for k := Found; k <= NotInZone; k++ {
		if kinds[k.String()] < 100 {
			t.Errorf("the random zones gave %s only %d times: %v", k, kinds[k.String()], kinds)
		}
	}
	if kinds["refused"] > 200 {
		t.Errorf("%d of 400 random zones were refused", kinds["refused"])
	}
}

// samePlain holds Plain against what Lookup says of the same question: the same,
// or nothing where there is more to say.
func samePlain(t *testing.T, z *Zone, name []byte, qtype uint16, r *Result) {
	t.Helper()
	var at starts
	depth, ok := z.relative(name, &at)
	if !ok || qtype == typeANY || qtype == typeDS {
		return // which Plain is not for
	}
	kind, n, wire, count, suffix := z.Plain(name, at[:depth], qtype)
	of := map[Kind]uint16{Found: qtype, CNAME: typeCNAME, Referral: typeNS}[r.Kind]
	set, _ := z.RRset(r.Node, of)
	switch {
	case kind == 0 && (r.Kind == DNAME || r.Wildcard && z.node(r.Node).flags()&flagCut != 0):
	case kind != r.Kind || n != r.Node || kind == Referral && suffix != r.Suffix || count != set.Count || !bytes.Equal(wire, set.Wire):
		t.Fatalf("%s %s: plain %s of node %d at %d, %d records; else %s of %d at %d", FormatName(name), typeName(qtype), kind, n, suffix, count, r.Kind, r.Node, r.Suffix)
	}
	runtime.KeepAlive(z)
}

func TestRRsets(t *testing.T) {
	z := mustParse(t, "example.test", `
$TTL 300
@  SOA NS1.Example.Test. hostmaster 4294967295 3600 900 1209600 60
@  NS  ns1
ns1 600 A 192.0.2.2
ns1 A 192.0.2.1
ns1 A 192.0.2.1
ns1 TYPE65400 \# 3 010203
ns1 TYPE65401 \# 0
`)
	n, ok := z.Find(wireName(t, "ns1.example.test"))
	if !ok {
		t.Fatal("ns1 not found")
	}
	set, ok := z.RRset(n, dns.TypeA)
	want := []byte("\xC0\x0C\x00\x01\x00\x01\x00\x00\x01\x2C\x00\x04\xC0\x00\x02\x01\xC0\x0C\x00\x01\x00\x01\x00\x00\x01\x2C\x00\x04\xC0\x00\x02\x02")
	if !ok || !bytes.Equal(set.Wire, want) || set.Count != 2 || set.TTL != 300 || set.Type != dns.TypeA {
		t.Errorf("A: %v %+v", ok, set)
	}
	if set, ok := z.RRset(n, 65401); !ok || len(set.Wire) != recordHeader {
		t.Errorf("TYPE65401: %v %+v", ok, set)
	}
	if sets := z.RRsets(n, nil); len(sets) != 3 || sets[1].Type != 65400 {
		t.Errorf("all: %+v", sets)
	}
	soa, neg := z.SOA(), z.Negative()
	if soa.TTL != 300 || neg.TTL != 60 || neg.Wire[9] != 60 || soa.Wire[8] != 1 || soa.Count != 1 {
		t.Errorf("SOA %+v, negative %+v", soa, neg)
	}
	if rdata, _ := firstRecord(soa.Wire); !bytes.HasPrefix(rdata, []byte("\x03NS1\x07Example\x04Test\x00")) {
		t.Errorf("the names in RDATA are not as written: %q", rdata)
	}
	if z.Serial() != 4294967295 || z.Len() != 2 || z.Origin() != "example.test." || z.Signed() {
		t.Errorf("serial %d, %d names, origin %s, signed %v", z.Serial(), z.Len(), z.Origin(), z.Signed())
	}
}

// TestSignedZone: DNSSEC records are loaded and found like any others, and what
// a signer writes gives no remark.
func TestSignedZone(t *testing.T) {
	text := `
$TTL 300
@      SOA        ns1 hostmaster 7 3600 900 1209600 60
       NS         ns1
       DNSKEY     257 3 13 ( mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ== )
       CDS        0 0 0 00
       NSEC3PARAM 1 0 0 -
       NSEC       alias A NS SOA RRSIG NSEC DNSKEY
       RRSIG      SOA 13 2 300 20300101000000 20260101000000 1 @ AAAA
       60 RRSIG   NSEC 13 2 60 20300101000000 20260101000000 1 @ AAAA
ns1    A          192.0.2.1
alias  CNAME      ns1
       RRSIG      CNAME 13 3 300 20300101000000 20260101000000 1 @ AAAA
       NSEC       sub CNAME RRSIG NSEC
sub    NS         ns1
       DS         1 13 2 0000000000000000000000000000000000000000000000000000000000000000
       RRSIG      DS 13 3 300 20300101000000 20260101000000 1 @ AAAA
       NSEC       @ NS DS RRSIG NSEC
0123456789abcdefghijklmnopqrstuv NSEC3 1 0 0 - 1123456789abcdefghijklmnopqrstuv A RRSIG
`
	z, findings := Parse("signed.zone", []byte(text), Options{Origin: "example.test"})
	if z == nil || len(findings) > 0 {
		t.Fatal(show(findings))
	}
	if !z.Signed() {
		t.Error("not signed")
	}
	set, ok := z.RRset(0, typeRRSIG)
	if !ok || set.Count != 2 || set.TTL != 60 {
		t.Fatalf("RRSIGs of the apex: %v %+v", ok, set)
	}
	// Each signature keeps the TTL of what it covers.
	first, rest := firstRecord(set.Wire)
	if first[1] != typeSOA || set.Wire[8] != 1 || set.Wire[9] != 300-256 || rest[9] != 60 {
		t.Errorf("TTLs %d and %d", set.Wire[6:10], rest[6:10])
	}
	var r Result
	z.Lookup(wireName(t, "alias.example.test"), typeNSEC, &r)
	if r.Kind != Found {
		t.Errorf("NSEC beside a CNAME: %s", r.Kind)
	}
	checkZone(t, z)
}

// TestImageHasNoPointers: what a zone of a million names is made of is nothing
// that the garbage collector walks.
func TestImageHasNoPointers(t *testing.T) {
	img := reflect.TypeFor[image]()
	slices := 0
	for i := range img.NumField() {
		f := img.Field(i)
		if f.Type.Kind() != reflect.Slice {
			continue
		}
		slices++
		if k := f.Type.Elem().Kind(); k != reflect.Uint8 && k != reflect.Uint32 {
			t.Errorf("%s has a %s", f.Name, k)
		}
	}
	if slices != 3 {
		t.Errorf("%d flat blocks, want 3", slices)
	}
}

func TestNames(t *testing.T) {
	z := mustParse(t, "example.test", lookupZone)
	var got []string
	for name := range z.Names() {
		got = append(got, strings.TrimSuffix(FormatName(name), "example.test."))
		if len(got) == 9 {
			break
		}
	}
	// RFC 4034 §6.1, without the empty non-terminals.
	want := []string{"", "alias.", "a.b.c.", "mixed.case.", "*.cwild.", "ns1.", "a.*.odd.", "old.", "sub."}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestParseName(t *testing.T) {
	for _, c := range []struct{ text, wire, back string }{
		{".", "\x00", "."},
		{"a", "\x01a\x00", "a."},
		{"a.B.", "\x01a\x01B\x00", "a.B."},
		{`a\.b.c`, "\x03a.b\x01c\x00", `a\.b.c.`},
		{`\000\255\032.x`, "\x03\x00\xff \x01x\x00", `\000\255\032.x.`},
		{`\@\a.x`, "\x02@a\x01x\x00", `\@a.x.`},
		{strings.Repeat("a", 63), "\x3f" + strings.Repeat("a", 63) + "\x00", strings.Repeat("a", 63) + "."},
	} {
		wire, err := ParseName(c.text)
		if err != nil || string(wire) != c.wire {
			t.Errorf("%s: %q, %v", c.text, wire, err)
		} else if back := FormatName(wire); back != c.back {
			t.Errorf("%s: back as %s, want %s", c.text, back, c.back)
		}
	}
	for _, bad := range []string{"", "..", ".a", "a..b", `a\`, `a\25`, `a\256`, `a\2x5`, strings.Repeat("a", 64), strings.Repeat("a.", 128)} {
		if wire, err := ParseName(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, wire)
		}
	}
}
