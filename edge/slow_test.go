package edge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowLimit is when the last of a thousand slow clients must be gone.
const slowLimit = 15 * time.Second

func dialEdge(t *testing.T, w *world) io.ReadWriteCloser {
	c, err := w.network.DialFrom(context.Background(), clientAddr, edgeAddr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSlowRequestBody: a body must come at a least rate; a pause within the
// grace is forgiven, a body that trickles is not.
func TestSlowRequestBody(t *testing.T) {
	for _, c := range []struct {
		name   string
		octets int
		pause  time.Duration // after each part
		rounds int
		want   string
	}{
		{"nothing more", 0, 0, 0, "408"},
		{"an octet a second", 1, time.Second, 60, "408"},
		{"at the least rate", minSendRate, time.Second, 60, "200"},
		{"a little below it", minSendRate / 2, time.Second, 60, "408"},
		{"pauses that are made up for", 9 * minSendRate, 9 * time.Second, 5, "200"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, true, nil)
			defer w.stop()
			w.say("POST /a", answer{body: "taken"})
			conn := dialEdge(t, w)
			defer conn.Close()
			total := max(1, c.octets*c.rounds)
			fmt.Fprintf(conn, "POST /a HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", total)
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				for range c.rounds {
					if _, err := conn.Write(bytes.Repeat([]byte("x"), c.octets)); err != nil {
						return
					}
					time.Sleep(c.pause)
				}
			})
			got, err := io.ReadAll(conn)
			took := time.Since(start)
			conn.Close()
			wg.Wait()
			if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 "+c.want+" ") {
				t.Errorf("%s: got %q, %v", c.name, got, err)
			}
			if c.want == "408" && c.octets < minSendRate/2 && took > slowLimit {
				t.Errorf("%s: cut off after %v", c.name, took)
			}
		})
	}
}

// TestSlowReader: an answer must be taken at a least rate, whether our loop
// sends it from the store or net/http passes it on.
func TestSlowReader(t *testing.T) {
	const size = 1 << 20
	for _, stored := range []bool{false, true} {
		for _, c := range []struct {
			name   string
			octets int
			pause  time.Duration
			whole  bool
		}{
			{"takes nothing", 0, time.Hour, false},
			{"takes an octet a second", 1, time.Second, false},
			{"takes twice the least rate", 2 * minTakeRate, time.Second, true},
			{"takes all at once after a pause", size, 9 * time.Second, true},
		} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, true, nil)
				defer w.stop()
				h := http.Header{"Cache-Control": {"no-store"}}
				if stored {
					h = http.Header{"Cache-Control": {"max-age=86400"}}
				}
				w.say("GET /a", answer{header: h, body: strings.Repeat("x", size)})
				if stored {
					w.raw(t, "GET /a HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
				}
				conn := dialEdge(t, w)
				defer conn.Close()
				io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
				start := time.Now()
				got := 0
				buf := make([]byte, max(1, c.octets))
				var err error
				for got < size {
					if c.octets == 0 {
						time.Sleep(slowLimit)
					} else {
						time.Sleep(c.pause)
					}
					var n int
					if n, err = io.ReadFull(conn, buf); err != nil {
						got += n
						break
					}
					if got += n; c.octets < minTakeRate && time.Since(start) > time.Hour {
						break
					}
				}
				_, connected := w.stillConnected(conn)
				if c.whole != (got >= size) {
					t.Errorf("%s (stored %v): %d octets of %d, %v", c.name, stored, got, size, err)
				}
				if !c.whole && connected {
					t.Errorf("%s (stored %v): still connected after %v", c.name, stored, time.Since(start))
				}
			})
		}
	}
}

// stillConnected reads what was buffered, and says whether more may come.
func (w *world) stillConnected(c io.ReadWriteCloser) (n int64, connected bool) {
	c.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(time.Second))
	n, err := io.Copy(io.Discard, c)
	return n, err != nil
}

// TestSlowClientsHoldUpNobody: a thousand clients that send heads or bodies
// octet by octet, or take nothing, are gone in 15 s; a good client among them
// is answered at once, and fills are not held up by who does not read.
func TestSlowClientsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: strings.Repeat("x", 1<<20)})
		w.say("GET /b", answer{header: http.Header{"Cache-Control": {"no-store"}}, body: "b"})
		start := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var last time.Duration
		for i := range 1000 {
			conn := dialEdge(t, w)
			wg.Go(func() {
				defer conn.Close()
				switch i % 3 {
				case 0: // a head without end
					trickle(conn, "GET /a HTTP/1.1\r\nHost: shop.test\r\nX: ", "x")
				case 1: // a body without end
					trickle(conn, "POST /p HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\n", "x")
				case 2: // an answer that is not taken
					trickle(conn, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n", "")
				}
				mu.Lock()
				defer mu.Unlock()
				last = max(last, time.Since(start))
			})
		}
		time.Sleep(3 * time.Second)
		for range 20 {
			asked := time.Now()
			for _, path := range []string{"/a", "/b"} {
				got := w.raw(t, "GET "+path+" HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
				if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") {
					t.Errorf("%s: the good client got %.100q", path, got)
				}
			}
			if d := time.Since(asked); d > 100*time.Millisecond {
				t.Errorf("the good client waited %v", d)
			}
		}
		wg.Wait()
		if last > slowLimit {
			t.Errorf("the last slow client was cut off after %v", last)
		}
	})
}

// trickle sends head at once and then part once a second, until the other side
// has closed. What comes back is not read.
func trickle(c io.ReadWriteCloser, head, part string) {
	if _, err := io.WriteString(c, head); err != nil {
		return
	}
	for range 120 {
		time.Sleep(time.Second)
		if part == "" {
			if gone(c) {
				return
			}
		} else if _, err := io.WriteString(c, part); err != nil {
			return
		}
	}
}

// gone reports that the other side has closed: a write fails then.
func gone(c io.ReadWriteCloser) bool {
	_, err := io.WriteString(c, "\r\n")
	return err != nil
}
