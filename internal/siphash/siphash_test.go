package siphash

import (
	"encoding/binary"
	"testing"
)

// TestSipHash has the vectors of the paper's appendix A and of the reference
// code's first lengths: key 00 01 … 0f, input 00 01 … of each length.
func TestSipHash(t *testing.T) {
	var key [16]byte
	for i := range key {
		key[i] = byte(i)
	}
	input := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	for _, test := range []struct {
		length int
		want   uint64
	}{
		{0, 0x726fdb47dd0e0e31},
		{1, 0x74f839c593dc67fd},
		{7, 0xab0200f58b01d137},
		{8, 0x93f5f5799a932462},
		{15, 0xa129ca6149be45e5},
	} {
		if got := Sum64(key, input[:test.length]); got != test.want {
			t.Errorf("%d octets: %#x, want %#x", test.length, got, test.want)
		}
		if x := binary.LittleEndian.Uint64(input[:8]) & (1<<(8*test.length) - 1); test.length < 8 && Word(key, x, test.length) != test.want {
			t.Errorf("Word of %d octets: %#x, want %#x", test.length, Word(key, x, test.length), test.want)
		}
	}
}
