// Package memnet is an in-memory network for tests: stream listeners and
// packet conns that work inside a testing/synctest bubble, because whatever
// waits in them waits on a sync.Cond and every deadline is a time.AfterFunc.
//
// It is not a simulator: nothing is slow, reordered or lost, except that a
// datagram to nobody, or to a full queue, is dropped as UDP drops it. Writes
// are buffered (streamBuffer), so that a writer need not meet its reader.
//
//	n := memnet.New()
//	ln, err := n.Listen("tcp", "192.0.2.1:80")
//	go server.Serve(ln)
//	client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
//	client.Get("http://192.0.2.1/")
//
// Make the Network inside the bubble that uses it.
package memnet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

const (
	// streamBuffer bounds the octets on their way in one direction of a
	// stream: enough for the largest DNS message over TCP and its prefix.
	streamBuffer = 128 << 10
	// packetQueue bounds the datagrams waiting at one packet conn.
	packetQueue = 4096
	// backlog bounds the streams that wait to be accepted by one listener.
	backlog = 1024
	// firstPort is where ephemeral ports begin (RFC 6335 §6).
	firstPort = 49152
)

// Network is a set of addresses that can reach each other. The zero value is
// not ready: use New.
type Network struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*Listener
	packets   map[netip.AddrPort]*PacketConn
	next      uint16
}

// New returns an empty network.
func New() *Network {
	return &Network{
		listeners: map[netip.AddrPort]*Listener{},
		packets:   map[netip.AddrPort]*PacketConn{},
		next:      firstPort,
	}
}

// Listen opens a stream listener. network is "tcp"; address is an IP address
// and a port, where port 0 takes a free one. The caller closes the listener.
func (n *Network) Listen(network, address string) (*Listener, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, opError("listen", network, nil, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ap.Port() == 0 {
		ap = netip.AddrPortFrom(ap.Addr(), n.ephemeral(ap.Addr()))
	}
	if n.listeners[ap] != nil {
		return nil, opError("listen", network, net.TCPAddrFromAddrPort(ap), syscall.EADDRINUSE)
	}
	l := &Listener{network: n, addr: ap, queue: make(chan net.Conn, backlog), done: make(chan struct{})}
	n.listeners[ap] = l
	return l, nil
}

// ListenPacket opens a datagram socket, as Listen does.
func (n *Network) ListenPacket(network, address string) (*PacketConn, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, opError("listen", network, nil, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ap.Port() == 0 {
		ap = netip.AddrPortFrom(ap.Addr(), n.ephemeral(ap.Addr()))
	}
	if n.packets[ap] != nil {
		return nil, opError("listen", network, net.UDPAddrFromAddrPort(ap), syscall.EADDRINUSE)
	}
	p := newPacketConn(n, ap)
	n.packets[ap] = p
	return p, nil
}

// DialContext connects to a listener, from 127.0.0.1 or ::1. It fits
// http.Transport.DialContext; address must be an IP address and a port.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, opError("dial", network, nil, err)
	}
	from := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if to.Addr().Is6() {
		from = netip.IPv6Loopback()
	}
	return n.DialFrom(ctx, from, to)
}

// DialFrom connects to a listener from an address of the caller's choice.
func (n *Network) DialFrom(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[to]
	local := netip.AddrPortFrom(from, n.ephemeral(from))
	n.mu.Unlock()
	if l == nil {
		return nil, opError("dial", "tcp", net.TCPAddrFromAddrPort(to), syscall.ECONNREFUSED)
	}
	near, far := pipe(net.TCPAddrFromAddrPort(local), net.TCPAddrFromAddrPort(to))
	select {
	case l.queue <- far:
		return near, nil
	case <-l.done:
		return nil, opError("dial", "tcp", net.TCPAddrFromAddrPort(to), syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, opError("dial", "tcp", net.TCPAddrFromAddrPort(to), ctx.Err())
	}
}

// ephemeral returns a port that nothing listens on at addr. n.mu is held.
func (n *Network) ephemeral(addr netip.Addr) uint16 {
	for {
		port := n.next
		if n.next++; n.next < firstPort {
			n.next = firstPort
		}
		ap := netip.AddrPortFrom(addr, port)
		if n.listeners[ap] == nil && n.packets[ap] == nil {
			return port
		}
	}
}

// Listener is a net.Listener.
type Listener struct {
	network *Network
	addr    netip.AddrPort
	queue   chan net.Conn
	once    sync.Once
	done    chan struct{}
}

// Accept waits for the next stream. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, opError("accept", "tcp", l.Addr(), net.ErrClosed)
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, opError("accept", "tcp", l.Addr(), net.ErrClosed)
	}
}

// Close frees the address and closes the streams that nobody accepted.
func (l *Listener) Close() error {
	err := error(opError("close", "tcp", l.Addr(), net.ErrClosed))
	l.once.Do(func() {
		err = nil
		l.network.mu.Lock()
		delete(l.network.listeners, l.addr)
		l.network.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.Close()
			default:
				return
			}
		}
	})
	return err
}

// Addr is a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Pipe returns the two ends of one stream, for a test that needs no listener.
func Pipe() (net.Conn, net.Conn) {
	loop := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return pipe(net.TCPAddrFromAddrPort(netip.AddrPortFrom(loop, firstPort)),
		net.TCPAddrFromAddrPort(netip.AddrPortFrom(loop, 1)))
}

func opError(op, network string, addr net.Addr, err error) *net.OpError {
	return &net.OpError{Op: op, Net: network, Addr: addr, Err: err}
}
