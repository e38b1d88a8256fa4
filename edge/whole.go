package edge

import (
	"io"
	"net/http"
)

// Most responses have come whole when their head is looked at: one read of the
// connection has it all. Such a response is stored before anybody hears of it, and
// all who wait are then answered from what is stored. That spares it what a body on
// its way needs: a list of chunks, followers and their turns.

// atHand reports that a whole body can be read without a wait.
func atHand(resp *http.Response) bool {
	if resp.ContentLength == 0 {
		return true
	}
	b, ok := resp.Body.(interface{ Buffered() int64 })
	return ok && resp.ContentLength > 0 && b.Buffered() >= resp.ContentLength
}

// maxWholeParts bounds the pieces of memory that such a body takes; what finds no
// room but in more goes the other way.
const maxWholeParts = 8

// keepWhole reads a body that is at hand, and stores the response. False is that
// there is no room, and nothing has been read.
func (w *fill) keepWhole(obj *stored, resp *http.Response) bool {
	s, n := w.e.store, resp.ContentLength
	if n > 0 && !s.reserve(n) {
		return false
	}
	build := s.arena.Build()
	var room [maxWholeParts][]byte
	parts, left := room[:0], n
	for left > 0 && len(parts) < maxWholeParts {
		p := build.Next(int(left))
		if p == nil {
			break
		}
		parts, left = append(parts, p), left-int64(len(p))
	}
	if n > 0 {
		s.release(n) // it is counted as stored from now on
	}
	if left > 0 {
		build.Drop()
		return false
	}
	for _, p := range parts {
		if _, err := io.ReadFull(resp.Body, p); err != nil {
			panic("edge: a body that was at hand is not: " + err.Error())
		}
	}
	resp.Body.Close()
	obj.body, obj.size = build.Finish(n), n
	w.fl.held = append(w.fl.held, obj.body) // for all who are answered with it
	obj.pack()
	began := obj.asOf
	if obj.asOf = w.e.asOfStored(began); !w.purged(obj) {
		w.e.unlessDoomed(w.fl, func() { w.e.store.put(obj) })
	}
	obj.asOf = began
	return true
}
