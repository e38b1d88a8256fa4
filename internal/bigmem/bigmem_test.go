package bigmem

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestResize: a block holds what a plain slice would, through any sizes, mapped
// or not.
func TestResize(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		var b Block
		var want []byte
		wasMapped := false
		for range 20 {
			n := rng.IntN(4 * minMapped)
			if rng.IntN(2) == 0 {
				n = rng.IntN(1000)
			}
			b.Resize(n)
			if n <= len(want) {
				want = want[:n:n]
			} else {
				want = append(want, make([]byte, n-len(want))...)
			}
			if got := b.Bytes(); !bytes.Equal(got, want) {
				t.Fatalf("after a resize to %d the content differs", n)
			}
			for range 10 {
				if n > 0 {
					i := rng.IntN(n)
					b.Bytes()[i], want[i] = byte(i)|1, byte(i)|1
				}
			}
			wasMapped = wasMapped || b.Mapped()
		}
		if canMap != wasMapped {
			t.Errorf("mapped %v, can map %v", wasMapped, canMap)
		}
		b.Free()
		if b.Mapped() || len(b.Bytes()) != 0 {
			t.Error("a freed block is not empty")
		}
		b.Free()
	}
}

// TestNumbers: octets and numbers are the same memory.
func TestNumbers(t *testing.T) {
	for _, n := range []int{0, 64, 2 * minMapped} {
		var b Block
		b.Resize(n)
		if got := len(Words[uint32](b.Bytes())); got != n/4 {
			t.Errorf("%d octets are %d numbers of 4", n, got)
		}
		if n > 0 {
			Words[uint64](b.Bytes())[n/8-1] = 0x0101010101010101
			if b.Bytes()[n-8] != 1 || Words[uint32](b.Bytes())[n/4-1] != 0x01010101 {
				t.Error("a number written does not show")
			}
		}
		b.Free()
	}
	defer func() {
		if recover() == nil {
			t.Error("three octets are taken for a number")
		}
	}()
	Words[uint32](make([]byte, 3))
}

// TestRegion: pages come as they are touched, and are zero after they were
// given back.
func TestRegion(t *testing.T) {
	r, err := Reserve(4<<20, true)
	if !canMap {
		if err == nil {
			t.Error("a system without mappings has one")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	b := r.Bytes()
	for i := 0; i < len(b); i += 4096 {
		if b[i] != 0 {
			t.Fatal("not zero at first")
		}
		b[i] = 1
	}
	r.GiveBack(1<<20, 1<<20)
	for i := 0; i < len(b); i += 4096 {
		if given := i >= 1<<20 && i < 2<<20; given != (b[i] == 0) {
			t.Fatalf("at %d: %d", i, b[i])
		}
	}
	r.Free()
	r.Free()
	if len(r.Bytes()) != 0 {
		t.Error("a freed region is not empty")
	}
}
