package dnsserver

import (
	"bytes"
	"encoding/binary"
)

// table finds zones by name: open addressing over the hashes of their origins.
// Immutable; Views that serve the same origins share one.
type table struct {
	slots     []int32 // index of a zone + 1; 0 is free
	shift     uint    // 64 minus the bits of an index into slots
	maxLabels int     // of any origin, the root not counted
	depths    uint64  // bit n: some origin has n labels; the last bit stands for 63 and more
	origins   [][]byte
}

// minSlots keeps the table of a few zones from being all collisions.
const minSlots = 8

// The hash goes over a whole suffix, eight octets at a time; then Fibonacci
// hashing for the slot. What collides is up to the operator's zones, not to who
// asks, so it needs no key.
const (
	hashStart = 0xcbf29ce484222325
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
		n := labels(origin)
		t.maxLabels = max(t.maxLabels, n)
		t.depths |= depthBit(n)
		at := t.slot(hashName(origin))
		for t.slots[at] != 0 {
			at = (at + 1) & (len(t.slots) - 1)
		}
		t.slots[at] = int32(i + 1)
	}
	return t
}

func (t *table) slot(h uint64) int { return int((h * fibonacci) >> t.shift) }

func depthBit(labels int) uint64 { return 1 << min(labels, 63) }

// hashName is the hash of a well-formed name in lower case.
func hashName(name []byte) uint64 {
	h := uint64(hashStart)
	for len(name) >= 8 {
		h = (h ^ binary.LittleEndian.Uint64(name)) * fibonacci
		h ^= h >> 32
		name = name[8:]
	}
	var tail uint64
	switch n := len(name); {
	case n >= 4:
		tail = uint64(binary.LittleEndian.Uint32(name)) | uint64(binary.LittleEndian.Uint32(name[n-4:]))<<32
	case n > 0:
		tail = uint64(name[0]) | uint64(name[n/2])<<8 | uint64(name[n-1])<<16
	}
	h = (h ^ tail) * fibonacci
	return h ^ h>>32
}

// starts is where the labels of a name begin, the root's left out.
type starts [127]uint8

// of fills in the starts of a well-formed name and returns how many there are.
func (s *starts) of(name []byte) int {
	n := 0
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		s[n] = uint8(i)
		n++
	}
	return n
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
	var at starts
	return t.findAt(name, at[:at.of(name)], skip)
}

// findAt is find for a name whose labels start at these offsets. It looks for
// the longest suffix first, and only for those with as many labels as some
// origin has.
func (t *table) findAt(name []byte, at []uint8, skip int) int {
	n := len(at)
	for k := max(skip, n-t.maxLabels); k <= n; k++ { // labels of name before the suffix
		if t.depths&depthBit(n-k) == 0 {
			continue
		}
		suffix := name[len(name)-1:]
		if k < n {
			suffix = name[at[k]:]
		}
		if i := t.get(hashName(suffix), suffix); i >= 0 {
			return i
		}
	}
	return -1
}

// labels counts the labels of a well-formed name, the root not counted.
func labels(name []byte) int {
	n := 0
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		n++
	}
	return n
}
