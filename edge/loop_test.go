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
	if n := e.Stats().Sites["shop"].Requests[Answered{"hit", "fast"}]; n != clients*requests {
		t.Errorf("%d fast hits of %d", n, clients*requests)
	}
}
