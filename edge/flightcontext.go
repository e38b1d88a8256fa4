package edge

import (
	"context"
	"slices"
	"sync"
	"time"
)

// flightContext is the context of a flight's fetch, a part of the flight: each miss
// needs one. context.WithCancel would make it of five pieces of memory, and enter it
// in a list of all children of the Edge's, under one lock. The Edge ends its flights
// itself (Close).
type flightContext struct {
	values context.Context // whose values it has; nil: none

	mu    sync.Mutex
	err   error
	done  chan struct{} // nil: nobody has asked for it
	after []*afterFlight
}

type afterFlight struct {
	c *flightContext
	f func()
}

var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// cancel ends c.
func (c *flightContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.Canceled
	if c.done != nil {
		close(c.done)
	}
	for _, a := range c.after {
		go a.f()
	}
	c.after = nil
}

// Deadline implements context.Context.
func (c *flightContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (c *flightContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		if c.err != nil {
			c.done = closedChan
		} else {
			c.done = make(chan struct{})
		}
	}
	return c.done
}

// Err implements context.Context.
func (c *flightContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value implements context.Context.
func (c *flightContext) Value(key any) any {
	if c.values == nil {
		return nil
	}
	return c.values.Value(key)
}

// AfterFunc is what package context, and origin, call instead of waiting for Done.
func (c *flightContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &afterFlight{c, f}
	if c.err != nil {
		go f()
	} else {
		c.after = append(c.after, a)
	}
	return a.stop
}

func (a *afterFlight) stop() bool {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	i := slices.Index(a.c.after, a)
	if i >= 0 {
		a.c.after = slices.Delete(a.c.after, i, i+1)
	}
	return i >= 0
}
