package edge

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func dialAs(t *testing.T, w *world, from string) net.Conn {
	t.Helper()
	c, err := w.network.DialFrom(context.Background(), netip.MustParseAddr(from), edgeAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends one request on a connection and returns what came in a second.
func ask(c net.Conn, send string) string {
	io.WriteString(c, send)
	c.SetReadDeadline(time.Now().Add(time.Second))
	b, _ := io.ReadAll(c)
	return string(b)
}

const health = "GET /-/health HTTP/1.1\r\nHost: shop.test\r\n\r\n"

// TestConnectionsOfOneClient: one address, or one /64, has so many connections
// and no more; another's are not counted, nor those of who is exempt.
func TestConnectionsOfOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 5
		w := newWorld(t, true, func(c *Config) {
			c.Limits = &Limits{Connections: most, Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.64/26")}}
		})
		defer w.stop()
		for _, c := range []struct {
			name    string
			from    func(i int) string
			limited bool
		}{
			{"one address", func(int) string { return "198.51.100.7" }, true},
			{"another", func(int) string { return "198.51.100.8" }, true},
			{"one /64", func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }, true},
			{"many addresses", func(i int) string { return fmt.Sprintf("203.0.113.%d", i+1) }, false},
			{"exempt", func(int) string { return "198.51.100.70" }, false},
		} {
			var open []net.Conn
			for i := range most {
				open = append(open, dialAs(t, w, c.from(i)))
				if got := ask(open[i], health); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
					t.Errorf("%s: connection %d got %q", c.name, i, got)
				}
			}
			more := func() bool {
				return strings.HasPrefix(ask(dialAs(t, w, c.from(most)), health), "HTTP/1.1 200 ")
			}
			if more() == c.limited {
				t.Errorf("%s: one more was answered: %v", c.name, !c.limited)
			}
			open[0].Close()
			synctest.Wait()
			if !more() {
				t.Errorf("%s: closing one made no room", c.name)
			}
		}
		if conns, _ := w.edge.ClientsRefused(); conns != 3 {
			t.Errorf("%d refused connections counted", conns)
		}
	})
}

// TestIdleConnectionMakesWay: with every connection taken, one that rests ends
// and a new client is served; when all are busy the new one is turned away.
func TestIdleConnectionMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		ln, err := w.network.Listen("tcp", "192.0.2.81:80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		s := newServer(w.edge, ln)
		s.most = 3
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.serve(ctx, ln) }()
		dial := func() net.Conn {
			c, err := w.network.DialFrom(ctx, clientAddr, netip.MustParseAddrPort("192.0.2.81:80"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		for range 3 { // two rest in net/http, after a health check; one in our loop would do too
			c := dial()
			if got := ask(c, health); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Fatalf("got %q", got)
			}
		}
		for i := range 5 {
			if got := ask(dial(), health); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("client %d beyond the bound got %q", i, got)
			}
			synctest.Wait()
		}
		s.mu.Lock()
		n := len(s.conns)
		s.mu.Unlock()
		if n > 3 {
			t.Errorf("%d connections", n)
		}
		for range 3 {
			io.WriteString(dial(), "GET /half") // ends three that rest, and is busy
		}
		synctest.Wait()
		if got := ask(dial(), health); got != "" {
			t.Errorf("with all busy a new one got %q", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestCacheBusting: a client that makes URLs up reaches the origin so often and
// no more; it still gets what is stored, and others get all.
func TestCacheBusting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 5
		w := newWorld(t, true, func(c *Config) { c.Limits = &Limits{Misses: rate} })
		defer w.stop()
		for i := range 500 {
			w.say(fmt.Sprintf("GET /a?%d", i), answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: "made up"})
		}
		next := 0
		miss := func(from string) string {
			next++
			return firstLine(ask(dialAs(t, w, from), fmt.Sprintf("GET /a?%d HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n", next)))
		}
		ok := 0
		for range 3 * rate * missBurst {
			if strings.Contains(miss("198.51.100.7"), " 200 ") {
				ok++
			}
		}
		if seen := len(w.requests(false)); ok != rate*missBurst || seen != ok {
			t.Errorf("%d answered, %d reached the origin; want %d", ok, seen, rate*missBurst)
		}
		if got := ask(dialAs(t, w, "198.51.100.7"), "GET /a?1 HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "; hit") {
			t.Errorf("what is stored: %q", got)
		}
		refused := ask(dialAs(t, w, "198.51.100.7"), "GET /a?499 HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(refused, "HTTP/1.1 429 ") || !strings.Contains(refused, "\r\nRetry-After: 1\r\n") || !strings.Contains(refused, "\r\nCache-Control: no-store\r\n") {
			t.Errorf("refused with %q", refused)
		}
		if got := miss("198.51.100.8"); !strings.Contains(got, " 200 ") {
			t.Errorf("another client: %q", got)
		}
		w.requests(false)
		time.Sleep(time.Second)
		for range rate {
			miss("198.51.100.7")
		}
		if n := len(w.requests(false)); n < rate {
			t.Errorf("a second later %d misses, want %d", n, rate)
		}
		if _, misses := w.edge.ClientsRefused(); misses != 2*rate*missBurst+1 {
			t.Errorf("%d counted", misses)
		}
	})
}

// TestFollowersCostNoMiss: who waits for a fetch that is under way asks
// nothing of the origin.
func TestFollowersCostNoMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, func(c *Config) { c.Limits = &Limits{Misses: 1} })
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: "a", delay: time.Second})
		var wg sync.WaitGroup
		for range 5 * missBurst {
			wg.Go(func() {
				c := dialAs(t, w, "198.51.100.7")
				io.WriteString(c, "GET /a HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
				if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
					t.Errorf("got %q, %v", got, err)
				}
			})
			time.Sleep(time.Millisecond) // one after the other: each sees the fetch of the first
		}
		wg.Wait()
		if _, misses := w.edge.ClientsRefused(); misses != 0 || len(w.requests(false)) != 1 {
			t.Errorf("%d refused", misses)
		}
	})
}

// TestForwardedForOnlyFromProxies: X-Forwarded-For is believed of configured
// peers alone, as far as they are; else it defeats limits and logs.
func TestForwardedForOnlyFromProxies(t *testing.T) {
	log := &collected{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, func(c *Config) {
			c.Access = log
			c.Limits = &Limits{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}}
		})
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"no-store"}}, body: "a"})
		w.say("GET /b", answer{header: http.Header{"Cache-Control": {"max-age=600"}}, body: "b"})
		w.raw(t, "GET /b HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		w.requests(true)
		for _, c := range []struct{ peer, lines, want string }{
			{"198.51.100.7", "", "198.51.100.7"},
			{"198.51.100.7", "X-Forwarded-For: 203.0.113.1\r\n", "198.51.100.7"},
			{"198.51.100.7", "Forwarded: for=203.0.113.1\r\nX-Real-IP: 203.0.113.1\r\n", "198.51.100.7"},
			{"192.0.2.7", "", "192.0.2.7"},
			{"192.0.2.7", "X-Forwarded-For: 203.0.113.1\r\n", "203.0.113.1"},
			{"192.0.2.7", "X-Forwarded-For: 127.0.0.1, 203.0.113.1\r\n", "203.0.113.1"},
			{"192.0.2.7", "X-Forwarded-For: 203.0.113.1, 192.0.2.8\r\n", "203.0.113.1"},
			{"192.0.2.7", "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 203.0.113.1, 192.0.2.8\r\n", "203.0.113.1"},
			{"192.0.2.7", "X-Forwarded-For: ::ffff:203.0.113.1\r\n", "203.0.113.1"},
			{"2001:db8:1::7", "X-Forwarded-For: 2001:db8:2::1\r\n", "2001:db8:2::1"},
			{"192.0.2.7", "X-Forwarded-For: unknown\r\n", "192.0.2.7"},
			{"192.0.2.7", "X-Forwarded-For: 203.0.113.1,\r\n", "192.0.2.7"},
			{"192.0.2.7", "X-Forwarded-For: " + strings.Repeat("192.0.2.9,", 1000) + "192.0.2.8\r\n", "192.0.2.9"},
		} {
			for _, path := range []string{"/a", "/b"} {
				got := ask(dialAs(t, w, c.peer), "GET "+path+" HTTP/1.1\r\nHost: shop.test\r\n"+c.lines+"\r\n")
				if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
					t.Errorf("%+v: %q", c, got)
				}
				log.mu.Lock()
				logged := log.records[len(log.records)-1].Client
				log.mu.Unlock()
				if logged != c.want {
					t.Errorf("%s from %s, %.60q: logged as %s, want %s", path, c.peer, c.lines, logged, c.want)
				}
			}
			if seen := w.requests(true); len(seen) != 1 || !strings.Contains(seen[0], "X-Forwarded-For: "+c.want) {
				t.Errorf("%s, %.60q: the origin saw %q", c.peer, c.lines, seen)
			}
		}
		// The PROXY protocol is not spoken: its line is no request.
		for _, first := range []string{"PROXY TCP4 203.0.113.1 192.0.2.80 1234 80\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x01\xc0\x00\x02\x50\x04\xd2\x00\x50"} {
			for _, peer := range []string{"198.51.100.7", "192.0.2.7"} {
				if got := ask(dialAs(t, w, peer), first+"GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
					t.Errorf("%.20q from %s: %q", first, peer, got)
				}
			}
		}
	})
}

// TestClientsAreBounded: however many addresses come, so many are remembered.
func TestClientsAreBounded(t *testing.T) {
	e := gatedEdge(t, newGated(""), 0)
	e.SetLimits(Limits{Connections: 1, Misses: 1})
	now := time.Unix(0, 0)
	busy := "203.0.113.7"
	e.clients.connect(busy, now)
	for i := range maxClients + 5000 {
		e.clients.miss(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), now)
	}
	if n := len(e.clients.m); n > maxClients {
		t.Errorf("%d clients", n)
	}
	if e.clients.connect(busy, now) {
		t.Error("a client with a connection was forgotten")
	}
	e.clients.disconnect(busy)
	if !e.clients.connect(busy, now) {
		t.Error("its room did not come back")
	}
}
