package policy

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestResolverDraw(t *testing.T) {
	draw := func(seed byte, addr string) uint64 {
		return ResolverDraw([16]byte{seed}, netip.MustParseAddr(addr))
	}
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.255", true},
		{"192.0.2.1", "192.0.3.1", false},
		{"192.0.2.1", "::ffff:192.0.2.9", true},
		{"2001:db8:1::1", "2001:db8:1:ffff::2", true},
		{"2001:db8:1::1", "2001:db8:2::1", false},
		{"0.0.0.1", "::1", false},
	} {
		if same := draw(1, test.a) == draw(1, test.b); same != test.same {
			t.Errorf("%s and %s have the same draw: %v, want %v", test.a, test.b, same, test.same)
		}
	}
	if draw(1, "192.0.2.1") == draw(2, "192.0.2.1") {
		t.Error("the seed does not matter")
	}
}

// TestRace: times are exponentially distributed, and independent from choice to
// choice.
func TestRace(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	const n = 100_000
	sum, late, both := 0.0, 0, 0
	for range n {
		draw := rnd.Uint64()
		x, y := math.Ln2*raceTime(draw, nameHash("a")), math.Ln2*raceTime(draw, nameHash("b"))
		if !(x > 0) || math.IsInf(x, 0) {
			t.Fatalf("draw %#x takes %v", draw, x)
		}
		sum += x
		if x > 1 {
			late++
			if y > 1 {
				both++
			}
		}
	}
	if mean := sum / n; math.Abs(mean-1) > 4/math.Sqrt(n) {
		t.Errorf("the mean is %v, want 1", mean)
	}
	within4Sigma(t, "later than the mean", late, n, 1/math.E)
	within4Sigma(t, "two later than the mean", both, n, 1/math.E/math.E)
}

// TestLevelDrawEpoch: a draw holds for exactly one TTL, and keys change at
// different times.
func TestLevelDrawEpoch(t *testing.T) {
	const ttl = 30 * time.Second
	rnd := rand.New(rand.NewPCG(7, 7))
	atStep := make(map[int]int)
	for range 2000 {
		key, start := rnd.Uint64(), 1_700_000_000*time.Second
		changes, last := 0, levelDraw(key, 1, ttl, start)
		for step := 1; step <= 30; step++ {
			now := levelDraw(key, 1, ttl, start+time.Duration(step)*time.Second)
			if now != last {
				changes++
				atStep[step]++
			}
			last = now
		}
		if changes != 1 {
			t.Fatalf("key %#x: %d changes within one TTL, want 1", key, changes)
		}
	}
	for step := 1; step <= 30; step++ { // 2000/30, 4σ is about 32
		if n := atStep[step]; n < 34 || n > 99 {
			t.Errorf("second %d: %d of 2000 keys change, want about 67", step, n)
		}
	}
}

// TestLevelDrawFormula: the epoch is (now + phase) / ttl, as it stands in the
// comment, which nodes of another version have in common with this one.
func TestLevelDrawFormula(t *testing.T) {
	const seed1, seed2 = 8, 9
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	for range 100_000 {
		key, name, ttl := rnd.Uint64(), rnd.Uint64(), time.Duration(1+rnd.Int64N(int64(MaxTTL)))
		now := time.Duration(rnd.Int64N(1 << 62))
		inner := mix(key ^ name)
		phase := time.Duration(mix(inner) % uint64(ttl))
		switch rnd.IntN(4) {
		case 0: // just over the end, or just not
			now -= (now+phase)%ttl + time.Duration(rnd.IntN(2))
		case 1:
			now = time.Duration(rnd.Int64N(int64(ttl)))
		}
		if got, want := levelDraw(key, name, ttl, max(now, 0)), mix(mix(inner+1)^uint64((max(now, 0)+phase)/ttl)); got != want {
			t.Fatalf("key %#x, name %#x, ttl %d, now %d: %#x, want %#x (seed %d, %d)", key, name, ttl, now, got, want, seed1, seed2)
		}
	}
}
