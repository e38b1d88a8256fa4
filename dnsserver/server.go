package dnsserver

import (
	"container/list"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"perigee.example/policy"
)

// ErrServerClosed is what ServeUDP and ServeTCP return after Shutdown.
var ErrServerClosed = errors.New("dnsserver: server closed")

// ServerConfig is what a Server is made from. The zero value serves.
type ServerConfig struct {
	// Seed is the secret that draws are made from. Nodes with the same seed
	// give a resolver the same answers.
	Seed [16]byte
	// OnOutcome, when set, is called after each query that was read, answered
	// or not, in the goroutine that serves it: it must be quick and safe for
	// concurrent use, and must keep neither pointer.
	OnOutcome func(*Context, *Outcome)
	// Log takes what an operator must know; nil is slog.Default().
	Log *slog.Logger
}

// Server puts View.Answer behind sockets. Its View and State are swapped whole
// at any time; a query sees one of each. Before the first SetView every query
// is refused.
type Server struct {
	config  ServerConfig
	view    atomic.Pointer[View]
	state   atomic.Pointer[policy.State]
	cookies atomic.Pointer[CookieSecrets]
	limit   atomic.Pointer[limiter]
	panics  atomic.Uint64
	starved atomic.Bool // it has been said that descriptors ran out
	tally   tally

	closing atomic.Bool
	done    chan struct{} // closed by Shutdown
	active  sync.WaitGroup

	nstreams atomic.Int64  // streams.Len(), to be read without mu
	turns    chan struct{} // as many as are held; see turn

	mu      sync.Mutex
	sockets map[io.Closer]struct{} // listeners and packet conns
	streams list.List              // of *stream
	clients map[netip.Addr]int     // streams by client network
}

// NewServer returns a Server that serves nothing yet.
func NewServer(c ServerConfig) *Server {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Server{
		config:  c,
		done:    make(chan struct{}),
		turns:   make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
		sockets: map[io.Closer]struct{}{},
		clients: map[netip.Addr]int{},
	}
}

// SetView swaps the View; queries that are being answered keep the old one.
func (s *Server) SetView(v *View) { s.view.Store(v) }

// View returns the View in use, or nil.
func (s *Server) View() *View { return s.view.Load() }

// SetState swaps the picture of the fleet. It must be of the View's policies:
// when they change, set the View first and then its State; in between, all is
// unknown where the number of endpoints differs.
func (s *Server) SetState(st *policy.State) {
	if v := s.view.Load(); v != nil && v.policies != nil {
		v.policies.Prepare(st)
	}
	s.state.Store(st)
}

// SetCookies swaps the secrets of server cookies; before the first call, and
// with nil, none are given.
func (s *Server) SetCookies(c *CookieSecrets) { s.cookies.Store(c) }

// Panics returns how many queries ended in a panic and got SERVFAIL.
func (s *Server) Panics() uint64 { return s.panics.Load() }

// Shutdown stops the listeners, lets queries that are being answered finish,
// closes idle streams, and waits, for a moment also for those that have asked
// nothing yet. When ctx is done first it closes what is left
// and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing.Swap(true) {
		close(s.done)
	}
	past := time.Unix(1, 0)
	for sock := range s.sockets {
		if p, ok := sock.(net.PacketConn); ok {
			p.SetReadDeadline(past) // its readers finish what they have, then close it
			continue
		}
		sock.Close()
	}
	for e := s.streams.Front(); e != nil; e = e.Next() {
		st := e.Value.(*stream)
		if st.asked.Load() {
			st.conn.SetReadDeadline(past)
		} else {
			st.conn.SetReadDeadline(time.Now().Add(lastQuery))
		}
	}
	s.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		s.active.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for sock := range s.sockets {
		sock.Close()
	}
	for e := s.streams.Front(); e != nil; e = e.Next() {
		e.Value.(*stream).conn.Close()
	}
	s.mu.Unlock()
	<-idle
	return fmt.Errorf("dns server stopped before its last replies were sent: %w", ctx.Err())
}

// open enters a socket, or returns false when the server is closing.
func (s *Server) open(sock io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.sockets[sock] = struct{}{}
	s.active.Add(1)
	return true
}

func (s *Server) release(sock io.Closer) {
	sock.Close()
	s.mu.Lock()
	delete(s.sockets, sock)
	s.mu.Unlock()
	s.active.Done()
}

// asker is one goroutine's room for answering queries.
type asker struct {
	s   *Server
	c   Context
	out Outcome
	// view is what a batch is answered from, and nil in between, so that who
	// waits keeps no zones that were replaced.
	view *View

	count  *counters     // of this goroutine
	packet []byte        // that is being answered
	idle   time.Duration // of the stream, as it is now
}

// newAsker returns room for one goroutine. done gives its counters back.
func (s *Server) newAsker() asker { return asker{s: s, count: s.tally.take()} }

func (a *asker) done() {
	a.count.flush()
	a.s.tally.give(a.count)
}

// answer answers one query that came from and to these addresses now.
func (a *asker) answer(dst, packet []byte, from, local netip.AddrPort, t Transport) []byte {
	a.begin(t, time.Duration(time.Now().UnixNano()))
	return a.answerTo(dst, packet, from, local)
}

// begin reads what all queries of a batch have in common: the time, and the
// server's secrets and state. For each of them this would cost as much as finding
// its name.
func (a *asker) begin(t Transport, now time.Duration) {
	s := a.s
	a.c = Context{
		Transport: t, Now: now, Seed: s.config.Seed, State: s.state.Load(),
		Cookies: s.cookies.Load(), Idle: a.idle,
	}
}

// answerTo answers one query of a batch.
func (a *asker) answerTo(dst, packet []byte, from, local netip.AddrPort) []byte {
	a.packet, a.c.From, a.c.Local, a.c.Limited = packet, from, local, false
	return a.reply(dst, packet)
}

// reply answers within the Context as it stands. A panic, which is a mistake of
// ours, costs this query only: it gets SERVFAIL, and the first one is logged
// with the packet that did it.
func (a *asker) reply(dst, packet []byte) (reply []byte) {
	s := a.s
	base := len(dst)
	defer func() {
		if cause := recover(); cause != nil {
			if s.panics.Add(1) == 1 {
				s.config.Log.Error("panic while answering a query; further ones are only counted",
					"cause", cause, "packet", hex.EncodeToString(packet), "stack", string(debug.Stack()))
			}
			reply = appendServFail(dst[:base], packet)
			a.out = Outcome{Action: Reply, Rcode: rcodeServFail}
			if len(reply) == base {
				a.out = Outcome{Action: Drop}
			}
		}
	}()
	v := a.view
	if v == nil {
		v = s.view.Load()
	}
	return v.Answer(dst, packet, &a.c, &a.out)
}

// report counts the outcome of the last answer, and hands it on.
func (a *asker) report() {
	a.count.count(a.c.Transport, &a.out)
	if f := a.s.config.OnOutcome; f != nil {
		a.out.Query = a.packet
		f(&a.c, &a.out)
	}
}

// appendServFail appends a bare SERVFAIL with the question, if one can be seen.
// It trusts nothing of the answer path, which has just failed.
func appendServFail(dst, packet []byte) []byte {
	if len(packet) < headerLen || packet[2]&(flagQR>>8) != 0 {
		return dst
	}
	question := 0
	if end := skipName(packet, headerLen); end > 0 && end+4 <= len(packet) && packet[end-1] == 0 {
		question = end + 4 - headerLen
	}
	base := len(dst)
	dst = append(dst, packet[:headerLen+question]...)
	h := dst[base : base+headerLen]
	flags := binary.BigEndian.Uint16(h[2:])
	clear(h[4:])
	binary.BigEndian.PutUint16(h[2:], flagQR|flags&(opcodeMask|flagRD)|rcodeServFail)
	if question > 0 {
		h[5] = 1
	}
	return dst
}

// Pauses after a socket error that is not the end: the first is short, each
// next one is twice as long, so that a broken socket neither spins nor sleeps
// through its recovery.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// pause waits after an error, longer each time, or until Shutdown.
func (s *Server) pause(last time.Duration) time.Duration {
	next := min(max(2*last, firstPause), lastPause)
	t := time.NewTimer(next)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done:
	}
	return next
}
