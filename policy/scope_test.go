package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestWithinScopeSameAnswer: any client inside the returned scope, of whatever
// SOURCE length, through the same resolver at the same time gets the same
// answer; and the scope does not depend on the state.
func TestWithinScopeSameAnswer(t *testing.T) {
	tested := 0
	for seed := range uint64(1000) {
		w := newWorld(t, seed)
		var d, other Decision
		for range 50 {
			root, q, st := w.root(), w.query(), w.state()
			w.set.Decide(root, &q, st, &d)
			w.set.Decide(root, &q, w.state(), &other)
			if d.Scope != other.Scope {
				t.Fatalf("seed %d: scope of %v is %d in one state and %d in another", seed, q.Client, d.Scope, other.Scope)
			}
			if d.Scope > q.Client.Bits() {
				continue // the scope says: send more
			}
			tested++
			p := q
			p.Client = w.within(netip.PrefixFrom(q.Client.Addr(), d.Scope).Masked())
			w.set.Decide(root, &p, st, &other)
			if !slices.Equal(d.Endpoints, other.Endpoints) || d.TTL != other.TTL || d.Open != other.Open || d.Scope != other.Scope {
				t.Fatalf("seed %d: %s: %v gets %+v, and %v in its scope gets %+v", seed, w.set.roots[root].name, q.Client, d, p.Client, other)
			}
		}
	}
	if tested < 40_000 {
		t.Errorf("only %d questions had a SOURCE as long as their scope", tested)
	}
}

// within is a random prefix inside p; when p is everything, of either family.
func (w *world) within(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return w.client()
	}
	b, noise := p.Addr().AsSlice(), w.rnd.Uint64()
	for i := range b {
		if i == 8 {
			noise = w.rnd.Uint64()
		}
		own := max(0, min(8, p.Bits()-8*i)) // bits of this octet that are p's
		b[i] |= byte(noise>>(i%8*8)) & (0xFF >> own)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits()+w.rnd.IntN(a.BitLen()-p.Bits()+1)).Masked()
}

// smallWorld has 256 units that rules speak of, in 10.0.0.0/16 or
// 2001:db8::/40, each root a policy over plain endpoints, so that all that a
// region is can be seen from outside.
func smallWorld(t *testing.T, seed uint64, arena netip.Prefix) *Set {
	rnd := rand.New(rand.NewPCG(seed, 2))
	unitBits := families[familyOf(arena.Addr())].maxBits
	some := func(longest int) netip.Prefix {
		p := arena
		for n := rnd.IntN(longest - arena.Bits() + 1); n > 0; n-- {
			low, high := halves(p)
			if p = low; rnd.IntN(2) == 0 {
				p = high
			}
		}
		return p
	}
	cities := []string{"Aachen", "Berlin", "Celle", "Dresden"}
	places := make(map[netip.Prefix]Location)
	for range 1 + rnd.IntN(12) {
		i := rnd.IntN(len(cities))
		places[some(unitBits+3)] = Location{Country: "DE", City: cities[i], Located: true, Lat: float64(i * 20), Lon: float64(i * 30)}
	}
	var list []Place
	for p, loc := range places {
		list = append(list, Place{p, loc})
	}
	c := Config{}
	var choices []Choice
	for i := range 4 {
		c.Endpoints = append(c.Endpoints, Endpoint{Name: fmt.Sprintf("e%d", i), Located: i > 0, Lat: float64(i * 20), Lon: float64(i * 30)})
		choices = append(choices, Choice{To: fmt.Sprintf("e%d", i)})
	}
	rules := map[Selector]string{{}: "e0", {City: "DE/Berlin"}: "e1", {City: "DE/Celle"}: "e2"}
	for range rnd.IntN(5) {
		rules[Selector{Prefix: some(unitBits)}] = fmt.Sprintf("e%d", rnd.IntN(4))
	}
	geo := Policy{Name: "geo", Kind: Geo}
	for sel, to := range rules {
		geo.Map = append(geo.Map, Rule{sel, to})
	}
	near := Policy{Name: "near", Kind: Latency, Choices: choices, RTT: []RTTRow{{Selector{Prefix: some(unitBits)}, map[string]time.Duration{"e0": 0}}}}
	c.Policies = []Policy{geo, near}
	return mustCompile(t, c, mustPlaces(t, list...), "geo", "near")
}

// TestScopeExactAndMinimal asks for every unit of a small world in every
// state of four endpoints. All units in a scope are answered alike in all
// states, and in a block of one bit less some unit is answered otherwise.
func TestScopeExactAndMinimal(t *testing.T) {
	atLimit, wide := 0, 0
	for seed := range uint64(120) {
		arena := []netip.Prefix{mustPrefix("10.0.0.0/16"), mustPrefix("2001:db8::/40")}[seed%2]
		s := smallWorld(t, seed, arena)
		f := families[familyOf(arena.Addr())]
		for _, name := range []string{"geo", "near"} {
			root, _ := s.Root(name)
			answers, scopes := askAll(t, s, root, arena)
			for i := range answers {
				if scopes[i] == 0 {
					wide++
					continue
				}
				if scopes[i] == f.maxBits {
					atLimit++
				}
				inBlock, inParent := neighbours(i, scopes[i], arena), neighbours(i, scopes[i]-1, arena)
				alike := func(j int) bool { return answers[j] == answers[i] }
				if slices.ContainsFunc(inBlock, func(j int) bool { return !alike(j) }) {
					t.Fatalf("seed %d: %s: unit %d of %v has scope %d, in which units are answered differently", seed, name, i, arena, scopes[i])
				}
				if len(inParent) < len(answers) && !slices.ContainsFunc(inParent, func(j int) bool { return !alike(j) }) {
					t.Fatalf("seed %d: %s: unit %d of %v has scope %d, and in a block of one bit less all are answered alike", seed, name, i, arena, scopes[i])
				}
			}
		}
	}
	if atLimit < 100 {
		t.Errorf("only %d units were blocks of their own", atLimit)
	}
	t.Logf("%d units are blocks of their own, %d have scope 0", atLimit, wide)
}

// askAll returns for each unit of the arena what is answered in each state,
// and the scope.
func askAll(t *testing.T, s *Set, root Name, arena netip.Prefix) (answers []string, scopes []int) {
	var d Decision
	step := families[familyOf(arena.Addr())].maxBits - 8
	for i := range 256 {
		b := arena.Addr().AsSlice()
		b[step/8] = byte(i)
		a, _ := netip.AddrFromSlice(b)
		text := ""
		for mask := range 16 {
			st := s.NewState()
			for e := range st.Endpoints {
				if mask>>e&1 == 1 {
					st.Endpoints[e].Health = Down
				}
			}
			s.Decide(root, &Query{Client: netip.PrefixFrom(a, a.BitLen())}, st, &d)
			text += fmt.Sprint(d.Endpoints)
		}
		answers, scopes = append(answers, text), append(scopes, d.Scope)
	}
	return answers, scopes
}

// neighbours lists the units of the arena in the block of a length around one.
func neighbours(i, length int, arena netip.Prefix) []int {
	size := 1 << min(8, families[familyOf(arena.Addr())].maxBits-length)
	var out []int
	for j := i &^ (size - 1); j < i|(size-1)+1 && j < 256; j++ {
		if j&^(size-1) == i&^(size-1) {
			out = append(out, j)
		}
	}
	return out
}

// TestScopes has cases to read.
func TestScopes(t *testing.T) {
	de, us := Location{Country: "DE", Continent: "EU"}, Location{Country: "US", Continent: "NA"}
	g := mustPlaces(t,
		Place{mustPrefix("10.0.0.0/9"), de}, Place{mustPrefix("10.128.0.0/9"), us},
		Place{mustPrefix("192.0.2.0/26"), us}, Place{mustPrefix("192.0.2.128/25"), de}, // /24 by what covers most
		Place{mustPrefix("198.51.100.77/32"), de}, // of what is known
		Place{mustPrefix("2001:db8::/32"), us},
	)
	c := Config{Endpoints: edges("a", "b", "c"), Policies: []Policy{
		{Name: "geo", Kind: Geo, Map: []Rule{rule(t, "DE", "a"), rule(t, "US", "b"), rule(t, "default", "c")}},
		{Name: "one", Kind: Geo, Map: []Rule{rule(t, "DE", "a"), rule(t, "US", "a"), rule(t, "default", "a")}},
		{Name: "world", Kind: Geo, Map: []Rule{rule(t, "10.0.0.0/24", "a"), rule(t, "default", "b")}},
		{Name: "order", Kind: Failover, Choices: among("a", "b")},
		{Name: "hidden", Kind: Geo, Map: []Rule{rule(t, "US", "world"), rule(t, "default", "c")}},
	}}
	s := mustCompile(t, c, g, "geo", "one", "world", "order", "hidden", "a")
	for _, test := range []struct {
		root, client string
		want         string
		scope        int
	}{
		{"geo", "10.1.2.3/32", "a", 9},
		{"geo", "10.200.2.0/24", "b", 9},
		{"geo", "192.0.2.1/32", "a", 24},
		{"geo", "198.51.100.1/32", "a", 24},
		{"geo", "203.0.113.0/24", "c", 5}, // unknown space is a region of its own
		{"geo", "::ffff:10.1.2.3/128", "a", 9},
		{"geo", "10.0.0.0/8", "a", 9}, // half and half: the first; /9 would tell
		{"geo", "10.0.0.0/7", "c", 9}, // 11.0.0.0/8 covers most, and is unknown
		{"geo", "192.0.2.0/23", "a", 24},
		{"geo", "2001:db8:7::/48", "b", 32},
		{"geo", "2001:db9::/32", "c", 32},
		{"geo", "2001:db8::/31", "b", 32},
		{"geo", "2000::/16", "c", 16},
		{"one", "10.1.2.3/32", "a", 0},     // the client makes no difference
		{"order", "10.1.2.3/32", "a", 0},   // does not matter
		{"a", "10.1.2.3/32", "a", 0},       // is not asked
		{"world", "2001:db8::/48", "b", 1}, // never 0 when IPv4 is told apart
		{"world", "10.0.0.0/24", "a", 24},  //
		{"world", "10.0.1.0/24", "b", 24},  //
		{"hidden", "10.200.0.0/24", "b", 9},
		{"hidden", "10.0.0.0/24", "c", 9}, // the rule for it is out of reach in DE
	} {
		root, _ := s.Root(test.root)
		q := Query{Client: mustPrefix(test.client)}
		var d, x Decision
		s.Decide(root, &q, nil, &d)
		s.Explain(root, q, nil, &x)
		if got := names(s, &d); got != test.want || d.Scope != test.scope {
			t.Errorf("%s for %s: %s /%d, want %s /%d", test.root, test.client, got, d.Scope, test.want, test.scope)
		}
		if d.Scope != x.Scope || !slices.Equal(d.Endpoints, x.Endpoints) {
			t.Errorf("%s for %s: Explain says %+v", test.root, test.client, x)
		}
	}
}

// TestTenThousandInEachScope samples scopes of random worlds, with maps of
// continents, countries, cities, systems and networks, round trips and nested
// policies, and asks for 10,000 random clients inside each.
func TestTenThousandInEachScope(t *testing.T) {
	const worlds, scopes, clients = 50, 2, 10_000
	t.Logf("seeds 0 to %d", worlds-1)
	tried := [2]int{}
	var d, other Decision
	for seed := range uint64(worlds) {
		w := newWorld(t, seed)
		for found := 0; found < scopes; {
			root, q, st := w.root(), w.query(), w.state()
			if w.set.Decide(root, &q, st, &d); d.Scope > q.Client.Bits() {
				continue
			}
			found++
			if d.Scope > 0 {
				tried[familyOf(q.Client.Addr())]++
			}
			block := netip.PrefixFrom(q.Client.Addr(), d.Scope).Masked()
			for range clients {
				p := q
				p.Client = w.within(block)
				w.set.Decide(root, &p, st, &other)
				if !slices.Equal(d.Endpoints, other.Endpoints) || d.TTL != other.TTL || d.Open != other.Open || d.Scope != other.Scope {
					t.Fatalf("seed %d: %s: %v gets %+v, and %v in its scope gets %+v", seed, w.set.roots[root].name, q.Client, d, p.Client, other)
				}
			}
		}
	}
	t.Logf("%d scopes of IPv4 and %d of IPv6, %d clients in each; the other %d were 0", tried[0], tried[1], clients, worlds*scopes-tried[0]-tried[1])
	if min(tried[0], tried[1]) < worlds*scopes/8 {
		t.Error("one family came up too seldom")
	}
}
