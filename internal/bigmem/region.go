package bigmem

// Region is address space whose pages come when they are first touched, and can
// be given back one by one. Its memory is valid until Free; on systems without
// mappings, and where the kernel refuses one, there is none: Reserve says so,
// and the caller takes Go memory.
type Region struct{ b []byte }

// Reserve takes n octets of address space, zero and without memory behind it
// yet. huge asks for huge pages where the kernel has them.
func Reserve(n int, huge bool) (*Region, error) {
	b, err := reserve(n, huge)
	if err != nil {
		return nil, err
	}
	return &Region{b}, nil
}

// Bytes is the whole region.
func (r *Region) Bytes() []byte { return r.b }

// GiveBack returns the pages of n octets from off to the system; they are zero
// when they are touched again. Both are multiples of the page's size.
func (r *Region) GiveBack(off, n int) { giveBack(r.b[off : off+n]) }

// Free ends the region: nobody may touch a slice of it after that.
func (r *Region) Free() {
	if r.b != nil {
		unmap(r.b)
		r.b = nil
	}
}
