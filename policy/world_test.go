package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is a random Config, Geography and State, made from one seed.
type world struct {
	seed  uint64
	rnd   *rand.Rand
	cfg   Config
	geo   *Places
	set   *Set
	roots []string
	nets  []netip.Prefix // networks worth asking from
	// planned counts questions by the runners of their leaf: 1, and 2 for more.
	planned [3]int
}

var (
	testCountries = []struct{ country, continent string }{{"DE", "EU"}, {"FR", "EU"}, {"US", "NA"}, {"SG", "AS"}, {"JP", "AS"}, {"BR", "SA"}}
	testWords     = []string{"default", "europe", "asia", "north-america", "DE", "FR", "US", "SG", "US-CA", "US-NY", "DE/Berlin", "US/Reno", "AS64500", "AS64501"}
)

func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	w := &world{seed: seed, rnd: rand.New(rand.NewPCG(seed, 1))}
	w.makeGeography(t)
	w.makeConfig()
	var err error
	if w.set, err = Compile(w.cfg, w.roots, w.geo); err != nil {
		t.Fatalf("seed %d: %v\n%+v", seed, err, w.cfg)
	}
	return w
}

// prefix is a random network in one of few places, so that they nest and meet.
func (w *world) prefix(max4, max6 int) netip.Prefix {
	var p netip.Prefix
	if w.rnd.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{10, byte(w.rnd.IntN(3)), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(256))})
		p = netip.PrefixFrom(a, 6+w.rnd.IntN(max4-5))
		if w.rnd.IntN(10) == 0 {
			p = netip.PrefixFrom(a, w.rnd.IntN(3))
		}
	} else {
		b := [16]byte{0x20, 0x01, 0x0d, byte(0xb8 + w.rnd.IntN(2)), byte(w.rnd.IntN(2)), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(256)), 15: byte(w.rnd.IntN(256))}
		p = netip.PrefixFrom(netip.AddrFrom16(b), 20+w.rnd.IntN(max6-19))
		if w.rnd.IntN(20) == 0 {
			p = netip.PrefixFrom(p.Addr(), w.rnd.IntN(8))
		}
	}
	return p.Masked()
}

func (w *world) makeGeography(t testing.TB) {
	seen := make(map[netip.Prefix]bool)
	var list []Place
	for range 2 + w.rnd.IntN(30) {
		p := w.prefix(27, 52)
		if seen[p] {
			continue
		}
		seen[p] = true
		w.nets = append(w.nets, p)
		list = append(list, Place{p, w.location()})
	}
	var err error
	if w.geo, err = NewPlaces(list); err != nil {
		t.Fatalf("seed %d: %v", w.seed, err)
	}
}

func (w *world) location() Location {
	if w.rnd.IntN(12) == 0 {
		return Location{}
	}
	c := testCountries[w.rnd.IntN(len(testCountries))]
	loc := Location{Country: c.country, Continent: c.continent, ASN: uint32(64500 + w.rnd.IntN(3))}
	if c.country == "US" {
		loc.Subdivision = []string{"", "CA", "NY"}[w.rnd.IntN(3)]
		loc.City = []string{"", "Reno"}[w.rnd.IntN(2)]
	}
	if w.rnd.IntN(3) > 0 {
		loc.Located, loc.Lat, loc.Lon = true, float64(w.rnd.IntN(5)*40-80), float64(w.rnd.IntN(8)*45-170)
	}
	return loc
}

func (w *world) makeConfig() {
	for i := range 1 + w.rnd.IntN(6) {
		w.cfg.Endpoints = append(w.cfg.Endpoints, Endpoint{
			Name: fmt.Sprintf("e%d", i), Located: w.rnd.IntN(4) > 0, Lat: float64(w.rnd.IntN(180) - 90), Lon: float64(w.rnd.IntN(360) - 180),
		})
	}
	for range 2 + w.rnd.IntN(6) {
		w.cfg.Policies = append(w.cfg.Policies, w.policy())
	}
	for _, p := range w.cfg.Policies {
		w.roots = append(w.roots, p.Name)
	}
	w.roots = append(w.roots, "e0")
}

// target is an endpoint or a policy made earlier, so that there are no loops.
func (w *world) target() string {
	if n := len(w.cfg.Policies); n > 0 && w.rnd.IntN(2) == 0 {
		return w.cfg.Policies[w.rnd.IntN(n)].Name
	}
	return w.cfg.Endpoints[w.rnd.IntN(len(w.cfg.Endpoints))].Name
}

func (w *world) policy() Policy {
	p := Policy{
		Name: fmt.Sprintf("p%d", len(w.cfg.Policies)), Kind: []Kind{Weighted, Latency, Latency, Geo, Geo, Geo, Failover, Multivalue}[w.rnd.IntN(8)],
		TTL: time.Duration(w.rnd.IntN(3)*20) * time.Second,
	}
	if p.Kind == Geo {
		for i, sel := range w.selectors() {
			if i == 0 {
				sel = Selector{}
			}
			p.Map = append(p.Map, Rule{sel, w.target()})
		}
		return p
	}
	for range 1 + w.rnd.IntN(4) {
		to := w.target()
		if slices.ContainsFunc(p.Choices, func(c Choice) bool { return c.To == to }) {
			continue
		}
		p.Choices = append(p.Choices, Choice{To: to})
	}
	switch p.Kind {
	case Weighted:
		for i := range p.Choices {
			p.Choices[i].Weight = uint32(w.rnd.IntN(4) * 10)
		}
		p.Choices[0].Weight++
	case Multivalue:
		p.Answers = w.rnd.IntN(4)
	case Latency:
		for _, sel := range w.selectors()[1:] {
			row := RTTRow{sel, map[string]time.Duration{}}
			for _, c := range p.Choices {
				if w.rnd.IntN(2) == 0 || len(row.RTT) == 0 {
					row.RTT[c.To] = time.Duration(w.rnd.IntN(5)*30) * time.Millisecond
				}
			}
			p.RTT = append(p.RTT, row)
		}
	}
	return p
}

// selectors are distinct; the first is the default.
func (w *world) selectors() []Selector {
	out := []Selector{{}}
	for range w.rnd.IntN(6) {
		sel := Selector{Prefix: w.prefix(MaxBits4, MaxBits6)}
		if w.rnd.IntN(2) == 0 {
			var err error
			if sel, err = ParseSelector(testWords[w.rnd.IntN(len(testWords))]); err != nil {
				panic(err)
			}
		} else {
			w.nets = append(w.nets, sel.Prefix)
		}
		if !slices.Contains(out, sel) {
			out = append(out, sel)
		}
	}
	return out
}

func (w *world) state() *State {
	st := w.set.NewState()
	sick := w.rnd.IntN(4)
	for i := range st.Endpoints {
		e := &st.Endpoints[i]
		e.Health = Health(w.rnd.IntN(2))
		if w.rnd.IntN(4) < sick {
			e.Health = Down
		}
		e.Draining = w.rnd.IntN(5) < sick-1
		if w.rnd.IntN(6) == 0 {
			e.Force = Force(w.rnd.IntN(3))
		}
	}
	return st
}

// client is a SOURCE of any length in or beside a network that rules or
// geography speak of.
func (w *world) client() netip.Prefix {
	p := w.prefix(32, 128)
	if len(w.nets) > 0 && w.rnd.IntN(4) > 0 {
		p = w.nets[w.rnd.IntN(len(w.nets))]
	}
	a := p.Addr()
	if w.rnd.IntN(3) == 0 {
		a = lastAddr(p)
		if w.rnd.IntN(2) == 0 && a.Next().IsValid() {
			a = a.Next()
		}
	}
	length := 1 + w.rnd.IntN(a.BitLen())
	switch w.rnd.IntN(3) {
	case 0:
		length = a.BitLen()
	case 1:
		length = families[familyOf(a)].maxBits
	}
	return netip.PrefixFrom(a, length).Masked()
}

func (w *world) query() Query {
	q := Query{Client: w.client(), Draw: w.rnd.Uint64(), Now: 1_700_000_000*time.Second + time.Duration(w.rnd.Int64N(int64(time.Hour)))}
	if w.rnd.IntN(4) == 0 {
		q.Only = make([]bool, len(w.cfg.Endpoints))
		for i := range q.Only {
			q.Only[i] = w.rnd.IntN(2) == 0
		}
	}
	return q
}

func (w *world) root() Name {
	at := max(w.rnd.IntN(len(w.roots)), w.rnd.IntN(len(w.roots)-1)) // the later, the more deeply nested
	n, ok := w.set.Root(w.roots[at])
	if !ok {
		panic("a root is not found")
	}
	return n
}

func why(d *Decision) string {
	var b strings.Builder
	for _, s := range d.Why {
		fmt.Fprintf(&b, "\n\t%s: %s", s.Policy, s.Text)
	}
	return b.String()
}

// TestExplainEqualsDecide evaluates 100,000 random questions in random worlds, of
// 26,000 clients in four states each: from the compiled tables, and from the rules
// as written.
func TestExplainEqualsDecide(t *testing.T) {
	const worlds, questions, states = 2000, 50, 4
	t.Logf("seeds 0 to %d", worlds-1)
	var short, open, nested, zero, none, fixed, raced int
	for seed := range uint64(worlds) {
		w := newWorld(t, seed)
		var d, x Decision
		var root Name
		var client netip.Prefix
		var land *terrain
		var where surroundings
		for i := range questions {
			q, st := w.query(), w.state()
			if i%states == 0 {
				root, client = w.root(), q.Client
				land = newTerrain(w.set, w.set.roots[root].name)
				where = land.around(normal(client))
			}
			q.Client = client
			w.set.Decide(root, &q, st, &d)
			w.samePlanned(t, root, q, st, &d)
			land.explain(where, q, st, &x)
			if !slices.Equal(d.Endpoints, x.Endpoints) || d.TTL != x.TTL || d.Scope != x.Scope || d.Open != x.Open || len(d.Endpoints) == 0 && q.Only == nil {
				t.Fatalf("seed %d, question %d: %s for %v:\nDecide:  %+v\nExplain: %+v%s\n%+v\n%+v", seed, i, w.set.roots[root].name, q.Client, d, x, why(&x), w.cfg, w.geo.blocks)
			}
			if d.Scope > q.Client.Bits() {
				short++
			}
			if d.Scope == 0 {
				zero++
			}
			if d.Open {
				open++
			}
			if len(d.Endpoints) == 0 {
				none++
			}
			for _, e := range d.Endpoints {
				if q.Only != nil && !q.Only[e] {
					t.Fatalf("seed %d, question %d: endpoint %d does not exist, and was chosen%s", seed, i, e, why(&x))
				}
			}
			if len(x.Why) > 4 {
				nested++
			}
		}
		fixed, raced = fixed+w.planned[1], raced+w.planned[2]
	}
	// The test is worth something only when it meets every kind of answer.
	t.Logf("%d short of their block, %d open, %d nested, %d of scope 0, %d without an endpoint that exists, %d planned to one and %d to a race", short, open, nested, zero, none, fixed, raced)
	if least := worlds * questions / 100; min(short, open, nested, zero, none, fixed, raced) < least {
		t.Errorf("some kind of answer came up less than %d times", least)
	}
}

// samePlanned demands the same decision of a prepared State.
func (w *world) samePlanned(t *testing.T, root Name, q Query, st *State, want *Decision) {
	t.Helper()
	w.set.Prepare(st)
	if l := st.planned(w.set, root, w.set.roots[root].atlas.locate(normal(q.Client)).region); l != nil && q.Only == nil {
		w.planned[min(len(l.runners), 2)]++
	}
	var d Decision
	if w.set.Decide(root, &q, st, &d); !slices.Equal(d.Endpoints, want.Endpoints) || d.TTL != want.TTL || d.Scope != want.Scope || d.Open != want.Open {
		t.Fatalf("seed %d: %s for %v: %+v of a prepared state, else %+v", w.seed, w.set.roots[root].name, q.Client, d, *want)
	}
}

// FuzzWorld lets the fuzzer look for worlds in which the compiler is wrong.
func FuzzWorld(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		var d, x Decision
		for range 20 {
			root, q, st := w.root(), w.query(), w.state()
			w.set.Decide(root, &q, st, &d)
			w.samePlanned(t, root, q, st, &d)
			w.set.Explain(root, q, st, &x)
			if len(d.Endpoints) == 0 && q.Only == nil || len(d.Endpoints) > MaxAnswers || !slices.Equal(d.Endpoints, x.Endpoints) || d.TTL != x.TTL || d.Scope != x.Scope || d.Open != x.Open {
				t.Fatalf("seed %d: %s for %v: Decide %+v, Explain %+v%s", seed, w.set.roots[root].name, q.Client, d, x, why(&x))
			}
		}
	})
}
