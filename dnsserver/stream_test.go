package dnsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/memnet"
	"perigee.example/internal/txtest"
)

// TestStreamLimits fills the table of streams, without goroutines for them, and
// goes beyond: the oldest makes way, but for who has asked something since the
// last time around.
func TestStreamLimits(t *testing.T) {
	s := NewServer(ServerConfig{})
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	enter := func(i int) *stream {
		c, _ := memnet.Pipe()
		return s.enter(c, client(i))
	}
	held := make([]*stream, 0, maxStreams)
	for i := range maxStreams {
		if want := tcpIdle; i < maxStreams/2 && s.idle() != want {
			t.Fatalf("idle time-out with %d streams is %v, want %v", i, s.idle(), want)
		}
		st := enter(i)
		if st == nil {
			t.Fatalf("stream %d refused", i)
		}
		held = append(held, st)
	}
	if s.idle() != tcpIdleBusy {
		t.Errorf("idle time-out when full is %v, want %v", s.idle(), tcpIdleBusy)
	}
	gone := func(i int) bool {
		_, err := held[i].conn.Write([]byte{0})
		return err != nil
	}
	for i, want := range []int{0, 2, 4} { // 1 and 3 have asked
		if enter(maxStreams+i) == nil {
			t.Fatal("a stream over maxStreams was refused")
		}
		if s.streams.Len() != maxStreams || !gone(want) {
			t.Fatalf("%d streams; %d has made way: %v, want true", s.streams.Len(), want, gone(want))
		}
		held[1].used.Store(true)
		held[3].used.Store(true)
	}
	for _, i := range []int{1, 3, 5, maxStreams - 1} {
		if gone(i) {
			t.Errorf("stream %d has made way", i)
		}
	}
	for e := s.streams.Front(); e != nil; e = e.Next() {
		e.Value.(*stream).used.Store(true)
	}
	if enter(maxStreams+2) == nil || s.streams.Len() != maxStreams || !gone(5) {
		t.Error("when all have asked, the oldest makes way")
	}
	for _, st := range held { // also those that have made way leave
		s.leave(st)
	}
	for s.streams.Len() > 0 {
		s.leave(s.streams.Front().Value.(*stream))
	}
	if len(s.clients) != 0 || s.nstreams.Load() != 0 {
		t.Errorf("%d streams of %d clients are left", s.nstreams.Load(), len(s.clients))
	}
}

// TestStreamsInLineHoldNoRooms: a stream that waits for its turn to answer has
// no room for a reply yet, so that thousands in line cost no memory.
func TestStreamsInLineHoldNoRooms(t *testing.T) {
	lent := atomic.Int64{}
	make1 := rooms.New
	rooms.New = func() any { lent.Add(1); return make1() }
	defer func() { rooms.New = make1 }()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ln, err := n.Listen("tcp", "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(ServerConfig{})
		ended := make(chan error)
		go func() { ended <- s.ServeTCP(ln) }()
		q, err := txtest.ParseQuery("www.example.test")
		if err != nil {
			t.Fatal(err)
		}
		query := append(binary.BigEndian.AppendUint16(nil, uint16(len(q.Wire))), q.Wire...)
		for range cap(s.turns) { // others answer
			s.turns <- struct{}{}
		}
		var clients []net.Conn
		for range 50 {
			c, err := n.DialContext(t.Context(), "tcp", "192.0.2.53:53")
			if err != nil {
				t.Fatal(err)
			}
			c.Write(query)
			clients = append(clients, c)
		}
		synctest.Wait()
		if got := lent.Load(); got > 0 {
			t.Errorf("%d rooms are lent to 50 streams in line", got)
		}
		for range cap(s.turns) {
			<-s.turns
		}
		for _, c := range clients {
			if _, err := c.Read(make([]byte, 512)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrServerClosed) {
			t.Error(err)
		}
	})
}

// starved is a listener of a process without descriptors: Accept fails while
// there are as many streams as it has.
type starved struct {
	net.Listener
	s     *Server
	files int64
}

func (l starved) Accept() (net.Conn, error) {
	if l.s.nstreams.Load() >= l.files {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestStreamsWithoutDescriptors: when the process has none left, idle streams
// make way for the next client at once, not when their time is up.
func TestStreamsWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ln, err := n.Listen("tcp", "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s := NewServer(ServerConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
		ended := make(chan error)
		go func() { ended <- s.ServeTCP(starved{ln, s, 40}) }()
		q, err := txtest.ParseQuery("www.example.test")
		if err != nil {
			t.Fatal(err)
		}
		query := append(binary.BigEndian.AppendUint16(nil, uint16(len(q.Wire))), q.Wire...)
		start := time.Now()
		for range 100 {
			c, err := n.DialContext(t.Context(), "tcp", "192.0.2.53:53")
			if err != nil {
				t.Fatal(err)
			}
			c.Write(query)
			if _, err := c.Read(make([]byte, 512)); err != nil {
				t.Fatalf("%v after the start: %v", time.Since(start), err)
			}
		}
		if d := time.Since(start); d > tcpIdleBusy {
			t.Errorf("100 clients waited %v for idle streams to end", d)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrServerClosed) {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "no descriptor is left"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, log.String())
		}
	})
}
