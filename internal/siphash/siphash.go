// Package siphash is SipHash-2-4, the keyed hash behind draws, DNS cookies and
// the table of the rate limit: quick on short input, and not to be predicted or
// made to collide by who lacks the key.
//
//	key := [16]byte(secret)
//	h := siphash.Sum64(key, input)
//
// It is no substitute for a hash without a key: 64 bits collide by chance after
// some billions of inputs. It allocates nothing.
package siphash

import (
	"encoding/binary"
	"math/bits"
)

// Sum64 is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input
// PRF", 2012): 64 bits of b that nobody without the key can predict.
func Sum64(key [16]byte, b []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	last := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		m := binary.LittleEndian.Uint64(b)
		v3 ^= m
		v0, v1, v2, v3 = round(round(v0, v1, v2, v3))
		v0 ^= m
	}
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	return finish(v0, v1, v2, v3, last)
}

// Word is Sum64 of the first n octets of x, the lowest first; n is at most 7, and
// what is above them must be 0.
func Word(key [16]byte, x uint64, n int) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
	return finish(k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573, uint64(n)<<56|x)
}

// finish takes the last block in.
func finish(v0, v1, v2, v3, last uint64) uint64 {
	v3 ^= last
	v0, v1, v2, v3 = round(round(v0, v1, v2, v3))
	v0 ^= last
	v2 ^= 0xff
	v0, v1, v2, v3 = round(round(v0, v1, v2, v3))
	v0, v1, v2, v3 = round(round(v0, v1, v2, v3))
	return v0 ^ v1 ^ v2 ^ v3
}

func round(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
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
