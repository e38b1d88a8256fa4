package geo

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// FuzzParse: no octets of a file make parse panic, and what it takes can be
// read from end to end.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"city.mmdb", "asn.mmdb", "asn-ipv4.mmdb", "unaliased.mmdb", "wrong-kind.mmdb", "wrong-schema.mmdb", "empty.mmdb"} {
		data := read(f, fixture(name))
		f.Add(data)
		f.Add(data[:len(data)/2])
		f.Add(data[len(data)/2:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		place, err := parse(data, forPlace)
		if err == nil {
			walkAll(t, &DB{place: place})
		}
		asn, err := parse(data, forASN)
		if err != nil {
			return
		}
		if city, err := Open(Files{Place: fixture("city.mmdb")}); err == nil {
			walkAll(t, &DB{place: city.place, asn: asn})
		}
	})
}

// walkAll reads everything, and checks that Lookup and Within agree.
func walkAll(t *testing.T, db *DB) {
	for _, family := range []netip.Prefix{allIPv4, allIPv6} {
		at := family.Addr()
		for block, loc := range db.Within(family) {
			if block.Addr().Less(at) {
				t.Errorf("block %s comes behind %s", block, at)
			}
			at = lastAddr(block)
			if got, _ := db.Lookup(at); got != loc {
				t.Errorf("Lookup(%s) is %+v, the walk says %+v", at, got, loc)
			}
			if !at.Next().IsValid() {
				break
			}
			at = at.Next()
		}
	}
	_ = db.Describe(netip.MustParseAddr("192.0.2.1")).String()
}

// A sound file in which a few octets were changed is refused, or read as what
// it now says; it never panics. (FuzzParse loses itself in metadata; this
// stays near to what a bad disk does.)
func TestDamagedOctets(t *testing.T) {
	const seed, rounds = 1, 1_500
	random := rand.New(rand.NewPCG(seed, 0))
	refused := 0
	city := openFixtures(t, "city.mmdb", "")
	for _, name := range []string{"city.mmdb", "unaliased.mmdb", "asn-ipv4.mmdb"} {
		sound := read(t, fixture(name))
		for round := range rounds {
			data := slices.Clone(sound)
			for range 1 + random.IntN(3) {
				data[random.IntN(len(data))] = byte(random.Uint32())
			}
			want := forPlace
			if name == "asn-ipv4.mmdb" {
				want = forASN
			}
			d, err := parse(data, want)
			if err != nil {
				refused++
				continue
			}
			db := &DB{place: d}
			if want == forASN {
				db = &DB{place: city.place, asn: d}
			}
			if walkAll(t, db); t.Failed() {
				t.Fatalf("seed %d, %s, round %d", seed, name, round)
			}
		}
	}
	t.Logf("%d of %d refused", refused, 3*rounds)
	if refused < rounds/2 {
		t.Errorf("seed %d: only %d of %d refused", seed, refused, 3*rounds)
	}
}
