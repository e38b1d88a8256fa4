package zones

import (
	"bytes"
	"iter"
	"runtime"
)

// Change is one RRset that two versions of a zone do not have alike. Old or
// New has Count 0 where that version has no such RRset; both have records when
// its data or its TTL changed.
type Change struct {
	Owner    []byte // lower-case wire form; only valid within the loop's body
	Type     uint16
	Old, New RRset
}

// Changes yields what differs between two versions of a zone, owners in
// canonical order (RFC 4034 §6.1), the RRsets of an owner by type. Either may
// be nil, which is a zone without records; both have the same origin. It reads the sorted owner index of
// both side by side and keeps nothing in memory.
func Changes(old, new *Zone) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		var was, is []RRset
		var owner [maxNameBytes]byte
		origin := apexOf(old, new)
		newPair(old.all(), new.all()).each(func(an, bn NodeID, ad, bd node) bool {
			was, is = was[:0], is[:0]
			d := ad
			if ad != nil {
				was = old.RRsets(an, was)
			}
			if bd != nil {
				d = bd
				is = new.RRsets(bn, is)
			}
			return changesAt(append(appendLower(owner[:0], d.name()), origin...), was, is, yield)
		})
		runtime.KeepAlive(old)
		runtime.KeepAlive(new)
	}
}

// all begins a walk over a zone, which may be nil.
func (z *Zone) all() cursor {
	if z == nil {
		return newCursor(&image{}, nil)
	}
	return z.cursor()
}

func apexOf(list ...*Zone) []byte {
	for _, z := range list {
		if z != nil {
			return z.origin
		}
	}
	return nil
}

// changesAt yields what differs at one owner; both lists are sorted by type.
func changesAt(owner []byte, old, new []RRset, yield func(Change) bool) bool {
	for len(old) > 0 || len(new) > 0 {
		var c Change
		if len(new) == 0 || len(old) > 0 && old[0].Type <= new[0].Type {
			c.Type = old[0].Type
		} else {
			c.Type = new[0].Type
		}
		if len(old) > 0 && old[0].Type == c.Type {
			c.Old, old = old[0], old[1:]
		}
		if len(new) > 0 && new[0].Type == c.Type {
			c.New, new = new[0], new[1:]
		}
		if bytes.Equal(c.Old.Wire, c.New.Wire) {
			continue
		}
		if c.Owner = owner; !yield(c) {
			return false
		}
	}
	return true
}
