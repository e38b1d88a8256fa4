package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestHTTPInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		ln, err := n.Listen("tcp", "192.0.2.1:80")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second) // virtual: the test takes no time
			io.WriteString(w, r.RemoteAddr)
		})}
		go srv.Serve(ln)
		tr := &http.Transport{DialContext: n.DialContext}
		start := time.Now()
		resp, err := (&http.Client{Transport: tr}).Get("http://192.0.2.1:80/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.HasPrefix(body, []byte("127.0.0.1:")) {
			t.Errorf("body %q, %v", body, err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("took %v, want 3s", d)
		}
		tr.CloseIdleConnections()
		srv.Close()
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		start := time.Now()
		a.SetReadDeadline(start.Add(10 * time.Second))
		_, err := a.Read(make([]byte, 1))
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("read: %v, want a timeout", err)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("read waited %v", d)
		}
		// A deadline in the past unblocks a reader that waits already.
		a.SetReadDeadline(time.Time{})
		done := make(chan error)
		go func() { _, err := a.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		a.SetDeadline(time.Now().Add(-1))
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after a past deadline: %v", err)
		}
		// Writes fill the buffer, then wait for the deadline.
		a.SetDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, streamBuffer+10))
		if n != streamBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v", n, err)
		}
		a.Close()
		b.Close()
	})
}

func TestCloseKeepsWhatWasWritten(t *testing.T) {
	a, b := Pipe()
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got, err := io.ReadAll(b)
	if err != nil || string(got) != "last words" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a closed peer: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
}

func TestListener(t *testing.T) {
	n := New()
	if _, err := n.DialContext(t.Context(), "tcp", "192.0.2.1:53"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial with nobody there: %v", err)
	}
	ln, err := n.Listen("tcp", "192.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("tcp", ln.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
	from := netip.MustParseAddr("203.0.113.9")
	c, err := n.DialFrom(context.Background(), from, ln.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != from {
		t.Errorf("accepted from %v, want %v", got, from)
	}
	if c.LocalAddr().String() != s.RemoteAddr().String() || c.RemoteAddr().String() != ln.Addr().String() {
		t.Errorf("addresses do not match: %v %v", c.LocalAddr(), s.RemoteAddr())
	}
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
}

func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, err := n.ListenPacket("udp", "192.0.2.1:53")
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.ListenPacket("udp", "[2001:db8::1]:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.WriteTo([]byte("ping"), a.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		k, from, err := a.ReadFrom(buf)
		if err != nil || string(buf[:k]) != "ping" || from.String() != b.LocalAddr().String() {
			t.Errorf("%q from %v, %v", buf[:k], from, err)
		}
		a.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := a.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		b.Close()
		if _, err := a.WriteTo([]byte("pong"), b.LocalAddr()); err != nil {
			t.Errorf("a datagram to nobody: %v", err)
		}
		a.SetReadDeadline(time.Time{})
		for range packetQueue + 5 {
			a.WriteTo([]byte("x"), a.LocalAddr())
		}
		if len(a.queue) != packetQueue {
			t.Errorf("queue holds %d, want %d", len(a.queue), packetQueue)
		}
		a.Close()
	})
}
