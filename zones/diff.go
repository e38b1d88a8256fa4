package zones

import (
	"bytes"
	"cmp"
	"iter"
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
// be nil, which is a zone without records. It reads the sorted owner index of
// both side by side and keeps nothing in memory.
func Changes(old, new *Zone) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		a, stop := ownersOf(old)
		defer stop()
		b, stop := ownersOf(new)
		defer stop()
		for a.ok || b.ok {
			order := bytes.Compare(a.key, b.key)
			if !a.ok || !b.ok {
				order = cmp.Compare(b.left(), a.left())
			}
			owner := a.name
			var was, is []RRset
			if order <= 0 {
				was = a.sets()
			} else {
				owner = b.name
			}
			if order >= 0 {
				is = b.sets()
			}
			if !changesAt(owner, was, is, yield) {
				return
			}
			if order <= 0 {
				a.step()
			}
			if order >= 0 {
				b.step()
			}
		}
	}
}

// owners steps through the owners of one zone.
type owners struct {
	zone *Zone
	next func() ([]byte, NodeID, bool)
	name []byte
	node NodeID
	ok   bool
	key  []byte
	buf  []RRset
}

func ownersOf(z *Zone) (o *owners, stop func()) {
	o = &owners{zone: z}
	o.next, stop = iter.Pull2(z.Names())
	o.step()
	return o, stop
}

func (o *owners) step() {
	o.name, o.node, o.ok = o.next()
	o.key = appendKey(o.key[:0], o.name)
}

// left is 1 while there are owners, else 0.
func (o *owners) left() int {
	if o.ok {
		return 1
	}
	return 0
}

func (o *owners) sets() []RRset {
	o.buf = o.zone.RRsets(o.node, o.buf[:0])
	return o.buf
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
