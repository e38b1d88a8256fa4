package policy

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
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
	planned := s.NewState()
	s.Prepare(planned)
	for i, name := range []string{"geo0", "many", "geo0"} {
		root, _ := s.Root(name)
		q := w.query()
		if i == 2 {
			st = planned
		}
		s.Decide(root, &q, st, &d)
		if n := testing.AllocsPerRun(500, func() {
			q.Draw = w.rnd.Uint64()
			q.Now++
			s.Decide(root, &q, st, &d)
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
		checkTable(t, families[0], &r.atlas.four)
		checkTable(t, families[1], &r.atlas.six)
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	var d, x Decision
	for range 2000 {
		b := g.blocks[rnd.IntN(len(g.blocks))].Prefix
		a := []netip.Addr{b.Addr(), lastAddr(b)}[rnd.IntN(2)]
		q := Query{Client: netip.PrefixFrom(a, a.BitLen()), Draw: rnd.Uint64()}
		root := Name(rnd.IntN(len(roots)))
		s.Decide(root, &q, nil, &d)
		s.Explain(root, q, nil, &x)
		if !slices.Equal(d.Endpoints, x.Endpoints) || d.Scope != x.Scope || d.TTL != x.TTL {
			t.Fatalf("%v: Decide %+v, Explain %+v%s", a, d, x, why(&x))
		}
	}
}

func checkTable[C uint32 | uint64](t *testing.T, f family, tb *table[C]) {
	t.Helper()
	at := uint64(0)
	for i, p := range tb.blocks(f) {
		size := f.size(p.Bits())
		if at%size != 0 || p.Bits() > f.maxBits || p.Bits() < 1 {
			t.Fatalf("block %d is %v", i, p)
		}
		for _, u := range []uint64{at, at + size - 1} {
			if got := tb.find(f, u); got != i {
				t.Fatalf("unit %d is found in block %d, want %d", u, got, i)
			}
		}
		at += size
	}
	if at != f.units() {
		t.Fatalf("the blocks end at unit %d of %d", at, f.units())
	}
	t.Logf("%d blocks to /%d, %d buckets with an index, %d wide nodes", len(tb.cells), f.maxBits, len(tb.steps), len(tb.wide))
}

// TestCoarsens bounds the blocks of latency policies of the real data ever
// more: latency is coarsened, and maps never. The compiled tables go on to
// agree with the rules as written.
func TestCoarsens(t *testing.T) {
	var list []Place
	for i := range 4096 { // a way around the globe, through 64 countries
		loc := Location{Country: string([]byte{'A' + byte(i/512), 'A' + byte(i/64%8)}), Continent: "EU", Located: true, Lat: 60 * math.Sin(float64(i)/300), Lon: float64(i)/4096*360 - 180}
		list = append(list, Place{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 4), byte(i << 4), 0}), 20), loc})
	}
	g := mustPlaces(t, list...)
	c, _ := fleet(t, 9) // near8 has eleven choices
	c.Policies = append(c.Policies, Policy{Name: "geo", Kind: Geo, Map: []Rule{rule(t, "AB", "e1"), rule(t, "CD", "e2"), rule(t, "EF", "e3"), rule(t, "default", "near8")}})
	roots := []string{"near8", "geo"}
	fine := mustCompile(t, c, g, roots...)
	steps := map[time.Duration]int{}
	refused := 0
	rnd := rand.New(rand.NewPCG(6, 6))
	var d, x Decision
	for _, name := range roots {
		root, _ := fine.Root(name)
		blocks := len(fine.Blocks(root)[0]) + len(fine.Blocks(root)[1])
		for _, share := range []int{100, 90, 75, 50, 25, 10, 1} {
			s, err := compile(c, []string{name}, g, limits{blocks*share/100 + 2, maxRegions})
			if err != nil {
				refused++
				if many := (*tooManyBlocks)(nil); !strings.Contains(err.Error(), "cut the address space into more than") || errors.As(err, &many) {
					t.Errorf("%s: error %v", name, err)
				}
				continue
			}
			got := s.Blocks(0)
			if n := len(got[0]) + len(got[1]); n > blocks*share/100+2 {
				t.Errorf("%s: %d blocks within %d", name, n, blocks*share/100+2)
			}
			steps[s.Coarse(0)]++
			for range 5 {
				b := g.blocks[rnd.IntN(len(g.blocks))].Prefix
				q := Query{Client: netip.PrefixFrom(b.Addr(), b.Addr().BitLen()), Draw: rnd.Uint64()}
				s.Decide(0, &q, nil, &d)
				s.Explain(0, q, nil, &x)
				if !slices.Equal(d.Endpoints, x.Endpoints) || d.Scope != x.Scope || d.TTL != x.TTL {
					t.Fatalf("%s in steps of %v, %v: Decide %+v, Explain %+v%s", name, s.Coarse(0), q.Client, d, x, why(&x))
				}
			}
		}
	}
	t.Logf("compiled with latency in steps of %v; %d times the maps alone were too much", steps, refused)
	if len(steps) < 3 || steps[0] == 0 || refused == 0 {
		t.Error("too few outcomes came up")
	}
}

func TestCutIsBounded(t *testing.T) {
	g := mustPlaces(t, Place{mustPrefix("10.0.0.0/24"), Location{Country: "DE"}}) // one /24 of IPv4, which leaves 24 blocks, and two of IPv6
	c := Config{Endpoints: edges("a", "b"), Policies: []Policy{{Name: "p", Kind: Geo, Map: []Rule{rule(t, "DE", "a"), rule(t, "default", "b")}}}}
	s, err := compile(c, []string{"p"}, g, limits{27, maxRegions})
	if err != nil || len(s.Blocks(0)[0]) != 25 || len(s.Blocks(0)[1]) != 2 {
		t.Fatalf("%v, want 25 and 2 blocks", err)
	}
	_, err = compile(c, []string{"p"}, g, limits{26, maxRegions})
	if err == nil || !strings.HasPrefix(err.Error(), "policy.p: its maps and latency rankings cut the address space into more than 26 blocks") {
		t.Errorf("the user reads %v", err)
	}
}

func TestRegionsAreBounded(t *testing.T) {
	g := mustPlaces(t, Place{mustPrefix("10.0.0.0/8"), Location{Country: "DE"}}, Place{mustPrefix("11.0.0.0/8"), Location{Country: "US"}})
	c := Config{Endpoints: edges("a", "b", "c"), Policies: []Policy{
		{Name: "p", Kind: Geo, Map: []Rule{rule(t, "DE", "a"), rule(t, "US", "b"), rule(t, "default", "c")}},
	}}
	for _, limit := range []int{3, 2} {
		_, err := compile(c, []string{"p"}, g, limits{maxBlocks, limit})
		if (err == nil) != (limit == 3) {
			t.Errorf("three regions with a limit of %d: %v", limit, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "policy.p: its maps and latency rankings tell more than 2 kinds") {
			t.Errorf("the user reads %q", err)
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
	s.Prepare(st)
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
		s.Decide(0, &clients[i&(len(clients)-1)], st, &d)
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
