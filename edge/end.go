package edge

import (
	"context"
	"io"
	"net"
	"time"
)

const (
	// shutdownGrace is how long requests under way may take when Serve ends.
	shutdownGrace = 15 * time.Second
	// lastAccepts is how long connections are taken after the end, and
	// lastChance how long one that has asked nothing yet may take to do so.
	lastAccepts = 20 * time.Millisecond
	lastChance  = time.Second
)

// stopAccepting has Accept end, once it has taken the connections that wait, where
// the listener can do that: to close it would reset them.
func stopAccepting(ln net.Listener) {
	if l, ok := ln.(interface{ SetDeadline(time.Time) error }); ok && l.SetDeadline(time.Now().Add(lastAccepts)) == nil {
		return
	}
	ln.Close()
}

// last reports whether the answer that goes out now is its connection's last.
func (s *server) last() bool { return s.closing.Load() || s.e.draining.Load() }

// shutdown ends idle connections now, the others when they are through: those
// that net/http has too, whose own Shutdown drops a request that it has just read.
func (s *server) shutdown() {
	s.closing.Store(true)
	s.mu.Lock()
	for c := range s.conns {
		switch {
		case c.phase.Load() == resting:
			c.Conn.SetReadDeadline(past)
		case c.phase.Load() == silent:
			c.Conn.SetReadDeadline(time.Now().Add(lastChance))
		}
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	gone := make(chan struct{})
	go func() { s.wg.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-ctx.Done():
		s.mu.Lock()
		s.e.log.Warn("connections cut off at shutdown", "listener", s.addr.String(), "connections", len(s.conns))
		for c := range s.conns {
			c.Conn.Close()
		}
		s.mu.Unlock()
	}
	s.Close()
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// SetReadDeadline is also net/http's way to wait for the next request. At the end
// there is none.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.untilMu.Lock()
	defer c.untilMu.Unlock()
	c.until = t
	err := c.Conn.SetReadDeadline(t)
	if c.endsResting() {
		return c.Conn.SetReadDeadline(past)
	}
	return err
}

func (c *conn) endsResting() bool { return c.s.closing.Load() && c.phase.Load() == resting }

// tooEarly is asked by who reads for net/http when a read deadline has passed. It
// may have been set late, by who ends connections that rest, as this one did when
// they looked at it: then net/http's stands again.
func (c *conn) tooEarly() bool {
	c.untilMu.Lock()
	defer c.untilMu.Unlock()
	if c.endsResting() || !c.until.IsZero() && !time.Now().Before(c.until) {
		return false
	}
	return c.Conn.SetReadDeadline(c.until) == nil
}

// linger ends the stream to the client, and reads for a while what it still sends:
// to close at once what it sends to would reset the connection, and might take the
// last answer from it (RFC 9112 §9.6).
func (c *conn) linger() {
	c.lingers = false
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.phase.Store(busy) // shutdown waits for it
	c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	io.CopyN(io.Discard, c.Conn, lingerBytes)
}

// CloseWrite is what net/http calls before it closes on a client that may still be
// sending the body of a request that has been answered.
func (c *conn) CloseWrite() error {
	c.linger()
	return nil
}
