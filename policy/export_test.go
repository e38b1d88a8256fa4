package policy

import (
	"net/netip"
	"runtime"
)

// Blocks lists the blocks of a root, of IPv4 and of IPv6.
func (s *Set) Blocks(root Name) [2][]netip.Prefix {
	a := &s.roots[root].atlas
	defer runtime.KeepAlive(s)
	return [2][]netip.Prefix{a.four.blocks(families[0]), a.six.blocks(families[1])}
}

func (t *table[C]) blocks(f family) []netip.Prefix {
	list, at := make([]netip.Prefix, 0, len(t.cells)), uint64(0)
	for _, cell := range t.cells {
		length := int(uint8(cell >> 16))
		list = append(list, f.prefix(at, length))
		at += f.size(length)
	}
	return list
}

// CompileWithin is Compile with other bounds on what a root tells apart.
func CompileWithin(c Config, roots []string, g Geography, blocks, regions int) (*Set, error) {
	return compile(c, roots, g, limits{blocks, regions})
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
