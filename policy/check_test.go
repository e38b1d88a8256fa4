package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// configErrors lists what Compile finds wrong, as "path: text (hint)".
func configErrors(t *testing.T, c Config, roots ...string) []string {
	t.Helper()
	_, err := Compile(c, roots, nil)
	if err == nil {
		return nil
	}
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("the error is no list: %v", err)
	}
	var out []string
	for _, e := range list.Unwrap() {
		var ce *ConfigError
		if !errors.As(e, &ce) {
			t.Fatalf("%T in the list: %v", e, e)
		}
		if !strings.HasPrefix(ce.Error(), ce.Path+": ") {
			t.Errorf("%q does not begin with its path %q", ce.Error(), ce.Path)
		}
		out = append(out, fmt.Sprintf("%v (%s)", ce, ce.Hint))
	}
	return out
}

func edges(names ...string) []Endpoint {
	var out []Endpoint
	for _, n := range names {
		out = append(out, Endpoint{Name: n})
	}
	return out
}

func among(names ...string) []Choice {
	var out []Choice
	for _, n := range names {
		out = append(out, Choice{To: n})
	}
	return out
}

func rule(t testing.TB, match, to string) Rule {
	t.Helper()
	return Rule{selector(t, match), to}
}

func selector(t testing.TB, text string) Selector {
	t.Helper()
	s, err := ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func manyChoices(n int) []Choice {
	var out []Choice
	for i := range n {
		out = append(out, Choice{To: fmt.Sprintf("x%d", i)})
	}
	return out
}

func row(t testing.TB, match, to string, rtt time.Duration) RTTRow {
	return RTTRow{selector(t, match), map[string]time.Duration{to: rtt}}
}

// mistaken is a policy beside the edges fra1 and iad1, and what is said of it
// first.
type mistaken struct {
	name string
	p    Policy
	want string
}

func (m mistaken) check(t *testing.T) {
	t.Helper()
	got := configErrors(t, Config{Endpoints: edges("fra1", "iad1"), Policies: []Policy{m.p}})
	if len(got) == 0 || got[0] != m.want {
		t.Errorf("%s:\n got %q\nwant %q", m.name, got, m.want)
	}
}

func TestConfigErrorsOfChoices(t *testing.T) {
	for _, m := range []mistaken{
		{"typo in weights", Policy{Name: "canary", Kind: Weighted, Choices: []Choice{{"fra9", 1}, {"iad1", 1}}},
			"policy.canary.weights.fra9: no edge or policy is called fra9 (did you mean fra1?)"},
		{"unlike any name", Policy{Name: "canary", Kind: Weighted, Choices: []Choice{{"frankfurt", 1}}},
			"policy.canary.weights.frankfurt: no edge or policy is called frankfurt ()"},
		{"typo in order", Policy{Name: "p", Kind: Failover, Choices: among("fra1", "idd1")},
			"policy.p.order: no edge or policy is called idd1 (did you mean iad1?)"},
		{"typo in among", Policy{Name: "nearest", Kind: Latency, Choices: among("fra1", "ida1")},
			"policy.nearest.among: no edge or policy is called ida1 (did you mean iad1?)"},
		{"typo in a map", Policy{Name: "by-country", Kind: Geo, Map: []Rule{rule(t, "DE", "fra2"), rule(t, "default", "fra1")}},
			"policy.by-country.map.DE: no edge or policy is called fra2 (did you mean fra1?)"},
		{"empty name", Policy{Name: "p", Kind: Failover, Choices: among("")},
			`policy.p.order: no edge or policy is called "" ()`},
		{"a key that TOML quotes", Policy{Name: "p", Kind: Geo, Map: []Rule{rule(t, "192.0.2.0/24", "x"), rule(t, "default", "fra1")}},
			`policy.p.map."192.0.2.0/24": no edge or policy is called x ()`},
		{"all weights 0", Policy{Name: "p", Kind: Weighted, Choices: among("fra1", "iad1")},
			"policy.p.weights: every weight is 0 (give at least one choice a positive weight)"},
		{"nothing to choose", Policy{Name: "p", Kind: Latency},
			"policy.p.among: there is nothing to choose from (name at least one edge, endpoint or policy)"},
		{"twice in order", Policy{Name: "p", Kind: Failover, Choices: among("fra1", "fra1")},
			"policy.p.order: fra1 stands here twice (name each choice once)"},
		{"twice in a map", Policy{Name: "p", Kind: Geo, Map: []Rule{rule(t, "DE", "fra1"), rule(t, "DE", "iad1"), rule(t, "default", "fra1")}},
			"policy.p.map.DE: the selector stands here twice (keep one)"},
		{"no default", Policy{Name: "p", Kind: Geo, Map: []Rule{rule(t, "DE", "fra1")}},
			`policy.p.map: there is no default (add a line such as default = "…": it answers the clients that no other rule selects)`},
	} {
		m.check(t)
	}
}

func TestConfigErrorsOfKeys(t *testing.T) {
	for _, m := range []mistaken{
		{"too long for a unit", Policy{Name: "p", Kind: Geo, Map: []Rule{{Selector{Prefix: mustPrefix("192.0.2.0/25")}, "fra1"}, rule(t, "default", "fra1")}},
			`policy.p.map."192.0.2.0/25": 192.0.2.0/25 is longer than /24, the smallest network that can be told apart: write 192.0.2.0/24 ()`},
		{"TTL with a fraction", Policy{Name: "p", Kind: Failover, TTL: 1500 * time.Millisecond, Choices: among("fra1")},
			"policy.p.ttl: 1.5s is not a TTL: 1s to 24h0m0s (write whole seconds)"},
		{"TTL below 0", Policy{Name: "p", Kind: Failover, TTL: -time.Second, Choices: among("fra1")},
			"policy.p.ttl: -1s is not a TTL: 1s to 24h0m0s (write whole seconds)"},
		{"TTL of a week", Policy{Name: "p", Kind: Failover, TTL: 168 * time.Hour, Choices: among("fra1")},
			"policy.p.ttl: 168h0m0s is not a TTL: 1s to 24h0m0s (write whole seconds)"},
		{"no kind", Policy{Name: "p", Choices: among("fra1")},
			"policy.p.by: there is no such kind of policy (write latency, weighted, geo, failover or multivalue)"},
		{"answers", Policy{Name: "p", Kind: Multivalue, Choices: among("fra1"), Answers: MaxAnswers + 1},
			"policy.p.answers: 9 is not a number of answers: 1 to 8 ()"},
		{"answers elsewhere", Policy{Name: "p", Kind: Failover, Choices: among("fra1"), Answers: 2},
			`policy.p.answers: a failover policy has no answers (only by = "multivalue" has answers)`},
		{"a weight elsewhere", Policy{Name: "p", Kind: Failover, Choices: []Choice{{"fra1", 2}}},
			`policy.p.order: fra1 has a weight in a failover policy (only by = "weighted" has weights)`},
		{"a map elsewhere", Policy{Name: "p", Kind: Failover, Choices: among("fra1"), Map: []Rule{rule(t, "default", "fra1")}},
			`policy.p.map: a failover policy has no map (only by = "geo" has a map)`},
		{"rows elsewhere", Policy{Name: "p", Kind: Failover, Choices: among("fra1"), RTT: []RTTRow{row(t, "DE", "fra1", 1)}},
			`policy.p.rtt: a failover policy has no rtt rows (only by = "latency" has rtt rows)`},
		{"choices of geo", Policy{Name: "p", Kind: Geo, Choices: among("fra1"), Map: []Rule{rule(t, "default", "fra1")}},
			"policy.p: a geo policy has no list of choices (a geo policy chooses by its map alone)"},
		{"a row of who is no choice", Policy{Name: "p", Kind: Latency, Choices: among("fra1"), RTT: []RTTRow{row(t, "DE", "fra2", 1)}},
			"policy.p.rtt.DE.fra2: fra2 is not among the choices of p (did you mean fra1?)"},
		{"a row below 0", Policy{Name: "p", Kind: Latency, Choices: among("fra1"), RTT: []RTTRow{row(t, "DE", "fra1", -1)}},
			"policy.p.rtt.DE.fra1: -1ns is not a round trip: 0s to 10s ()"},
		{"an empty row", Policy{Name: "p", Kind: Latency, Choices: among("fra1"), RTT: []RTTRow{{Match: selector(t, "DE")}}},
			"policy.p.rtt.DE: the row is empty ()"},
		{"name of an edge", Policy{Name: "fra1", Kind: Failover, Choices: among("iad1")},
			"policy.fra1: the name is already that of an edge or endpoint (edges, endpoints and policies share one name space: choose another name)"},
		{"no name", Policy{Kind: Failover, Choices: among("iad1")},
			`policy."": the name is empty ()`},
		{"too many choices", Policy{Name: "p", Kind: Failover, Choices: manyChoices(MaxChoices + 1)},
			"policy.p.order: 1025 choices are more than 1024 (nest policies)"},
	} {
		m.check(t)
	}
}

func TestConfigErrorsOfEndpointsAndRoots(t *testing.T) {
	c := Config{Endpoints: []Endpoint{{Name: "fra1", Located: true, Lat: 91}, {Name: "iad1", Located: true, Lon: math.NaN()}, {Name: "fra1"}}}
	want := []string{
		"endpoint.fra1.location: 91, 0 is no place on earth (write degrees north, then degrees east, such as [50.11, 8.68])",
		"endpoint.iad1.location: 0, NaN is no place on earth (write degrees north, then degrees east, such as [50.11, 8.68])",
		"endpoint.fra1: the name is already that of an edge or endpoint (edges, endpoints and policies share one name space: choose another name)",
		"steer: no edge or policy is called fra (did you mean fra1?)",
	}
	if got := configErrors(t, c, "fra", "fra1"); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestNesting(t *testing.T) {
	failover := func(name string, to ...string) Policy {
		return Policy{Name: name, Kind: Failover, Choices: among(to...)}
	}
	chain := func(n int) []Policy {
		out := []Policy{failover("p1", "fra1")}
		for i := 2; i <= n; i++ {
			out = append(out, failover(fmt.Sprintf("p%d", i), fmt.Sprintf("p%d", i-1)))
		}
		return out
	}
	const hint = " (break the loop: some policy in it must choose edges or endpoints only)"
	for _, test := range []struct {
		name     string
		policies []Policy
		want     []string
	}{
		{"to itself", []Policy{failover("a", "a")}, []string{"policy.a: policies choose each other: a → a" + hint}},
		{"ring of two", []Policy{failover("a", "b"), failover("b", "a")}, []string{"policy.a: policies choose each other: a → b → a" + hint}},
		{"not from the first", []Policy{failover("a", "fra1", "b"), failover("b", "c"), {Name: "c", Kind: Geo, Map: []Rule{rule(t, "DE", "b"), rule(t, "default", "fra1")}}},
			[]string{"policy.b: policies choose each other: b → c → b" + hint}},
		{"a diamond is none", []Policy{failover("a", "b", "c"), failover("b", "d"), failover("c", "d"), failover("d", "fra1")}, nil},
		{"as deep as may be", chain(MaxDepth), nil},
		{"one deeper", chain(MaxDepth + 3), []string{"policy.p9: policies are nested deeper than 8 ()"}},
	} {
		if got := configErrors(t, Config{Endpoints: edges("fra1"), Policies: test.policies}); !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %q\nwant %q", test.name, got, test.want)
		}
	}
}

func TestTooManyPaths(t *testing.T) {
	c := Config{}
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("e%d", i))
	}
	c.Endpoints = edges(names...)
	for level := range 3 { // 50 × 50 × 50 ways
		var next []string
		for i := range 50 {
			name := fmt.Sprintf("p%d-%d", level, i)
			c.Policies = append(c.Policies, Policy{Name: name, Kind: Failover, Choices: among(names...)})
			next = append(next, name)
		}
		names = next
	}
	want := "policy.p2-0: its nested policies lead to choices on more than 65536 ways (nest fewer policies, or give them fewer choices)"
	if got := configErrors(t, c); len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCompileCopies: what the caller does to the Config later is not seen.
func TestCompileCopies(t *testing.T) {
	c := Config{Endpoints: edges("fra1", "iad1"), Policies: []Policy{{Name: "p", Kind: Latency, Choices: among("fra1", "iad1"), RTT: []RTTRow{{RTT: map[string]time.Duration{"fra1": 1}}}}}}
	s, err := Compile(c, []string{"p", "p", "iad1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Endpoints[0].Name, c.Policies[0].Choices[0].To, c.Policies[0].RTT[0].RTT["iad1"] = "x", "x", 0
	root, _ := s.Root("p")
	var d, x Decision
	s.Decide(root, &Query{}, nil, &d)
	s.Explain(root, Query{}, nil, &x)
	if s.Endpoint(0).Name != "fra1" || d.Endpoints[0] != 0 || x.Endpoints[0] != 0 {
		t.Errorf("the Set changed with the caller's Config: %v %v %v", s.Endpoint(0), d, x)
	}
	if got := s.Reaches(root); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("p reaches %v, want both", got)
	}
	if iad1, ok := s.Root("iad1"); !ok || !slices.Equal(s.Reaches(iad1), []int{1}) {
		t.Error("the root iad1 does not reach just itself")
	}
	if _, ok := s.Root("fra1"); ok {
		t.Error("fra1 was not given as a root and is one")
	}
}
