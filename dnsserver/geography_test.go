package dnsserver_test

import (
	"iter"
	"net/netip"
	"sort"
	"sync"

	"perigee.example/internal/geo"
	"perigee.example/policy"
)

// realGeography is the built-in country data as a list: walking the database for
// each fleet and explanation was two thirds of what TestSteeredReplies took.
var realGeography = sync.OnceValues(func() (*listed, error) {
	db, err := geo.Builtin()
	if err != nil {
		return nil, err
	}
	g := &listed{}
	known := map[policy.Location]uint16{}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		for block, loc := range db.Within(netip.MustParsePrefix(all)) {
			at, seen := known[loc]
			if !seen {
				at = uint16(len(g.locations))
				known[loc] = at
				g.locations = append(g.locations, loc)
			}
			g.blocks = append(g.blocks, block)
			g.of = append(g.of, at)
		}
	}
	return g, nil
})

// listed is a Geography of disjoint blocks in address order.
type listed struct {
	blocks    []netip.Prefix
	of        []uint16 // by block: of locations
	locations []policy.Location
}

// from is the first block that ends at or behind a.
func (g *listed) from(a netip.Addr) int {
	i := sort.Search(len(g.blocks), func(i int) bool { return a.Less(g.blocks[i].Addr()) })
	if i > 0 && g.blocks[i-1].Contains(a) {
		i--
	}
	return i
}

// Lookup implements policy.Geography.
func (g *listed) Lookup(addr netip.Addr) (policy.Location, netip.Prefix) {
	addr = addr.Unmap().WithZone("")
	if i := g.from(addr); i < len(g.blocks) && g.blocks[i].Contains(addr) {
		return g.locations[g.of[i]], g.blocks[i]
	}
	return policy.Location{}, netip.PrefixFrom(addr, addr.BitLen())
}

// Within implements policy.Geography.
func (g *listed) Within(p netip.Prefix) iter.Seq2[netip.Prefix, policy.Location] {
	return func(yield func(netip.Prefix, policy.Location) bool) {
		for i := g.from(p.Addr()); i < len(g.blocks) && g.blocks[i].Overlaps(p); i++ {
			block := g.blocks[i]
			if block.Bits() < p.Bits() {
				block = p
			}
			if !yield(block, g.locations[g.of[i]]) {
				return
			}
		}
	}
}
