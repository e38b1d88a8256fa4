package zones

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzParse: no text panics, and of what loads, every owner is found, every
// RRset is the answer to its question unless a cut or alias is before it, and
// the saved form gives the same zone.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../testdata/zones/*.zone")
	if err != nil {
		f.Fatal(err)
	}
	bad, err := filepath.Glob("../testdata/zones/bad/*.zone")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, bad...) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		// Without what needs a folder, so that the seeds load.
		var kept []byte
		for line := range bytes.Lines(text) {
			if !bytes.HasPrefix(line, []byte("$INCLUDE")) {
				kept = append(kept, line...)
			}
		}
		f.Add(kept)
	}
	f.Add([]byte(lookupZone))
	f.Add([]byte(lintBase + "x TA 1 1 1 00\nx SIG A 1 1 1 1 1 1 . 00\nx APL\nx APL 1:192.0.2.0/24\n"))
	f.Add([]byte(lintBase + "$GENERATE 0-3 ${-1,2,n} A 192.0.2.$\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			t.Skip("longer than what a fuzzer should spend time on")
		}
		z, findings := Parse("fuzz.zone", text, Options{Origin: "example.test", MaxRecords: 2000})
		if z == nil {
			if len(findings) == 0 {
				t.Fatal("no zone and no finding")
			}
			return
		}
		checkZone(t, z)
		var saved bytes.Buffer
		z.writeText(&saved)
		again, findings := Parse("saved.zone", saved.Bytes(), Options{Origin: "example.test"})
		if again == nil {
			t.Fatalf("the saved form does not load: %s\n%s", show(findings), saved.Bytes())
		}
		if got, want := dump(again), dump(z); got != want {
			t.Fatalf("the saved form gives\n%s\nnot\n%s", got, want)
		}
	})
}

// checkZone checks what holds of every zone.
func checkZone(t *testing.T, z *Zone) {
	t.Helper()
	count := 0
	var last []byte
	for name, n := range z.Names() {
		count++
		key := appendKey(nil, name)
		if last != nil && bytes.Compare(last, key) >= 0 {
			t.Fatalf("%s is out of order", FormatName(name))
		}
		last = key
		if got, ok := z.Find(name); !ok || got != n {
			t.Fatalf("%s is not found", FormatName(name))
		}
		if owner := z.Owner(n, nil); !equalLower(owner, name) {
			t.Fatalf("%s has owner %s", FormatName(name), FormatName(owner))
		}
		if wire, err := ParseName(FormatName(name)); err != nil || !bytes.Equal(wire, name) {
			t.Fatalf("%q as text is %s and back %q, %v", name, FormatName(name), wire, err)
		}
		for _, set := range z.RRsets(n, nil) {
			checkRRset(t, set)
			var r Result
			z.Lookup(name, set.Type, &r)
			switch {
			case z.node(n).flags()&flagHash != 0:
				if r.Kind == Found && r.Node == n || set.Type != typeNSEC3 && set.Type != typeRRSIG {
					t.Fatalf("%s, the hash of a name, is %s", FormatName(name), describe(z, &r))
				}
			case r.Kind == Found && r.Node == n && !r.Wildcard && r.Suffix == 0:
			case r.Kind == Referral || r.Kind == DNAME:
				if r.Node == n && set.Type == typeDS || r.Node == 0 && r.Kind == Referral {
					t.Fatalf("%s %s: %s", FormatName(name), typeName(set.Type), describe(z, &r))
				}
			default:
				t.Fatalf("%s %s: %s", FormatName(name), typeName(set.Type), describe(z, &r))
			}
		}
	}
	checkDenials(t, z)
	if count != z.Len() {
		t.Fatalf("%d names, Len is %d", count, z.Len())
	}
	if soa, neg := z.SOA(), z.Negative(); soa.Count != 1 || neg.Count != 1 || neg.TTL > soa.TTL {
		t.Fatalf("SOA %+v, negative %+v", soa, neg)
	}
}

// checkDenials: whatever is not there, what is said to prove it are RRsets of
// the chain, each once, and none only where there is no chain.
func checkDenials(t *testing.T, z *Zone) {
	t.Helper()
	var r Result
	for name := range z.Names() {
		for _, prefix := range []string{"", "\x01x", "\x01*", "\x01x\x01y", "\x3f" + strings.Repeat("z", 63)} {
			if len(prefix)+len(name) > maxNameBytes {
				continue
			}
			asked := append([]byte(prefix), name...)
			for _, qtype := range []uint16{typeA, typeDS, typeANY, 65399} {
				z.Lookup(asked, qtype, &r)
				got := z.Deny(asked, &r, nil)
				negative := r.Kind == NoData || r.Kind == NXDomain
				if len(got) > 3 || negative && (len(got) == 0) != (z.Denial() == NoDenial) {
					t.Fatalf("%s TYPE%d (%s): %d proofs, denial %d", FormatName(asked), qtype, describe(z, &r), len(got), z.Denial())
				}
				for i, n := range got {
					_, nsec := z.RRset(n, typeNSEC)
					_, nsec3 := z.RRset(n, typeNSEC3)
					if slices.Contains(got[:i], n) || z.Denial() == NSEC && !nsec || z.Denial() == NSEC3 && !nsec3 {
						t.Fatalf("%s TYPE%d (%s): proofs %v", FormatName(asked), qtype, describe(z, &r), got)
					}
				}
			}
		}
	}
}

// checkRRset has another implementation read the records.
func checkRRset(t *testing.T, set RRset) {
	t.Helper()
	msg := append(make([]byte, 12, 13+len(set.Wire)), 0) // C00C points at a root name
	msg = append(msg, set.Wire...)
	off := 13
	for range set.Count {
		h, next, err := unpackHeader(msg, off)
		if err != nil || h.Rrtype != set.Type || h.Class != dns.ClassINET || h.Ttl < set.TTL || set.Type != typeRRSIG && h.Ttl != set.TTL {
			t.Fatalf("record %+v of %+v: %v", h, set, err)
		}
		off = next
	}
	if off != len(msg) {
		t.Fatalf("%d records end at %d of %d octets", set.Count, off, len(msg))
	}
}

// unpackHeader reads the header of a record and where the next one begins.
func unpackHeader(msg []byte, off int) (dns.RR_Header, int, error) {
	name, off, err := dns.UnpackDomainName(msg, off)
	if err != nil || off+10 > len(msg) {
		return dns.RR_Header{}, 0, err
	}
	b := msg[off:]
	h := dns.RR_Header{Name: name, Rrtype: uint16(b[0])<<8 | uint16(b[1]), Class: uint16(b[2])<<8 | uint16(b[3]),
		Ttl: uint32(b[4])<<24 | uint32(b[5])<<16 | uint32(b[6])<<8 | uint32(b[7]), Rdlength: uint16(b[8])<<8 | uint16(b[9])}
	return h, off + 10 + int(h.Rdlength), nil
}

// FuzzLookup: no name and type panic, and the answer is of the zone.
func FuzzLookup(f *testing.F) {
	z := mustParse(f, "example.test", lookupZone)
	for _, n := range []string{"example.test", "a.b.old.example.test", "foo.wild.example.test", "x.sub.example.test", "."} {
		f.Add(wireName(f, n), uint16(typeA))
	}
	f.Add([]byte{}, uint16(typeA))
	f.Add([]byte{63, 1}, uint16(typeA))
	f.Add([]byte{0xC0, 0x0C}, uint16(typeDS))
	f.Add(bytes.Repeat([]byte{0}, 300), uint16(typeANY))
	f.Add(bytes.Repeat([]byte{1, 'a'}, 200), uint16(typeANY))
	f.Fuzz(func(t *testing.T, name []byte, qtype uint16) {
		var r Result
		z.Lookup(name, qtype, &r)
		well := nameLen(name) == len(name) && len(name) > 0
		switch {
		case r.Kind == NotInZone:
			if well && below(name, z.OriginWire()) {
				t.Fatalf("%q is in the zone", name)
			}
			return
		case !well:
			t.Fatalf("%q is no name, yet %s", name, describe(z, &r))
		case r.Suffix > len(name) || r.Kind == 0:
			t.Fatalf("%+v", r)
		}
		owner := FormatName(z.Owner(r.Node, nil))
		if r.Wildcard {
			owner = strings.TrimPrefix(owner, "*.")
		}
		if got := FormatName(name[r.Suffix:]); !strings.EqualFold(got, owner) {
			t.Fatalf("%q: suffix %s, node %s", name, got, owner)
		}
	})
}
