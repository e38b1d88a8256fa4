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

// share is the first draw of x, a fraction of all draws.
func share(numerator, denominator uint64) uint64 {
	return uint64(math.Ceil(float64(numerator)/float64(denominator)*(1<<53)) * (1 << 11))
}

func TestPickWeighted(t *testing.T) {
	for _, test := range []struct {
		weights []uint32
		draw    uint64
		want    int
	}{
		{[]uint32{1}, 0, 0},
		{[]uint32{1}, math.MaxUint64, 0},
		{[]uint32{90, 0, 10}, 0, 0},
		{[]uint32{90, 0, 10}, share(9, 10) - 1<<12, 0}, // just before, then on, the boundary
		{[]uint32{90, 0, 10}, share(9, 10), 2},
		{[]uint32{90, 0, 10}, math.MaxUint64, 2},
		{[]uint32{1, 1}, 1<<63 - 1, 0},
		{[]uint32{1, 1}, 1 << 63, 1},
		{[]uint32{0, 0, 1, 0}, 0, 2},
		{[]uint32{0, 0, 1, 0}, math.MaxUint64, 2},
		{[]uint32{math.MaxUint32, math.MaxUint32}, 1<<63 - 1, 0},
		{[]uint32{math.MaxUint32, math.MaxUint32}, 1 << 63, 1},
	} {
		if got := pickWeighted(test.weights, test.draw); got != test.want {
			t.Errorf("pickWeighted(%v, %#x) = %d, want %d", test.weights, test.draw, got, test.want)
		}
	}
}

// TestPickWeightedExact steps over the whole range of draws: each index comes
// up exactly in proportion.
func TestPickWeightedExact(t *testing.T) {
	weights := []uint32{3, 0, 1, 4, 8} // they add up to 16
	const steps = 1 << 12
	var counts [5]int
	for i := range uint64(steps) {
		counts[pickWeighted(weights, i<<52)]++
	}
	for i, w := range weights {
		if want := int(w) * steps / 16; counts[i] != want {
			t.Errorf("index %d came up %d times of %d, want %d", i, counts[i], steps, want)
		}
	}
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
