package bigmem

import "golang.org/x/sys/unix"

const canMap = true

// mapped maps n octets, with huge pages where the kernel has them to give: each
// first touch of a page costs, and so does each miss of the TLB.
func mapped(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // small pages do as well
	}
	return b, err
}

// grow makes a mapping longer or shorter, wherever there is room.
func grow(b []byte, n int) ([]byte, error) {
	return unix.Mremap(b, n, unix.MREMAP_MAYMOVE)
}

func unmap(b []byte) {
	// It fails only for what is no mapping, which is a mistake of ours.
	if err := unix.Munmap(b); err != nil {
		panic("bigmem: munmap: " + err.Error())
	}
}

func reserve(n int, huge bool) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err == nil && huge {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // small pages do as well
	}
	return b, err
}

func giveBack(b []byte) {
	// It fails only for what is no mapping, which is a mistake of ours.
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		panic("bigmem: madvise: " + err.Error())
	}
}
