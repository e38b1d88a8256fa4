package policy

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sort"
)

// Place is one entry of a list of networks whose location is known.
type Place struct {
	Prefix   netip.Prefix
	Location Location
}

// Places is a Geography made from a list: for programs without a GeoIP2
// database, for networks that an operator knows better, and for tests. It is
// immutable.
type Places struct {
	blocks []Place // disjoint, in address order, covering both families whole
}

// maxPlaces bounds the list. Beyond that a GeoIP2 database is the better form.
const maxPlaces = 1 << 20

// NewPlaces makes a Geography of list, in any order. Of two prefixes that hold
// an address the longer one counts; one with the zero Location makes a hole in
// the other. A prefix that is not valid, has bits beyond its length, is IPv4
// inside IPv6, or stands twice is an error.
func NewPlaces(list []Place) (*Places, error) {
	if len(list) > maxPlaces {
		return nil, fmt.Errorf("places: %d entries are more than %d", len(list), maxPlaces)
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Place) int { return comparePrefixes(a.Prefix, b.Prefix) })
	for i, p := range list {
		switch {
		case !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked():
			return nil, fmt.Errorf("places: %v is not a prefix: write %v", p.Prefix, p.Prefix.Masked())
		case p.Prefix.Addr().Is4In6():
			return nil, fmt.Errorf("places: %v is IPv4 inside IPv6: write the IPv4 prefix", p.Prefix)
		case i > 0 && list[i-1].Prefix == p.Prefix:
			return nil, fmt.Errorf("places: %v stands twice", p.Prefix)
		}
	}
	ps := &Places{}
	six := sort.Search(len(list), func(i int) bool { return !list[i].Prefix.Addr().Is4() })
	ps.cover(families[0].all(), list[:six], Location{})
	ps.cover(families[1].all(), list[six:], Location{})
	return ps, nil
}

// cover appends blocks for all of p. list holds the entries within p; around
// is the location where none of them reaches.
func (ps *Places) cover(p netip.Prefix, list []Place, around Location) {
	if len(list) > 0 && list[0].Prefix == p {
		around, list = list[0].Location, list[1:]
	}
	if len(list) == 0 {
		ps.blocks = append(ps.blocks, Place{p, around})
		return
	}
	low, high := halves(p)
	middle := sort.Search(len(list), func(i int) bool { return !list[i].Prefix.Addr().Less(high.Addr()) })
	ps.cover(low, list[:middle], around)
	ps.cover(high, list[middle:], around)
}

// halves cuts p, which is not a single address, into two.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	n := p.Bits() + 1
	b := p.Addr().AsSlice()
	b[(n-1)/8] |= 0x80 >> ((n - 1) % 8)
	a, _ := netip.AddrFromSlice(b) // the length is that of an address
	return netip.PrefixFrom(p.Addr(), n), netip.PrefixFrom(a, n)
}

// find returns the place of the block that holds a.
func (ps *Places) find(a netip.Addr) int {
	return sort.Search(len(ps.blocks), func(i int) bool { return a.Less(ps.blocks[i].Prefix.Addr()) }) - 1
}

// Lookup implements Geography.
func (ps *Places) Lookup(addr netip.Addr) (Location, netip.Prefix) {
	b := ps.blocks[ps.find(addr.Unmap().WithZone(""))]
	return b.Location, b.Prefix
}

// Within implements Geography.
func (ps *Places) Within(p netip.Prefix) iter.Seq2[netip.Prefix, Location] {
	return func(yield func(netip.Prefix, Location) bool) {
		last := lastAddr(p)
		for at := ps.find(p.Addr()); at < len(ps.blocks); at++ {
			b := &ps.blocks[at] // by pointer: a Place is 150 octets
			if last.Less(b.Prefix.Addr()) {
				return
			}
			if b.Location == (Location{}) {
				continue
			}
			block := b.Prefix
			if block.Bits() < p.Bits() {
				block = p
			}
			if !yield(block, b.Location) {
				return
			}
		}
	}
}
