package dnsserver

import "bytes"

// table finds zones by name: open addressing over the hashes of their origins.
// Immutable; Views that serve the same origins share one.
type table struct {
	slots     []int32 // index of a zone + 1; 0 is free
	shift     uint    // 64 minus the bits of an index into slots
	maxLabels int     // of any origin, the root not counted
	origins   [][]byte
}

// minSlots keeps the table of a few zones from being all collisions.
const minSlots = 8

// The hash is FNV-1a over the octets from the root backwards, so that one pass
// over a name hashes every suffix, then Fibonacci hashing for the slot. What
// collides is up to the operator's zones, not to who asks, so it needs no key.
const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
	fibonacci = 0x9e3779b97f4a7c15
)

func newTable(origins [][]byte) *table {
	size, bits := minSlots, uint(3)
	for size < 2*len(origins) {
		size *= 2
		bits++
	}
	t := &table{slots: make([]int32, size), shift: 64 - bits, origins: origins}
	for i, origin := range origins {
		t.maxLabels = max(t.maxLabels, labels(origin))
		at := t.slot(hashName(fnvOffset, origin))
		for t.slots[at] != 0 {
			at = (at + 1) & (len(t.slots) - 1)
		}
		t.slots[at] = int32(i + 1)
	}
	return t
}

func (t *table) slot(h uint64) int { return int((h * fibonacci) >> t.shift) }

// hashName goes on with h over octets from the last to the first.
func hashName(h uint64, octets []byte) uint64 {
	for i := len(octets) - 1; i >= 0; i-- {
		h = (h ^ uint64(octets[i])) * fnvPrime
	}
	return h
}

// get returns the index of the zone with exactly this origin, or -1.
func (t *table) get(h uint64, origin []byte) int {
	for at := t.slot(h); t.slots[at] != 0; at = (at + 1) & (len(t.slots) - 1) {
		if i := int(t.slots[at] - 1); bytes.Equal(t.origins[i], origin) {
			return i
		}
	}
	return -1
}

// find returns the index of the zone with the longest origin that is a suffix
// of name, a well-formed one in lower case, or -1; of suffixes of name it
// skips the first skip.
func (t *table) find(name []byte, skip int) int {
	var starts [128]uint8 // a name has at most 127 labels and the root
	n := 0
	for i := 0; ; i += 1 + int(name[i]) {
		starts[n] = uint8(i)
		n++
		if name[i] == 0 {
			break
		}
	}
	best := -1
	end := len(name)
	h := uint64(fnvOffset)
	for k := n - 1; k >= skip && n-1-k <= t.maxLabels; k-- {
		h = hashName(h, name[starts[k]:end])
		end = int(starts[k])
		if i := t.get(h, name[end:]); i >= 0 {
			best = i
		}
	}
	return best
}

// labels counts the labels of a well-formed name, the root not counted.
func labels(name []byte) int {
	n := 0
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		n++
	}
	return n
}
