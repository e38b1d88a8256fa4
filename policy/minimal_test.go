package policy_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"perigee.example/internal/geo"
	"perigee.example/policy"
)

var realSet struct {
	once  sync.Once
	set   *policy.Set
	roots []string
	cost  string
}

// compileReal compiles ten roots over the built-in country data, once for all
// tests, and says what that costs.
func compileReal(t testing.TB) (*policy.Set, []string) {
	t.Helper()
	realSet.once.Do(func() { realSet.set, realSet.roots, realSet.cost = measureReal(t) })
	t.Log(realSet.cost)
	return realSet.set, realSet.roots
}

func measureReal(t testing.TB) (*policy.Set, []string, string) {
	db, err := geo.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	c, roots := realFleet(t)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	began := time.Now()
	set, err := policy.Compile(c, roots, db)
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for i := range roots {
		n := set.Blocks(policy.Name(i))
		blocks += len(n[0]) + len(n[1])
	}
	return set, roots, fmt.Sprintf("Atlas of %d names over the built-in data: %d blocks, built in %v, %.1f MiB",
		len(roots), blocks, took.Round(time.Millisecond), float64(int64(heap()-before))/(1<<20))
}

// blockCounts says what kinds of block came up.
type blockCounts struct {
	tried           int
	atLimit, cutOff [2]int // IPv4 at /24, IPv6 at /48; those that would be smaller but for the limit
	halves          int    // of a family: a scope of 0 would hold for the other one too
}

// hold takes n random blocks of a root, half of each family, and asks the rules
// as written, without the blocks: inside a block they say the same of
// everybody, and with one bit less they do not.
func (c *blockCounts) hold(t *testing.T, rnd *rand.Rand, set *policy.Set, root policy.Name, n int) {
	t.Helper()
	w, list := policy.NewWitness(set, root), set.Blocks(root)
	for i := range n {
		fam := i % 2
		p := list[fam][rnd.IntN(len(list[fam]))]
		c.tried++
		if !w.Agree(p) {
			t.Fatalf("root %d: block %v holds clients of whom the rules say different things", root, p)
		}
		if p.Bits() == [2]int{policy.MaxBits4, policy.MaxBits6}[fam] {
			c.atLimit[fam]++
			if w.Split(p) {
				c.cutOff[fam]++
			}
		}
		if p.Bits() == 1 {
			c.halves++
			continue
		}
		if parent := netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked(); w.Agree(parent) {
			t.Fatalf("root %d: block %v could be %v: the rules say the same of everybody in it", root, p, parent)
		}
	}
}

func (c *blockCounts) String() string {
	return fmt.Sprintf("%d blocks hold: %d are /24 and %d /48, of them cut off there %d and %d; %d are half a family",
		c.tried, c.atLimit[0], c.atLimit[1], c.cutOff[0], c.cutOff[1], c.halves)
}

// TestScopesAreExactAndMinimalOnRealData: 10,000 random blocks of ten names,
// and apart from them those of a name whose latency was coarsened.
func TestScopesAreExactAndMinimalOnRealData(t *testing.T) {
	const seed, blocks, coarsened = 11, 10_000, 1000
	t.Logf("seed %d", seed)
	set, roots := compileReal(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var counts, coarse blockCounts
	for i := range roots {
		if step := set.Coarse(policy.Name(i)); step != 0 {
			t.Errorf("%s is coarsened to %v", roots[i], step)
		}
		counts.hold(t, rnd, set, policy.Name(i), blocks/len(roots))
	}
	t.Log(&counts)
	if min(counts.atLimit[0], counts.atLimit[1]) < 100 || counts.tried != blocks {
		t.Error("too few blocks at the limits came up")
	}
	db, err := geo.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := realFleet(t)
	few, err := policy.CompileWithin(c, []string{"near4"}, db, 900_000, 1000)
	if err != nil {
		t.Fatal(err)
	}
	coarse.hold(t, rnd, few, 0, coarsened)
	t.Logf("coarsened to steps of %v: %v", few.Coarse(0), &coarse)
	if few.Coarse(0) == 0 {
		t.Error("nothing was coarsened")
	}
}

// TestTenThousandInAScope asks, on the built-in data, for 10,000 random clients
// inside each of a sample of returned scopes, in a state with something down.
func TestTenThousandInAScope(t *testing.T) {
	const seed, scopes, clients = 12, 60, 10_000
	t.Logf("seed %d", seed)
	set, roots := compileReal(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	st := set.NewState()
	st.Endpoints[rnd.IntN(len(st.Endpoints))].Health = policy.Down
	var d, other policy.Decision
	tried := map[bool]int{}
	for tried[true]+tried[false] < scopes {
		root := policy.Name(rnd.IntN(len(roots)))
		q := policy.Query{Client: realClient(rnd), Draw: rnd.Uint64(), Now: time.Hour}
		set.Decide(root, &q, st, &d)
		if d.Scope == 0 || d.Scope > q.Client.Bits() {
			continue
		}
		block := netip.PrefixFrom(q.Client.Addr(), d.Scope).Masked()
		tried[block.Addr().Is4()]++
		for range clients {
			q.Client = clientIn(rnd, block)
			if set.Decide(root, &q, st, &other); !slices.Equal(d.Endpoints, other.Endpoints) || d.TTL != other.TTL || d.Scope != other.Scope || d.Open != other.Open {
				t.Fatalf("seed %d: %s: scope %v has %+v, and %v in it %+v", seed, roots[root], block, d, q.Client, other)
			}
		}
	}
	t.Logf("%d scopes of IPv4 and %d of IPv6, %d clients in each", tried[true], tried[false], clients)
	if min(tried[true], tried[false]) < scopes/4 {
		t.Error("one family came up too seldom")
	}
}

// clientIn is a random SOURCE in p.
func clientIn(rnd *rand.Rand, p netip.Prefix) netip.Prefix {
	var noise [16]byte
	binary.NativeEndian.PutUint64(noise[:], rnd.Uint64())
	binary.NativeEndian.PutUint64(noise[8:], rnd.Uint64())
	b := p.Addr().AsSlice()
	for i := range b {
		own := max(0, min(8, p.Bits()-8*i)) // bits of this octet that are p's
		b[i] |= noise[i] & (0xFF >> own)
	}
	a, _ := netip.AddrFromSlice(b) // the length is that of an address
	return netip.PrefixFrom(a, p.Bits()+rnd.IntN(a.BitLen()-p.Bits()+1)).Masked()
}
