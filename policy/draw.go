package policy

import (
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
	var b [7]byte // the family, then the network
	n := 4
	if resolver.Is4() {
		a := resolver.As4()
		b[0] = 4
		copy(b[1:], a[:MaxBits4/8])
	} else {
		a := resolver.As16()
		b[0], n = 6, 7
		copy(b[1:], a[:MaxBits6/8])
	}
	return siphash.Sum64(seed, b[:n])
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
// fleet's answers do not all flip at once.
func levelDraw(key, name uint64, ttl, now time.Duration) uint64 {
	key = mix(key ^ name)
	phase := time.Duration(mix(key) % uint64(ttl))
	epoch := uint64((now + phase) / ttl)
	return mix(mix(key+1) ^ epoch)
}

// pickWeighted returns the index of the weight that draw lands on, where draw
// is uniform over all uint64. Index i comes up weights[i]/sum of the time.
// A weight of 0 is never picked. At least one weight must be positive.
func pickWeighted(weights []uint32, draw uint64) int {
	sum := uint64(0)
	for _, w := range weights {
		sum += uint64(w)
	}
	at, _ := bits.Mul64(draw, sum) // floor(draw/2^64 * sum)
	for i, w := range weights {
		if at < uint64(w) {
			return i
		}
		at -= uint64(w)
	}
	panic("policy: pickWeighted without a positive weight")
}
