package zones

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"perigee.example/internal/bigmem"
)

const (
	// maxOverlay and overlayShare bound an overlay: beyond 4,096 owners, or one
	// in a hundred, the new version is served as the base that it is. A larger
	// overlay would make the second probe of each lookup miss the cache.
	maxOverlay   = 4096
	overlayShare = 100
)

// cursor steps through the nodes of a base and those of an overlay, which go
// before those of the same name, tombstones too, in canonical order.
type cursor struct {
	base, top   *image
	bases, tops []uint32
}

func newCursor(base, top *image) cursor {
	c := cursor{base: base, top: top, bases: base.order}
	if top != nil {
		c.tops = top.order
	}
	return c
}

// next is nil at the end.
func (c *cursor) next() (NodeID, node) {
	order := -1
	switch {
	case len(c.tops) == 0 && len(c.bases) == 0:
		return 0, nil
	case len(c.bases) == 0:
		order = 1
	case len(c.tops) > 0:
		order = compareRelative(c.base.at(c.bases[0]).name(), c.top.at(c.tops[0]).name())
	}
	if order < 0 {
		n := c.bases[0]
		c.bases = c.bases[1:]
		return NodeID(n), c.base.at(n)
	}
	if order == 0 {
		c.bases = c.bases[1:]
	}
	n := c.tops[0]
	c.tops = c.tops[1:]
	if n == 0 {
		return Apex, c.top.at(0)
	}
	return NodeID(n) | inOverlay, c.top.at(n)
}

// live is next without tombstones.
func (c *cursor) live() (NodeID, node) {
	n, d := c.next()
	for d != nil && d.gone() {
		n, d = c.next()
	}
	return n, d
}

// pair steps through two versions side by side.
type pair struct {
	a, b   cursor
	an, bn NodeID
	ad, bd node
}

func newPair(a, b cursor) *pair {
	p := &pair{a: a, b: b}
	p.an, p.ad = p.a.live()
	p.bn, p.bd = p.b.live()
	return p
}

// each calls f with the nodes of the next name, nil where a version has none,
// until the end or until f is false.
func (p *pair) each(f func(an, bn NodeID, ad, bd node) bool) {
	for p.ad != nil || p.bd != nil {
		order := -1
		switch {
		case p.ad == nil:
			order = 1
		case p.bd != nil && bytes.Equal(p.ad.name(), p.bd.name()):
			order = 0
		case p.bd != nil:
			order = compareRelative(p.ad.name(), p.bd.name())
		}
		an, bn, ad, bd := p.an, p.bn, p.ad, p.bd
		if order <= 0 {
			p.an, p.ad = p.a.live()
		} else {
			ad = nil
		}
		if order >= 0 {
			p.bn, p.bd = p.b.live()
		} else {
			bd = nil
		}
		if !f(an, bn, ad, bd) {
			return
		}
	}
}

func (z *Zone) cursor() cursor { return newCursor(z.base, z.overlay) }

// same reports whether two versions of a zone have the same records, but for
// the serial if that is not to count.
func same(a, b *Zone, serial bool) bool {
	alike := a.owners == b.owners && (!serial || a.serial == b.serial)
	if !alike {
		return false
	}
	newPair(a.cursor(), b.cursor()).each(func(_, _ NodeID, ad, bd node) bool {
		alike = ad != nil && bd != nil && sameSets(ad, bd, serial)
		return alike
	})
	return alike
}

func sameSets(a, b node, serial bool) bool {
	x, y := a.all(), b.all()
	if x.left != y.left {
		return false
	}
	for x.left > 0 {
		v, t, _ := x.next()
		w, _, _ := y.next()
		if bytes.Equal(v, w) {
			continue
		}
		at := len(v) - 20 // of the serial
		if serial || t != typeSOA || len(v) != len(w) || !bytes.Equal(v[:at], w[:at]) || !bytes.Equal(v[at+4:], w[at+4:]) {
			return false
		}
	}
	return true
}

// overlaid is a version that answers as next does, made of old's base and a
// small overlay of the owners that differ; next itself when too many do, or
// when its chain of proofs would have to be mended. Nobody else may have next
// yet: its memory is given back at once when it is not needed.
func overlaid(old, next *Zone) *Zone {
	if old == nil || old.signatures || next.signatures || !bytes.Equal(old.origin, next.origin) {
		return next
	}
	base := old.base
	limit := min(maxOverlay, len(base.order)/overlayShare)
	changed := 0
	size := nodeAlign
	differs := func(f func(ad, bd node)) {
		newPair(newCursor(base, nil), next.cursor()).each(func(_, _ NodeID, ad, bd node) bool {
			if ad == nil || bd == nil || !bytes.Equal(ad.octets(), bd.octets()) {
				f(ad, bd)
				changed++
			}
			return changed <= limit
		})
	}
	differs(func(ad, bd node) {
		if bd == nil {
			size += nodeHead + len(ad.name())
		} else {
			size += bd.length()
		}
		size += nodeAlign
	})
	if changed > limit {
		return next
	}
	z := &Zone{base: base, text: old.text, origin: old.origin, owners: next.owners}
	if changed > 0 {
		top := newOverlay(base, changed, size)
		changed = 0
		differs(top.cover)
		top.own(top.blocks[:]...)
		z.overlay = top.image
	}
	z.setSOA()
	next.base.release()
	return z
}

// overlay is an image being made of the nodes that differ from a base.
type overlay struct {
	*image
	blocks [3]*bigmem.Block // of their own: a cleanup that leads back to the image would keep it

	used, nodes int
	starts      starts
}

func newOverlay(base *image, nodes, size int) *overlay {
	o := &overlay{image: &image{key: base.key}, used: nodeAlign}
	for i, size := range []int{size, 4 * nodes, 4 * max(4, 2*nodes)} {
		o.blocks[i] = new(bigmem.Block)
		o.blocks[i].Resize(size)
	}
	o.arena = o.blocks[0].Bytes()
	o.order = bigmem.Words[uint32](o.blocks[1].Bytes())
	o.slots = bigmem.Words[uint32](o.blocks[2].Bytes())
	o.bits = uint(bits.Len32(uint32(size / nodeAlign)))
	return o
}

// cover takes what a name is now, which comes in canonical order; nil when it
// is gone.
func (o *overlay) cover(was, is node) {
	at := o.used
	if is != nil {
		o.used += copy(o.arena[at:], is.octets())
	} else {
		own := was.name()
		o.arena[at+1] = uint8(len(own))
		binary.LittleEndian.PutUint16(o.arena[at+2:], goneSets)
		o.used += nodeHead + copy(o.arena[at+nodeHead:], own)
		o.arena[at] = was.flags() & flagMixed
	}
	o.used += -o.used & (nodeAlign - 1)
	n := uint32(at / nodeAlign)
	own := o.image.at(n).name()
	if len(own) == 0 {
		o.apex = n
		o.order[o.nodes] = 0
	} else {
		var low [maxNameBytes]byte
		o.put(o.key.name(appendLower(low[:0], own), &o.starts), n)
		o.order[o.nodes] = n
	}
	o.nodes++
}
