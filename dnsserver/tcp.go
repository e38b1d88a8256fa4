package dnsserver

import (
	"bufio"
	"container/list"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// tcpIdle is how long a stream may take to bring its next whole query: the
	// order of seconds that RFC 7766 §6.2.3 has in mind. The time runs from
	// the last query, so that octets sent one by one win nothing.
	tcpIdle = 10 * time.Second
	// tcpIdleBusy is tcpIdle once half of maxStreams is in use.
	tcpIdleBusy = 2 * time.Second
	// lastQuery is how long a stream that has asked nothing yet may take to do so
	// at the end: its client is not to be blamed.
	lastQuery = time.Second
	// tcpWrite is how long a reply may take to be accepted by the client's
	// side; who asks and does not read is let go.
	tcpWrite = 5 * time.Second
	// maxStreams bounds the streams of all listeners. Each costs a goroutine
	// and tcpBuffer while it is idle. Beyond it a new one takes the place of
	// one that is idle.
	maxStreams = 4096
	// maxStreamsPerClient bounds those of one IPv4 address or IPv6 /64. A
	// resolver needs one or two (RFC 7766 §6.2.2), and many may share a NAT.
	maxStreamsPerClient = 64
	// tcpBuffer holds any ordinary query, and some forty that come at once;
	// longer ones take room of their own.
	tcpBuffer = 2048
	// tcpReplies is room for replies that go out in one segment or few: those to
	// the queries of one read. A longer reply goes out by itself.
	tcpReplies = 4096
	// tcpRoom is room for the largest message, its length, and what is seen
	// not to fit.
	tcpRoom = 2 + maxTCP + 1024
	// evictShare is one part in how many of the streams make way when the
	// process has no descriptor left: enough for those that come next, and few
	// enough that it is those that have long been idle.
	evictShare = 8
)

// rooms lends room for large messages to streams only while they have one, and
// batches that for their replies.
var (
	rooms   = sync.Pool{New: func() any { return new([tcpRoom]byte) }}
	batches = sync.Pool{New: func() any { return new([tcpReplies]byte) }}
)

// ServeTCP answers queries on streams from ln until Shutdown, then closes it and
// returns ErrServerClosed; any other error is of a listener that ended by
// itself. A stream may carry many queries, also without waiting for replies;
// they are answered in order. A client's streams over maxStreamsPerClient are
// closed at once; when there are maxStreams, the next one takes the place of one
// that has been idle, so that who holds many keeps nobody out.
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
		case s.closing.Load() && err != nil:
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				if !s.starved.Swap(true) {
					s.config.Log.Warn("no descriptor is left for another stream: idle ones make way; raise ulimit -n", "streams", s.nstreams.Load(), "why", err)
				}
				s.evict(max(int(s.nstreams.Load())/evictShare, 1))
			}
			waited = s.pause(waited)
			continue
		}
		waited = 0
		st := s.enter(conn, clientOf(conn))
		if st == nil {
			s.tally.refused.Add(1)
			conn.Close()
			continue
		}
		go func() {
			defer s.leave(st)
			s.serveStream(st)
		}()
		if s.closing.Load() {
			return ErrServerClosed
		}
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

// stream is one connection that is being served.
type stream struct {
	conn   net.Conn
	client netip.Addr
	// used says that it is new, or has brought a query, since it was last looked
	// at for making way.
	used  atomic.Bool
	asked atomic.Bool   // it has brought a query
	at    *list.Element // in Server.streams; nil when it has left; under Server.mu
}

// enter counts a stream in. It is nil when its client has too many. The caller
// holds the server open.
func (s *Server) enter(conn net.Conn, client netip.Addr) *stream {
	s.mu.Lock()
	if s.clients[client] >= maxStreamsPerClient {
		s.mu.Unlock()
		return nil
	}
	var out *stream
	if s.streams.Len() >= maxStreams {
		out = s.leastUsed()
	}
	st := &stream{conn: conn, client: client}
	st.used.Store(true)
	st.at = s.streams.PushBack(st)
	s.clients[client]++
	s.nstreams.Store(int64(s.streams.Len()))
	s.active.Add(1)
	s.mu.Unlock()
	s.tally.streams.Add(1)
	if out != nil {
		s.tally.evicted.Add(1)
		out.conn.Close()
	}
	return st
}

// evict lets n streams make way.
func (s *Server) evict(n int) {
	for range n {
		s.mu.Lock()
		st := s.leastUsed()
		s.mu.Unlock()
		if st == nil {
			return
		}
		s.tally.evicted.Add(1)
		st.conn.Close()
	}
}

// leastUsed takes a stream out of the table, or returns nil when there is none.
// One that is new or has brought a query since the last time around has a second
// chance, so those make way that have asked nothing for long (the clock
// algorithm, of page replacement). s.mu is held.
func (s *Server) leastUsed() *stream {
	for range s.streams.Len() {
		e := s.streams.Front()
		if e.Value.(*stream).used.Swap(false) {
			s.streams.MoveToBack(e)
			continue
		}
		break
	}
	if s.streams.Len() == 0 {
		return nil
	}
	st := s.streams.Front().Value.(*stream)
	s.remove(st)
	return st
}

// remove takes a stream out of the table. s.mu is held.
func (s *Server) remove(st *stream) {
	if st.at == nil {
		return
	}
	s.streams.Remove(st.at)
	st.at = nil
	s.nstreams.Store(int64(s.streams.Len()))
	if s.clients[st.client]--; s.clients[st.client] == 0 {
		delete(s.clients, st.client)
	}
}

func (s *Server) leave(st *stream) {
	st.conn.Close()
	s.mu.Lock()
	s.remove(st)
	s.mu.Unlock()
	s.active.Done()
}

// idle is the time-out for the next query.
func (s *Server) idle() time.Duration {
	if s.nstreams.Load() >= maxStreams/2 {
		return tcpIdleBusy
	}
	return tcpIdle
}

// turn is a stream's right to answer. There are half as many as cores, at least
// one, so that streams full of queries, however many, leave time for UDP: each
// waits in line before every read's worth of queries, not in the scheduler, which
// would let it run for 10 ms. It is not held while the stream waits for its client.
type turn struct {
	turns chan struct{} // of the Server
	held  bool
}

func (t *turn) take() {
	if !t.held {
		t.turns <- struct{}{}
		t.held = true
	}
}

func (t *turn) give() {
	if t.held {
		<-t.turns
		t.held = false
	}
}

// serveStream answers the queries of one stream until it ends, idles, or does
// not take its replies. It waits, for a query or for the client to read, only
// when every query that is there whole has been answered.
func (s *Server) serveStream(st *stream) {
	conn := st.conn
	a := asker{s: s} // counters come with the turn
	r := bufio.NewReaderSize(conn, tcpBuffer)
	w := replies{conn: conn, turn: turn{turns: s.turns}}
	defer w.flush()
	from, local := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	for answered := true; ; {
		if !whole(r) {
			if w.flush() != nil {
				return
			}
			if answered {
				a.idle = s.idle()
				if conn.SetReadDeadline(time.Now().Add(a.idle)) != nil {
					return
				}
				answered = false
			}
		}
		if s.closing.Load() && !whole(r) {
			if st.asked.Load() {
				return
			}
			// It may have been opened for a query that is on its way.
			if conn.SetReadDeadline(time.Now().Add(lastQuery)) != nil {
				return
			}
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
		had, err := a.serveMessage(r, &w, size, from, local)
		if err != nil {
			return
		}
		st.used.Store(true)
		st.asked.Store(true)
		answered = answered || had
	}
}

// whole reports whether a message can be read without waiting.
func whole(r *bufio.Reader) bool {
	n := r.Buffered()
	if n < 2 {
		return false
	}
	head, _ := r.Peek(2)
	return n >= 2+int(binary.BigEndian.Uint16(head))
}

// serveMessage reads one message of size octets and answers it. answered is
// false when there was nothing to answer.
func (a *asker) serveMessage(r *bufio.Reader, w *replies, size int, from, local netip.AddrPort) (answered bool, err error) {
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
	w.turn.take() // before there is room for the reply: thousands may wait in line
	room := rooms.Get().(*[tcpRoom]byte)
	defer rooms.Put(room)
	reply := a.answer(room[:2], packet, from, local, TCP)
	// Counters by zone take memory: only as many streams as have a turn have any.
	// A turn ends with the first write, which may wait for a slow reader.
	a.count = a.s.tally.take()
	a.report()
	a.done()
	if inPlace {
		r.Discard(2 + size)
	}
	if len(reply) <= 2 {
		return false, nil
	}
	binary.BigEndian.PutUint16(reply, uint16(len(reply)-2))
	return true, w.add(reply)
}

// replies are those that wait to be written to one stream, each with its length
// before it, so that both go out in one segment (RFC 7766 §8).
type replies struct {
	conn net.Conn
	turn turn
	room *[tcpReplies]byte // from batches while there are any
	n    int
}

// add takes a reply over, or writes it when it is long.
func (w *replies) add(reply []byte) error {
	if w.n+len(reply) > tcpReplies {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(reply) > tcpReplies {
		return w.write(reply)
	}
	if w.room == nil {
		w.room = batches.Get().(*[tcpReplies]byte)
	}
	w.n += copy(w.room[w.n:], reply)
	return nil
}

// flush writes what waits, and ends the stream's turn.
func (w *replies) flush() error {
	w.turn.give()
	if w.room == nil {
		return nil
	}
	err := w.write(w.room[:w.n])
	batches.Put(w.room)
	w.room, w.n = nil, 0
	return err
}

func (w *replies) write(b []byte) error {
	w.turn.give()
	if err := w.conn.SetWriteDeadline(time.Now().Add(tcpWrite)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}
