package policy

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// terrain is the client's side of Explain: what the rules as written say about
// an address, and how far around it they say the same. It reads Config and
// Geography, never the atlas, so that one can test the other.
type terrain struct {
	s     *Set
	root  string
	grain grain
	blind bool           // no policy that the root reaches looks at the client
	cidrs []netip.Prefix // of all rules that the root reaches
	said  map[spot]string
}

// spot is one place as the rules see it.
type spot struct {
	loc Location
	net netip.Prefix // the innermost of cidrs around it
}

func newTerrain(s *Set, root string) *terrain {
	t := &terrain{s: s, root: root, grain: grains[s.roots[s.byName[root]].grain], blind: true, said: make(map[spot]string)}
	seen := make(map[string]bool)
	var visit func(name string)
	visit = func(name string) {
		p := s.written(name)
		if p == nil || seen[name] {
			return
		}
		seen[name] = true
		t.blind = t.blind && p.Kind != Geo && p.Kind != Latency
		for _, sel := range selectors(*p) {
			if sel.Prefix.IsValid() {
				t.cidrs = append(t.cidrs, sel.Prefix)
			}
		}
		for _, to := range targets(*p) {
			visit(to)
		}
	}
	visit(root)
	return t
}

// written is the policy called name, nil for an endpoint.
func (s *Set) written(name string) *Policy {
	if i := s.names[name]; i >= 0 {
		return &s.cfg.Policies[i]
	}
	return nil
}

// location is what counts for the unit (/24 or /48) that holds addr: what
// covers most of it, of what is known.
func (t *terrain) location(addr netip.Addr) Location {
	if t.s.geo == nil {
		return Location{}
	}
	whole := unitOf(addr)
	loc, block := t.s.geo.Lookup(whole.Addr())
	if block.Bits() <= whole.Bits() {
		return loc
	}
	var best Location
	most := uint64(0)
	covers := make(map[Location]uint64)
	var order []Location
	for p, loc := range t.s.geo.Within(whole) {
		if loc != (Location{}) {
			if _, ok := covers[loc]; !ok {
				order = append(order, loc)
			}
			covers[loc] += 1 << 63 >> (p.Bits() - whole.Bits())
		}
	}
	for i, loc := range order {
		if i == 0 || covers[loc] > most {
			best, most = loc, covers[loc]
		}
	}
	return best
}

// unitOf is the smallest block that is told apart, around a.
func unitOf(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(families[familyOf(a)].maxBits) // cannot fail: shorter than the address
	return p
}

// matched is one rule or row that selects the client.
type matched struct {
	index    int
	selector Selector
}

// matching lists the selectors that select a client, the most specific first.
func matching(sels []Selector, addr netip.Addr, loc Location) []matched {
	rank := func(s Selector) int {
		switch {
		case s.Prefix.IsValid():
			if s.Prefix.Contains(addr) {
				return 10 + s.Prefix.Bits()
			}
		case s.ASN != 0:
			if s.ASN == loc.ASN {
				return 6
			}
		case s.City != "":
			if loc.City != "" && s.City == loc.Country+"/"+loc.City {
				return 5
			}
		case s.Subdivision != "":
			if loc.Subdivision != "" && s.Subdivision == loc.Country+"-"+loc.Subdivision {
				return 4
			}
		case s.Country != "":
			if s.Country == loc.Country {
				return 3
			}
		case s.Continent != "":
			if s.Continent == loc.Continent {
				return 2
			}
		default:
			return 1
		}
		return 0
	}
	var out []matched
	for i, s := range sels {
		if rank(s) > 0 {
			out = append(out, matched{i, s})
		}
	}
	slices.SortStableFunc(out, func(a, b matched) int { return rank(b.selector) - rank(a.selector) })
	return out
}

// option is one choice of a Geo or Latency policy for one client, with why it
// stands where it stands.
type option struct {
	to  string
	why string
}

// order lists a Geo or Latency policy's choices in the order in which it tries
// them for a client.
func (t *terrain) order(p *Policy, addr netip.Addr, loc Location) []option {
	match := matching(selectors(*p), addr, loc)
	var out []option
	add := func(to, why string) {
		if !slices.ContainsFunc(out, func(o option) bool { return o.to == to }) {
			out = append(out, option{to, why})
		}
	}
	if p.Kind == Geo {
		for _, m := range match {
			add(p.Map[m.index].To, "rule "+m.selector.String())
		}
		return out
	}
	type timed struct {
		option
		rtt time.Duration
	}
	var known []timed
	for _, c := range p.Choices {
		if rtt, why, ok := t.rtt(p, c.To, match, loc); ok {
			rtt = t.grain.round(rtt)
			known = append(known, timed{option{c.To, rtt.String() + " " + why}, rtt})
		}
	}
	slices.SortStableFunc(known, func(a, b timed) int { return cmp.Compare(a.rtt, b.rtt) })
	for _, k := range known[:min(t.grain.ranked, len(known))] {
		add(k.to, k.why)
	}
	for _, c := range p.Choices {
		add(c.To, "in the order written")
	}
	return out
}

func (t *terrain) rtt(p *Policy, to string, match []matched, loc Location) (rtt time.Duration, why string, ok bool) {
	for _, m := range match {
		if rtt, ok := p.RTT[m.index].RTT[to]; ok {
			return rtt, "by row " + m.selector.String(), true
		}
	}
	i := t.s.names[to]
	if i >= 0 || !t.s.cfg.Endpoints[^i].Located || !loc.placed() {
		return 0, "", false
	}
	e := t.s.cfg.Endpoints[^i]
	return estimateRTT(distance(loc.Lat, loc.Lon, e.Lat, e.Lon)), "by distance", true
}

// says writes down, for a client, the order of choices of each policy that the
// client can come to, whatever state and draws. Clients of whom the rules say
// the same are answered the same.
func (t *terrain) says(addr netip.Addr, loc Location) string {
	at := spot{loc: loc}
	for _, c := range t.cidrs {
		if c.Contains(addr) && (!at.net.IsValid() || c.Bits() > at.net.Bits()) {
			at.net = c
		}
	}
	if text, ok := t.said[at]; ok {
		return text
	}
	var b strings.Builder
	seen := make(map[string]bool)
	var visit func(name string)
	visit = func(name string) {
		p := t.s.written(name)
		if p == nil || seen[name] {
			return
		}
		seen[name] = true
		next := targets(*p)
		if p.Kind == Geo || p.Kind == Latency {
			next = nil
			b.WriteString(name + ":")
			for _, o := range t.order(p, addr, loc) {
				next = append(next, o.to)
				b.WriteString(" " + o.to)
			}
			b.WriteString("\n")
		}
		for _, to := range next {
			visit(to)
		}
	}
	visit(t.root)
	t.said[at] = b.String()
	return b.String()
}

// pieces yields what p is made of: the first address of each piece and what is
// known of it. No rule's prefix may end inside p.
func (t *terrain) pieces(p netip.Prefix) iter.Seq2[netip.Addr, Location] {
	return func(yield func(netip.Addr, Location) bool) {
		next, last := p.Addr(), lastAddr(p) // next is invalid behind the highest address of all
		if t.s.geo != nil {
			for b, loc := range t.s.geo.Within(p) {
				if loc == (Location{}) {
					continue
				}
				if whole := unitOf(b.Addr()); b.Bits() > whole.Bits() {
					b = whole
					if !next.IsValid() || b.Addr().Less(next) {
						continue // a further part of a unit that was settled
					}
					loc = t.location(b.Addr())
				}
				if next.Less(b.Addr()) && !yield(next, Location{}) || !yield(b.Addr(), loc) {
					return
				}
				next = lastAddr(b).Next()
			}
		}
		if next.IsValid() && !last.Less(next) {
			yield(next, Location{})
		}
	}
}

// same reports whether the rules say text of every client in p.
func (t *terrain) same(p netip.Prefix, text string) bool {
	for _, c := range t.cidrs {
		if c.Bits() > p.Bits() && p.Contains(c.Addr()) {
			low, high := halves(p)
			return t.same(low, text) && t.same(high, text)
		}
	}
	for addr, loc := range t.pieces(p) {
		if t.says(addr, loc) != text {
			return false
		}
	}
	return true
}

// surroundings is where a client stands.
type surroundings struct {
	addr  netip.Addr // an address for which the rules say what they say for the client
	loc   Location
	scope int
	block netip.Prefix // all who share the draws; of length 0 when the client does not matter
}

// around finds the surroundings of a client, a prefix as normal returns it.
func (t *terrain) around(client netip.Prefix) surroundings {
	p := client
	if whole := unitOf(client.Addr()); whole.Bits() < p.Bits() {
		p = whole
	}
	out := surroundings{addr: p.Addr(), loc: t.location(p.Addr()), block: families[0].all()}
	if t.blind {
		return out
	}
	text := t.says(out.addr, out.loc)
	if t.same(families[0].all(), text) && t.same(families[1].all(), text) {
		return out
	}
	if p.Bits() == 0 || !t.same(p, text) {
		return t.compromise(p)
	}
	for p.Bits() > 1 && t.same(sibling(p), text) {
		p, _ = p.Addr().Prefix(p.Bits() - 1)
	}
	out.scope, out.block = p.Bits(), p
	return out
}

// sibling is the other half of the block that p is one half of.
func sibling(p netip.Prefix) netip.Prefix {
	whole, _ := p.Addr().Prefix(p.Bits() - 1)
	low, high := halves(whole)
	if p == low {
		return high
	}
	return low
}

// compromise is for a client that is larger than the blocks it lies on.
func (t *terrain) compromise(client netip.Prefix) surroundings {
	out := surroundings{block: client}
	covers := make(map[string]uint64)
	var firsts []spotAt
	var visit func(p netip.Prefix)
	visit = func(p netip.Prefix) {
		addr, loc := p.Addr(), t.location(p.Addr())
		text := t.says(addr, loc)
		if p.Bits() == 0 || !t.same(p, text) {
			low, high := halves(p)
			visit(low)
			visit(high)
			return
		}
		if _, ok := covers[text]; !ok {
			firsts = append(firsts, spotAt{addr, loc, text})
		}
		covers[text] += families[familyOf(addr)].size(p.Bits())
		out.scope = max(out.scope, p.Bits())
	}
	visit(client)
	best := slices.MaxFunc(firsts, func(a, b spotAt) int { return cmp.Compare(covers[a.text], covers[b.text]) })
	out.addr, out.loc = best.addr, best.loc
	return out
}

// spotAt is the first address of which the rules say text.
type spotAt struct {
	addr netip.Addr
	loc  Location
	text string
}
