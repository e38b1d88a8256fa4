package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loopback makes a world real: its edge listens on a socket of this machine, so
// that the loop makes its own system calls. No bubble can hold that, so its clock
// is one that only commands and the origin's delays move, and what a bubble waits
// for by itself is waited for by looking.
type loopback struct {
	clock  *clock
	server *server
	origin *watched

	asking atomic.Int64 // requests of the client that have no answer yet
	mu     sync.Mutex
	delays []*time.Time // when the requests at the origin that wait go on
}

// delaying counts the requests at the origin that wait for the clock.
func (l *loopback) delaying() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, by := range l.delays {
		if l.clock.now().Before(*by) {
			n++
		}
	}
	return n
}

// clock stands still until it is moved. It starts when a bubble's does.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// reach moves the clock to t, if it is not there yet.
func (c *clock) reach(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.t) {
		c.t = t
	}
}

// watched is an origin whose exchanges are counted from their start to the end of
// their bodies.
type watched struct {
	http.RoundTripper
	under atomic.Int64
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	w.under.Add(1)
	resp, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		w.under.Add(-1)
		return resp, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, w: w}
	return resp, nil
}

type watchedBody struct {
	io.ReadCloser
	w    *watched
	once sync.Once
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { b.w.under.Add(-1) })
	return err
}

// maxLooking bounds a wait; it is only reached when what is waited for never
// comes.
const maxLooking = time.Minute

// until waits for something that another goroutine does.
func until(what string, is func() bool) error {
	for start := time.Now(); !is(); {
		if time.Since(start) > maxLooking {
			return errors.New("waited in vain for " + what)
		}
		<-time.After(200 * time.Microsecond)
	}
	return nil
}

// settle waits until nothing goes on behind the last answer but for the clock's
// sake: what a bubble's Wait does.
func (l *loopback) settle(e *Edge) error {
	return until("the edge to be done", func() bool {
		e.flights.mu.Lock()
		flights := int64(len(e.flights.m))
		e.flights.mu.Unlock()
		if delaying := l.delaying(); flights > delaying || l.origin.under.Load() > delaying {
			return false
		}
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		for c := range l.server.conns {
			if c.phase.Load() == busy {
				return false
			}
		}
		return true
	})
}

// delay lets d pass at the origin. The clock is moved once all requests of the
// client have come to where only that helps them: each is at the origin, or waits
// for one that is. Without such requests a command moves it.
func (l *loopback) delay(e *Edge, d time.Duration) error {
	by := l.clock.now().Add(d)
	l.mu.Lock()
	l.delays = append(l.delays, &by)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.delays = slices.DeleteFunc(l.delays, func(p *time.Time) bool { return p == &by })
	}()
	err := until("all requests to wait", func() bool {
		asking := l.asking.Load()
		alone := l.delaying()
		var together int64
		e.flights.mu.Lock()
		for key, fl := range e.flights.m {
			if !fl.done && !strings.HasPrefix(key, "\x00") { // that would be a watch
				together += int64(fl.waiting)
				alone--
				if fl.behind { // who leads it does not wait
					together--
				}
			}
		}
		e.flights.mu.Unlock()
		return asking > 0 && alone+together >= asking || !l.clock.now().Before(by)
	})
	l.clock.reach(by)
	return err
}

// advance moves the clock on by d, and stops on the way wherever a delay ends.
func (l *loopback) advance(e *Edge, d time.Duration) error {
	for end := l.clock.now().Add(d); ; {
		next := end
		l.mu.Lock()
		for _, by := range l.delays {
			if by.After(l.clock.now()) && by.Before(next) {
				next = *by
			}
		}
		l.mu.Unlock()
		l.clock.reach(next)
		if err := l.settle(e); err != nil || next.Equal(end) {
			return err
		}
	}
}

// listen serves e on a socket of this machine.
func (l *loopback) listen(t testing.TB, e *Edge) (serve func(context.Context) error, dial func(context.Context) (net.Conn, error)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.server = newServer(e, ln)
	var d net.Dialer
	return func(ctx context.Context) error { return l.server.serve(ctx, ln) },
		func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", ln.Addr().String()) }
}
