package policy

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// country is a geography of the size of a country database: all of both
// families cut at random into networks of 240 countries.
func country(t testing.TB, seed uint64) *Places {
	rnd := rand.New(rand.NewPCG(seed, 8))
	g := &Places{}
	var counts [2]int
	var split func(p netip.Prefix, always, most, chance int)
	split = func(p netip.Prefix, always, most, chance int) {
		if p.Bits() < always || p.Bits() < most && rnd.IntN(100) < chance {
			low, high := halves(p)
			split(low, always, most, chance)
			split(high, always, most, chance)
			return
		}
		n := rnd.IntN(260)
		loc := Location{}
		if n < 240 {
			loc = Location{Country: string([]byte{'A' + byte(n/16), 'A' + byte(n%16)}), Continent: continents[n%7].code, Located: true, Lat: float64(n%16)*10 - 75, Lon: float64(n/16)*24 - 170, Centroid: true}
			counts[familyOf(p.Addr())]++
		}
		g.blocks = append(g.blocks, Place{p, loc})
	}
	split(families[0].all(), 8, 24, 79)
	split(mustPrefix("::/2"), 2, 32, 0)
	split(mustPrefix("4000::/2"), 2, 32, 0)
	split(mustPrefix("8000::/1"), 1, 32, 0)
	g.blocks = g.blocks[:len(g.blocks)-3]
	g.blocks = append(g.blocks, Place{mustPrefix("::/3"), Location{}})
	split(mustPrefix("2000::/3"), 16, 48, 51)
	g.blocks = append(g.blocks, Place{mustPrefix("4000::/2"), Location{}}, Place{mustPrefix("8000::/1"), Location{}})
	if counts[0] < 350_000 || counts[1] < 100_000 {
		t.Fatalf("the geography has %d and %d networks, want 350,000 and 100,000", counts[0], counts[1])
	}
	return g
}

// fleet steers by country, by continent and by distance, nested, with as many
// roots.
func fleet(t testing.TB, roots int) (Config, []string) {
	c := Config{}
	var all []Choice
	for i := range 12 {
		c.Endpoints = append(c.Endpoints, Endpoint{Name: fmt.Sprintf("e%d", i), Located: true, Lat: float64(i*13 - 70), Lon: float64(i*29 - 170)})
		all = append(all, Choice{To: fmt.Sprintf("e%d", i), Weight: uint32(i + 1)})
	}
	var names []string
	for i := range roots {
		name := fmt.Sprintf("near%d", i)
		near := Policy{Name: name, Kind: Latency}
		for _, e := range all[:3+i%9] {
			near.Choices = append(near.Choices, Choice{To: e.To})
		}
		c.Policies = append(c.Policies, near, Policy{Name: fmt.Sprintf("some%d", i), Kind: Weighted, Choices: all}, Policy{
			Name: fmt.Sprintf("geo%d", i), Kind: Geo,
			Map: []Rule{rule(t, "europe", fmt.Sprintf("some%d", i)), rule(t, "AB", "e3"), rule(t, "CD", name), rule(t, "10.0.0.0/24", "e4"), rule(t, "default", name)},
		})
		names = append(names, fmt.Sprintf("geo%d", i))
	}
	return c, names
}

func TestDecideAllocatesNothing(t *testing.T) {
	w := newWorld(t, 1)
	g := blocks10k(t)
	c, roots := fleet(t, 1)
	c.Policies = append(c.Policies, Policy{Name: "many", Kind: Multivalue, Choices: among("e1", "e2", "e3", "geo0")})
	s := mustCompile(t, c, g, append(roots, "many")...)
	st := s.NewState()
	st.Endpoints[3].Health = Down
	var d Decision
	for _, name := range []string{"geo0", "many"} {
		root, _ := s.Root(name)
		q := w.query()
		s.Decide(root, q, st, &d)
		if n := testing.AllocsPerRun(500, func() {
			q.Draw = w.rnd.Uint64()
			q.Now++
			s.Decide(root, q, st, &d)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ResolverDraw([16]byte{1}, netip.IPv6LinkLocalAllNodes()) }); n != 0 {
		t.Errorf("ResolverDraw: %v allocations", n)
	}
}

// TestBigAtlas checks the blocks of a real size against their invariants, and
// random clients against the rules as written.
func TestBigAtlas(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles half a million networks")
	}
	g := country(t, 1)
	c, roots := fleet(t, 2)
	s := mustCompile(t, c, g, roots...)
	for _, r := range s.roots {
		for i, f := range families {
			checkTable(t, f, &r.atlas.tables[i])
		}
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	var d, x Decision
	for range 2000 {
		b := g.blocks[rnd.IntN(len(g.blocks))].Prefix
		a := []netip.Addr{b.Addr(), lastAddr(b)}[rnd.IntN(2)]
		q := Query{Client: netip.PrefixFrom(a, a.BitLen()), Draw: rnd.Uint64()}
		root := Name(rnd.IntN(len(roots)))
		s.Decide(root, q, nil, &d)
		s.Explain(root, q, nil, &x)
		if !slices.Equal(d.Endpoints, x.Endpoints) || d.Scope != x.Scope || d.TTL != x.TTL {
			t.Fatalf("%v: Decide %+v, Explain %+v%s", a, d, x, why(&x))
		}
	}
}

func checkTable(t *testing.T, f family, tb *table) {
	t.Helper()
	at := uint64(0)
	for i, b := range tb.blocks {
		size := f.size(int(b.length))
		if b.start != at || b.start%size != 0 || int(b.length) > f.maxBits || b.length < 1 {
			t.Fatalf("block %d is at unit %d /%d, the one before ends at %d", i, b.start, b.length, at)
		}
		if i > 0 && (b.deep < b.length || int(b.deep) > f.maxBits) {
			t.Fatalf("block %d: the longest block around its start is /%d, and it is /%d itself", i, b.deep, b.length)
		}
		at += size
		for _, u := range []uint64{b.start, at - 1} {
			if got := tb.find(u); got != i {
				t.Fatalf("unit %d is found in block %d, want %d", u, got, i)
			}
		}
	}
	if at != f.units() {
		t.Fatalf("the blocks end at unit %d of %d", at, f.units())
	}
	t.Logf("%d blocks to /%d", len(tb.blocks), f.maxBits)
}

func TestCutIsBounded(t *testing.T) {
	f := families[0]
	runs := []run[uint16]{{1, 1}, {f.units(), 2}} // one /24, then the rest in 24 blocks
	blocks, err := cut(f, runs, 25)
	if err != nil || len(blocks) != 25 {
		t.Fatalf("%d blocks, %v, want 25", len(blocks), err)
	}
	_, err = cut(f, runs, 24)
	if !errors.Is(err, errTooManyBlocks) {
		t.Fatalf("error %v, want %v", err, errTooManyBlocks)
	}
	if got := tooLarge("by-city", err).Error(); !strings.HasPrefix(got, "policy.by-city: its maps and latency rankings cut the address space into more than 2097152 blocks") {
		t.Errorf("the user reads %q", got)
	}
}

func TestRegionsAreBounded(t *testing.T) {
	g := mustPlaces(t, Place{mustPrefix("10.0.0.0/8"), Location{Country: "DE"}}, Place{mustPrefix("11.0.0.0/8"), Location{Country: "US"}})
	c := Config{Endpoints: edges("a", "b", "c"), Policies: []Policy{
		{Name: "p", Kind: Geo, Map: []Rule{rule(t, "DE", "a"), rule(t, "US", "b"), rule(t, "default", "c")}},
	}}
	s := mustCompile(t, c, g, "p")
	sv, err := look(g, nil, s.keep())
	if err != nil {
		t.Fatal(err)
	}
	r := newRegions(s, []*ranker{newRanker(s, sv, 0)}, len(sv.classes), 0)
	for _, limit := range []int{3, 2} {
		r.limit, r.ids = limit, map[string]int32{}
		for i := range r.byClass {
			r.byClass[i] = -1
		}
		_, err := newAtlas(sv, r)
		if (err == nil) != (limit == 3) {
			t.Errorf("three regions with a limit of %d: %v", limit, err)
		}
		if err != nil && !strings.HasPrefix(tooLarge("p", err).Error(), "policy.p: its maps and latency rankings tell more than 2 kinds") {
			t.Errorf("the user reads %q", tooLarge("p", err))
		}
	}
}

// disorder is a geography that breaks its contract.
type disorder []netip.Prefix

func (d disorder) Lookup(a netip.Addr) (Location, netip.Prefix) {
	return Location{}, netip.PrefixFrom(a, a.BitLen())
}

func (d disorder) Within(p netip.Prefix) iter.Seq2[netip.Prefix, Location] {
	return func(yield func(netip.Prefix, Location) bool) {
		for _, b := range d {
			if b.Addr().Is4() == p.Addr().Is4() && !yield(b, Location{Country: "DE"}) {
				return
			}
		}
	}
}

func TestGeographyOutOfOrder(t *testing.T) {
	c := Config{Endpoints: edges("a"), Policies: []Policy{{Name: "p", Kind: Geo, Map: []Rule{rule(t, "default", "a")}}}}
	for _, d := range []disorder{
		{mustPrefix("10.2.0.0/16"), mustPrefix("10.1.0.0/16")},
		{mustPrefix("10.0.0.0/8"), mustPrefix("10.1.0.0/16")},
		{mustPrefix("10.0.0.0/30"), mustPrefix("10.0.0.0/30")},
		{netip.MustParsePrefix("10.1.0.0/8")},
	} {
		if _, err := Compile(c, []string{"p"}, d); err == nil || !strings.Contains(err.Error(), "out of order") {
			t.Errorf("%v: error %v, want one that says what is out of order", d, err)
		}
	}
	if _, err := Compile(c, []string{"p"}, disorder{mustPrefix("10.0.0.0/30"), mustPrefix("10.0.0.4/30"), mustPrefix("11.0.0.0/8")}); err != nil {
		t.Errorf("a geography in order is refused: %v", err)
	}
}

func BenchmarkDecide(b *testing.B) {
	c, roots := fleet(b, 1)
	s := mustCompile(b, c, country(b, 1), roots...)
	st := s.NewState()
	rnd := rand.New(rand.NewPCG(1, 1))
	clients := make([]Query, 1<<14)
	for i := range clients {
		a := netip.AddrFrom4([4]byte{byte(rnd.IntN(224)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), 1})
		if i%4 == 0 {
			a = netip.AddrFrom16([16]byte{0x20 + byte(rnd.IntN(32)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})
		}
		clients[i] = Query{Client: netip.PrefixFrom(a, a.BitLen()), Draw: rnd.Uint64(), Now: 1}
	}
	var d Decision
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.Decide(0, clients[i&(len(clients)-1)], st, &d)
		i++
	}
}

// BenchmarkCompile compiles ten roots over a country database.
func BenchmarkCompile(b *testing.B) {
	g := country(b, 1)
	c, roots := fleet(b, 10)
	b.ReportAllocs()
	for b.Loop() {
		mustCompile(b, c, g, roots...)
	}
}
