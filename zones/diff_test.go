package zones

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestChanges: what differs between two versions, in canonical order, and
// nothing else.
func TestChanges(t *testing.T) {
	const base = "$TTL 300\n@ SOA ns1 h 1 3600 900 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\n"
	old := mustParse(t, "x.test", base+"b A 192.0.2.2\nb TXT same\nA.deep.c A 192.0.2.3\nz A 192.0.2.9\n")
	new := mustParse(t, "x.test", "$TTL 300\n@ SOA ns1 h 2 3600 900 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\n"+
		"b 60 A 192.0.2.2\nb TXT same\na.deep.c A 192.0.2.3\n*.c A 192.0.2.4\nz AAAA 2001:db8::1\n")
	list := func(a, b *Zone) (got []string) {
		for c := range Changes(a, b) {
			got = append(got, fmt.Sprintf("%s %s %d→%d", FormatName(c.Owner), typeName(c.Type), c.Old.Count, c.New.Count))
		}
		return got
	}
	want := []string{"x.test. SOA 1→1", "b.x.test. A 1→1", "*.c.x.test. A 0→1", "z.x.test. A 1→0", "z.x.test. AAAA 0→1"}
	if got := list(old, new); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := list(old, old); got != nil {
		t.Errorf("a zone differs from itself: %q", got)
	}
	if got := list(nil, old); len(got) != 7 || got[0] != "x.test. NS 0→1" {
		t.Errorf("from nothing: %q", got)
	}
	if got := list(old, nil); len(got) != 7 || got[6] != "z.x.test. A 1→0" {
		t.Errorf("to nothing: %q", got)
	}
	for range Changes(old, new) {
		break
	}
}

// TestDifference: records in presentation form; those that both sides have
// are left out, and a TTL is part of a record.
func TestDifference(t *testing.T) {
	const base = "$TTL 300\n@ SOA ns1 h 1 3600 900 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\n"
	old := mustParse(t, "x.test", base+"b A 192.0.2.2\nb A 192.0.2.3\nt TXT \"a b\" c\nu TYPE65400 \\# 2 beef\nc A 192.0.2.9\n")
	now := mustParse(t, "x.test", base+"b A 192.0.2.3\nb A 192.0.2.1\nc 60 A 192.0.2.9\nm MX 10 Mail\n")
	var minus, plus []string
	for c := range Changes(old, now) {
		removed, added := c.Difference()
		minus, plus = append(minus, removed...), append(plus, added...)
	}
	wantMinus := []string{"b.x.test. 300 IN A 192.0.2.2", "c.x.test. 300 IN A 192.0.2.9", `t.x.test. 300 IN TXT "a b" "c"`, `u.x.test. 300 IN TYPE65400 \# 2 beef`}
	wantPlus := []string{"b.x.test. 300 IN A 192.0.2.1", "c.x.test. 60 IN A 192.0.2.9", "m.x.test. 300 IN MX 10 Mail.x.test."}
	if !slices.Equal(minus, wantMinus) || !slices.Equal(plus, wantPlus) {
		t.Errorf("removed %q\nwant    %q\nadded   %q\nwant    %q", minus, wantMinus, plus, wantPlus)
	}
}

// TestWriteText: what is written reads as the same zone.
func TestWriteText(t *testing.T) {
	z := mustParse(t, "x.test", "$TTL 300\n@ SOA ns1 h 1 3600 900 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\nA\\.b TXT \"\\255 x\"\n*.w 5 MX 1 ns1\n")
	var text strings.Builder
	if err := z.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, "x.test", text.String())
	for c := range Changes(z, again) {
		t.Errorf("%s %s differs", FormatName(c.Owner), typeName(c.Type))
	}
	if again.Len() != z.Len() || z.Len() != 4 {
		t.Errorf("%d names of %d came back", again.Len(), z.Len())
	}
}
