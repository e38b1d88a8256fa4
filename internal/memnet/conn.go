package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// deadline expires at a time, under the lock of what it belongs to.
type deadline struct {
	expired bool
	timer   *time.Timer
	turn    int // tells a timer that a later set came in between
}

// set arms d for t; the zero time disarms it. cond.L is held.
func (d *deadline) set(t time.Time, cond *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.turn++
	d.expired = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.expired = true
		cond.Broadcast()
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(wait, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		if d.turn == turn {
			d.expired = true
			cond.Broadcast()
		}
	})
}

// half is one direction of a stream.
type half struct {
	mu                  sync.Mutex
	cond                *sync.Cond
	buf                 []byte
	readShut, writeShut bool // the reader, the writer has closed
	readBy, writeBy     deadline
}

func newHalf() *half {
	h := &half{}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readShut:
			return 0, net.ErrClosed
		case h.readBy.expired:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.cond.Broadcast()
			return n, nil
		case h.writeShut:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for {
		switch {
		case h.writeShut:
			return done, net.ErrClosed
		case h.readShut:
			return done, syscall.EPIPE
		case h.writeBy.expired:
			return done, os.ErrDeadlineExceeded
		case done == len(p):
			return done, nil
		}
		if room := streamBuffer - len(h.buf); room > 0 {
			n := min(room, len(p)-done)
			h.buf = append(h.buf, p[done:done+n]...)
			done += n
			h.cond.Broadcast()
			continue
		}
		h.cond.Wait()
	}
}

func (h *half) shut(reader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reader {
		h.readShut = true
		h.readBy.set(time.Time{}, h.cond)
	} else {
		h.writeShut = true
		h.writeBy.set(time.Time{}, h.cond)
	}
	h.cond.Broadcast()
}

func (h *half) arm(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.set(t, h.cond)
}

// conn is one end of a stream.
type conn struct {
	in, out       *half
	local, remote net.Addr
}

func pipe(a, b net.Addr) (near, far *conn) {
	one, two := newHalf(), newHalf()
	return &conn{in: one, out: two, local: a, remote: b}, &conn{in: two, out: one, local: b, remote: a}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	if err != nil && err != io.EOF {
		err = opError("read", "tcp", c.remote, err)
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	if err != nil {
		err = opError("write", "tcp", c.remote, err)
	}
	return n, err
}

// Close closes both directions; what the other end has not read yet stays
// readable there.
func (c *conn) Close() error {
	c.in.shut(true)
	c.out.shut(false)
	return nil
}

// CloseWrite ends the stream to the other side, as of a *net.TCPConn.
func (c *conn) CloseWrite() error {
	c.out.shut(false)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.arm(&c.in.readBy, t)
	c.out.arm(&c.out.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.arm(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.arm(&c.out.writeBy, t)
	return nil
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// PacketConn is a net.PacketConn; its addresses are *net.UDPAddr.
type PacketConn struct {
	network *Network
	addr    netip.AddrPort
	mu      sync.Mutex
	cond    *sync.Cond
	queue   []datagram
	closed  bool
	readBy  deadline
}

func newPacketConn(n *Network, addr netip.AddrPort) *PacketConn {
	p := &PacketConn{network: n, addr: addr}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// ReadFrom waits for the next datagram; what does not fit into b is lost.
func (p *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed:
			return 0, nil, opError("read", "udp", p.LocalAddr(), net.ErrClosed)
		case p.readBy.expired:
			return 0, nil, opError("read", "udp", p.LocalAddr(), os.ErrDeadlineExceeded)
		case len(p.queue) > 0:
			d := p.queue[0]
			p.queue = p.queue[1:]
			return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
		}
		p.cond.Wait()
	}
}

// WriteTo sends one datagram to a *net.UDPAddr. As with UDP, nobody being
// there is no error.
func (p *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, opError("write", "udp", to, syscall.EAFNOSUPPORT)
	}
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, opError("write", "udp", to, net.ErrClosed)
	}
	ap := udp.AddrPort()
	p.network.mu.Lock()
	peer := p.network.packets[netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())]
	p.network.mu.Unlock()
	if peer == nil {
		return len(b), nil
	}
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if !peer.closed && len(peer.queue) < packetQueue {
		peer.queue = append(peer.queue, datagram{append([]byte(nil), b...), p.addr})
		peer.cond.Broadcast()
	}
	return len(b), nil
}

// Close frees the address and wakes every reader.
func (p *PacketConn) Close() error {
	p.network.mu.Lock()
	if p.network.packets[p.addr] == p {
		delete(p.network.packets, p.addr)
	}
	p.network.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return opError("close", "udp", p.LocalAddr(), net.ErrClosed)
	}
	p.closed = true
	p.queue = nil
	p.readBy.set(time.Time{}, p.cond)
	p.cond.Broadcast()
	return nil
}

// LocalAddr is a *net.UDPAddr.
func (p *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.addr) }

// SetDeadline sets the read deadline; writes never wait.
func (p *PacketConn) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline bounds ReadFrom.
func (p *PacketConn) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readBy.set(t, p.cond)
	return nil
}

// SetWriteDeadline does nothing: writes never wait.
func (p *PacketConn) SetWriteDeadline(time.Time) error { return nil }
