package dnsserver

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"perigee.example/internal/mmsg"
)

const (
	// maxUDPQuery is how much of a datagram is read. What is longer than four
	// times what we send is no query.
	maxUDPQuery = 4096
	// maxUDPReaders bounds the goroutines that read one socket: they wait for
	// each other in the kernel, and only answering runs side by side.
	maxUDPReaders = 8
	// udpReply is room for the largest reply and for what is seen not to fit.
	udpReply = maxUDP + 1024
	// udpQueue is how many octets of datagrams may wait in the kernel for one
	// socket: some 5,000 queries, with what it needs beside each, so that a
	// burst is answered late and not lost. Without the right to more it is what
	// net.core.rmem_max allows, by default 200 KiB: 270 queries.
	udpQueue = 4 << 20
	// maxControl is room for the control message with the local address.
	maxControl = 128
)

// packetIO is a datagram socket as the loop needs it.
type packetIO interface {
	// read waits for a datagram. local is the address it came to. reply is
	// what write needs to answer from there, valid until the next read with
	// the same control.
	read(b, control []byte) (n int, from, local netip.AddrPort, reply []byte, err error)
	write(b, reply []byte, to netip.AddrPort) error
}

// ServeUDP answers queries from conn until Shutdown, then closes it and returns
// ErrServerClosed; any other error is of a socket that ended by itself. The conn
// is the server's from here on: only Shutdown ends it, and where datagrams are
// read in batches (Linux) it is closed at once, and its socket served by a
// descriptor that the runtime's poller does not know. From a
// *net.UDPConn replies leave from the address that the query came to, also when
// it is bound to the wildcard address (Linux; elsewhere bind each address), and
// are not fragmented for a forged path MTU. Other net.PacketConns must give *net.UDPAddr.
func (s *Server) ServeUDP(conn net.PacketConn) error {
	if !s.open(conn) {
		conn.Close()
		return ErrServerClosed
	}
	defer s.release(conn)
	readers := min(runtime.GOMAXPROCS(0), maxUDPReaders)
	var sock packetIO = anyPacketConn{conn, addrPort(conn.LocalAddr())}
	if udp, ok := conn.(*net.UDPConn); ok {
		kernel := newUDPSocket(udp, func(err error) {
			s.config.Log.Warn("udp socket option not set", "address", conn.LocalAddr(), "why", err)
		})
		if mmsg.Supported {
			err := s.serveBatches(kernel, readers)
			if s.closing.Load() {
				return ErrServerClosed
			}
			return err
		}
		sock = kernel
	}
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { errs[i] = s.readPackets(sock) })
	}
	wg.Wait()
	if s.closing.Load() {
		return ErrServerClosed
	}
	return errors.Join(errs...)
}

func (s *Server) readPackets(sock packetIO) error {
	a := s.newAsker()
	defer a.done()
	packet, control := make([]byte, maxUDPQuery), make([]byte, maxControl)
	room := make([]byte, 0, udpReply)
	waited := time.Duration(0)
	for {
		n, from, local, back, err := sock.read(packet, control)
		switch {
		case s.closing.Load() && err != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // such as ENOBUFS, or an ICMP error of an earlier reply
			waited = s.pause(waited)
			continue
		}
		waited = 0
		if from.Port() == 0 {
			continue // nothing can be sent there
		}
		reply := a.answer(room, packet[:n], from, local, UDP)
		reply = a.limit(room, reply, packet[:n])
		if len(reply) > 0 {
			// The client asks again if this is lost: there is nobody to tell.
			_ = sock.write(reply, back, from)
		}
		a.report()
		a.count.flush()
	}
}

// udpSocket is a kernel socket.
type udpSocket struct {
	conn     *net.UDPConn
	local    netip.AddrPort
	wildcard bool // bound to no address: each datagram says to which it came
}

func newUDPSocket(conn *net.UDPConn, warn func(error)) *udpSocket {
	s := &udpSocket{conn: conn, local: addrPort(conn.LocalAddr())}
	if err := noFragments(conn, s.local); err != nil {
		warn(err)
	}
	if forceQueue(conn) != nil {
		conn.SetReadBuffer(udpQueue) // as much as it may; fewer are no fault
	}
	if s.local.Addr().IsUnspecified() {
		err := receiveLocal(conn, s.local)
		if err != nil {
			warn(err)
		}
		s.wildcard = err == nil
	}
	return s
}

func (s *udpSocket) read(b, control []byte) (int, netip.AddrPort, netip.AddrPort, []byte, error) {
	if !s.wildcard {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		return n, unmapped(from), s.local, nil, err
	}
	n, cn, _, from, err := s.conn.ReadMsgUDPAddrPort(b, control)
	if err != nil {
		return 0, from, s.local, nil, err
	}
	local, reply := s.to(control[:cn])
	return n, unmapped(from), local, reply, nil
}

// to reads the address that a datagram came to, and what answers from there.
func (s *udpSocket) to(control []byte) (netip.AddrPort, []byte) {
	addr, reply := replyFrom(control)
	return netip.AddrPortFrom(addr, s.local.Port()), reply
}

func (s *udpSocket) write(b, reply []byte, to netip.AddrPort) error {
	if s.local.Addr().Is6() && to.Addr().Is4() {
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	if reply == nil {
		_, err := s.conn.WriteToUDPAddrPort(b, to)
		return err
	}
	_, _, err := s.conn.WriteMsgUDPAddrPort(b, reply, to)
	return err
}

// anyPacketConn is a net.PacketConn that is not the kernel's.
type anyPacketConn struct {
	conn  net.PacketConn
	local netip.AddrPort
}

func (p anyPacketConn) read(b, _ []byte) (int, netip.AddrPort, netip.AddrPort, []byte, error) {
	n, from, err := p.conn.ReadFrom(b)
	return n, addrPort(from), p.local, nil, err
}

func (p anyPacketConn) write(b, _ []byte, to netip.AddrPort) error {
	_, err := p.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

// addrPort reads the address of a UDP or TCP socket; of any other it is zero.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	}
	return netip.AddrPort{}
}

// unmapped undoes the form in which a socket of both families shows IPv4.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
