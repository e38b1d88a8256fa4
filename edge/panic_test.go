package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// brokenOrigin panics for some paths, and breaks off in the middle for others.
func brokenOrigin(r *http.Request) (*http.Response, error) {
	body := io.Reader(strings.NewReader("good"))
	switch r.URL.Path {
	case "/panic":
		panic("no response")
	case "/body":
		body = io.MultiReader(strings.NewReader("begun"), panicReader{})
	}
	h := http.Header{"Cache-Control": {"max-age=60"}}
	return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(body), ContentLength: -1, ProtoMajor: 1, ProtoMinor: 1}, nil
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("no body") }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// panicInHit asks twice over one connection, the second time with a clock that
// panics.
func panicInHit(addr string, clockBroken *atomic.Bool) (status int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for _, broken := range []bool{false, true} {
		clockBroken.Store(broken)
		io.WriteString(c, "GET /good HTTP/1.1\r\nHost: s.test\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		clockBroken.Store(false)
		if err != nil {
			return 0, err
		}
		io.Copy(io.Discard, resp.Body)
		status = resp.StatusCode
	}
	return status, nil
}

// TestPanicCostsOneRequest: whatever panics, the request that met it fails, it is
// counted, and the next one is answered (F41).
func TestPanicCostsOneRequest(t *testing.T) {
	var clockBroken atomic.Bool
	e, err := New(Config{
		Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: roundTrip(brokenOrigin)}},
		Now: func() time.Time {
			if clockBroken.Load() {
				panic("no time")
			}
			return time.Now()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	go e.Serve(ctx, ln)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path string) (int, string, error) {
		req, _ := http.NewRequest(method, "http://"+ln.Addr().String()+path, nil)
		req.Host = "s.test"
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	panics := uint64(0)
	expect := func(method, path string, status int) {
		t.Helper()
		panics++
		got, body, _ := ask(method, path)
		if got != status || e.Panics() != panics {
			t.Errorf("%s %s: status %d %q, %d panics; want %d and %d", method, path, got, body, e.Panics(), status, panics)
		}
		if got, body, err := ask("GET", "/good"); got != 200 || body != "good" || err != nil {
			t.Fatalf("after %s %s: %d %q %v", method, path, got, body, err)
		}
	}
	if got, body, err := ask("GET", "/good"); got != 200 || body != "good" || err != nil {
		t.Fatal(got, body, err)
	}
	expect("GET", "/panic", 502)  // in the fetch
	expect("POST", "/panic", 500) // in the request itself
	panics++
	if got, body, err := ask("GET", "/body"); err == nil { // in the middle of a body
		t.Errorf("a body that was broken off: %d %q, as if it were whole", got, body)
	}
	if e.Panics() != panics {
		t.Errorf("%d panics, want %d", e.Panics(), panics)
	}
	got, err := panicInHit(ln.Addr().String(), &clockBroken)
	if got != 500 || err != nil || e.Panics() <= panics {
		t.Errorf("a hit: status %d, %v, %d panics", got, err, e.Panics())
	}
	panics = e.Panics()
	expect("GET", "/panic", 502)
	// The handler by itself, as another server would call it.
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("POST", "http://s.test/panic", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), "mistake of this server") || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("the handler: %d %v %q", w.Code, w.Header(), w.Body)
	}
}
