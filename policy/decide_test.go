package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustPrefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func mustCompile(t testing.TB, c Config, g Geography, roots ...string) *Set {
	t.Helper()
	s, err := Compile(c, roots, g)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustPlaces(t testing.TB, list ...Place) *Places {
	t.Helper()
	g, err := NewPlaces(list)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// names are those of the endpoints of a decision.
func names(s *Set, d *Decision) string {
	var out []string
	for _, e := range d.Endpoints {
		out = append(out, s.Endpoint(e).Name)
	}
	return strings.Join(out, " ")
}

// stateOf reads "a:down b:drained c:forced-down d:forced-up e:up"; who is not
// named is unknown.
func stateOf(s *Set, text string) *State {
	st := s.NewState()
	for _, word := range strings.Fields(text) {
		name, what, _ := strings.Cut(word, ":")
		e := &st.Endpoints[^s.names[name]]
		switch what {
		case "down":
			e.Health = Down
		case "up":
			e.Health = Up
		case "drained":
			e.Draining = true
		case "forced-down":
			e.Force = ForceDown
		case "forced-up":
			e.Health, e.Force = Down, ForceUp
		default:
			panic("no such state: " + word)
		}
	}
	return st
}

// TestFailOpen is principle 6 of the design.
func TestFailOpen(t *testing.T) {
	c := Config{Endpoints: edges("a", "b", "c", "d"), Policies: []Policy{
		{Name: "ab", Kind: Failover, Choices: among("a", "b")},
		{Name: "cd", Kind: Failover, Choices: among("c", "d")},
		{Name: "nested", Kind: Failover, Choices: among("ab", "cd")},
		{Name: "weights", Kind: Weighted, Choices: []Choice{{"a", 1}, {"b", 0}}},
		{Name: "geo", Kind: Geo, Map: []Rule{rule(t, "DE", "a"), rule(t, "europe", "ab"), rule(t, "default", "c")}},
		{Name: "many", Kind: Multivalue, Choices: among("a", "b", "c", "d"), Answers: 4},
		{Name: "near", Kind: Latency, Choices: among("a", "b", "c")},
	}}
	g := mustPlaces(t, Place{mustPrefix("192.0.2.0/24"), Location{Country: "DE", Continent: "EU"}})
	s := mustCompile(t, c, g, "nested", "weights", "geo", "many", "near", "a")
	for _, test := range []struct {
		root, state, want string
		open              bool
	}{
		{"nested", "", "a", false}, // unknown counts as up
		{"nested", "a:down", "b", false},
		{"nested", "a:forced-up", "a", false},
		{"nested", "a:drained", "b", false},
		{"nested", "a:down b:down", "c", false}, // a nested policy is itself down for its parent
		{"nested", "a:drained b:forced-down", "c", false},
		{"nested", "a:down b:down c:down d:down", "a", true}, // only the outermost opens
		{"nested", "a:drained b:down c:down d:down", "b", true},
		{"nested", "a:drained b:drained c:down d:forced-down", "c", true},
		{"nested", "a:drained b:drained c:drained d:forced-down", "a", true}, // nothing else exists
		{"weights", "", "a", false},
		{"weights", "a:down", "b", false}, // weight 0 is for when every other is down
		{"weights", "a:down b:down", "a", true},
		{"weights", "a:drained b:down", "b", true},
		{"geo", "", "a", false},
		{"geo", "a:down", "b", false}, // the next less specific rule
		{"geo", "a:down b:down", "c", false},
		{"geo", "a:down b:down c:down", "a", true},
		{"many", "a:down c:drained", "b d", false},
		{"many", "a:drained b:down c:down d:down", "b c d", true},
		{"near", "a:down b:drained", "c", false},
		{"near", "a:down b:drained c:down", "a", true},
		{"a", "", "a", false},
		{"a", "a:down", "a", true},
		{"a", "a:forced-down", "a", true},
	} {
		root, _ := s.Root(test.root)
		var d Decision
		s.Decide(root, &Query{Client: mustPrefix("192.0.2.7/32")}, stateOf(s, test.state), &d)
		slices.Sort(d.Endpoints)
		if got := names(s, &d); got != test.want || d.Open != test.open {
			t.Errorf("%s with %q: %s, open %v, want %s, open %v", test.root, test.state, got, d.Open, test.want, test.open)
		}
	}
}

func TestTTL(t *testing.T) {
	c := Config{Endpoints: edges("a", "b"), Policies: []Policy{
		{Name: "in", Kind: Failover, TTL: 20 * time.Second, Choices: among("a")},
		{Name: "long", Kind: Failover, TTL: 300 * time.Second, Choices: among("in", "b")},
		{Name: "short", Kind: Failover, TTL: 5 * time.Second, Choices: among("in")},
		{Name: "plain", Kind: Failover, Choices: among("a")},
		{Name: "day", Kind: Failover, TTL: MaxTTL, Choices: among("a")},
	}}
	s := mustCompile(t, c, nil, "in", "long", "short", "plain", "day", "a")
	for _, test := range []struct {
		root, state string
		want        time.Duration
	}{
		{"in", "", 20 * time.Second},
		{"long", "", 20 * time.Second}, // the least along the path
		{"long", "a:down", 300 * time.Second},
		{"short", "", 5 * time.Second},
		{"plain", "", DefaultTTL},
		{"day", "", MaxTTL},
		{"a", "", DefaultTTL},
	} {
		root, _ := s.Root(test.root)
		var d Decision
		if s.Decide(root, &Query{}, stateOf(s, test.state), &d); d.TTL != test.want {
			t.Errorf("%s with %q: TTL %v, want %v", test.root, test.state, d.TTL, test.want)
		}
	}
}

// within4Sigma checks a count against a binomial distribution.
func within4Sigma(t *testing.T, what string, got, of int, p float64) {
	t.Helper()
	mean := float64(of) * p
	if sigma := math.Sqrt(mean * (1 - p)); math.Abs(float64(got)-mean) > 4*sigma {
		t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, got, of, mean, 4*sigma)
	}
}

// blocks10k is a geography in which 10,000 /24 networks are told apart from
// their neighbours: every other one is in Germany.
func blocks10k(t testing.TB) *Places {
	var list []Place
	for i := range 10_000 {
		list = append(list, Place{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 0}), 24), Location{Country: "DE"}})
	}
	return mustPlaces(t, list...)
}

// TestWeightedShares: 10,000 resolvers, and 10,000 ECS blocks through one
// resolver, in one epoch and over 30 s.
func TestWeightedShares(t *testing.T) {
	const ttl, start = 10 * time.Second, 1_700_000_000 * time.Second
	c := Config{Endpoints: edges("a", "b", "c"), Policies: []Policy{
		{Name: "w", Kind: Weighted, TTL: ttl, Choices: []Choice{{"a", 70}, {"b", 20}, {"c", 10}}},
		{Name: "geo", Kind: Geo, TTL: ttl, Map: []Rule{rule(t, "DE", "w"), rule(t, "default", "a")}},
	}}
	s := mustCompile(t, c, blocks10k(t), "w", "geo")
	w, _ := s.Root("w")
	geo, _ := s.Root("geo")
	for _, state := range []struct {
		text   string
		shares [3]float64
	}{{"", [3]float64{0.7, 0.2, 0.1}}, {"a:down", [3]float64{0, 2.0 / 3, 1.0 / 3}}, {"b:drained", [3]float64{7.0 / 8, 0, 1.0 / 8}}} {
		st := stateOf(s, state.text)
		for _, seconds := range []int{1, 30} {
			var byResolver, byBlock [3]int
			var d Decision
			for i := range 10_000 * seconds {
				now := start + time.Duration(i/10_000)*time.Second
				n := i % 10_000
				resolver := netip.AddrFrom4([4]byte{172, byte(n >> 8), byte(n), 53})
				s.Decide(w, &Query{Client: netip.PrefixFrom(resolver, 32), Draw: ResolverDraw([16]byte{1}, resolver), Now: now}, st, &d)
				byResolver[d.Endpoints[0]]++
				client := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 7), byte(n << 1), 0}), 24)
				s.Decide(geo, &Query{Client: client, Draw: 12345, Now: now}, st, &d)
				if d.Scope != 24 {
					t.Fatalf("%v has scope %d, want 24", client, d.Scope)
				}
				byBlock[d.Endpoints[0]]++
			}
			// Within 30 s a key is in four epochs at most: count each once.
			epochs := max(1, seconds/int(ttl/time.Second))
			for i, p := range state.shares {
				what := fmt.Sprintf("%q, %d s, %s", state.text, seconds, s.Endpoint(i).Name)
				within4Sigma(t, what+" by resolver", byResolver[i]*epochs/seconds, 10_000*epochs, p)
				within4Sigma(t, what+" by block", byBlock[i]*epochs/seconds, 10_000*epochs, p)
			}
		}
	}
}

// TestLevelsIndependent: of two nested 50/50 levels each of the four ways
// comes up a quarter of the time.
func TestLevelsIndependent(t *testing.T) {
	c := Config{Endpoints: edges("a", "b", "c", "d"), Policies: []Policy{
		{Name: "ab", Kind: Weighted, Choices: []Choice{{"a", 1}, {"b", 1}}},
		{Name: "cd", Kind: Weighted, Choices: []Choice{{"c", 1}, {"d", 1}}},
		{Name: "top", Kind: Weighted, Choices: []Choice{{"ab", 1}, {"cd", 1}}},
	}}
	s := mustCompile(t, c, nil, "top")
	root, _ := s.Root("top")
	rnd := rand.New(rand.NewPCG(3, 3))
	var counts [4]int
	var d Decision
	const n = 40_000
	for range n {
		s.Decide(root, &Query{Draw: rnd.Uint64(), Now: time.Hour}, nil, &d)
		counts[d.Endpoints[0]]++
	}
	for i, got := range counts {
		within4Sigma(t, s.Endpoint(i).Name, got, n, 0.25)
	}
}

// TestFewClientsMove: when one choice goes down exactly its own clients move,
// and a changed weight of two moves as many as the share that changed.
func TestFewClientsMove(t *testing.T) {
	weights := func(a, b, c uint32) *Set {
		return mustCompile(t, Config{Endpoints: edges("a", "b", "c"), Policies: []Policy{
			{Name: "w", Kind: Weighted, Choices: []Choice{{"a", a}, {"b", b}, {"c", c}}},
			{Name: "m", Kind: Multivalue, Answers: 2, Choices: among("a", "b", "c")},
		}}, nil, "w", "m")
	}
	s := weights(50, 30, 20)
	w, _ := s.Root("w")
	m, _ := s.Root("m")
	down := stateOf(s, "b:down")
	before, after := weights(90, 10, 0), weights(80, 20, 0)
	rnd := rand.New(rand.NewPCG(4, 4))
	moved := 0
	const n = 20_000
	for range n {
		q := Query{Draw: rnd.Uint64(), Now: time.Hour}
		var d1, d2 Decision
		s.Decide(w, &q, nil, &d1)
		s.Decide(w, &q, down, &d2)
		if d1.Endpoints[0] != 1 && d1.Endpoints[0] != d2.Endpoints[0] {
			t.Fatalf("b went down and a client of %d moved to %d", d1.Endpoints[0], d2.Endpoints[0])
		}
		s.Decide(m, &q, nil, &d1)
		s.Decide(m, &q, down, &d2)
		if rest := slices.DeleteFunc(d1.Endpoints, func(e int) bool { return e == 1 }); !slices.Equal(rest, d2.Endpoints[:len(rest)]) {
			t.Fatalf("b went down and the answer %v became %v", d1.Endpoints, d2.Endpoints)
		}
		before.Decide(w, &q, nil, &d1)
		after.Decide(w, &q, nil, &d2)
		if d1.Endpoints[0] != d2.Endpoints[0] {
			moved++
		}
	}
	within4Sigma(t, "moved from 90:10 to 80:20", moved, n, 0.1)
}

// TestNewWeightMovesItsShare doubles one weight of eight, and takes a choice
// out of the list: nobody moves but to or from it, so that the share that moves
// is the least possible.
func TestNewWeightMovesItsShare(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	fleet := func(weights ...uint32) *Set {
		p := Policy{Name: "w", Kind: Weighted}
		for i, w := range weights {
			p.Choices = append(p.Choices, Choice{names[i], w})
		}
		return mustCompile(t, Config{Endpoints: edges(names...), Policies: []Policy{p}}, nil, "w")
	}
	before, doubled, without := fleet(1, 1, 1, 1, 1, 1, 1, 1), fleet(1, 1, 2, 1, 1, 1, 1, 1), fleet(1, 1, 1, 1, 1, 1, 1)
	const seed, n = 9, 40_000
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var d, e Decision
	more, fewer := 0, 0
	for range n {
		q := Query{Draw: rnd.Uint64(), Now: time.Hour}
		before.Decide(0, &q, nil, &d)
		if doubled.Decide(0, &q, nil, &e); d.Endpoints[0] != e.Endpoints[0] {
			more++
			if e.Endpoints[0] != 2 {
				t.Fatalf("the weight of c was doubled, and a client of %d moved to %d", d.Endpoints[0], e.Endpoints[0])
			}
		}
		if without.Decide(0, &q, nil, &e); d.Endpoints[0] != e.Endpoints[0] {
			fewer++
			if d.Endpoints[0] != 7 {
				t.Fatalf("h was taken out, and a client of %d moved to %d", d.Endpoints[0], e.Endpoints[0])
			}
		}
	}
	within4Sigma(t, "moved to a choice whose weight doubled", more, n, 2.0/9-1.0/8)
	within4Sigma(t, "moved from a choice that was taken out", fewer, n, 1.0/8)
}

// TestMultivalue: as many as asked, each once, every order alike.
func TestMultivalue(t *testing.T) {
	c := Config{Endpoints: edges("a", "b", "c", "d"), Policies: []Policy{
		{Name: "two", Kind: Multivalue, Answers: 2, Choices: among("a", "b", "c", "d")},
		{Name: "all", Kind: Multivalue, Choices: among("a", "b", "c", "d")},
		{Name: "ab", Kind: Failover, TTL: time.Second, Choices: among("a", "b")},
		{Name: "mixed", Kind: Multivalue, Choices: among("ab", "a", "all")},
	}}
	s := mustCompile(t, c, nil, "two", "all", "mixed")
	rnd := rand.New(rand.NewPCG(5, 5))
	counts := make(map[string]int)
	var d Decision
	const n = 24_000
	for range n {
		q := Query{Draw: rnd.Uint64(), Now: time.Hour}
		two, _ := s.Root("two")
		s.Decide(two, &q, nil, &d)
		counts[names(s, &d)]++
		all, _ := s.Root("all")
		s.Decide(all, &q, nil, &d)
		if slices.Sort(d.Endpoints); !slices.Equal(d.Endpoints, []int{0, 1, 2, 3}) {
			t.Fatalf("all gave %v", d.Endpoints)
		}
		mixed, _ := s.Root("mixed")
		s.Decide(mixed, &q, nil, &d)
		if len(d.Endpoints) > 2 || d.TTL != time.Second || !slices.Contains(d.Endpoints, 0) {
			t.Fatalf("mixed gave %v, TTL %v: want a once, perhaps one other, TTL 1s", d.Endpoints, d.TTL)
		}
	}
	if len(counts) != 12 {
		t.Errorf("%d of 12 ordered pairs came up", len(counts))
	}
	for pair, got := range counts {
		within4Sigma(t, pair, got, n, 1.0/12)
	}
}

// TestZeroWeights: several choices of weight 0 share alike when nothing else
// is left, also when very little weight is up.
func TestZeroWeights(t *testing.T) {
	c := Config{Endpoints: edges("a", "b", "c", "d"), Policies: []Policy{
		{Name: "w", Kind: Weighted, Choices: []Choice{{"a", math.MaxUint32}, {"b", 0}, {"c", 0}, {"d", 1}}},
	}}
	s := mustCompile(t, c, nil, "w")
	root, _ := s.Root("w")
	spare, tiny := stateOf(s, "a:down d:down"), stateOf(s, "a:down")
	rnd := rand.New(rand.NewPCG(6, 6))
	b := 0
	var d Decision
	const n = 10_000
	for range n {
		q := Query{Draw: rnd.Uint64()}
		if s.Decide(root, &q, spare, &d); d.Endpoints[0] == 1 {
			b++
		} else if d.Endpoints[0] != 2 {
			t.Fatalf("%v answers, want a spare", d.Endpoints)
		}
		if s.Decide(root, &q, tiny, &d); d.Endpoints[0] != 3 || d.Open {
			t.Fatalf("%v answers, open %v, want d, the only one with weight that is up", d.Endpoints, d.Open)
		}
	}
	within4Sigma(t, "b", b, n, 0.5)
}

func TestDecideToleratesAnyState(t *testing.T) {
	s := mustCompile(t, Config{Endpoints: edges("a", "b"), Policies: []Policy{{Name: "p", Kind: Failover, Choices: among("b", "a")}}}, nil, "p")
	root, _ := s.Root("p")
	for _, st := range []*State{nil, {}, {Endpoints: make([]EndpointState, 1)}, {Endpoints: make([]EndpointState, 9)}} {
		var d, x Decision
		s.Decide(root, &Query{}, st, &d)
		s.Explain(root, Query{}, st, &x)
		if names(s, &d) != "b" || names(s, &x) != "b" || d.Open {
			t.Errorf("with %+v: %+v and %+v, want b", st, d, x)
		}
	}
}
