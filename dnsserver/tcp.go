package dnsserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// tcpIdle is how long a stream may take to bring its next whole query: the
	// order of seconds that RFC 7766 §6.2.3 has in mind. The time runs from
	// the last query, so that octets sent one by one win nothing.
	tcpIdle = 10 * time.Second
	// tcpIdleBusy is tcpIdle once half of maxStreams is in use.
	tcpIdleBusy = 2 * time.Second
	// tcpWrite is how long a reply may take to be accepted by the client's
	// side; who asks and does not read is let go.
	tcpWrite = 5 * time.Second
	// maxStreams bounds the streams of all listeners. Each costs a goroutine
	// and tcpBuffer while it is idle.
	maxStreams = 4096
	// maxStreamsPerClient bounds those of one IPv4 address or IPv6 /64. A
	// resolver needs one or two (RFC 7766 §6.2.2), and many may share a NAT.
	maxStreamsPerClient = 64
	// tcpBuffer holds any ordinary query; longer ones take room of their own.
	tcpBuffer = 2048
	// tcpRoom is room for the largest message, its length, and what is seen
	// not to fit.
	tcpRoom = 2 + maxTCP + 1024
)

// rooms lends room for large messages to streams only while they have one.
var rooms = sync.Pool{New: func() any { return new([tcpRoom]byte) }}

// ServeTCP answers queries on streams from ln until Shutdown, then closes it and
// returns ErrServerClosed; any other error is of a listener that ended by
// itself. A stream may carry many queries, also without waiting for replies;
// they are answered in order. Streams over maxStreams or maxStreamsPerClient
// are closed at once.
func (s *Server) ServeTCP(ln net.Listener) error {
	if !s.open(ln) {
		ln.Close()
		return ErrServerClosed
	}
	defer s.release(ln)
	waited := time.Duration(0)
	for {
		conn, err := ln.Accept()
		switch {
		case s.closing.Load():
			if err == nil {
				conn.Close()
			}
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // such as EMFILE
			waited = s.pause(waited)
			continue
		}
		waited = 0
		client := clientOf(conn)
		if !s.enter(conn, client) {
			conn.Close()
			continue
		}
		go func() {
			defer s.leave(conn, client)
			s.serveStream(conn)
		}()
	}
}

// clientOf is the network that shares maxStreamsPerClient.
func clientOf(conn net.Conn) netip.Addr {
	addr := addrPort(conn.RemoteAddr()).Addr().WithZone("")
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		return p.Addr()
	}
	return addr
}

// enter counts a stream in; it is false when there are too many.
func (s *Server) enter(conn net.Conn, client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() || len(s.conns) >= maxStreams || s.clients[client] >= maxStreamsPerClient {
		return false
	}
	s.conns[conn] = struct{}{}
	s.clients[client]++
	s.active.Add(1)
	return true
}

func (s *Server) leave(conn net.Conn, client netip.Addr) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
	s.mu.Unlock()
	s.active.Done()
}

// idle is the time-out for the next query.
func (s *Server) idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxStreams/2 {
		return tcpIdleBusy
	}
	return tcpIdle
}

// serveStream answers the queries of one stream until it ends, idles, or does
// not take its replies.
func (s *Server) serveStream(conn net.Conn) {
	a := asker{s: s}
	r := bufio.NewReaderSize(conn, tcpBuffer)
	from, local := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	for answered := true; ; {
		if answered {
			a.idle = s.idle()
			if conn.SetReadDeadline(time.Now().Add(a.idle)) != nil {
				return
			}
			answered = false
		}
		if s.closing.Load() {
			return
		}
		head, err := r.Peek(2)
		if err != nil {
			return
		}
		size := int(binary.BigEndian.Uint16(head))
		if size == 0 {
			r.Discard(2) // nothing was asked, and nothing is wrong with the stream
			continue
		}
		if answered, err = s.serveMessage(conn, r, &a, size, from, local); err != nil {
			return
		}
	}
}

// serveMessage reads one message of size octets and answers it. answered is
// false when there was nothing to answer.
func (s *Server) serveMessage(conn net.Conn, r *bufio.Reader, a *asker, size int, from, local netip.AddrPort) (answered bool, err error) {
	var packet []byte
	inPlace := 2+size <= r.Size()
	if inPlace {
		if packet, err = r.Peek(2 + size); err != nil {
			return false, err
		}
		packet = packet[2:]
	} else {
		room := rooms.Get().(*[tcpRoom]byte)
		defer rooms.Put(room)
		if _, err = io.ReadFull(r, room[:2+size]); err != nil {
			return false, err
		}
		packet = room[2 : 2+size]
	}
	room := rooms.Get().(*[tcpRoom]byte)
	defer rooms.Put(room)
	reply := a.answer(room[:2], packet, from, local, TCP)
	if inPlace {
		r.Discard(2 + size)
	}
	defer a.report()
	if len(reply) <= 2 {
		return false, nil
	}
	binary.BigEndian.PutUint16(reply, uint16(len(reply)-2))
	if err := conn.SetWriteDeadline(time.Now().Add(tcpWrite)); err != nil {
		return false, err
	}
	// Length and message in one segment (RFC 7766 §8).
	_, err = conn.Write(reply)
	return true, err
}
