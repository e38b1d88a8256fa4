package origin

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxUpstreamConns bounds the connections to one upstream that carry a
	// request: with more, a slow origin costs us every file descriptor. Requests
	// beyond wait for one, as long as they may take to connect.
	maxUpstreamConns = 1024
	// maxIdleConns is how many more stay open for later.
	maxIdleConns = 128
	// idleTimeout is below the 60 s after which many origins close: a request
	// on a connection that is being closed is lost.
	idleTimeout = 50 * time.Second
	// idleMargin is how much earlier than a Keep-Alive field says a connection is
	// let go of: a request must be there by then.
	idleMargin = time.Second
	// maxConnRequests and maxConnAge bound how often and how long a connection
	// is used again: so that an origin whose name moves is followed, and what
	// it holds for a connection is freed.
	maxConnRequests = 1000
	maxConnAge      = 10 * time.Minute
	// readBuffer is what a connection reads with while it carries a request: most
	// responses fit, and are then read at once.
	readBuffer = 32 << 10
	// watchAfter is how long a connection is idle before it is watched all the
	// time: till then it is looked at when it is used again.
	watchAfter = time.Second
)

// transport is the client's side of HTTP/1.1 (RFC 9112) to one upstream, with
// its connections. net/http's hides what a cache must know: it repeats requests
// without a word, and accepts heads that two parsers could read differently.
type transport struct {
	address string
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	tls     *tls.Config // nil: plain
	c       *PoolConfig // timeouts
	slots   chan struct{}

	mu      sync.Mutex
	idle    []*conn // the most recently used last
	looking bool    // watchIdle will be called
	closed  bool
}

// readers are what connections in use read with.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

// conn is one connection. It is in use, or idle, or closed.
type conn struct {
	net.Conn
	t    *transport
	r    *bufio.Reader // while it is in use
	look *glance       // not nil: it can be looked at without a read
	born time.Time
	uses int
	rest time.Duration // how long it may be idle, as its last response says, or 0

	// Of an idle connection: watched is nil while it is not watched, and closed
	// when the watch has ended; sound then says that nothing was heard.
	parked  time.Time
	watched chan struct{}
	sound   bool
}

// progress is how far an exchange has come: what its error must say.
type progress struct {
	phase  atomic.Int32 // a Phase
	seen   atomic.Bool  // a byte of a response has come
	reused bool         // the connection has carried a request before
}

func (p *progress) enter(phase Phase) { p.phase.Store(int32(phase)) }

func newTransport(address string, c *PoolConfig) *transport {
	return &transport{address: address, c: c, slots: make(chan struct{}, maxUpstreamConns)}
}

// acquire returns a connection that is the caller's until release: an idle
// one, unless fresh, or a new one.
func (t *transport) acquire(ctx context.Context, p *progress, fresh bool) (*conn, error) {
	p.enter(PhaseConnect)
	if err := t.slot(ctx); err != nil {
		return nil, err
	}
	for !fresh {
		c := t.pop()
		if c == nil {
			break
		}
		if c.claim() {
			p.reused = true
			c.read()
			return c, nil
		}
	}
	p.reused = false
	c, err := t.connect(ctx, p)
	if err != nil {
		<-t.slots
		return nil, err
	}
	return c, nil
}

// slot waits for the right to use a connection.
func (t *transport) slot(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
	}
	wait := t.c.ConnectTimeout + t.c.TLSTimeout
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return timeoutError{"no free connection", wait}
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *transport) connect(ctx context.Context, p *progress) (*conn, error) {
	nc, err := t.dial(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		p.enter(PhaseTLS)
		ctx, cancel := context.WithTimeoutCause(ctx, t.c.TLSTimeout, timeoutError{"no TLS handshake", t.c.TLSTimeout})
		defer cancel()
		secure := tls.Client(nc, t.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			if timeout, ok := errors.AsType[timeoutError](context.Cause(ctx)); ok {
				err = timeout
			}
			return nil, err
		}
		nc = secure
	}
	c := &conn{Conn: nc, t: t, look: glanceAt(nc), born: time.Now()}
	c.read()
	return c, nil
}

// read gives c what it reads with.
func (c *conn) read() {
	c.r = readers.Get().(*bufio.Reader)
	c.r.Reset(c.Conn)
}

// cut reports that a TLS connection ended without saying so (RFC 9112 §9.8): a
// body that ends with it may be a part. crypto/tls takes both ends for one.
func (c *conn) cut() bool {
	secure, ok := c.Conn.(*tls.Conn)
	if !ok {
		return false
	}
	raw, ok := secure.NetConn().(*boundConn)
	return ok && raw.ended
}

// pop takes the most recently used idle connection out of the list.
func (t *transport) pop() *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.idle) - 1
	if n < 0 {
		return nil
	}
	c := t.idle[n]
	t.idle = t.idle[:n]
	return c
}

// remove takes c out of the list; false when it is not there.
func (t *transport) remove(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, have := range t.idle {
		if have == c {
			t.idle = append(t.idle[:i], t.idle[i+1:]...)
			return true
		}
	}
	return false
}

// release ends the caller's use of c. reuse says that the exchange ended where
// its messages end.
func (c *conn) release(reuse bool) {
	c.uses++
	if reuse = reuse && c.r.Buffered() == 0; reuse { // else somebody may still be in a read
		c.r.Reset(nil)
		readers.Put(c.r)
		c.r = nil
	}
	now := time.Now()
	if !reuse || c.uses >= maxConnRequests || now.Sub(c.born) > maxConnAge || !c.park(now) {
		c.Close()
	}
	<-c.t.slots
}

// park makes c idle. An upstream that closes it, or says something unasked, is
// noticed before the next request goes out on it: by a look, or by the watch of
// one that is idle for longer or cannot be looked at.
func (c *conn) park(now time.Time) bool {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle) >= maxIdleConns || c.rests() <= 0 {
		return false
	}
	t.idle = append(t.idle, c)
	if c.parked, c.watched = now, nil; c.look == nil {
		c.startWatch()
	} else if !t.looking {
		t.looking = true
		time.AfterFunc(watchAfter, t.watchIdle)
	}
	return true
}

// rests is how long c may be idle.
func (c *conn) rests() time.Duration {
	if c.rest != 0 {
		return min(idleTimeout, c.rest-idleMargin)
	}
	return idleTimeout
}

// watchIdle starts to watch what has been idle for long enough, and calls itself
// again while there is more that may be.
func (t *transport) watchIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.looking = false
	for _, c := range t.idle {
		switch {
		case c.watched != nil:
		case now.Sub(c.parked) >= watchAfter:
			c.startWatch()
		default:
			t.looking = true
		}
	}
	if t.looking {
		time.AfterFunc(watchAfter, t.watchIdle)
	}
}

// startWatch watches c, which is idle; t.mu is held.
func (c *conn) startWatch() {
	c.watched, c.sound = make(chan struct{}), false
	c.SetReadDeadline(c.parked.Add(c.rests()))
	go c.watch()
}

func (c *conn) watch() {
	var octet [1]byte
	_, err := c.Read(octet[:])
	if c.t.remove(c) { // the upstream closed it or spoke, or it was idle too long
		c.Close()
		return
	}
	c.sound = errors.Is(err, os.ErrDeadlineExceeded)
	close(c.watched)
}

// claim ends the watch of a connection that pop returned, if it has one. It
// reports whether the connection is good for another request; else it is closed.
func (c *conn) claim() bool {
	if c.watched == nil {
		if time.Since(c.parked) >= c.rests() || !c.look.quiet() {
			c.Close()
			return false
		}
		return true
	}
	c.SetReadDeadline(time.Unix(1, 0))
	<-c.watched
	if !c.sound || c.SetReadDeadline(time.Time{}) != nil {
		c.Close()
		return false
	}
	return true
}

// closeIdle closes what is idle, and whatever would become so.
func (t *transport) closeIdle() {
	t.mu.Lock()
	idle := t.idle
	t.idle, t.closed = nil, true
	t.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}
