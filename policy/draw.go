package policy

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"perigee.example/internal/siphash"
)

// ResolverDraw returns the Draw of a resolver: a keyed hash (SipHash-2-4) of
// its /24 or /48 under the server's secret seed. Resolvers of one farm often
// share such a network, and so share their answers.
func ResolverDraw(seed [16]byte, resolver netip.Addr) uint64 {
	resolver = resolver.Unmap()
	// The family, then the network.
	if resolver.Is4() {
		a := resolver.As4()
		return siphash.Word(seed, 4|uint64(a[0])<<8|uint64(a[1])<<16|uint64(a[2])<<24, 1+MaxBits4/8)
	}
	a := resolver.As16()
	return siphash.Word(seed, 6|binary.LittleEndian.Uint64(a[:])<<(64-MaxBits6)>>(64-MaxBits6-8), 1+MaxBits6/8)
}

// mix spreads every bit of x over all of the result; it is a bijection (the
// finalizer of SplitMix64 with Stafford's thirteenth set of constants).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// nameHash is the part of a level's draw that comes from its name, so that two
// levels draw independently (FNV-1a, mixed).
func nameHash(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return mix(h)
}

// blockKey is what the levels of one decision have in common: the resolver,
// through its draw, and the block that the client's answer is for. The block
// of scope 0 is the same for both families. start counts in /24 or /48.
func blockKey(draw uint64, is4 bool, start uint64, length int) uint64 {
	tag := uint64(length)
	if is4 && length > 0 {
		tag |= 1 << 8
	}
	return mix(mix(draw^start) ^ tag)
}

// levelDraw is the draw of one level: uniform, the same throughout an epoch of
// length ttl. The phase of the epoch is shifted for each key, so that the
// fleet's answers do not all flip at once. now and ttl are positive.
func levelDraw(key, name uint64, ttl, now time.Duration) uint64 {
	// The epoch is (now + phase) / ttl, without a division that would have to
	// wait for the key, and without a branch that half of the keys take.
	epoch, since := uint64(now)/uint64(ttl), uint64(now)%uint64(ttl)
	key = mix(key ^ name)
	phase := mix(key) % uint64(ttl)
	_, same := bits.Sub64(since+phase, uint64(ttl), 0)
	return mix(mix(key+1) ^ (epoch + 1 - same))
}

// raceTime is how long a choice takes in the race that draw starts, at weight 1:
// exponentially distributed (with mean 1/ln 2), independent of the other
// choices, and positive. Divided by their weights, each choice's is the least
// with the probability weight/sum.
//
// It is -log2 of a uniform fraction, the logarithm of the mantissa by a
// polynomial that is exact at both ends and off by 3e-6 at most, which is as
// much as a share can be off. math.Log costs three times as much.
func raceTime(draw, choice uint64) float64 { return minusLog2(mix(draw^choice) | 1) }

// minusLog2 is the logarithm of 2^64 by h, which is not 0. It is small enough for
// the compiler to put it where it is used.
func minusLog2(h uint64) float64 {
	zeros := bits.LeadingZeros64(h)
	t := float64(h<<(zeros&63)<<1>>12) / (1 << 52) // the fraction is (1+t) / 2^(zeros+1); &63 spares a check, and 1 ns of a race
	q := 0.44252727267 + t*(-0.27538620743+t*(0.18115420362+t*(-0.09481475341+t*0.02528550604)))
	return float64(zeros+1) - (t + t*(1-t)*q)
}
