package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// source of the octets of a stored response.
func (x *exchange) source(o *stored) source {
	if o.part != nil {
		return x.partsOf(&partsBody{head: o})
	}
	if o.far != nil {
		return farBody{o.far}
	}
	return storedBody{o, x.e.store.arena}
}

// partsOf makes the end of x let go of what b holds.
func (x *exchange) partsOf(b *partsBody) *partsBody {
	b.x = x
	x.parts = append(x.parts, b)
	return b
}

// askPart is what to ask for of a representation of which a part is wanted and
// nothing whole is stored; "" when the whole is to be asked for.
func (x *exchange) askPart(f found) (field string, exact bool) {
	v, ranged := x.q.fields().combined("Range")
	if !ranged || x.q.has("If-Range") || f.obj != nil && f.obj.part == nil {
		return "", false
	}
	field, exact, _ = firstRange(v)
	return field, exact
}

// ready makes sure that the first octets of ranges are at hand. When the origin
// has another representation by now, it answers anew, once; when it has again, or
// gives other octets than those asked for, as two servers behind one name may
// that tag the same file differently, no slices make a whole: the request is
// passed on. False is that the request has been answered.
func (x *exchange) ready(src source, ranges ...byteRange) bool {
	if x.q.method == http.MethodHead {
		return true
	}
	if far, ok := src.(farBody); ok && !far.sound(ranges[0].start, ranges[0].length) {
		x.anew() // it is gone from the disk by now
		x.pull()
		return false
	}
	parts, ok := src.(*partsBody)
	if !ok {
		return true
	}
	err := parts.prepare(x.ctx, ranges)
	if err == nil {
		return true
	}
	if x.ctx.Err() != nil {
		x.abort()
	}
	x.anew()
	x.status = cacheStatus{fwd: "partial"}
	if errors.Is(err, errChanged) && !x.again {
		x.again = true
		x.pull()
		return false
	}
	if errors.Is(err, errChanged) || errors.Is(err, errNoSlice) {
		x.pass("partial")
		return false
	}
	x.originFailed(err)
	return false
}

// anew takes back what was prepared of an answer.
func (x *exchange) anew() {
	h := x.w.Header()
	for name := range h {
		if name != "Connection" {
			delete(h, name)
		}
	}
	x.status = cacheStatus{}
}

// partsBody gives the octets of a representation of which parts are stored.
type partsBody struct {
	x    *exchange
	head *stored
	g    *growing  // of the head's own part, while that is coming
	f    *follower // of g
	held *heldSlice
}

func (b *partsBody) size() int64 { return b.head.part.total }

// heldSlice is a slice that was stored, or is coming.
type heldSlice struct {
	index int64
	obj   *stored
	fl    *flight
	lead  bool
}

// prepare makes sure, before anything is said to the client, that the first
// octets are at hand; and all, where a slice beyond the head's own part is enough
// for ranges that are no longer than one: what changed at the origin is then
// known while it can be answered anew. What is longer begins with what there is.
func (b *partsBody) prepare(ctx context.Context, ranges []byteRange) error {
	first, last := b.beyond(ranges)
	if first > last {
		return nil
	}
	start, end := ranges[0].start, ranges[len(ranges)-1].end()
	later := first > start
	if later && (end-start > sliceBytes || first/sliceBytes != last/sliceBytes) {
		return nil
	}
	var err error
	b.held, err = b.x.waitSlice(ctx, b.x.joinSlice(b.head, first/sliceBytes, later))
	return err
}

// beyond is the first and the last octet of ranges that come from slices; there is
// none if the first is behind the last.
func (b *partsBody) beyond(ranges []byteRange) (first, last int64) {
	first, last = b.size(), -1
	for _, r := range ranges {
		if from := r.start + b.ownPart(r.start); from < r.end() {
			first, last = min(first, from), r.end()-1
		}
	}
	return first, last
}

// ownPart is how many octets from start the head's own part has, or will have.
func (b *partsBody) ownPart(start int64) int64 {
	n := b.head.size
	if b.g != nil {
		n = b.g.length
	}
	if at := start - b.head.part.start; at >= 0 && at < n {
		return n - at
	}
	return 0
}

func (b *partsBody) writeRange(ctx context.Context, w io.Writer, start, length int64) (sent int64, err error) {
	if length < 0 {
		length = b.size() - start
	}
	var ahead *heldSlice // asked for while the one before is being sent
	defer func() { b.x.letGo(ahead) }()
	for length > 0 {
		n, from := b.ownPart(start), start-b.head.part.start
		if n > 0 {
			n = min(n, length)
			var got int64
			if b.g != nil {
				got, err = growingBody{b.g, b.f}.writeRange(ctx, w, from, n)
			} else {
				got, err = writeExtent(w, b.x.e.store.arena, b.head.body, from, n)
			}
			sent += got
		} else {
			i := start / sliceBytes
			n = min(length, (i+1)*sliceBytes-start)
			if b.held == nil || b.held.index != i {
				b.x.letGo(b.held)
				if b.held, err = b.x.slice(ctx, b.head, i); err != nil {
					return sent, err
				}
			}
			b.x.letGo(ahead)
			if ahead = nil; length > n {
				ahead = b.x.joinSlice(b.head, i+1, true)
			}
			var got int64
			got, err = b.x.writeSlice(ctx, w, b.held, start-i*sliceBytes, n)
			if got == 0 && (errors.Is(err, errTooSlow) || errors.Is(err, errNoReader)) {
				// There was no room to keep it for those who come late.
				b.x.letGo(b.held)
				if b.held, err = b.x.waitSlice(ctx, b.x.startSlice(b.head, i, nil)); err == nil {
					got, err = b.x.writeSlice(ctx, w, b.held, start-i*sliceBytes, n)
				}
			}
			sent += got
		}
		if err != nil {
			return sent, err
		}
		start, length = start+n, length-n
	}
	return sent, nil
}

func (x *exchange) writeSlice(ctx context.Context, w io.Writer, s *heldSlice, start, n int64) (int64, error) {
	if s.obj != nil {
		return writeExtent(w, x.e.store.arena, s.obj.body, start, n)
	}
	g := s.fl.outcome.body
	f := g.follow(s.lead)
	if f == nil {
		return 0, errTooSlow
	}
	defer f.close()
	return growingBody{g, f}.writeRange(ctx, w, start, n)
}

// letGo ends the interest in a slice.
func (x *exchange) letGo(s *heldSlice) {
	if s != nil && s.fl != nil {
		x.e.leave(s.fl, s.lead)
		s.fl = nil
	}
	if s != nil && s.obj != nil {
		x.e.store.letGo(s.obj)
		s.obj = nil
	}
}
