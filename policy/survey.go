package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// family is what differs between IPv4 and IPv6. Addresses count in units: the
// /24 networks of IPv4, the /48 networks of IPv6.
type family struct {
	is4     bool
	maxBits int // the length of a unit
}

var families = [2]family{{true, MaxBits4}, {false, MaxBits6}}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// units is the number of units in the whole space.
func (f family) units() uint64 { return 1 << f.maxBits }

// size is the number of units in a block of a length.
func (f family) size(length int) uint64 { return 1 << (f.maxBits - min(length, f.maxBits)) }

// all is the whole space.
func (f family) all() netip.Prefix {
	if f.is4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// unit is the number of the unit that holds a.
func unit(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]) >> (32 - MaxBits4))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:]) >> (64 - MaxBits6)
}

// class is what rules can tell apart: a location, and the innermost prefix of
// a rule that holds the client, -1 for none.
type class struct {
	loc  uint32
	cidr int32
}

// span is a run of units of one class; it begins where the one before it ends.
type span struct {
	end   uint64
	class uint32
}

// survey is the whole space as the rules see it. It is made once for all roots.
type survey struct {
	locs    []Location // 0 is the zero Location: nothing is known
	classes []class
	spans   [2][]span
	cidrs   []netip.Prefix // of all rules, by family, address and length
	parents []int32        // the next larger of cidrs around each, or -1
}

// look walks the geography once. keep cuts a location down to what the rules
// look at, so that more of them are equal.
func look(g Geography, cidrs []netip.Prefix, keep func(Location) Location) (*survey, error) {
	sv := &survey{cidrs: cidrs}
	intern := newInterner[Location]()
	intern.id(Location{})
	classes := newInterner[class]()
	for i, f := range families {
		w := walker{f: f, intern: intern, keep: keep}
		if g != nil {
			for p, loc := range g.Within(f.all()) {
				if err := w.add(p, loc); err != nil {
					return nil, err
				}
			}
		}
		places := w.finish()
		nets := sv.nest(i)
		sv.spans[i] = overlay(f, places, nets, classes)
	}
	sv.locs, sv.classes = intern.all, classes.all
	return sv, nil
}

// run is a stretch of units with one value.
type run[V comparable] struct {
	end   uint64
	value V
}

func extend[V comparable](runs []run[V], end uint64, v V) []run[V] {
	if n := len(runs); n > 0 && runs[n-1].value == v {
		runs[n-1].end = end
		return runs
	}
	return append(runs, run[V]{end, v})
}

// walker turns the blocks of a geography into runs of units. A unit that the
// geography splits further counts as what covers most of it, of what is known.
type walker struct {
	f      family
	intern *interner[Location]
	keep   func(Location) Location
	runs   []run[uint32]
	done   uint64 // units that runs cover
	last   netip.Addr
	cell   uint64 // the split unit at hand, when parts is not empty
	parts  []part
}

// part is the share of a split unit that has one location, out of 1<<63.
type part struct {
	loc   Location
	share uint64
}

func (w *walker) add(p netip.Prefix, loc Location) error {
	if !p.IsValid() || p.Addr().Is4() != w.f.is4 || p != p.Masked() || w.last.IsValid() && !w.last.Less(p.Addr()) {
		return fmt.Errorf("the geography is out of order: block %v after address %v", p, w.last)
	}
	w.last = lastAddr(p)
	if loc == (Location{}) {
		return nil
	}
	start := unit(p.Addr())
	if len(w.parts) > 0 && w.cell != start {
		w.closeCell()
	}
	if deeper := p.Bits() - w.f.maxBits; deeper > 0 {
		w.cell = start
		share := uint64(1) << 63 >> deeper // 0 for the very smallest: they count when nothing else does
		for i := range w.parts {
			if w.parts[i].loc == loc {
				w.parts[i].share += share
				return nil
			}
		}
		w.parts = append(w.parts, part{loc, share})
		return nil
	}
	w.put(start, w.f.size(p.Bits()), loc)
	return nil
}

// closeCell settles the location of the split unit at hand. On a tie the one
// that comes first in address order counts.
func (w *walker) closeCell() {
	best := w.parts[0]
	for _, p := range w.parts[1:] {
		if p.share > best.share {
			best = p
		}
	}
	w.parts = w.parts[:0]
	w.put(w.cell, 1, best.loc)
}

func (w *walker) put(start, size uint64, loc Location) {
	if start > w.done {
		w.runs = extend(w.runs, start, 0)
	}
	w.done = start + size
	w.runs = extend(w.runs, w.done, w.intern.id(w.keep(loc)))
}

func (w *walker) finish() []run[uint32] {
	if len(w.parts) > 0 {
		w.closeCell()
	}
	if all := w.f.units(); w.done < all {
		w.runs = extend(w.runs, all, 0)
	}
	return w.runs
}

// nest finds the prefix around each prefix, and turns those of a family into
// runs of units, each with its innermost prefix.
func (sv *survey) nest(fam int) []run[int32] {
	f := families[fam]
	var runs []run[int32]
	var around []int32 // the prefixes that hold the place reached, largest first
	done := uint64(0)
	end := func(i int32) uint64 { return unit(sv.cidrs[i].Addr()) + f.size(sv.cidrs[i].Bits()) }
	inner := func() int32 {
		if len(around) == 0 {
			return -1
		}
		return around[len(around)-1]
	}
	advance := func(to uint64) { // up to, but not into, the unit to
		for len(around) > 0 && end(inner()) <= to {
			if e := end(inner()); e > done {
				runs, done = extend(runs, e, inner()), e
			}
			around = around[:len(around)-1]
		}
		if to > done {
			runs, done = extend(runs, to, inner()), to
		}
	}
	for i, p := range sv.cidrs {
		if familyOf(p.Addr()) != fam {
			continue
		}
		advance(unit(p.Addr()))
		for len(sv.parents) <= i {
			sv.parents = append(sv.parents, -1)
		}
		sv.parents[i] = inner()
		around = append(around, int32(i))
	}
	advance(f.units())
	return runs
}

// overlay cuts the space wherever one of two sequences of runs changes.
func overlay(f family, places []run[uint32], nets []run[int32], classes *interner[class]) []span {
	spans := make([]span, 0, len(places)+len(nets))
	for i, j := 0, 0; i < len(places) && j < len(nets); {
		end := min(places[i].end, nets[j].end)
		spans = append(spans, span{end, classes.id(class{places[i].value, nets[j].value})})
		if places[i].end == end {
			i++
		}
		if nets[j].end == end {
			j++
		}
	}
	if spans[len(spans)-1].end != f.units() {
		panic("policy: the survey does not cover the whole space")
	}
	return spans
}

// lastAddr is the highest address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if free := 8*(i+1) - p.Bits(); free > 0 {
			b[i] |= byte(1<<min(free, 8) - 1)
		}
	}
	a, _ := netip.AddrFromSlice(b) // the length is that of an address
	return a
}

// interner numbers distinct values from 0.
type interner[V comparable] struct {
	ids  map[V]uint32
	all  []V
	last V // networks next to each other are often in one place
	at   uint32
}

func newInterner[V comparable]() *interner[V] { return &interner[V]{ids: make(map[V]uint32)} }

func (n *interner[V]) id(v V) uint32 {
	if len(n.all) > 0 && v == n.last {
		return n.at
	}
	id, ok := n.ids[v]
	if !ok {
		id = uint32(len(n.all))
		n.ids[v] = id
		n.all = append(n.all, v)
	}
	n.last, n.at = v, id
	return id
}

// sortPrefixes puts prefixes in order of family, address and length, each once.
func sortPrefixes(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, comparePrefixes)
	return slices.Compact(ps)
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c // netip orders IPv4 before IPv6
	}
	return a.Bits() - b.Bits()
}
