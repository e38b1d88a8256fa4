package dnsserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/memnet"
	"perigee.example/internal/txtest"
)

// onMemory serves everything over a memnet at 192.0.2.53:53 within a bubble.
func onMemory(t *testing.T, c dnsserver.ServerConfig, test func(t *testing.T, n *memnet.Network, s *dnsserver.Server)) {
	k := openEverything(t)
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ln, err := n.Listen("tcp", "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := n.ListenPacket("udp", "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		s := dnsserver.NewServer(c)
		s.SetView(k.view)
		s.SetState(k.state)
		ended := make(chan error, 2)
		go func() { ended <- s.ServeTCP(ln) }()
		go func() { ended <- s.ServeUDP(pc) }()
		synctest.Wait()
		test(t, n, s)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, dnsserver.ErrServerClosed) {
				t.Errorf("serve ended with %v", err)
			}
		}
	})
}

func dial(t *testing.T, n *memnet.Network) net.Conn {
	t.Helper()
	c, err := n.DialContext(t.Context(), "tcp", "192.0.2.53:53")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// framed is a query with its length before it.
func framed(t *testing.T, text string) []byte {
	t.Helper()
	q, err := txtest.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(q.Wire))), q.Wire...)
}

func readFramed(r io.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	return txtest.Print(b)
}

// RFC 7766 §8 (a message in pieces), §6.2.1.1 (many in flight).
func TestStreamInPieces(t *testing.T) {
	onMemory(t, dnsserver.ServerConfig{}, func(t *testing.T, n *memnet.Network, _ *dnsserver.Server) {
		stuck := dial(t, n) // a half-sent query must not keep others waiting
		stuck.Write([]byte{0})
		c := dial(t, n)
		for _, octet := range framed(t, "static.example.test") {
			c.Write([]byte{octet})
			synctest.Wait()
		}
		if text, err := readFramed(c); err != nil || !strings.Contains(text, "192.0.2.1") {
			t.Errorf("%q, %v", text, err)
		}
		// A message of nothing, then three at once.
		all := []byte{0, 0}
		for _, text := range []string{"static.example.test", "text.example.test TXT", "x.empty.example.test"} {
			all = append(all, framed(t, text)...)
		}
		c.Write(all)
		for _, want := range []string{"192.0.2.2", "some text", "NXDOMAIN"} {
			if text, err := readFramed(c); err != nil || !strings.Contains(text, want) {
				t.Errorf("want %s, got %q, %v", want, text, err)
			}
		}
		// Longer than the stream's own buffer.
		c.Write(framed(t, "big.example.test TXT +opt=65001:"+strings.Repeat("00", 5000)))
		if text, err := readFramed(c); err != nil || strings.Contains(text, " tc") || !strings.Contains(text, "0123456789") {
			t.Errorf("%q, %v", text, err)
		}
		// What gets no reply does not end the stream.
		c.Write(framed(t, "static.example.test +qr"))
		c.Write(framed(t, "static.example.test"))
		if text, err := readFramed(c); err != nil || !strings.Contains(text, "NOERROR") {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// RFC 7766 §6.2.3: an idle stream is closed, and octets one by one do not keep
// it open.
func TestStreamIdle(t *testing.T) {
	onMemory(t, dnsserver.ServerConfig{}, func(t *testing.T, n *memnet.Network, _ *dnsserver.Server) {
		start := time.Now()
		idle, slow := dial(t, n), dial(t, n)
		go func() {
			for _, octet := range framed(t, "static.example.test") {
				if _, err := slow.Write([]byte{octet}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		for _, c := range []net.Conn{idle, slow} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v, want EOF", err)
			}
			if d := time.Since(start); d != 10*time.Second {
				t.Errorf("closed after %v, want 10s", d)
			}
			c.Close()
		}
		// A query starts the time anew.
		c := dial(t, n)
		for range 3 {
			time.Sleep(8 * time.Second)
			c.Write(framed(t, "static.example.test"))
			if _, err := readFramed(c); err != nil {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}
	})
}

// Who asks without reading is let go.
func TestStreamThatDoesNotRead(t *testing.T) {
	onMemory(t, dnsserver.ServerConfig{}, func(t *testing.T, n *memnet.Network, _ *dnsserver.Server) {
		c := dial(t, n)
		start := time.Now()
		query := framed(t, "big.example.test TXT")
		c.SetWriteDeadline(start.Add(time.Minute))
		for {
			if _, err := c.Write(query); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the server kept a stream that takes no reply")
				}
				break
			}
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("let go after %v, want 5s", d)
		}
	})
}

func TestStreamsPerClient(t *testing.T) {
	onMemory(t, dnsserver.ServerConfig{}, func(t *testing.T, n *memnet.Network, _ *dnsserver.Server) {
		var held []net.Conn
		for range 64 {
			held = append(held, dial(t, n))
		}
		synctest.Wait()
		over := dial(t, n)
		if _, err := over.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the 65th stream of a client: %v, want EOF", err)
		}
		other, err := n.DialFrom(t.Context(), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddrPort("192.0.2.53:53"))
		if err != nil {
			t.Fatal(err)
		}
		other.Write(framed(t, "static.example.test"))
		if _, err := readFramed(other); err != nil {
			t.Errorf("another client: %v", err)
		}
		held[0].Close()
		synctest.Wait()
		again := dial(t, n)
		again.Write(framed(t, "static.example.test"))
		if _, err := readFramed(again); err != nil {
			t.Errorf("after one stream has ended: %v", err)
		}
	})
}

func TestPacketsAndOutcomes(t *testing.T) {
	var mu sync.Mutex
	var seen []dnsserver.Outcome
	var from []netip.AddrPort
	config := dnsserver.ServerConfig{OnOutcome: func(c *dnsserver.Context, o *dnsserver.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		seen, from = append(seen, *o), append(from, c.From)
	}}
	onMemory(t, config, func(t *testing.T, n *memnet.Network, s *dnsserver.Server) {
		c, err := n.ListenPacket("udp", "203.0.113.7:4000")
		if err != nil {
			t.Fatal(err)
		}
		ask := func(text string) string {
			q, err := txtest.ParseQuery(text)
			if err != nil {
				t.Fatal(err)
			}
			c.WriteTo(q.Wire, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.53:53")))
			c.SetReadDeadline(time.Now().Add(time.Second))
			b := make([]byte, 2000)
			k, _, err := c.ReadFrom(b)
			if err != nil {
				return err.Error()
			}
			reply, err := txtest.Print(b[:k])
			if err != nil {
				t.Fatal(err)
			}
			return reply
		}
		if got := ask("static.example.test"); !strings.Contains(got, "192.0.2.1") {
			t.Error(got)
		}
		if got := ask("static.example.test +qr"); !strings.Contains(got, "timeout") {
			t.Error(got)
		}
		s.SetView(nil)
		if got := ask("static.example.test"); !strings.Contains(got, "REFUSED") {
			t.Error(got)
		}
		synctest.Wait()
		if len(seen) != 3 || seen[0].Zone != "example.test." || seen[1].Action != dnsserver.Drop || seen[2].Rcode != 5 || from[0].String() != "203.0.113.7:4000" {
			t.Errorf("outcomes %+v from %v", seen, from)
		}
		c.Close()
	})
}

func TestShutdownEndsWhatIsOpen(t *testing.T) {
	k := openEverything(t)
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ln, err := n.Listen("tcp", "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		s := dnsserver.NewServer(dnsserver.ServerConfig{})
		s.SetView(k.view)
		go s.ServeTCP(ln)
		idle := dial(t, n)
		full := dial(t, n) // takes no reply: its write is under way
		query := framed(t, "big.example.test TXT")
		full.SetWriteDeadline(time.Now().Add(time.Second))
		for {
			if _, err := full.Write(query); err != nil {
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown with a reply under way: %v", err)
		}
		if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("idle stream: %v, want EOF", err)
		}
		if err := s.ServeTCP(ln); !errors.Is(err, dnsserver.ErrServerClosed) {
			t.Errorf("serve after shutdown: %v", err)
		}
		full.Close()
	})
}
