package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestComesBack: a connection that net/http has got for one request is the
// loop's again for the next ones.
func TestComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: "hello"})
		w.say("POST /b", answer{body: "taken"})
		conn := dialEdge(t, w)
		defer conn.Close()
		r := bufio.NewReader(conn)
		const hit, post = "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n", "POST /b HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\nx"
		for i, send := range []string{hit, hit, hit, post, hit, post, hit + hit + hit} {
			io.WriteString(conn, send)
			for range strings.Count(send, "HTTP/1.1") {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(i, err)
				}
				body, err := io.ReadAll(resp.Body)
				if want := map[bool]string{true: "hello", false: "taken"}[strings.HasPrefix(send, "GET")]; string(body) != want || err != nil {
					t.Fatalf("%d: %q, %v", i, body, err)
				}
			}
			synctest.Wait()
		}
		shop := w.edge.Stats().Sites["shop"].Requests
		if shop[Answered{"hit", "fast"}] != 6 || shop[Answered{"miss", "general"}] != 1 || shop[Answered{"pass", "general"}] != 2 || len(shop) != 3 {
			t.Errorf("counted %v", shop)
		}
		start := time.Now()
		if _, err := r.ReadByte(); err != io.EOF || time.Since(start) != idleTimeout {
			t.Errorf("the idle connection ended with %v after %v", err, time.Since(start))
		}
	})
}

// serveLoopback is an edge on a socket of this machine, in front of origin.
func serveLoopback(t *testing.T, origin http.Handler) (e *Edge, dial func() *net.TCPConn) {
	e, err := New(Config{Name: "fra1", Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(origin)}}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		e.Close()
	})
	dial = func() *net.TCPConn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn)
	}
	return e, dial
}

// files is an origin of such.
type files map[string][]byte

func (f files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=3600")
	w.Header().Set("Content-Length", fmt.Sprint(len(f[r.URL.Path])))
	w.Write(f[r.URL.Path])
}

// serveStored is serveLoopback with all files stored.
func serveStored(t *testing.T, f files) (e *Edge, dial func() *net.TCPConn) {
	e, dial = serveLoopback(t, f)
	for path := range f {
		storeAt(t, e, path)
	}
	return e, dial
}

// TestEndOfStream: a client that ends its stream together with a request, its
// first or a later one, gets the answer, and then the end.
func TestEndOfStream(t *testing.T) {
	_, dial := serveStored(t, files{"/a": []byte("hello")})
	const ask = "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n"
	for before := range 3 {
		c := dial()
		r := bufio.NewReader(c)
		for range before {
			io.WriteString(c, ask)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
		}
		io.WriteString(c, ask)
		c.CloseWrite()
		c.SetReadDeadline(time.Now().Add(idleTimeout / 2))
		got, err := io.ReadAll(r)
		if err != nil || !bytes.HasSuffix(got, []byte("hello")) {
			t.Errorf("after %d requests: %q, %v", before, got, err)
		}
	}
}

// TestManySizes: bodies of all sizes come whole, in order, to clients that ask
// for many at once and take them in fits and starts. The heads are cut anywhere.
func TestManySizes(t *testing.T) {
	f := files{}
	var paths []string
	for _, size := range []int{0, 1, 1000, copiedBody - 1, copiedBody, copiedBody + 1, chunkBytes, chunkBytes + 1, 100 << 10, 1 << 20, 5<<20 + 3} {
		path := fmt.Sprintf("/%d", size)
		paths = append(paths, path)
		f[path] = make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(f[path])
	}
	e, dial := serveStored(t, f)
	var wg sync.WaitGroup
	const clients, requests = 8, 30
	for i := range clients {
		c, random := dial(), rand.New(rand.NewPCG(uint64(i), 0))
		var ask []string
		for range requests {
			ask = append(ask, paths[random.IntN(len(paths))])
		}
		wg.Go(func() {
			var text strings.Builder
			for _, path := range ask {
				fmt.Fprintf(&text, "GET %s HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: %s\r\n\r\n", path, strings.Repeat("x", 500))
			}
			for rest := text.String(); rest != ""; {
				n := min(len(rest), 1+random.IntN(2000))
				if _, err := io.WriteString(c, rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		wg.Go(func() {
			r := bufio.NewReader(c)
			for _, path := range ask {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("client %d, %s: %v", i, path, err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || !bytes.Equal(body, f[path]) {
					t.Errorf("client %d, %s: %d octets, %v", i, path, len(body), err)
					return
				}
			}
		})
	}
	wg.Wait()
	var n uint64
	for range 10_000 { // an answer is counted once it has been sent
		if n = e.Stats().Sites["shop"].Requests[Answered{"hit", "fast"}]; n == clients*requests {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d fast hits of %d", n, clients*requests)
}

// TestSlowOnSockets is what TestSlowReader and TestSlowHead show, where the loop
// makes its own system calls: who takes nothing of an answer, from memory or from
// a file, or sends a head that does not end, is cut off once its grace is over.
// It waits for that.
func TestSlowOnSockets(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than sockets hold
	w := makeWorld(t, true, &loopback{clock: newClock()}, pushSites(t))
	defer w.stop()
	w.files = map[string][]byte{"one/big": big}
	if _, err := w.activate("one"); err != nil {
		t.Fatal(err)
	}
	w.say("GET /big", answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: string(big)})
	storeAt(t, w.edge, "/big")
	dial := func() *net.TCPConn {
		c, err := net.Dial("tcp", w.loopback.server.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn)
	}
	var wg sync.WaitGroup
	for name, send := range map[string]string{
		"memory": "GET /big HTTP/1.1\r\nHost: shop.test\r\n\r\n",
		"file":   "GET /big HTTP/1.1\r\nHost: www.test\r\n\r\n",
		"head":   "GET /big HTTP/1.1\r\nHost: shop.test\r\n",
		"silent": "",
	} {
		slow, good := dial(), dial()
		slow.SetReadBuffer(4 << 10)
		wg.Go(func() {
			io.WriteString(slow, send)
			start := time.Now()
			for tick := time.NewTicker(time.Second / 4); time.Since(start) < time.Minute; <-tick.C {
				// Octets of a head without end; behind a request they say when the edge is gone.
				if _, err := io.WriteString(slow, "X"); err != nil {
					break
				}
			}
			n, _ := io.Copy(io.Discard, slow) // the write has had the error
			if took := time.Since(start); took < slowGrace/2 || took > time.Minute/2 || n >= int64(len(big)) {
				t.Errorf("%s: %d octets, after %v", name, n, took)
			}
		})
		if !strings.HasSuffix(send, "\r\n\r\n") {
			continue
		}
		wg.Go(func() {
			io.WriteString(good, send)
			resp, err := http.ReadResponse(bufio.NewReader(good), nil)
			if err != nil {
				t.Error(name, err)
				return
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, big) {
				t.Errorf("%s: a good client gets %d octets, %v", name, len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestEndOnSockets: at the end idle connections are ended at once, and one that
// has asked nothing yet soon after; before it, an idle one makes room.
func TestEndOnSockets(t *testing.T) {
	e, err := New(Config{Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(files{"/a": []byte("hello")})}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	storeAt(t, e, "/a")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(e, ln)
	s.most = 2
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx, ln) }()
	ask := func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "hello" || err != nil {
			t.Fatalf("%q, %v", body, err)
		}
		return c
	}
	ended := func(c net.Conn) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(idleTimeout / 2))
		if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
			t.Errorf("%d octets and %v in place of the end", n, err)
		}
	}
	one := ask()
	two := ask()
	if err := until("the connections to rest", func() bool { return restingOf(s) == 2 }); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", ln.Addr().String()) // in the room of one of them
	if err != nil {
		t.Fatal(err)
	}
	if err := until("an idle connection to make room", func() bool { return restingOf(s) == 1 }); err != nil {
		t.Fatal(err)
	}
	cancel()
	for _, c := range []net.Conn{one, two, silent} {
		ended(c)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// restingOf counts the connections that rest.
func restingOf(s *server) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.phase.Load() == resting {
			n++
		}
	}
	return n
}
