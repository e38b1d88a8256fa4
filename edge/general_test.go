package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/memnet"
)

// dialLoop is a connection to an edge that serves by its loop, on a network in
// memory.
func dialLoop(t *testing.T, e *Edge) net.Conn {
	n := memnet.New()
	ln, err := n.Listen("tcp", edgeAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx, ln) }()
	c, err := n.DialFrom(ctx, clientAddr, edgeAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

const askGated = "GET /a HTTP/1.1\r\nHost: s.test\r\n\r\n"

// bodyOf reads one response, and returns its body.
func bodyOf(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestMissesInTheLoop: hits and misses that come in one write are answered in
// their order, and the connection stays the loop's.
func TestMissesInTheLoop(t *testing.T) {
	f := files{}
	for i := range 8 {
		f[fmt.Sprint("/", i)] = []byte(strings.Repeat(fmt.Sprint(i), 1+i*i*i*400))
	}
	e, dial := serveLoopback(t, f)
	storeAt(t, e, "/0")
	c := dial()
	r := bufio.NewReader(c)
	for round := range 3 {
		var ask strings.Builder
		for i := range 8 {
			fmt.Fprintf(&ask, "GET /0 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /%d HTTP/1.1\r\nHost: shop.test\r\n\r\n", i)
		}
		text := ask.String()
		cut := len(text) - 50*round // in the middle of a head
		io.WriteString(c, text[:cut])
		io.WriteString(c, text[cut:])
		for i := range 8 {
			if hit, other := bodyOf(t, r), bodyOf(t, r); hit != "0" || other != string(f[fmt.Sprint("/", i)]) {
				t.Fatalf("round %d, %d: %.20q, %.20q", round, i, hit, other)
			}
		}
	}
	shop := e.Stats().Sites["shop"].Requests
	if misses := shop[Answered{"miss", "general"}]; misses < 8 || shop[Answered{"hit", "fast"}] < 3*16-10 { // one that is stored a moment later is no hit
		t.Errorf("counted %v", shop)
	}
}

// TestCutBetweenHeads: over a net.Conn too, what comes in one read with the end
// of one head and the start of the next is not lost.
func TestCutBetweenHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(files{"/a": []byte("hello"), "/other": []byte("other")})}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		c := dialLoop(t, e)
		r := bufio.NewReader(c)
		for cut := range len(askGated) {
			io.WriteString(c, "GET /other HTTP/1.1\r\nHost: s.test\r\n\r\n"+askGated[:cut])
			if got := bodyOf(t, r); got != "other" {
				t.Fatalf("cut at %d: %q", cut, got)
			}
			synctest.Wait()
			io.WriteString(c, askGated[cut:])
			if got := bodyOf(t, r); got != "hello" {
				t.Fatalf("cut at %d: then %q", cut, got)
			}
		}
	})
}

// TestNextRequestWhileOneWaits: what a client sends while it waits for the origin
// is its next request, whole.
func TestNextRequestWhileOneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		c := dialLoop(t, e)
		r := bufio.NewReader(c)
		io.WriteString(c, askGated)
		for _, octet := range askGated + askGated {
			time.Sleep(lookAfter)
			io.WriteString(c, string(octet))
		}
		synctest.Wait()
		close(g.head)
		g.body <- "hello"
		close(g.body)
		for range 3 {
			if got := bodyOf(t, r); got != "hello" {
				t.Fatalf("%q", got)
			}
		}
		if n := g.requests.Load(); n != 1 {
			t.Errorf("%d requests to the origin", n)
		}
	})
}

// TestClientOfTheLoopLeaves: a fetch whose client leaves, before the head or in
// the body, ends when nobody else waits for it, and goes on for who does.
func TestClientOfTheLoopLeaves(t *testing.T) {
	for _, inBody := range []bool{false, true} {
		for _, other := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				g := newGated("max-age=60")
				e := gatedEdge(t, g, 0)
				c := dialLoop(t, e)
				io.WriteString(c, askGated)
				synctest.Wait()
				second := newAnswer()
				var wg sync.WaitGroup
				if other {
					wg.Go(func() { call(t.Context(), e, second) })
				}
				synctest.Wait()
				if inBody {
					close(g.head)
					g.body <- "hello "
				}
				time.Sleep(2 * lookAfter)
				c.Close()
				synctest.Wait()
				if n := len(e.flights.m); (n == 1) != (other || inBody) {
					t.Errorf("%d flights", n)
				}
				if !inBody {
					close(g.head)
				}
				g.body <- "you"
				close(g.body)
				wg.Wait()
				synctest.Wait()
				if want := map[bool]string{false: "you", true: "hello you"}[inBody]; other && second.body.String() != want {
					t.Errorf("the other got %q", second.body.String())
				}
				if n := g.requests.Load(); n != 1 || e.stats.open.Load() != 0 {
					t.Errorf("%d requests to the origin, %d connections", n, e.stats.open.Load())
				}
			})
		}
	}
}

// spoken is how a response came.
type spoken struct {
	status        int
	header        http.Header
	body, failure string
	trailer       http.Header
	length        int64
	closes        bool
	interim       int
}

// heard reads all that a server says to one request.
func heard(t *testing.T, c net.Conn, method string) (s spoken) {
	fmt.Fprintf(c, "%s /a HTTP/1.1\r\nHost: s.test\r\n\r\n", method)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	for ; err == nil && resp.StatusCode < 200; s.interim++ {
		resp, err = http.ReadResponse(r, &http.Request{Method: method})
	}
	if err != nil {
		s.failure = err.Error()
		return s
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.failure = err.Error()
	}
	s.status, s.header, s.body, s.length, s.closes = resp.StatusCode, resp.Header, string(body), resp.ContentLength, resp.Close
	if len(resp.Trailer) > 0 {
		s.trailer = resp.Trailer
	}
	if date := s.header.Get("Date"); date != "" {
		s.header.Set("Date", "some")
	}
	return s
}

// TestSaysWhatNetHTTPSays: handlers of every kind, heard through the loop's
// ResponseWriter and through net/http's server.
func TestSaysWhatNetHTTPSays(t *testing.T) {
	say := func(status int, fields string, parts ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for _, f := range strings.Fields(fields) {
				name, value, _ := strings.Cut(f, "=")
				w.Header().Add(name, strings.ReplaceAll(value, "_", " "))
			}
			w.Header()["Content-Type"] = nil
			if status != 0 {
				w.WriteHeader(status)
			}
			for _, p := range parts {
				if r.Method == http.MethodHead && p != "flush" && p != "abort" {
					continue // as all of ours: what net/http makes of it is another length
				}
				if p == "flush" {
					http.NewResponseController(w).Flush()
				} else if p == "abort" {
					panic(http.ErrAbortHandler)
				} else if _, err := io.WriteString(w, p); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) && !errors.Is(err, http.ErrContentLength) {
					t.Error(err)
				}
			}
			if name := r.URL.Path; name != "/a" {
				t.Errorf("path %q", name)
			}
			if sum, ok := w.Header()["X-Sum"]; ok {
				w.Header()[http.TrailerPrefix+"X-Sum"] = sum
			}
		}
	}
	long := strings.Repeat("0123456789abcdef", 9000)
	for i, h := range []http.HandlerFunc{
		say(0, ""), say(0, "", "hello"), say(200, "X=a X=b Y=", "he", "llo"), say(200, "", "he", "flush", "llo"), say(200, "", "flush"),
		say(404, "Content-Length=5", "hello"), say(200, "Content-Length=5", "he", "flush", "llo"), say(200, "Content-Length=0"),
		say(200, "Content-Length=5", "hell"), say(200, "Content-Length=5", "hello!"),
		say(200, "Connection=close", "hello"), say(204, "X=a"), say(204, "Content-Length=3"), say(304, "Etag=\"1\" Content-Length=3"), say(304, "", "flush"),
		say(200, "", long), say(200, "", long[:2048]), say(200, "", long[:2049]), say(200, fmt.Sprint("Content-Length=", len(long)), long[:70000], long[70000:]),
		say(200, "", "flush", long, "flush", long), say(200, "X-Sum=1", "a", "flush"), say(200, "X=_a_b_ Date=today", "x"),
		say(200, "Content-Length=9", "abc", "flush", "abort"), say(200, "", "abort"), say(200, "", "abc", "flush", "abort"),
		say(103, "Link=x", "hello"), say(599, "", "hello"), say(500, "", "", "flush", ""),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			ours, theirs := pairOf(t, func(w http.ResponseWriter, r *http.Request) {
				if i == 0 {
					w.WriteHeader(102) // an interim one first
				}
				h(w, r)
			})
			one, other := heard(t, ours, method), heard(t, theirs, method)
			if (one.failure != "") == (other.failure != "") {
				one.failure, other.failure = "", ""
			}
			if !reflect.DeepEqual(one, other) {
				t.Errorf("handler %d, %s:\n%.600v\nnet/http:\n%.600v", i, method, fmt.Sprintf("%+v", one), fmt.Sprintf("%+v", other))
			}
			ours.Close()
			theirs.Close()
		}
	}
}

// pairOf is a connection to the loop's ResponseWriter and one to net/http's.
func pairOf(t *testing.T, h http.HandlerFunc) (ours, theirs net.Conn) {
	e := gatedEdge(t, newGated(""), 0)
	s := &server{e: e, conns: map[*conn]struct{}{}}
	ours, end := net.Pipe()
	c := &conn{Conn: end, s: s}
	go func() {
		defer end.Close()
		d := c.take()
		n, err := end.Read(d.in)
		if err != nil {
			return
		}
		if _, err := d.head.parse(d.in[:n]); err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if cause := recover(); cause != nil && cause != http.ErrAbortHandler {
				t.Error(cause)
			}
		}()
		w := &responseWriter{c: c, header: http.Header{}, left: -1, bodyless: d.head.method == http.MethodHead}
		h(w, d.head.request("192.0.2.1"))
		w.finish()
	}()
	n := memnet.New()
	ln, err := n.Listen("tcp", edgeAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	if theirs, err = n.DialFrom(context.Background(), clientAddr, edgeAddr); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// TestBodyThatHasNotCome: who leads the fetch has what came before the rest comes.
func TestBodyThatHasNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rest := make(chan struct{})
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Header().Set("Cache-Control", "max-age=60")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			<-rest
			io.WriteString(w, "world")
		})
		e, err := New(Config{Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(origin)}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		c := dialLoop(t, e)
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: s.test\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, first); string(first) != "hello" {
			t.Fatalf("%q, %v", first, err)
		}
		close(rest)
		if all, err := io.ReadAll(resp.Body); string(all) != "world" || err != nil {
			t.Errorf("%q, %v", all, err)
		}
	})
}
