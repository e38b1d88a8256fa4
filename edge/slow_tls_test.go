package edge

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reluctant takes some octets a time from its connection once it is told to; all
// of them after one pause if that is more than any read asks for.
type reluctant struct {
	net.Conn
	octets int
	pause  time.Duration
	slow   bool
}

func (r *reluctant) Read(p []byte) (int, error) {
	if r.slow {
		time.Sleep(r.pause)
		r.slow = r.octets < 1<<20
		p = p[:min(len(p), r.octets)]
	}
	return r.Conn.Read(p)
}

// TestSlowReaderTLS: what TestSlowReader shows holds over TLS too, where a write
// cannot be continued: by what comes over the wire, not by records, and for an
// answer of our loop as for one that net/http passes on. Clients at the least rate
// get all; a handshake that does not end is cut off like a head.
func TestSlowReaderTLS(t *testing.T) {
	const size = 1 << 20
	dir := t.TempDir()
	writePair(t, dir, "shop", time.Now().Add(30*365*24*time.Hour), "shop.test")
	pair, err := tls.LoadX509KeyPair(dir+"/shop.crt", dir+"/shop.key")
	if err != nil {
		t.Fatal(err)
	}
	for _, stored := range []bool{false, true} {
		for _, c := range []struct {
			name   string
			octets int
			pause  time.Duration
			whole  bool
		}{
			{"takes nothing", 1, time.Hour, false},
			{"takes an octet a second", 1, time.Second, false},
			{"takes half the least rate", minTakeRate / 2, time.Second, false},
			{"takes twice the least rate", 2 * minTakeRate, time.Second, true},
			{"takes all at once after a pause", size, 9 * time.Second, true},
		} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, true, nil)
				defer func() { w.stop() }() // serveTLS adds to it
				control := "no-store"
				if stored {
					control = "max-age=864000"
				}
				w.say("GET /a", answer{header: http.Header{"Cache-Control": {control}}, body: strings.Repeat("x", size)})
				dial := serveTLS(t, w, pair)
				get := func(conn *tls.Conn) (int64, error) {
					io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
					return io.Copy(io.Discard, conn)
				}
				if stored {
					conn := tls.Client(dial(), &tls.Config{InsecureSkipVerify: true, ServerName: "shop.test"})
					if n, err := get(conn); err != nil || n < size {
						t.Fatalf("%d octets, %v", n, err)
					}
					conn.Close()
				}
				synctest.Wait()
				before := w.edge.stats.open.Load()
				slow := &reluctant{Conn: dial(), octets: c.octets, pause: c.pause}
				conn := tls.Client(slow, &tls.Config{InsecureSkipVerify: true, ServerName: "shop.test"})
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				slow.slow = true
				got := make(chan int64, 1)
				go func() {
					n, _ := get(conn)
					got <- n
				}()
				begin := time.Now()
				for w.edge.stats.open.Load() == before { // it begins
					time.Sleep(time.Millisecond)
				}
				for w.edge.stats.open.Load() > before && time.Since(begin) < time.Hour {
					time.Sleep(time.Second)
				}
				took := time.Since(begin)
				if !c.whole {
					slow.Conn.Close() // else the rest is on its way
				}
				n := <-got
				switch {
				case c.whole && n < size:
					t.Errorf("%s (stored %v): %d octets of %d after %v", c.name, stored, n, size, took)
				case !c.whole && (n >= size || took > 3*slowLimit):
					t.Errorf("%s (stored %v): %d octets, gone after %v", c.name, stored, n, took)
				case !c.whole && c.octets == 1 && took > slowLimit:
					t.Errorf("%s (stored %v): gone only after %v", c.name, stored, took)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer func() { w.stop() }() // serveTLS adds to it
		conn := serveTLS(t, w, pair)()
		defer conn.Close()
		begin := time.Now()
		io.WriteString(conn, "\x16\x03\x01\x02") // of a record of 512 octets
		if _, err := io.Copy(io.Discard, conn); err != nil || time.Since(begin) > slowLimit {
			t.Errorf("half a handshake: %v after %v", err, time.Since(begin))
		}
	})
}

// serveTLS has the edge of w serve TLS too, and returns how to reach that.
func serveTLS(t *testing.T, w *world, pair tls.Certificate) (dial func() net.Conn) {
	const addr = "192.0.2.80:443"
	ln, err := w.network.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- w.edge.Serve(ctx, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}}))
	}()
	stop := w.stop
	w.stop = func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		stop()
	}
	return func() net.Conn {
		c, err := w.network.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}
