package edge

import "perigee.example/internal/seglog"

// DiskStats is what the second tier has and has been through. The zero value is
// one that is not there.
type DiskStats struct {
	On   bool   // there is to be one
	Hits uint64 // responses, and slices of some, that were found there
	Why  string // why it is not used, or not written to; "" when it is
	seglog.Stats
}

func (d *disk) stats() DiskStats {
	if d == nil {
		return DiskStats{}
	}
	st := DiskStats{On: true, Hits: d.hits.Load(), Why: "it could not be opened"}
	if log := d.log.Load(); log != nil {
		st.Stats = log.Stats()
		st.Why = st.Stats.Why
	}
	return st
}

// door remembers, roughly, which responses have been fetched lately, as one
// that is fetched again has been asked for twice.
type door struct {
	now, before [tierDoorBits / 64]uint64
	n           int
}

// tierDoorBits is how many responses a door tells apart, and tierDoorTurn after how
// many it forgets the older half: at an eighth of the bits one in eight
// strangers passes for known, in 256 KiB.
const (
	tierDoorBits = 1 << 20
	tierDoorTurn = tierDoorBits / 8
)

// again reports whether a hash has come by before, and remembers it.
func (d *door) again(h uint64) bool {
	h %= tierDoorBits
	word, b := h/64, uint64(1)<<(h%64)
	if d.now[word]&b != 0 {
		return true
	}
	if d.n == tierDoorTurn {
		d.before, d.now, d.n = d.now, [tierDoorBits / 64]uint64{}, 0
	}
	d.now[word] |= b
	d.n++
	return d.before[word]&b != 0
}
