package zones

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestHostileZoneText writes every type there is with no data, one octet, 64 KiB
// and words of the wrong kind, in the type's own form and in that of RFC 3597.
// Each is loaded and can be answered, or is an error with its line; none panics
// (CVE-2018-17419 was a TA record).
func TestHostileZoneText(t *testing.T) {
	types := []uint16{65280, 65535, 128, 0}
	for n := range dns.TypeToString {
		types = append(types, n)
	}
	slices.Sort(types)
	huge := strings.Repeat("00", 1<<16-1)
	datas := []string{
		"", `\# 0`, `\# 1 00`, `\# 1 ff`, `\# 4 c00cc00c`, `\# 65535 ` + huge, `\# 65536 ` + huge + "00", `\# 2 00`, `\# 1`, `\#`, `\# -1 00`, `\# x`,
		"0", "-1", "99999999999999999999", ".", "x", "x x x x x x x x x x x x", "0 0 0 0 0 0 0 0 0 0 0 0", `"`, `""`, "(", ")", `\`, `\300`, "\x00",
		strings.Repeat("a", 64) + ".", strings.Repeat("a.", 200), huge, `"` + strings.Repeat("x", 70000) + `"`, strings.Repeat("1 ", 5000),
	}
	loaded, refused := 0, 0
	for _, n := range types {
		name := dns.Type(n).String()
		for i, data := range datas {
			if len(data) > 1<<16 && n%4 != uint16(i%4) && n != dns.TypeTA {
				continue // the long ones take turns: each costs a millisecond
			}
			where := fmt.Sprintf("%s with data %d (%.20q)", name, i, data)
			text := "$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n" + "x IN " + name + " " + data + "\n"
			z, findings := Parse("hostile.zone", []byte(text), Options{Origin: "example.test", MaxRecords: 1000})
			if z != nil {
				loaded++
				checkZone(t, z)
				continue
			}
			refused++
			if len(findings) == 0 {
				t.Errorf("%s: refused without a word", where)
			}
			for _, f := range findings {
				if !f.Warning && (f.Line < 5 || f.Text == "") {
					t.Errorf("%s: %+v, want line 5 or what it opened", where, f)
				}
			}
		}
	}
	t.Logf("%d types, %d zones loaded, %d refused", len(types), loaded, refused)
	if loaded == 0 || refused == 0 {
		t.Error("all were loaded or all refused: this test shows nothing")
	}
}

// FuzzParseName: no text panics; what is taken is a name, comes back as itself,
// and is what miekg/dns makes of the text when it takes it too.
func FuzzParseName(f *testing.F) {
	for _, text := range []string{".", "", "a", "a.b.", `\000\255.x`, `a\.b`, `\`, `\25`, `\256`, "a..b", `ā\.`, strings.Repeat("a.", 127), strings.Repeat("a", 64), "*.é"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		wire, err := ParseName(text)
		if err != nil {
			return
		}
		if nameLen(wire) != len(wire) || len(wire) > maxNameBytes {
			t.Fatalf("%q is taken as %x, which is no name", text, wire)
		}
		if back, err := ParseName(FormatName(wire)); err != nil || string(back) != string(wire) {
			t.Fatalf("%q is %x, as text %s, and back %x, %v", text, wire, FormatName(wire), back, err)
		}
		buf := make([]byte, 300)
		if n, err := dns.PackDomainName(qualified(text), buf, 0, nil, false); err == nil && string(buf[:n]) != string(wire) {
			t.Fatalf("%q is %x, miekg/dns makes %x", text, wire, buf[:n])
		}
	})
}

// qualified ends a name in a dot that is not escaped. (dns.Fqdn takes the one of
// "ā\." for such: it counts backslashes behind a character of two octets wrongly.)
func qualified(text string) string {
	body, dotted := strings.CutSuffix(text, ".")
	if escapes := len(body) - len(strings.TrimRight(body, "\\")); dotted && escapes%2 == 0 {
		return text
	}
	return text + "."
}
