package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// What would take too long to plan is decided the long way, and roots before it
// are planned.
func TestPlanningIsBounded(t *testing.T) {
	c := Config{}
	var all []string
	for i := range MaxChoices {
		all = append(all, fmt.Sprintf("e%d", i))
	}
	c.Endpoints = edges(all...)
	c.Policies = append(c.Policies,
		Policy{Name: "half", Kind: Failover, Choices: among(all...)},
		Policy{Name: "small", Kind: Weighted, Choices: []Choice{{To: "e0", Weight: 1}, {To: "e1", Weight: 1}}})
	geo := Policy{Name: "large", Kind: Geo, Map: []Rule{rule(t, "default", "e0")}}
	for i := range 62 { // a region each
		name := fmt.Sprintf("f%d", i)
		c.Policies = append(c.Policies, Policy{Name: name, Kind: Failover, Choices: among(fmt.Sprintf("e%d", i+1), "half")})
		geo.Map = append(geo.Map, rule(t, fmt.Sprintf("10.0.%d.0/24", i), name))
	}
	c.Policies = append(c.Policies, geo)
	s := mustCompile(t, c, nil, "small", "large")
	st := s.NewState()
	for i := range st.Endpoints[:40] {
		st.Endpoints[i].Health = Down
	}
	s.Prepare(st)
	if p := st.plan.Load(); p == nil || p.roots[0] == nil || p.roots[1] != nil {
		t.Fatalf("small and large are planned: %+v", p)
	}
	for i := range 62 {
		q := Query{Client: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)}
		var d Decision
		s.Decide(1, &q, st, &d)
		if want := []int{max(i+1, 40)}; !slices.Equal(d.Endpoints, want) {
			t.Fatalf("client %v gets %v, want %v", q.Client, d.Endpoints, want)
		}
	}
}

// A State that was prepared for another Set, or is none of this one's, is decided
// as if it had not been.
func TestPlanOfAnotherSet(t *testing.T) {
	c := Config{Endpoints: edges("a", "b"), Policies: []Policy{{Name: "p", Kind: Failover, Choices: among("a", "b")}}}
	one := mustCompile(t, c, nil, "p")
	c.Policies[0].Choices = among("b", "a")
	two := mustCompile(t, c, nil, "p")
	st := one.NewState()
	one.Prepare(st)
	one.Prepare(nil)
	short := &State{Endpoints: st.Endpoints[:1]}
	one.Prepare(short)
	for _, test := range []struct {
		s    *Set
		st   *State
		want int
	}{{one, st, 0}, {two, st, 1}, {one, nil, 0}, {one, short, 0}, {two, short, 1}} {
		var d Decision
		if test.s.Decide(0, &Query{}, test.st, &d); !slices.Equal(d.Endpoints, []int{test.want}) {
			t.Errorf("%+v: %v", test, d.Endpoints)
		}
	}
	two.Prepare(st) // takes the place of the other's plan
	var d Decision
	if two.Decide(0, &Query{}, st, &d); st.plan.Load().set != two || !slices.Equal(d.Endpoints, []int{1}) {
		t.Errorf("prepared again: %v", d.Endpoints)
	}
}
