package dnsserver

import (
	"net"
	"net/netip"
	"testing"

	"perigee.example/internal/memnet"
)

// TestStreamLimits fills the table of streams, without goroutines for them.
func TestStreamLimits(t *testing.T) {
	s := NewServer(ServerConfig{})
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	held := make([]net.Conn, 0, maxStreams)
	for i := range maxStreams {
		if want := tcpIdle; i < maxStreams/2 && s.idle() != want {
			t.Fatalf("idle time-out with %d streams is %v, want %v", i, s.idle(), want)
		}
		c, _ := memnet.Pipe()
		if !s.enter(c, client(i)) {
			t.Fatalf("stream %d refused", i)
		}
		held = append(held, c)
	}
	if s.idle() != tcpIdleBusy {
		t.Errorf("idle time-out when full is %v, want %v", s.idle(), tcpIdleBusy)
	}
	extra, _ := memnet.Pipe()
	if s.enter(extra, client(maxStreams)) {
		t.Error("a stream over maxStreams was taken")
	}
	for i, c := range held {
		s.leave(c, client(i))
	}
	if len(s.conns) != 0 || len(s.clients) != 0 {
		t.Errorf("%d streams of %d clients are left", len(s.conns), len(s.clients))
	}
}
