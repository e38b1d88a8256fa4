package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"perigee.example/internal/geo"
	"perigee.example/policy"
)

// TestRealGeography compiles ten roots over the built-in country database and
// compares, for clients of random places of it, the compiled tables with the
// rules as written.
func TestRealGeography(t *testing.T) {
	set, roots := compileReal(t)
	st := set.NewState()
	st.Endpoints[2].Health = policy.Down
	rnd := rand.New(rand.NewPCG(1, 1))
	scopes := make(map[int]int)
	var d, x policy.Decision
	for i := range 300 {
		q := policy.Query{Client: realClient(rnd), Draw: rnd.Uint64(), Now: time.Duration(i) * time.Minute}
		root := policy.Name(rnd.IntN(len(roots)))
		set.Decide(root, &q, st, &d)
		set.Explain(root, q, st, &x)
		if !slices.Equal(d.Endpoints, x.Endpoints) || d.TTL != x.TTL || d.Scope != x.Scope || d.Open != x.Open {
			t.Fatalf("client %d, %s for %v: Decide %+v, Explain %+v", i, roots[root], q.Client, d, x)
		}
		scopes[d.Scope]++
	}
	t.Logf("scopes: %v", scopes)
	if len(scopes) < 15 {
		t.Errorf("only %d different scopes came up", len(scopes))
	}
}

func realClient(rnd *rand.Rand) netip.Prefix {
	if rnd.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(223)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), 1})
		return netip.PrefixFrom(a, 16+rnd.IntN(17)).Masked()
	}
	high := []uint16{0x2001, 0x2400, 0x2600, 0x2804, 0x2a00, 0x2a02, 0x2c0f, 0x2620}[rnd.IntN(8)]
	a := netip.AddrFrom16([16]byte{byte(high >> 8), byte(high), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(4))})
	return netip.PrefixFrom(a, 29+rnd.IntN(100)).Masked()
}

// TestRealGeographyShortSource asks for thousands of networks at once.
func TestRealGeographyShortSource(t *testing.T) {
	set, _ := compileReal(t)
	root, _ := set.Root("geo0")
	var d, x policy.Decision
	for _, client := range []string{"64.0.0.0/5", "2a02::/16", "2001::/16", "5.0.0.0/8"} {
		q := policy.Query{Client: netip.MustParsePrefix(client)}
		set.Decide(root, &q, nil, &d)
		set.Explain(root, q, nil, &x)
		if !slices.Equal(d.Endpoints, x.Endpoints) || d.Scope != x.Scope || d.Scope <= q.Client.Bits() {
			t.Errorf("%s: Decide %+v, Explain %+v", client, d, x)
		}
	}
}

func realFleet(t testing.TB) (policy.Config, []string) {
	c := policy.Config{Endpoints: []policy.Endpoint{
		{Name: "fra1", Located: true, Lat: 50.11, Lon: 8.68}, {Name: "iad1", Located: true, Lat: 38.95, Lon: -77.45},
		{Name: "sin1", Located: true, Lat: 1.35, Lon: 103.82}, {Name: "gru1", Located: true, Lat: -23.43, Lon: -46.47},
		{Name: "syd1", Located: true, Lat: -33.95, Lon: 151.18}, {Name: "jnb1", Located: true, Lat: -26.13, Lon: 28.24},
	}}
	var roots []string
	for i := range 5 {
		near, geo := fmt.Sprintf("near%d", i), fmt.Sprintf("geo%d", i)
		p := policy.Policy{Name: near, Kind: policy.Latency}
		for _, e := range c.Endpoints[:2+i] {
			p.Choices = append(p.Choices, policy.Choice{To: e.Name})
		}
		m := policy.Policy{Name: geo, Kind: policy.Geo}
		for _, rule := range []struct{ match, to string }{{"DE", "fra1"}, {"north-america", near}, {"asia", "sin1"}, {"SG", "iad1"}, {"5.9.0.0/24", "iad1"}, {"2a02:8000::/24", "sin1"}, {"default", near}} {
			sel, err := policy.ParseSelector(rule.match)
			if err != nil {
				t.Fatal(err)
			}
			m.Map = append(m.Map, policy.Rule{Match: sel, To: rule.to})
		}
		c.Policies = append(c.Policies, p, m)
		roots = append(roots, near, geo)
	}
	return c, roots
}

// BenchmarkAtlas compiles what ten names with policies of their own need, over
// the built-in country data, and says what the atlases take up.
func BenchmarkAtlas(b *testing.B) {
	db, err := geo.Builtin()
	if err != nil {
		b.Fatal(err)
	}
	c, roots := realFleet(b)
	var set *policy.Set
	for b.Loop() {
		set = nil // so that two are never held at once
		if set, err = policy.Compile(c, roots, db); err != nil {
			b.Fatal(err)
		}
	}
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	if n, ok := set.Root(roots[9]); !ok || len(set.Reaches(n)) != 6 {
		b.Fatalf("root %s is not what was compiled", roots[9])
	}
	set = nil
	runtime.GC()
	runtime.ReadMemStats(&without)
	b.ReportMetric(float64(with.HeapAlloc-without.HeapAlloc)/(1<<20), "MiB")
}
