package policy

import (
	"strings"
	"testing"
	"time"
)

// TestExplainText has what testdata/steer does not: centroids, a root that is
// an endpoint, a weight of 0. Draws are those of the seed and stay the same.
func TestExplainText(t *testing.T) {
	de := Location{Country: "DE", Continent: "EU", Located: true, Lat: 51, Lon: 9, Centroid: true}
	us := Location{Country: "US", Subdivision: "CA", City: "Reno", Continent: "NA", ASN: 64500, Located: true, Lat: 39.5, Lon: -119.8}
	g := mustPlaces(t, Place{mustPrefix("192.0.2.0/24"), de}, Place{mustPrefix("198.51.100.0/24"), us}, Place{mustPrefix("203.0.113.0/24"), Location{ASN: 64501}})
	c := Config{
		Endpoints: []Endpoint{{Name: "fra1", Located: true, Lat: 50.11, Lon: 8.68}, {Name: "iad1", Located: true, Lat: 38.95, Lon: -77.45}, {Name: "sin1"}},
		Policies: []Policy{
			{Name: "spare", Kind: Weighted, Choices: []Choice{{"fra1", 1}, {"sin1", 0}}},
			{Name: "nearest", Kind: Latency, Choices: among("fra1", "iad1", "sin1"), RTT: []RTTRow{{selector(t, "US-CA"), map[string]time.Duration{"sin1": 170 * time.Millisecond}}}},
			{Name: "home-first", Kind: Failover, Choices: among("fra1", "iad1")},
			{Name: "by-country", Kind: Geo, Map: []Rule{rule(t, "DE", "fra1"), rule(t, "europe", "home-first"), rule(t, "default", "nearest")}},
		},
	}
	s := mustCompile(t, c, g, "spare", "nearest", "by-country", "fra1")
	for _, test := range []struct {
		root, client, state string
		want                []string
	}{
		{"by-country", "192.0.2.7/32", "fra1:up", []string{
			"by-country: client 192.0.2.7/32: location DE, europe, at the centroid of DE",
			"by-country: geo: rule DE: → fra1",
			"fra1: is up",
			"by-country: answer fra1, TTL 1m0s, scope /24: good for every client in 192.0.2.0/24",
		}},
		{"by-country", "198.51.100.9/32", "sin1:drained", []string{
			"by-country: client 198.51.100.9/32: location Reno, US-CA, north-america, AS64500, at 39.50, -119.80",
			"by-country: geo: rule default: → nearest",
			"nearest: latency: 54ms by distance: → iad1",
			"iad1: counts as up: no probe has told otherwise yet",
			"by-country: answer iad1, TTL 1m0s, scope /24: good for every client in 198.51.100.0/24",
		}},
		{"by-country", "192.0.0.0/8", "fra1:forced-up", []string{
			"by-country: client 192.0.0.0/8 is larger than what the rules tell apart: counts as most of it does, such as 192.0.0.0; location unknown",
			"by-country: geo: rule default: → nearest",
			"nearest: latency: in the order written: → fra1",
			"fra1: is forced up",
			"by-country: answer fra1, TTL 1m0s, scope /24: a SOURCE of that length gets a tailored answer",
		}},
		{"spare", "192.0.2.7/32", "fra1:forced-down", []string{
			"spare: client 192.0.2.7/32: the client does not matter here",
			"spare: weighted: not fra1 (weight 1), which is forced down",
			"spare: weighted: only choices of weight 0 are left: draw 0.2559 → sin1",
			"sin1: counts as up: no probe has told otherwise yet",
			"spare: answer sin1, TTL 1m0s, scope /0: good for every client",
		}},
		{"fra1", "192.0.2.7/32", "fra1:drained", []string{
			"fra1: client 192.0.2.7/32: the client does not matter here",
			"fra1: every choice is out: what is down counts as up, what is drained or forced down stays out",
			"fra1: nothing else exists: what is drained or forced down counts as up too",
			"fra1: is drained; it answers because all else is out too",
			"fra1: answer fra1, TTL 1m0s, scope /0: good for every client",
		}},
	} {
		got := explained(s, test.root, test.client, stateOf(s, test.state))
		if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
			t.Errorf("%s for %s with %q:\n%s\nwant\n%s", test.root, test.client, test.state, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

// explained is what Explain says, a line a step.
func explained(s *Set, root, client string, st *State) []string {
	n, _ := s.Root(root)
	var d Decision
	s.Explain(n, Query{Client: mustPrefix(client), Draw: 1, Now: 1}, st, &d)
	var got []string
	for _, step := range d.Why {
		got = append(got, step.Policy+": "+step.Text)
	}
	return got
}
