package edge

import "hash/maphash"

// doorBits is how many URLs the doorkeeper tells apart, and doorTurn after how
// many it forgets the older half: at an eighth of the bits one in eight
// strangers passes for known, in 32 KiB.
const (
	doorBits = 1 << 17
	doorTurn = doorBits / 8
)

// doorkeeper remembers, roughly, which URLs have come by lately. Who makes
// queries up would else drive all that is used out of a full store, one page
// each. Its hash is seeded: nobody can choose URLs that look known.
type doorkeeper struct {
	seed        maphash.Seed
	now, before [doorBits / 64]uint64
	n           int // set in now
}

func newDoorkeeper() *doorkeeper { return &doorkeeper{seed: maphash.MakeSeed()} }

// again reports whether key has come by before, and remembers it.
func (d *doorkeeper) again(key string) bool {
	h := maphash.String(d.seed, key) % doorBits
	word, bit := h/64, uint64(1)<<(h%64)
	if d.now[word]&bit != 0 {
		return true
	}
	if d.n == doorTurn {
		d.before, d.now, d.n = d.now, [doorBits / 64]uint64{}, 0
	}
	d.now[word] |= bit
	d.n++
	return d.before[word]&bit != 0
}
