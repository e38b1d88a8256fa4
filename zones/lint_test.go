package zones

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const lintBase = `$TTL 300
@ SOA ns1 h 1 3600 900 1209600 60
@ NS ns1
ns1 A 192.0.2.1
`

// TestLint: what follows lintBase begins on line 5.
func TestLint(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"www A 192.0.2.1\n", ""},
		{"@ MX 0 .\n_x._tcp SRV 0 0 0 .\n", ""},
		{"sub NS ns.sub\nsub NS ns1\nns.sub A 192.0.2.2\nns.sub AAAA 2001:db8::1\n", ""},
		{"sub NS sub\nsub A 192.0.2.2\n", ""},
		{"@ SOA ns1 h 2 3600 900 1209600 60\n", "5 error second SOA"},
		{"x SOA ns1 h 2 3600 900 1209600 60\n", "5 error SOA at x.example.test., which is not the apex"},
		{"d CNAME a\nd CNAME b\n", "5 error d.example.test. has 2 CNAME records"},
		{"d DNAME a\nd DNAME b\n", "5 error d.example.test. has 2 DNAME records"},
		{"d CNAME a\nd A 192.0.2.1\n", "6 error d.example.test. has a CNAME and other data (A)"},
		{"d CNAME a\nd DNAME b\n", "6 error d.example.test. has a CNAME and other data (DNAME)"},
		{"@ CNAME a\n", "has a CNAME and other data (SOA)"},
		{"d DNAME a\nx.d A 192.0.2.1\n", "6 warning x.d.example.test. A is below the DNAME at d.example.test."},
		{"d DNAME a\nd NS ns1\n", "5 warning d.example.test. has NS and DNAME"},
		{"foo.example.net. A 192.0.2.1\n", "5 warning foo.example.net. A is outside of the zone"},
		{"sub NS ns.sub\n", "5 warning sub.example.test. NS points at ns.sub.example.test. below the cut, which has no glue"},
		{"sub NS nothere\n", "5 warning sub.example.test. NS points at nothere.example.test., which has no address"},
		{"@ NS nothere\n", "error example.test. NS points at nothere.example.test., which has no address"},
		{"sub NS c\nc CNAME ns1\n", "5 warning sub.example.test. NS points at c.example.test., which is an alias"},
		{"@ MX 5 c\nc CNAME ns1\n", "5 warning example.test. MX points at c.example.test., which is an alias"},
		{"@ MX 5 nothere\n", "5 warning example.test. MX points at nothere"},
		{"_x._tcp SRV 1 1 1 nothere\n", "5 warning _x._tcp.example.test. SRV points at nothere"},
		{"@ MX 5 some.w\n*.w A 192.0.2.1\n", ""},
		{"sub NS ns1\nx.sub A 192.0.2.1\n", "6 warning x.sub.example.test. A is occluded by the delegation of sub.example.test."},
		{"sub NS ns1\nsub TXT x\n", "6 warning sub.example.test. TXT is occluded"},
		{"*.w NS ns1\n", "5 error *.w.example.test. is a wildcard with NS"},
		{"x DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000\n", "5 warning x.example.test. has DS but no NS"},
		{"x 60 A 192.0.2.1\nx 61 A 192.0.2.2\n", "5 warning x.example.test. A has records of different TTLs; all get the least, 60"},
		{"x 4294967295 A 192.0.2.1\n", "5 warning x.example.test. A has TTL 4294967295, which counts as 0"},
		{"x A 192.0.2.1\n\nX A 192.0.2.1\n", "7 warning X.example.test. A stands twice with the same data"},
		{"x MX 1 NS1\nx MX 1 ns1\n", "warning x.example.test. MX stands twice with the same data"},
		{"x CH A 192.0.2.1\n", "5 error x.example.test. A has class CH"},
		{"x A\n", "5 error x.example.test. A lacks data"},
		{"x MX\n", "5 error x.example.test. MX lacks data"},
		{"x TXT\n", "5 error x.example.test. TXT lacks data"},
		{"x TYPE65400\n", "5 error not a TTL"},
		{"x MX \\# 2 000a\n", "5 error x.example.test. MX lacks data"},
		{"x A 192.0.2.300\n", "5 error bad A"},
		{"x TYPE251 \\# 1 00\n", "5 error x.example.test. has type IXFR, which only queries"},
		{"\n\nx (\n A\n 192.0.2.300 )\n", "9 error bad A"},
		{"x TXT ( a ; )\n\n b\n", "error"},
		{strings.Repeat("x", 64) + " A 192.0.2.1\n", "5 error bad owner name"},
		{strings.Repeat("x.", 130) + " A 192.0.2.1\n", "5 error bad owner name"},
		{"x..y A 192.0.2.1\n", "5 error bad owner name"},
		{"x WAT 192.0.2.1\n", "5 error not a TTL"},
		{"$INCLUDE other.zone\n", "5 error $INCLUDE directive not allowed"},
		{"$GENERATE 1-3 h$ A 192.0.2.$\nx A bad\n", "6 error bad A"},
		{"$GENERATE 1-3 h$ A 192.0.2.${299}\n", "5 error bad A"},
		{"$GENERATE 1-99999999 h$ A 192.0.2.1\n", "5 error range \"1-99999999\" in $GENERATE has 99999999 steps"},
		{"$GENERATE 3-1 h$ A 192.0.2.1\n", "5 error range \"3-1\""},
		{"$GENERATE 1-2 $$INCLUDE\n", "5 error $GENERATE is not complete"},
		{"$GENERATE 1-2 $$INCLUDE /etc/hostname x\n", "5 error $GENERATE makes the owner \"$INCLUDE\""},
		{"$GENERATE 1-2 \\$INCLUDE /etc/hostname x\n", "5 error $GENERATE makes the owner"},
		{"$GEN()ERATE 1-2 $$INCLUDE /etc/hostname\n", "5 error parentheses in $GENERATE"},
		{"x TXT \"\n$GENERATE 1-2 a A 192.0.2.1\n\"\n", "6 error $GENERATE within parentheses"},
	} {
		z, findings := Parse("x.zone", []byte(lintBase+c.text), Options{Origin: "example.test"})
		got := show(findings)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
		if strings.Contains(got, " error ") != (z == nil) {
			t.Errorf("%q: zone %v with findings %s", c.text, z != nil, got)
		}
		for _, f := range findings {
			if f.Hint == "" {
				t.Errorf("%q: no hint for %q", c.text, f.Text)
			}
		}
	}
}

func show(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		level := "error"
		if f.Warning {
			level = "warning"
		}
		fmt.Fprintf(&b, "%d %s %s\n", f.Line, level, f.Text)
	}
	return b.String()
}

func TestApexIsNeeded(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "0 error no SOA at example.test."},
		{"$TTL 5\nx A 192.0.2.1\n", "0 error no SOA at example.test."},
		{"$TTL 5\n@ SOA a.b. c.d. 1 2 3 4 5\n", "2 error no NS at the apex example.test."},
		{"@ SOA a.b. c.d. 1 2 3 4 5\n", "1 error missing TTL"},
		{" A 192.0.2.1\n", "1 error"},
	} {
		z, findings := Parse("x.zone", []byte(c.text), Options{Origin: "example.test."})
		if got := show(findings); z != nil || !strings.Contains(got, c.want) {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
}

// TestPackPanics: what panics in the library is an error here.
func TestPackPanics(t *testing.T) {
	if n, err := packInto((*dns.A)(nil), make([]byte, 100)); err == nil || !strings.Contains(err.Error(), "cannot be packed") {
		t.Errorf("%d, %v", n, err)
	}
}

func TestLimits(t *testing.T) {
	text := []byte(lintBase + "$GENERATE 1-100 h$ A 192.0.2.$\n")
	if z, f := Parse("x.zone", text, Options{Origin: "example.test", MaxRecords: 102}); z != nil || !strings.Contains(show(f), "5 error more than 102 records in the zone") {
		t.Errorf("103 records with room for 102: %s", show(f))
	}
	if z, f := Parse("x.zone", text, Options{Origin: "example.test", MaxRecords: 103}); z == nil || z.Len() != 102 {
		t.Errorf("103 records with room for 103: %s", show(f))
	}
	// What is ignored counts too.
	text = []byte(lintBase + strings.Repeat("$GENERATE 1-60000 h$.example.net. A 192.0.2.1\n", 1000))
	if z, f := Parse("x.zone", text, Options{Origin: "example.test", MaxRecords: 100_000}); z != nil || !strings.Contains(show(f), "6 error more than 100000 records") {
		t.Errorf("60 million records outside of the zone: %s", show(f[len(f)-2:]))
	}
	var b strings.Builder
	b.WriteString(lintBase)
	for i := range 3000 {
		fmt.Fprintf(&b, "m%d MX 1 nothere%d\n", i, i)
	}
	if z, f := Parse("x.zone", []byte(b.String()), Options{Origin: "example.test"}); z == nil || len(f) != maxFindings+1 {
		t.Errorf("%d findings, want %d", len(f), maxFindings+1)
	}
	b.WriteString("big TXT x\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "big TXT %d\n", i)
	}
	if z, f := Parse("x.zone", []byte(b.String()), Options{Origin: "example.test"}); z != nil || !strings.Contains(show(f), "fit in no message") {
		t.Errorf("an RRset of 5,001 records loads")
	}
}
