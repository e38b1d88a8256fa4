package dnsserver

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/internal/txtest"
)

// TestCompressionIsBounded writes names of a hundred labels that differ from each
// other in the last ones alone: comparing each suffix with each name known would
// be half a million steps a name. It stops, and every name can still be read.
func TestCompressionIsBounded(t *testing.T) {
	deep := strings.Repeat("a.", 115)
	q, err := txtest.ParseQuery(deep + "zone.test +noedns")
	if err != nil {
		t.Fatal(err)
	}
	m := message{b: q.Wire, limit: maxTCP}
	for i := range 60 {
		name := deep + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "ne.test."
		wire, err := wireName(name)
		if err != nil {
			t.Fatal(err)
		}
		at := m.addName(wire)
		if at >= maxPointer {
			break
		}
		got, _, err := dns.UnpackDomainName(m.b, at)
		if err != nil || got != name {
			t.Fatalf("name %d reads %q, %v, want %q", i, got, err, name)
		}
	}
	if most := maxCompressing + 2*maxNameLen; m.compared > most {
		t.Errorf("%d suffixes and labels compared, want at most %d", m.compared, most)
	}
	// What is ordinary is compressed to the end.
	q, err = txtest.ParseQuery("www.example.test +noedns")
	if err != nil {
		t.Fatal(err)
	}
	m = message{b: q.Wire, limit: maxTCP}
	for i := range 13 {
		wire, err := wireName(string(rune('a'+i)) + ".ns.example.test")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{4, 2} { // a label and a pointer, as NS; a pointer, as glue
			before := len(m.b)
			m.addName(wire)
			if n := len(m.b) - before; n != want && !(i == 0 && n == 7) { // the first one writes "ns" too
				t.Errorf("name %d takes %d octets, want %d", i, n, want)
			}
		}
	}
	if m.compared > 150 {
		t.Errorf("a referral compared %d suffixes and labels", m.compared)
	}
}
