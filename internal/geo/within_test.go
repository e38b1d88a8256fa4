package geo

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"perigee.example/policy"
)

var (
	allIPv4 = netip.MustParsePrefix("0.0.0.0/0")
	allIPv6 = netip.MustParsePrefix("::/0")
)

// lines writes blocks one to a line: block, country, city, AS.
func lines(blocks iter.Seq2[netip.Prefix, policy.Location]) []string {
	var list []string
	for block, loc := range blocks {
		list = append(list, fmt.Sprintf("%s %s/%s AS%d", block, loc.Country, loc.City, loc.ASN))
	}
	return list
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		place, asn, within string
		want               []string
	}{
		{"city.mmdb", "asn.mmdb", "0.0.0.0/0", []string{
			"10.0.0.0/8 / AS64510",
			"192.0.2.0/25 DE/Frankfurt am Main AS64500",
			"192.0.2.128/25 DE/Berlin AS64500",
			"198.51.100.0/26 US/Los Angeles AS64501",
			"198.51.100.64/26 US/Ashburn AS64501",
			"198.51.100.128/25 US/Los Angeles AS0",
			"203.0.113.0/26 NO/ AS0",
			"203.0.113.64/26 NO/ AS64502",
			"203.0.113.128/25 SG/ AS0",
		}},
		{"city.mmdb", "asn.mmdb", "::/0", []string{
			"2001:db8::/34 DE/Frankfurt am Main AS0",
			"2001:db8:4000::/34 DE/Frankfurt am Main AS64503",
			"2001:db8:8000::/48 SG/ AS4200000000",
			"2001:db8:8001::/48 SG/ AS0",
			"2001:db8:8002::/47 SG/ AS0",
			"2001:db8:8004::/46 SG/ AS0",
			"2001:db8:8008::/45 SG/ AS0",
			"2001:db8:8010::/44 SG/ AS0",
			"2001:db8:8020::/43 SG/ AS0",
			"2001:db8:8040::/42 SG/ AS0",
			"2001:db8:8080::/41 SG/ AS0",
			"2001:db8:8100::/40 SG/ AS0",
			"2001:db8:8200::/39 SG/ AS0",
			"2001:db8:8400::/38 SG/ AS0",
			"2001:db8:8800::/37 SG/ AS0",
			"2001:db8:9000::/36 SG/ AS0",
			"2001:db8:a000::/35 SG/ AS0",
			"2001:db8:c000::/34 SG/ AS0",
			"3fff::/20 GB/Oxford AS0",
		}},
		{"city.mmdb", "", "198.51.100.0/24", []string{
			"198.51.100.0/26 US/Los Angeles AS0",
			"198.51.100.64/26 US/Ashburn AS0",
			"198.51.100.128/25 US/Los Angeles AS0",
		}},
		{"city.mmdb", "asn-ipv4.mmdb", "2001:db8::/32", []string{
			"2001:db8::/33 DE/Frankfurt am Main AS0",
			"2001:db8:8000::/33 SG/ AS0",
		}},
		{"city.mmdb", "asn.mmdb", "192.0.2.7/32", []string{"192.0.2.7/32 DE/Frankfurt am Main AS64500"}}, // cut
		{"city.mmdb", "asn.mmdb", "192.0.2.7/26", []string{"192.0.2.0/26 DE/Frankfurt am Main AS64500"}}, // host bits are no matter
		{"city.mmdb", "asn.mmdb", "2002:c000:200::/40", nil},                                             // 6to4
		{"city.mmdb", "asn.mmdb", "::/96", nil},                                                          // where the file keeps IPv4
		{"city.mmdb", "asn.mmdb", "::ffff:192.0.2.0/120", nil},                                           // mapped: ask for IPv4
		{"unaliased.mmdb", "", "2002::/16", []string{"2002:c000:200::/40 IT/ AS0"}},
		{"unaliased.mmdb", "asn.mmdb", "2002::/16", nil}, // an alias in the other
		{"unaliased.mmdb", "asn.mmdb", "192.0.2.0/24", []string{"192.0.2.0/24 FR/ AS64500"}},
	} {
		db := openFixtures(t, c.place, c.asn)
		if got := lines(db.Within(netip.MustParsePrefix(c.within))); !slices.Equal(got, c.want) {
			t.Errorf("%s %s: Within(%s):\n got %q\nwant %q", c.place, c.asn, c.within, got, c.want)
		}
	}
	db := openFixtures(t, "city.mmdb", "asn.mmdb")
	if got := lines(db.Within(netip.Prefix{})); got != nil {
		t.Errorf("Within of no prefix is %q", got)
	}
	for range db.Within(allIPv4) {
		break // a walk may be left at any time
	}
}

// Lookup and Within are two ways of asking the same: every address of a block
// has the block's location, and an address outside of all blocks has none.
func TestWithinAgreesWithLookup(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, 0))
	for _, db := range []*DB{
		openFixtures(t, "city.mmdb", "asn.mmdb"),
		openFixtures(t, "city.mmdb", "asn-ipv4.mmdb"),
		openFixtures(t, "unaliased.mmdb", "asn.mmdb"),
		builtinDB(t),
	} {
		for _, family := range []netip.Prefix{allIPv4, allIPv6} {
			var at netip.Addr // the first address that is not yet accounted for
			check := func(addr netip.Addr, want policy.Location) {
				if got, block := db.Lookup(addr); got != want || !block.Contains(addr) {
					t.Fatalf("seed %d: Lookup(%s) is %+v %s; the walk says %+v", seed, addr, got, block, want)
				}
			}
			at = family.Addr()
			n := 0
			for block, loc := range db.Within(family) {
				n++
				if block != block.Masked() || block.Addr().Less(at) {
					t.Fatalf("block %s comes behind %s", block, at)
				}
				if loc == nothing {
					t.Fatalf("block %s: nothing is known", block)
				}
				if random.IntN(100) == 0 || len(db.Databases()) == 2 {
					if at != block.Addr() { // a gap
						check(at, nothing)
						check(block.Addr().Prev(), nothing)
					}
					check(block.Addr(), loc)
					check(lastAddr(block), loc)
					check(drawAddr(block, random), loc)
				}
				at = lastAddr(block).Next()
			}
			if n == 0 || (n < 500_000 && db == builtinDB(t)) {
				t.Errorf("%s: %d blocks", family, n)
			}
		}
	}
}

// drawAddr returns a random address of p.
func drawAddr(p netip.Prefix, random *rand.Rand) netip.Addr {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		n := binary.BigEndian.Uint32(a[:]) | uint32(uint64(random.Uint32())>>p.Bits())
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
	}
	a := p.Addr().As16()
	low := random.Uint64()
	if p.Bits() > 64 {
		low >>= p.Bits() - 64
	}
	high := binary.BigEndian.Uint64(a[:8])
	if p.Bits() < 64 {
		high |= random.Uint64() >> p.Bits()
	}
	low |= binary.BigEndian.Uint64(a[8:])
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, high), low)))
}

// Whoever compiles an Atlas walks everything: 0.14 s on a small server. The
// bound leaves room for the race detector on a busy machine, and still notices
// when records are decoded once for each network.
func TestWithinIsFast(t *testing.T) {
	db := builtinDB(t)
	start := time.Now()
	n := 0
	for _, family := range []netip.Prefix{allIPv4, allIPv6} {
		for range db.Within(family) {
			n++
		}
	}
	took := time.Since(start)
	t.Logf("%d blocks in %s", n, took)
	if took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	if n != builtinNetworks {
		t.Errorf("%d blocks, expected %d", n, builtinNetworks)
	}
}

func BenchmarkWithin(b *testing.B) {
	db, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for range db.Within(allIPv4) {
		}
		for range db.Within(allIPv6) {
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	db, err := Builtin()
	if err != nil {
		b.Fatal(err)
	}
	addr := netip.MustParseAddr("193.99.144.80")
	b.ReportAllocs()
	for b.Loop() {
		db.Lookup(addr)
	}
}
