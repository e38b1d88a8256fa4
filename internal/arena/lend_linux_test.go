package arena

import (
	"bytes"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// TestLend: octets that the kernel has by reference stay what they were when
// their extent is let go and its memory is another's.
func TestLend(t *testing.T) {
	if !lends {
		t.Skipf("pages of %d octets", os.Getpagesize())
	}
	a := newArena(t, 2*SlabBytes)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{LendFrom, LendFrom + 1, 100_001, 3*SlabBytes/2 + 700} {
		e, ok := build(a, content(1, size), rng)
		if !ok || !a.Lend(e) || !a.Lend(e) {
			t.Fatalf("%d octets in fresh memory are not lent", size)
		}
		if used := a.Stats().Used; used != Footprint(int64(size)) {
			t.Errorf("%d octets take %d", size, used)
		}
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		mem, _ := a.Read(e.First())
		part := mem[100:min(len(mem), 60_000)] // less than a pipe holds
		v := syscall.Iovec{Base: unsafe.SliceData(part), Len: uint64(len(part))}
		n, _, errno := syscall.Syscall6(syscall.SYS_VMSPLICE, to.Fd(), uintptr(unsafe.Pointer(&v)), 1, 0, 0, 0)
		if errno != 0 || n == 0 {
			t.Fatal(errno)
		}
		a.Release(e)
		settle(t, a)
		if used := a.Stats().Used; used != 0 {
			t.Fatalf("%d octets are left", used)
		}
		var all []Extent
		for range 2 { // all that there is
			other, ok := build(a, bytes.Repeat([]byte("?"), SlabBytes), rng)
			if !ok {
				t.Fatal("what was lent is not free")
			}
			all = append(all, other)
		}
		got := make([]byte, n)
		if _, err := from.Read(got); err != nil || !bytes.Equal(got, content(1, size)[100:100+n]) {
			t.Errorf("of %d octets the kernel had by reference %d others', %v", n, bytes.Count(got, []byte("?")), err)
		}
		for _, other := range all {
			if other != 0 && !bytes.Equal(read(a, other, SlabBytes), bytes.Repeat([]byte("?"), SlabBytes)) {
				t.Error("and its memory does not serve the next")
			}
			a.Release(other)
		}
		from.Close()
		to.Close()
		check(t, a)
	}
}

// TestLendRefused: small parts share their pages with others' octets, and Go's
// memory is not ours to replace.
func TestLendRefused(t *testing.T) {
	a := newArena(t, SlabBytes)
	b := a.Build()
	b.Next(Unit)
	b.Next(LendFrom)
	b.Next(LendFrom)
	if a.Lend(b.End(Unit+LendFrom)) || a.Lend(0) {
		t.Error("an extent with a small part is lent")
	}
	b.Next(LendFrom)
	e := b.End(LendFrom)
	a.region = nil
	if a.Lend(e) {
		t.Error("Go memory is lent")
	}
}
