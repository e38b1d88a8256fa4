// Package bigmem holds large blocks of memory without pointers outside of the
// Go heap, where the garbage collector neither scans them nor lets its pace
// depend on them, where huge pages can back them, and where growing one moves
// page tables instead of octets. What unsafe and mmap zones need is here.
//
// Contract: memory of a Block is valid until Free. Nobody may touch a slice of
// it after that: a block that is shared is freed by a cleanup of the value that
// every reader holds (runtime.AddCleanup), and readers keep that value alive
// (runtime.KeepAlive). Small blocks, and all on systems without mremap, are
// ordinary Go memory, where none of this can go wrong.
package bigmem

import "unsafe"

// minMapped is the size from which a block is mapped: below it the rounding up
// to pages and the entry in the kernel's table (65,530 of them by default) cost
// more than the garbage collector does.
const minMapped = 1 << 20

// maxPage is the largest page that the rest of a block may share.
const maxPage = 64 << 10

// Block is a block of memory, zero where nothing was written. The zero Block is
// empty and ready to use. It is not safe for concurrent use.
type Block struct {
	b      []byte
	mapped bool
}

// Bytes is the whole block.
func (b *Block) Bytes() []byte { return b.b }

// Mapped reports whether the block is outside of the Go heap.
func (b *Block) Mapped() bool { return b.mapped }

// Resize makes the block n octets long. What it had stays as far as it fits,
// the rest is zero; slices of it from before are void. It panics when the
// system has no more memory, as making a slice does.
func (b *Block) Resize(n int) {
	switch {
	case n == len(b.b):
	case b.mapped || n >= minMapped && canMap:
		b.remap(n)
	case n <= cap(b.b):
		old := len(b.b)
		b.b = b.b[:n]
		if n > old {
			clear(b.b[old:])
		}
	default:
		next := make([]byte, n)
		copy(next, b.b)
		b.b = next
	}
}

// Clip gives back what a block of Go memory has to spare.
func (b *Block) Clip() {
	if !b.mapped && cap(b.b) > len(b.b) {
		next := make([]byte, len(b.b))
		copy(next, b.b)
		b.b = next
	}
}

// remap is Resize for a block that is, or is to be, mapped.
func (b *Block) remap(n int) {
	var next []byte
	var err error
	if old := len(b.b); b.mapped && n > 0 {
		if next, err = grow(b.b, n); err == nil && n > old {
			clear(next[old:min(n, old+maxPage)]) // a page that was cut off once keeps what it had
		}
	} else if n == 0 {
		b.Free()
		return
	} else if next, err = mapped(n); err == nil {
		copy(next, b.b)
	}
	if err != nil {
		next = make([]byte, n)
		copy(next, b.b)
		b.Free()
		b.b = next
		return
	}
	b.b, b.mapped = next, true
}

// Free gives the memory back. The block is empty then.
func (b *Block) Free() {
	if b.mapped {
		unmap(b.b)
	}
	*b = Block{}
}

// Words is memory of a block as numbers, in the machine's order. The length of b
// must be a multiple of theirs.
func Words[T uint32 | uint64](b []byte) []T {
	var t T
	size := int(unsafe.Sizeof(t))
	if len(b) == 0 {
		return nil
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	if len(b)%size != 0 || uintptr(p)%unsafe.Alignof(t) != 0 {
		panic("bigmem: not a whole number of words")
	}
	return unsafe.Slice((*T)(p), len(b)/size)
}
