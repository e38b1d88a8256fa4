package policy_test

import (
	"fmt"
	"net/netip"
	"time"

	"perigee.example/policy"
)

// Decide in a loop: for each client the edge that would answer it.
func Example() {
	germany := policy.Location{Country: "DE", Continent: "EU"}
	places, err := policy.NewPlaces([]policy.Place{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Location: germany}})
	if err != nil {
		panic(err)
	}
	set, err := policy.Compile(policy.Config{
		Endpoints: []policy.Endpoint{{Name: "fra1"}, {Name: "iad1"}},
		Policies: []policy.Policy{{Name: "by-country", Kind: policy.Geo, Map: []policy.Rule{
			{Match: policy.Selector{Country: "DE"}, To: "fra1"},
			{To: "iad1"}, // the default
		}}},
	}, []string{"by-country"}, places)
	if err != nil {
		panic(err)
	}
	root, _ := set.Root("by-country")
	state, seed := set.NewState(), [16]byte{} // a server's seed is random and secret
	var d policy.Decision
	for _, client := range []string{"192.0.2.1", "198.51.100.1"} {
		addr := netip.MustParseAddr(client)
		q := policy.Query{Client: netip.PrefixFrom(addr, 32), Draw: policy.ResolverDraw(seed, addr), Now: time.Hour}
		set.Decide(root, &q, state, &d)
		fmt.Println(client, set.Endpoint(d.Endpoints[0]).Name, d.TTL, d.Scope)
	}
	// Output:
	// 192.0.2.1 fra1 1m0s 24
	// 198.51.100.1 iad1 1m0s 6
}

// Explain says why, line by line.
func ExampleSet_Explain() {
	set, err := policy.Compile(policy.Config{
		Endpoints: []policy.Endpoint{{Name: "fra1"}, {Name: "iad1"}},
		Policies: []policy.Policy{{
			Name: "home-first", Kind: policy.Failover, TTL: 30 * time.Second,
			Choices: []policy.Choice{{To: "fra1"}, {To: "iad1"}},
		}},
	}, []string{"home-first"}, nil)
	if err != nil {
		panic(err)
	}
	state := set.NewState()
	state.Endpoints[0] = policy.EndpointState{Health: policy.Down, Why: "probe failed 3 times: connection refused"}
	root, _ := set.Root("home-first")
	var d policy.Decision
	set.Explain(root, policy.Query{Client: netip.MustParsePrefix("192.0.2.1/32")}, state, &d)
	for _, step := range d.Why {
		fmt.Println(step.Policy+":", step.Text)
	}
	// Output:
	// home-first: client 192.0.2.1/32: the client does not matter here
	// home-first: failover: not fra1, which is down: probe failed 3 times: connection refused
	// home-first: failover: → iad1
	// iad1: counts as up: no probe has told otherwise yet
	// home-first: answer iad1, TTL 30s, scope /0: good for every client
}

// A mistake says where it is, what is wrong and what to do.
func ExampleCompile_mistake() {
	_, err := policy.Compile(policy.Config{
		Endpoints: []policy.Endpoint{{Name: "fra1"}, {Name: "iad1"}},
		Policies: []policy.Policy{{
			Name: "canary", Kind: policy.Weighted,
			Choices: []policy.Choice{{To: "fra9", Weight: 90}, {To: "iad1", Weight: 10}},
		}},
	}, nil, nil)
	fmt.Println(err)
	// Output:
	// policy.canary.weights.fra9: no edge or policy is called fra9
}
