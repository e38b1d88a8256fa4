package policy

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
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
	return sipHash(seed, b[:n])
}

// sipHash is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input
// PRF", 2012): 64 bits of b that nobody without the key can predict.
func sipHash(key [16]byte, b []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	last := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		m := binary.LittleEndian.Uint64(b)
		v3 ^= m
		v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
		v0 ^= m
	}
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	v3 ^= last
	v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
	v0 ^= last
	v2 ^= 0xff
	v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
	v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
	return v0 ^ v1 ^ v2 ^ v3
}

func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v3
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 += v3
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 += v1
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
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
