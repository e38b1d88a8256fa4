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
		blocks += n[0] + n[1]
	}
	return set, roots, fmt.Sprintf("Atlas of %d names over the built-in data: %d blocks, built in %v, %.1f MiB",
		len(roots), blocks, took.Round(time.Millisecond), float64(int64(heap()-before))/(1<<20))
}

// TestScopesAreExactAndMinimalOnRealData takes 10,000 random blocks of ten
// names and asks the rules as written, without the blocks: inside a block they
// say the same of everybody, and with one bit less they do not. Blocks that
// had to stop at /24 or /48 are counted apart.
func TestScopesAreExactAndMinimalOnRealData(t *testing.T) {
	const seed, blocks = 11, 10_000
	t.Logf("seed %d", seed)
	set, roots := compileReal(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	witnesses := make([]policy.Witness, len(roots))
	for i := range witnesses {
		witnesses[i] = policy.NewWitness(set, policy.Name(i))
	}
	largest := [2]int{24, 48}
	halves, atLimit, cutOff := 0, [2]int{}, [2]int{}
	for i := range blocks {
		root := rnd.IntN(len(roots))
		w, fam := witnesses[root], i%2
		p := set.Block(policy.Name(root), fam, rnd.IntN(set.Blocks(policy.Name(root))[fam]))
		if !w.Agree(p) {
			t.Fatalf("seed %d: %s: block %v holds clients of whom the rules say different things", seed, roots[root], p)
		}
		if p.Bits() == largest[fam] {
			atLimit[fam]++
			if w.Split(p) {
				cutOff[fam]++
			}
		}
		if p.Bits() == 1 {
			halves++ // a scope of 0 would hold for the other family too
			continue
		}
		if parent := netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked(); w.Agree(parent) {
			t.Fatalf("seed %d: %s: block %v could be %v: the rules say the same of everybody in it", seed, roots[root], p, parent)
		}
	}
	t.Logf("%d blocks: %d at /24 and %d at /48, of them cut off there %d and %d; halves of a family %d",
		blocks, atLimit[0], atLimit[1], cutOff[0], cutOff[1], halves)
	if atLimit[0] < 100 || atLimit[1] < 100 {
		t.Error("too few blocks at the limits came up")
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
		set.Decide(root, q, st, &d)
		if d.Scope == 0 || d.Scope > q.Client.Bits() {
			continue
		}
		block := netip.PrefixFrom(q.Client.Addr(), d.Scope).Masked()
		tried[block.Addr().Is4()]++
		for range clients {
			q.Client = clientIn(rnd, block)
			if set.Decide(root, q, st, &other); !slices.Equal(d.Endpoints, other.Endpoints) || d.TTL != other.TTL || d.Scope != other.Scope || d.Open != other.Open {
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
