package policy

import (
	"net/netip"
)

// Blocks counts the blocks of a root, IPv4 and IPv6.
func (s *Set) Blocks(root Name) [2]int {
	t := &s.roots[root].atlas.tables
	return [2]int{len(t[0].blocks), len(t[1].blocks)}
}

// Block is block i of a family of a root.
func (s *Set) Block(root Name, fam, i int) netip.Prefix {
	f, b := families[fam], s.roots[root].atlas.tables[fam].blocks[i]
	return f.prefix(b.start, int(b.length))
}

func (f family) prefix(start uint64, length int) netip.Prefix {
	if f.is4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(start >> 16), byte(start >> 8), byte(start)}), length)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{byte(start >> 40), byte(start >> 32), byte(start >> 24), byte(start >> 16), byte(start >> 8), byte(start)}), length)
}

// Witness asks the rules as written, and the geography, what they say around
// a client; it knows nothing of the blocks.
type Witness struct{ t *terrain }

// NewWitness makes the Witness of a root.
func NewWitness(s *Set, root Name) Witness { return Witness{newTerrain(s, s.roots[root].name)} }

// Agree reports whether the rules say the same of every client in p.
func (w Witness) Agree(p netip.Prefix) bool {
	return w.t.same(p, w.t.says(p.Addr(), w.t.location(p.Addr())))
}

// Split reports whether the rules differ inside one unit, p, so that blocks
// had to be cut off there.
func (w Witness) Split(p netip.Prefix) bool {
	if w.t.s.geo == nil {
		return false
	}
	first, n := "", 0
	end := p.Addr()
	for b, loc := range w.t.s.geo.Within(p) {
		if text := w.t.says(b.Addr(), loc); n == 0 {
			first = text
		} else if text != first {
			return true
		}
		if b.Addr() != end && w.t.says(p.Addr(), Location{}) != first {
			return true // there is a gap, of which nothing is known
		}
		end = lastAddr(b).Next()
		n++
	}
	return n > 0 && (!end.IsValid() || end != lastAddr(p).Next()) && w.t.says(p.Addr(), Location{}) != first
}
