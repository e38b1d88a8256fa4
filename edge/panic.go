package edge

import (
	"errors"
	"net/http"
	"runtime/debug"
)

// Panics returns how many requests and fetches ended in a panic, which is a
// mistake of ours.
func (e *Edge) Panics() uint64 { return e.panics.Load() }

// panicked counts a panic, and logs the first one with where it was.
func (e *Edge) panicked(doing string, cause any) {
	if e.panics.Add(1) == 1 {
		e.log.Error("panic; further ones are only counted", "doing", doing, "cause", cause, "stack", string(debug.Stack()))
	}
}

// survive is deferred around a request on the general path: a panic costs that
// request only. The client gets 500, or, when an answer has begun, the end of its
// connection.
func (x *exchange) survive() {
	cause := recover()
	switch {
	case cause == nil:
		return
	case cause == http.ErrAbortHandler: // of our own will
		panic(cause)
	}
	x.e.panicked("a request", cause)
	if x.rec.Status != 0 {
		panic(http.ErrAbortHandler)
	}
	x.rec.Cache, x.status = "error", cacheStatus{}
	x.w.Header().Set("Connection", "close")
	x.fail(http.StatusInternalServerError, "a mistake of this server")
}

// survive is deferred around the loop of a connection.
func (c *conn) survive(v *course) {
	if cause := recover(); cause != nil {
		*v = endIt
		c.s.e.panicked("a hit", cause)
		if !c.writing && (c.desk == nil || c.flush(nil) == nil) { // earlier answers are whole
			c.refuse(&refused{http.StatusInternalServerError, "a mistake of this server"})
		}
	}
}

var errPanicked = errors.New("a mistake of this server")

// survive is deferred around a fetch. Those who wait for it are told that it has
// failed.
func (w *fill) survive() {
	cause := recover()
	if cause == nil {
		return
	}
	w.e.panicked("a fetch", cause)
	w.e.flights.mu.Lock()
	settled, body := w.fl.done, w.fl.outcome.body
	w.e.flights.mu.Unlock()
	switch {
	case !settled:
		w.e.settle(w.fl, outcome{err: errPanicked})
	case body != nil:
		body.finish(errPanicked)
	}
	w.fl.cancel()
}
