package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPlaces(t *testing.T) {
	de, us := Location{Country: "DE"}, Location{Country: "US"}
	g := mustPlaces(t,
		Place{mustPrefix("10.0.0.0/8"), de}, Place{mustPrefix("10.1.0.0/16"), us}, Place{mustPrefix("10.1.128.0/17"), Location{}},
		Place{mustPrefix("2001:db8::/32"), us},
	)
	for _, test := range []struct {
		addr, block string
		want        Location
	}{
		{"10.0.0.1", "10.0.0.0/16", de},
		{"10.1.0.1", "10.1.0.0/17", us},
		{"10.1.128.1", "10.1.128.0/17", Location{}}, // a hole
		{"10.2.0.1", "10.2.0.0/15", de},
		{"11.0.0.1", "11.0.0.0/8", Location{}},
		{"::ffff:10.2.0.1", "10.2.0.0/15", de},
		{"2001:db8::1", "2001:db8::/32", us},
		{"2001:db9::1", "2001:db9::/32", Location{}},
	} {
		loc, block := g.Lookup(netip.MustParseAddr(test.addr))
		if loc != test.want || block != mustPrefix(test.block) {
			t.Errorf("%s: %v in %v, want %v in %s", test.addr, loc, block, test.want, test.block)
		}
	}
	var got []string
	for p, loc := range g.Within(mustPrefix("10.0.0.0/14")) {
		got = append(got, p.String()+" "+loc.Country)
	}
	if want := []string{"10.0.0.0/16 DE", "10.1.0.0/17 US", "10.2.0.0/15 DE"}; !slices.Equal(got, want) {
		t.Errorf("within 10.0.0.0/14: %v, want %v", got, want)
	}
	for p, loc := range g.Within(mustPrefix("10.64.7.0/24")) { // the block is larger than what was asked
		if p != mustPrefix("10.64.7.0/24") || loc != de {
			t.Errorf("within 10.64.7.0/24: %v %v", p, loc)
		}
	}
}

func TestPlacesErrors(t *testing.T) {
	for _, test := range []struct {
		list []Place
		want string
	}{
		{[]Place{{}}, "is not a prefix"},
		{[]Place{{Prefix: mustPrefix("10.0.0.1/8")}}, "write 10.0.0.0/8"},
		{[]Place{{Prefix: mustPrefix("::ffff:10.0.0.0/104")}}, "is IPv4 inside IPv6"},
		{[]Place{{Prefix: mustPrefix("10.0.0.0/8")}, {Prefix: mustPrefix("10.0.0.0/8")}}, "stands twice"},
		{make([]Place, maxPlaces+1), "are more than"},
	} {
		if _, err := NewPlaces(test.list); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want one with %q", err, test.want)
		}
	}
}

// TestPlacesKeepsTheContract compares Lookup and Within, on random lists, with
// a look through the list.
func TestPlacesKeepsTheContract(t *testing.T) {
	for seed := range uint64(300) {
		w := &world{seed: seed, rnd: rand.New(rand.NewPCG(seed, 3))}
		list := make(map[netip.Prefix]Location)
		var places []Place
		for range w.rnd.IntN(20) {
			if p := w.prefix(32, 128); list[p] == (Location{}) {
				list[p] = Location{ASN: w.rnd.Uint32N(4) + 1}
				places = append(places, Place{p, list[p]})
			}
		}
		g := mustPlaces(t, places...)
		listed := func(a netip.Addr) (loc Location) {
			longest := -1
			for p, l := range list {
				if p.Contains(a) && p.Bits() > longest {
					longest, loc = p.Bits(), l
				}
			}
			return loc
		}
		w.nets = append(sortedPrefixes(list), mustPrefix("0.0.0.0/0"), mustPrefix("::/0"))
		for range 50 {
			p := w.client()
			loc, block := g.Lookup(p.Addr())
			for _, a := range []netip.Addr{p.Addr(), block.Addr(), lastAddr(block)} {
				if !block.Contains(a) || listed(a) != loc {
					t.Fatalf("seed %d: %v is said to be %v throughout %v, and %v is %v", seed, p.Addr(), loc, block, a, listed(a))
				}
			}
			checkWithin(t, seed, g, p)
		}
	}
}

func checkWithin(t *testing.T, seed uint64, g Geography, p netip.Prefix) {
	t.Helper()
	next := p.Addr()
	for b, loc := range g.Within(p) {
		if !next.IsValid() || b.Addr().Less(next) || b.Bits() < p.Bits() || !p.Contains(b.Addr()) {
			t.Fatalf("seed %d: within %v comes %v, and %v was next", seed, p, b, next)
		}
		if b.Addr() != next { // what is left out is not known
			if got, _ := g.Lookup(next); got != (Location{}) {
				t.Fatalf("seed %d: within %v leaves %v out, which is %v", seed, p, next, got)
			}
		}
		if got, _ := g.Lookup(lastAddr(b)); got != loc {
			t.Fatalf("seed %d: within %v says %v of %v, Lookup %v", seed, p, loc, b, got)
		}
		next = lastAddr(b).Next()
	}
}

func sortedPrefixes(m map[netip.Prefix]Location) []netip.Prefix {
	var out []netip.Prefix
	for p := range m {
		out = append(out, p)
	}
	return sortPrefixes(out)
}
