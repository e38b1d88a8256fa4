package edge

import (
	"io"

	"perigee.example/internal/arena"
)

// Octets of stored responses are the arena's, and it gives them to others when
// nobody holds them. The store holds each body that is in it; store.get and
// store.variants hold what they return for their caller, who lets go of it once:
//
//   - Hit: Body.Close;
//   - an exchange: at its end, or, of slices, as soon as they are sent;
//   - a flight: once it has ended and nobody waits for it any more. What it
//     brings, it holds till then for all who wait.

// hold makes the end of x let go of a body.
func (x *exchange) hold(e arena.Extent) {
	if e != 0 {
		x.held = append(x.held, e)
	}
}

// end lets go of all that x holds.
func (x *exchange) end() {
	for _, b := range x.parts {
		x.letGo(b.held)
	}
	for _, e := range x.held {
		x.e.store.arena.Release(e)
	}
	for _, o := range x.far {
		o.Close()
	}
	x.held, x.parts, x.far = nil, nil, nil
}

// hold makes the end of a flight let go of a body, which the caller holds: it
// is one hold more.
func (fl *flight) hold(a *arena.Arena, o *stored) {
	if o != nil && o.body != 0 {
		a.Retain(o.body)
		fl.held = append(fl.held, o.body)
	}
}

// ended says that the work of a flight is over.
func (e *Edge) ended(fl *flight) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if e.flights.m[fl.key] == fl {
		delete(e.flights.m, fl.key)
	}
	fl.ended = true
	e.letGoOf(fl)
}

// letGoOf lets go of what a flight holds, if it has ended and nobody waits for
// it; flights.mu is held.
func (e *Edge) letGoOf(fl *flight) {
	if !fl.ended || fl.waiting > 0 {
		return
	}
	delete(e.flights.all, fl)
	for _, b := range fl.held {
		e.store.arena.Release(b)
	}
	fl.held = nil
	if g := fl.outcome.body; g != nil && !fl.over {
		g.letGoOf()
	}
	fl.over = true
}

// storedBody is the body of a stored response that the store has whole. Who
// made it holds the body.
type storedBody struct {
	*stored
	arena *arena.Arena
}

func (b storedBody) size() int64 { return b.stored.size }

// writeTo writes length octets from start.
func (b storedBody) writeTo(w io.Writer, start, length int64) (int64, error) {
	return writeExtent(w, b.arena, b.body, start, length)
}
