package control

import (
	"context"
	"sync"

	"perigee.example/origin"
)

// maxFlights bounds the blobs that come from elsewhere at a time, each over a connection of
// its own.
const maxFlights = 64

// flights gets each blob once for all who ask for it meanwhile: a release that was sealed at
// another control node is asked for by every edge at the same moment.
type flights struct {
	mu    sync.Mutex
	of    map[origin.Digest]*flight
	slots chan struct{}
}

// flight is one that is under way.
type flight struct {
	done   chan struct{}
	err    error // when it is done
	wanted int   // callers that wait for it
	cancel context.CancelFunc
}

func newFlights() *flights {
	return &flights{of: map[origin.Digest]*flight{}, slots: make(chan struct{}, maxFlights)}
}

// do calls get, or waits for a call that is under way. When that one fails the caller,
// who came later, has another one: what was not to be had then may be now. A call ends
// when nobody waits for it any more.
func (f *flights) do(ctx context.Context, d origin.Digest, get func(context.Context) error) error {
	fl, late := f.join(ctx, d, get)
	err := f.wait(ctx, d, fl)
	if err == nil || !late || ctx.Err() != nil {
		return err
	}
	fl, _ = f.join(ctx, d, get) // one that began after the caller came: what it says is meant for it
	return f.wait(ctx, d, fl)
}

// join takes part in the call that is under way (late), or begins one.
func (f *flights) join(ctx context.Context, d origin.Digest, get func(context.Context) error) (fl *flight, late bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl = f.of[d]; fl != nil {
		fl.wanted++
		return fl, true
	}
	fl = &flight{done: make(chan struct{}), wanted: 1}
	ctx, fl.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.of[d] = fl
	go f.fly(ctx, d, fl, get)
	return fl, false
}

// fly is one call.
func (f *flights) fly(ctx context.Context, d origin.Digest, fl *flight, get func(context.Context) error) {
	defer fl.cancel()
	select {
	case f.slots <- struct{}{}:
		fl.err = get(ctx)
		<-f.slots
	case <-ctx.Done():
		fl.err = ctx.Err()
	}
	f.mu.Lock()
	f.forget(d, fl)
	f.mu.Unlock()
	close(fl.done)
}

// forget has the next one who asks begin anew. Called with mu held.
func (f *flights) forget(d origin.Digest, fl *flight) {
	if f.of[d] == fl {
		delete(f.of, d)
	}
}

// wait waits for a call. The last one who gives up ends it, and waits for its end: so none
// goes on behind those that wanted it.
func (f *flights) wait(ctx context.Context, d origin.Digest, fl *flight) error {
	select {
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	fl.wanted--
	last := fl.wanted == 0
	if last {
		f.forget(d, fl)
	}
	f.mu.Unlock()
	if last {
		fl.cancel()
		<-fl.done
	}
	return context.Cause(ctx)
}
