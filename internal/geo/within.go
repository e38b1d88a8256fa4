package geo

import (
	"iter"
	"net/netip"

	"github.com/oschwald/maxminddb-golang/v2"

	"perigee.example/policy"
)

// Within yields disjoint blocks in address order that together cover every
// address of p about which something is known; see policy.Geography. Where
// there is a database of AS numbers, a block is what the blocks of both have
// in common.
func (db *DB) Within(p netip.Prefix) iter.Seq2[netip.Prefix, policy.Location] {
	return func(yield func(netip.Prefix, policy.Location) bool) {
		p = p.Masked()
		if !p.IsValid() || p.Addr().Is4In6() {
			return
		}
		if p.Addr().Is6() {
			for _, d := range []*database{db.place, db.asn} {
				if d != nil && d.covers(p) {
					return
				}
			}
		}
		db.overlay(p, yield)
	}
}

// overlay walks both databases side by side. Each partitions p, apart from its
// aliases, and of two prefixes that overlap one holds the other: so the smaller
// of the two current blocks is the block in common, and goes first.
func (db *DB) overlay(p netip.Prefix, yield func(netip.Prefix, policy.Location) bool) {
	placeOf, systemOf := db.cache()
	if db.asn == nil {
		for block, at := range db.place.walk(p) {
			if loc := placeOf(at); loc != (policy.Location{}) && !yield(block, loc) {
				return
			}
		}
		return
	}
	next, stop := iter.Pull2(db.asn.walk(p))
	defer stop()
	asnBlock, asnAt, more := next()
	for block, at := range db.place.walk(p) {
		for more {
			last := lastAddr(asnBlock)
			if last.Less(block.Addr()) { // wholly before
				asnBlock, asnAt, more = next()
				continue
			}
			if lastAddr(block).Less(asnBlock.Addr()) { // wholly behind: an alias of the other
				break
			}
			common := block
			if asnBlock.Bits() > block.Bits() {
				common = asnBlock
			}
			loc := placeOf(at)
			loc.ASN = systemOf(asnAt).number
			if loc != (policy.Location{}) && !yield(common, loc) {
				return
			}
			if lastAddr(block).Less(last) || lastAddr(block) == last {
				break // the ASN block may go on behind this one
			}
			asnBlock, asnAt, more = next()
		}
	}
}

// cache returns functions that decode a record only once. A walk meets a
// country's record a thousand times; the cache lives as long as the walk.
func (db *DB) cache() (func(offset) policy.Location, func(offset) system) {
	places := make(map[offset]policy.Location)
	systems := make(map[offset]system)
	placeOf := func(at offset) policy.Location {
		loc, ok := places[at]
		if !ok {
			loc = db.place.place(at)
			places[at] = loc
		}
		return loc
	}
	systemOf := func(at offset) system {
		s, ok := systems[at]
		if !ok {
			s = db.asn.system(at)
			systems[at] = s
		}
		return s
	}
	return placeOf, systemOf
}

// walk yields blocks in order that cover p but for aliases, those without
// data too.
func (d *database) walk(p netip.Prefix) iter.Seq2[netip.Prefix, offset] {
	return func(yield func(netip.Prefix, offset) bool) {
		if p.Addr().Is6() && d.reader.Metadata.IPVersion != 6 {
			yield(p, nowhere)
			return
		}
		for network := range d.reader.NetworksWithin(p, maxminddb.IncludeNetworksWithoutData()) {
			block := network.Prefix()
			if p.Addr().Is6() && block.Addr().Is4() {
				continue // IPv4, which an IPv6 tree holds too
			}
			at := nowhere
			if network.Found() {
				at = offset(network.Offset())
			}
			if !d.outside(cut(block, p), at, yield) {
				return
			}
		}
	}
}

// outside yields the parts of block that are in no alias. Nearly always that
// is all of it, since an alias is a branch of the tree for itself.
func (d *database) outside(block netip.Prefix, at offset, yield func(netip.Prefix, offset) bool) bool {
	switch {
	case !d.overlaps(block):
		return yield(block, at)
	case d.covers(block):
		return true
	}
	low, high := halves(block)
	return d.outside(low, at, yield) && d.outside(high, at, yield)
}

// overlaps says whether p and an alias have an address in common.
func (d *database) overlaps(p netip.Prefix) bool {
	if d.aliasEnd.Less(p.Addr()) || p.Addr().Is4() { // most of what is in use
		return false
	}
	for _, alias := range d.aliases {
		if alias.Overlaps(p) {
			return true
		}
	}
	return false
}

// covers says whether all of p lies in an alias.
func (d *database) covers(p netip.Prefix) bool {
	for _, alias := range d.aliases {
		if alias.Bits() <= p.Bits() && alias.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// halves cuts p, which is not a single address, in two.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	return low, netip.PrefixFrom(lastAddr(p), p.Bits()+1).Masked()
}

// lastAddr returns the last address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := range b {
		switch {
		case bits <= 8*i:
			b[i] = 0xff
		case bits < 8*i+8:
			b[i] |= 0xff >> (bits - 8*i)
		}
	}
	last := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		last = last.Unmap()
	}
	return last
}
