package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxConns bounds the connections of one listener: at some 10 KiB each,
	// 160 MiB. Beyond it an idle one makes way, or new ones are closed at once.
	maxConns = 16384
	// headTimeout bounds the time from a head's first octet, or from the
	// connection's start, to the head's end: whoever takes longer is a
	// slowloris. It covers the TLS handshake too, which gets its own.
	headTimeout = 10 * time.Second
	// idleTimeout is how long a connection may rest between two requests.
	idleTimeout = 75 * time.Second
	// lingerBytes and lingerTimeout bound what is still read after a connection's
	// last answer, so that this is not lost to a reset (RFC 9112 §9.6).
	lingerBytes   = 256 << 10
	lingerTimeout = time.Second
	// firstBuffer is what a connection starts to read with.
	firstBuffer = 4 << 10
	// maxIdleLooks bounds the search for an idle connection that makes room.
	maxIdleLooks = 64
	// maxAcceptPause bounds the pause after Accept failed, for want of file
	// descriptors say.
	maxAcceptPause = time.Second
	// acceptSaidEvery is how often the log says that it does.
	acceptSaidEvery = time.Minute
)

// Serve answers connections of ln until ctx ends, and then says "Connection:
// close" to those that are busy or have asked nothing yet, ends the idle ones,
// and returns nil when all are gone, or after 15 s. A client whose request is on
// its way to an idle connection loses it: call Drain a while before. Serve closes
// ln. Connections of a TLS listener (Certs.Listener) speak HTTP/1.1 too.
//
// The loop answers hits by itself, and by the rules of ServeHTTP what else is as
// plain, misses above all. Other requests go, with their connection, to a net/http
// server, which sees only what guard lets through: heads are as strict there as
// here.
func (e *Edge) Serve(ctx context.Context, ln net.Listener) error {
	return newServer(e, ln).serve(ctx, ln)
}

func newServer(e *Edge, ln net.Listener) *server {
	s := &server{e: e, most: maxConns, conns: map[*conn]struct{}{}, handoff: make(chan net.Conn), done: make(chan struct{}), addr: ln.Addr()}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeadBytes,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateIdle {
				c.(*conn).phase.Store(resting)
			} else {
				c.(*conn).phase.Store(busy)
			}
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &connFacts{c.(*conn).state, &c.(*conn).guard, s.verify != nil, &c.(*conn).lingers})
		},
	}
	return s
}

func (s *server) serve(ctx context.Context, ln net.Listener) error {
	go s.http.Serve(s)
	stop := context.AfterFunc(ctx, func() { s.closing.Store(true); stopAccepting(ln) })
	defer stop()
	err := s.acceptAll(ctx, ln)
	ln.Close()
	s.shutdown()
	return err
}

// server is one call of Serve. It is the listener of its net/http server.
type server struct {
	e       *Edge
	verify  func(*tls.ConnectionState) (string, error) // nil: anybody may ask
	http    *http.Server
	handoff chan net.Conn
	once    sync.Once
	done    chan struct{}
	addr    net.Addr
	closing atomic.Bool
	most    int // connections
	mu      sync.Mutex
	conns   map[*conn]struct{}
	wg      sync.WaitGroup
}

// Accept implements net.Listener for the connections handed over.
func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.handoff:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *server) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr implements net.Listener.
func (s *server) Addr() net.Addr { return s.addr }

func (s *server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	last := s.last()
	if last {
		w.Header().Set("Connection", "close")
	}
	facts, ok := r.Context().Value(connKey{}).(*connFacts)
	if ok && r.Method == refusedMethod {
		if bad := facts.guard.refused.Load(); bad != nil {
			s.e.answerRefused(w, r, bad, facts.state)
			*facts.lingers = true
			return
		}
	}
	s.e.ServeHTTP(w, r)
	if ok && last {
		*facts.lingers = true
	}
}

// answerRefused answers a head that guard refused; the connection ends with it.
func (e *Edge) answerRefused(w http.ResponseWriter, r *http.Request, bad *refused, state *tls.ConnectionState) {
	client := r.RemoteAddr
	if host, _, err := net.SplitHostPort(client); err == nil {
		client = host
	}
	x := &exchange{e: e, w: w, r: r}
	x.rec = AccessRecord{Time: e.now(), TLS: state, Client: client, Cache: "local"}
	w.Header().Set("Connection", "close")
	x.fail(bad.status, bad.why)
	x.log()
}

func (s *server) acceptAll(ctx context.Context, ln net.Listener) error {
	pause, said := time.Millisecond, time.Time{}
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				s.mu.Lock()
				s.endIdle() // one that rests makes way for the one that comes
				s.mu.Unlock()
			}
			if now := s.e.now(); said.IsZero() || now.Sub(said) >= acceptSaidEvery {
				said = now
				s.e.log.Warn("a connection could not be taken; it is tried again and again", "listener", s.addr.String(), "why", err)
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxAcceptPause)
			continue
		}
		pause = time.Millisecond
		boundUnsent(nc)
		c := &conn{Conn: nc, s: s, peer: hostOf(nc.RemoteAddr()), raw: rawOf(nc)}
		c.shard = uint32(s.e.stats.accepted.Add(1))
		if !s.add(c) {
			s.e.stats.turned.Add(1)
			nc.Close()
			continue
		}
		go c.serve()
	}
}

func (s *server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.most && !s.endIdle() {
		return false
	}
	if s.verify == nil && !s.e.clients.connect(c.peer, s.e.now()) {
		return false
	}
	s.conns[c] = struct{}{}
	s.e.stats.open.Add(1)
	s.wg.Add(1)
	return true
}

// endIdle makes room: it ends a connection that rests between two requests. It
// looks at a few, and says whether it found one; mu is held.
func (s *server) endIdle() bool {
	looked := 0
	for c := range s.conns { // in random order
		if c.phase.CompareAndSwap(resting, evicted) {
			c.Conn.SetReadDeadline(past)
			return true
		}
		if looked++; looked == maxIdleLooks {
			break
		}
	}
	return false
}

func (s *server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; ok {
		delete(s.conns, c)
		if s.verify == nil {
			s.e.clients.disconnect(c.peer)
		}
		s.e.stats.open.Add(-1)
		s.wg.Done()
	}
}

// conn is a client's connection: first in our loop, then maybe net/http's too.
type conn struct {
	net.Conn
	s     *server
	peer  string // its address without port
	shard uint32 // of the counters
	state *tls.ConnectionState
	raw   syscall.RawConn // not nil: the loop makes its system calls itself
	fd    uintptr         // of raw, inside of its functions
	phase atomic.Int32
	base  *Snapshot // that snap was made of
	snap  *Snapshot
	pace  pace // at which the client takes what it asked for

	// Of the loop.
	desk    *desk     // nil while there is nothing to do
	kept    []byte    // the start of a head, while there is no desk
	same    *repeated // what the last head said; nil: it is not kept
	asked   bool      // there has been a head
	begun   time.Time // when that head began; zero: none has
	looked  bool      // at that head, which was not whole
	due     time.Time // when the wait for octets must end
	armed   time.Time // the read deadline: due, or before it
	octet   [1]byte   // what a resting connection reads into
	bad     *refused  // the head that ended the loop
	writing bool      // an answer is on its way, and maybe not whole
	last    bool      // it has been announced that the connection closes
	lingers bool      // its last answer is out, and whole

	// Of answers by all rules.
	ctx    context.Context // ends when the client has gone; nil: none was needed yet
	gone   func()          // ends ctx
	watch  watch
	x      *exchange       // the one that is being answered
	values context.Context // see interims

	// For net/http, once it has the connection.
	mem   []byte // all of the read buffer
	buf   []byte // the part of mem that is read and not consumed
	guard guard
	// until is its read deadline.
	untilMu sync.Mutex
	until   time.Time
}

// Write holds the client to a least rate: one that takes less for longer than
// its grace is cut off.
func (c *conn) Write(p []byte) (int, error) {
	most, tick := writeBytes, writeTick
	if c.state != nil {
		most, tick = tlsWriteBytes, slowGrace
	}
	for done := 0; ; {
		now := time.Now()
		c.Conn.SetWriteDeadline(c.pace.deadline(now, tick))
		n, err := c.Conn.Write(p[done:min(len(p), done+most)])
		goesOn := c.pace.moved(n, time.Since(now), minTakeRate)
		done += n
		if errors.Is(err, os.ErrDeadlineExceeded) && (!goesOn || c.state != nil) {
			dropUnsent(c.Conn)
		}
		if err != nil && (!goesOn || c.state != nil || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return done, err
		}
		if done == len(p) {
			return done, nil
		}
	}
}

// Close closes the connection and forgets it.
func (c *conn) Close() error {
	if c.lingers {
		c.linger()
	}
	c.s.remove(c)
	if c.gone != nil {
		c.gone()
	}
	return c.Conn.Close()
}

func (c *conn) serve() {
	keep := false
	defer func() {
		if !keep {
			c.Close()
		}
	}()
	if tc, ok := c.Conn.(*tls.Conn); ok && !c.handshake(tc) {
		return
	}
	if !c.s.admits(c) {
		return
	}
	switch c.loop() {
	case leaveIt:
		keep = c.handOver()
	case refuseHead:
		c.refuse(c.bad)
	}
}

func (c *conn) handshake(tc *tls.Conn) bool {
	tc.SetDeadline(time.Now().Add(headTimeout))
	if err := tc.Handshake(); err != nil {
		c.s.e.log.Debug("TLS handshake failed", "client", c.RemoteAddr().String(), "why", err)
		return false
	}
	state := tc.ConnectionState()
	c.state = &state
	tc.SetDeadline(time.Time{})
	return true
}

// admits reports whether a connection is from whom this listener is for.
func (s *server) admits(c *conn) bool {
	if s.verify == nil {
		return true
	}
	err := errors.New("it does not speak TLS")
	if c.state != nil {
		_, err = s.verify(c.state)
	}
	if err != nil {
		s.e.log.Warn("refused a connection that is not from an edge of ours", "client", c.RemoteAddr().String(), "why", err)
	}
	return err == nil
}

// handOver gives the connection, with what has been read, to net/http.
func (c *conn) handOver() bool {
	c.SetReadDeadline(time.Time{})
	select {
	case c.s.handoff <- c:
		return true
	case <-c.s.done:
		return false
	}
}

// readMore reads once, making room as needed.
func (c *conn) readMore() error {
	if len(c.buf) == 0 {
		c.buf = c.mem[:0]
	}
	if len(c.buf) == cap(c.buf) {
		mem := c.mem
		if 2*len(c.buf) >= len(mem) {
			mem = make([]byte, max(firstBuffer, 2*len(mem)))
		}
		c.buf = mem[:copy(mem, c.buf)]
		c.mem = mem
	}
	n, err := c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.tooEarly() {
		n, err = c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
	}
	c.buf = c.buf[:len(c.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// refuse answers a head that cannot be trusted, as the connection's last.
func (c *conn) refuse(bad *refused) {
	text := strconv.Itoa(bad.status) + " " + http.StatusText(bad.status) + ": " + bad.why + "\n"
	out := appendStatusLine(nil, bad.status)
	out = appendField(out, "Cache-Control", "no-store")
	out = appendField(out, "Connection", "close")
	out = appendField(out, "Content-Length", strconv.Itoa(len(text)))
	out = appendField(out, "Content-Type", "text/plain; charset=utf-8")
	out = append(out, "\r\n"+text...)
	if _, err := c.Write(out); err != nil {
		return
	}
	c.s.e.stats.none.count(c.shard, pathFast, "local", bad.status, int64(len(text)))
	if e := c.s.e; e.access != nil {
		e.access.Log(&AccessRecord{Time: e.now(), Client: c.peer, Status: bad.status, Bytes: int64(len(text)), Cache: "local", TLS: c.state})
	}
	c.lingers = true
}
