package edge

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// behind puts the edge of w before an origin that is a handler, reached over
// the network by the client that a real origin is reached by.
func behind(t *testing.T, w *world, h http.Handler, adjust ...func(*Site)) {
	t.Helper()
	ln, err := w.network.Listen("tcp", "192.0.2.10:80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(ln)
	pool := poolTo(t, w.network, "192.0.2.10:80")
	t.Cleanup(func() { pool.Close(); server.Close() })
	site := Site{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}
	for _, f := range adjust {
		f(&site)
	}
	if err := w.edge.SetSites([]Site{site}); err != nil {
		t.Fatal(err)
	}
}

// attack runs a test of an edge before a handler.
func attack(t *testing.T, h http.Handler, adjust func(*Config), test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, adjust)
		behind(t, w, h)
		t.Cleanup(w.stop)
		test(t, w)
	})
}

// send sends one request and returns its answer.
func (w *world) send(t *testing.T, request string) *http.Response {
	t.Helper()
	got := w.raw(t, request)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.200q got %.200q: %v", request, got, err)
	}
	return resp
}

// fetched is a GET with field lines, each ended by CRLF: status, Cache-Status and body.
func (w *world) fetched(t *testing.T, target, fields string) (status int, cached, body string) {
	t.Helper()
	resp := w.send(t, "GET "+target+" HTTP/1.1\r\nHost: shop.test\r\n"+fields+"\r\n")
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", target, err)
	}
	return resp.StatusCode, resp.Header.Get("Cache-Status"), string(b)
}

// reflecting answers with all that it was asked, to be stored for a minute.
func reflecting(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=86400")
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s %s\n", r.Method, r.RequestURI, r.Host)
	r.Header.Write(w)
}

// TestErrorCaching: what one client's odd request makes the origin say is
// nobody else's answer (CPDoS: oversized header, meta characters, method
// override). The origin takes less than we do.
func TestErrorCaching(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=86400")
		size := 0
		for name, lines := range r.Header {
			size += len(name) + len(strings.Join(lines, ""))
		}
		switch {
		case size > 8<<10:
			http.Error(w, "header too large", http.StatusRequestHeaderFieldsTooLarge)
		case len(r.RequestURI) > 4<<10:
			http.Error(w, "URI too long", http.StatusRequestURITooLong)
		case r.Header.Get("X-Http-Method-Override") != "" || r.Header.Get("X-Method-Override") != "":
			http.Error(w, "no such method here", http.StatusMethodNotAllowed)
		case strings.ContainsAny(r.Header.Get("X-Meta"), "\x07\t<"), r.Header.Get("X-Bad") != "":
			http.Error(w, "bad", http.StatusBadRequest)
		case r.Header.Get("Range") != "" && r.Header.Get("X-Bad-Range") != "":
			http.Error(w, "no such range", http.StatusRequestedRangeNotSatisfiable)
		case r.Header.Get("Expect") != "":
			http.Error(w, "expects", http.StatusExpectationFailed)
		default:
			io.WriteString(w, "the page")
		}
	})
	attack(t, h, nil, func(t *testing.T, w *world) {
		for i, odd := range []string{
			"X-Oversized: " + strings.Repeat("x", 10<<10) + "\r\n",
			strings.Repeat("X-Many: "+strings.Repeat("x", 100)+"\r\n", 100),
			"Cookie: " + strings.Repeat("x", 30<<10) + "\r\n",
			"X-Meta: a\tb\r\n", "X-Meta: <\r\n", "X-Bad: 1\r\n", "X-Meta: a\x07\r\n",
			"X-HTTP-Method-Override: POST\r\n", "X-Method-Override: DELETE\r\n",
			"Expect: 100-continue\r\n", "Expect: x\r\n", "Range: bytes=x\r\nX-Bad-Range: 1\r\n", "Range: bytes=9999-\r\n",
			strings.Repeat("X: y\r\n", maxFields+1), "X: " + strings.Repeat("x", maxHeadBytes) + "\r\n", "Content-Length: x\r\n", "Transfer-Encoding: x\r\n",
		} {
			target := fmt.Sprintf("/page?%d", i)
			w.raw(t, "GET "+target+" HTTP/1.1\r\nHost: shop.test\r\n"+odd+"\r\n")
			for range 2 {
				if status, cached, body := w.fetched(t, target, ""); status != 200 || body != "the page" {
					t.Errorf("after %.50q the page is %d %q, %s", odd, status, body, cached)
				}
			}
		}
	})
}

// TestOwnFieldsStay: nothing in Connection, however spelled, takes away what
// the edge adds, nor changes what it makes its key from.
func TestOwnFieldsStay(t *testing.T) {
	attack(t, http.HandlerFunc(reflecting), nil, func(t *testing.T, w *world) {
		ours := []string{"Via: 1.1 perigee-fra1", "Cdn-Loop: perigee-fra1", "X-Forwarded-For: " + clientAddr.String(), "X-Forwarded-Host: shop.test", "X-Forwarded-Proto: http"}
		all := "via, cdn-loop, x-forwarded-for, x-forwarded-host, x-forwarded-proto, host, x-real-ip, authorization, cookie, cache-control, user-agent, content-length, transfer-encoding, cf-connecting-ip, close"
		for i, connection := range []string{
			"Connection: " + all, "connection: " + all, "CONNECTION: " + strings.ToUpper(all), "Connection: " + strings.ReplaceAll(all, ", ", ","), "Connection: ,,  " + all + " ,", "Connection: " + strings.ReplaceAll(all, ", ", "\r\nConnection: "),
			"Connection: Via", "Connection: host", "Connection: \"via\"", "Connection: via;q=1", "Proxy-Connection: via, host", "Keep-Alive: via", "TE: via", "Connection: *",
		} {
			_, _, body := w.fetched(t, fmt.Sprintf("/%d", i), connection+"\r\n")
			for _, line := range ours {
				if !strings.Contains(strings.ReplaceAll(body, "\r\n", "\n"), "\n"+line+"\n") {
					t.Errorf("%s: the origin did not see %s: %q", connection, line, body)
				}
			}
			if !strings.HasPrefix(body, fmt.Sprintf("GET /%d shop.test\n", i)) || strings.Contains(body, "\nConnection:") || strings.Contains(body, "\nKeep-Alive:") || strings.Contains(body, "\nTe:") {
				t.Errorf("%s: the origin saw %q", connection, body)
			}
		}
	})
}

// TestHeaderInjection: an encoded line end stays encoded, in a path, a
// redirect, a host, and in what the origin sends.
func TestHeaderInjection(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=86400")
		w.Header().Set("Surrogate-Key", "a%0d%0aX-Injected:1 b")
		w.Header().Set("Location", r.RequestURI)
		w.WriteHeader(http.StatusFound)
	})
	attack(t, h, func(c *Config) { tellAll(c) }, func(t *testing.T, w *world) {
		for _, target := range []string{"/%0d%0aX-Injected:1", "/%0D%0ASet-Cookie:a=b/x", "/a?%0d%0aX-Injected:1", "/%0aX-Injected:1", "/%0dX-Injected:1", "/a%E5%98%8D%E5%98%8AX-Injected:1", "/%250d%250aX-Injected:1", "/a\"b", "/a?\"b\\"} {
			for range 2 {
				got := w.raw(t, "GET "+target+" HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
				head, _, _ := strings.Cut(got, "\r\n\r\n")
				for line := range strings.SplitSeq(head, "\r\n") {
					name, _, _ := strings.Cut(line, ":")
					if strings.ContainsAny(line, "\r\n") || name == "X-Injected" || name == "Set-Cookie" || name == "Surrogate-Key" {
						t.Errorf("%s: line %q", target, line)
					}
				}
				if !strings.HasPrefix(got, "HTTP/1.1 302 ") {
					t.Errorf("%s: %q", target, got)
				}
			}
		}
		for _, host := range []string{"shop.test%0d%0aX-Injected:1", "shop.test\rX-Injected:1", "shop.test\x00"} {
			if got := w.raw(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") || strings.Contains(got, "X-Injected") {
				t.Errorf("Host %q: %q", host, got)
			}
		}
		for _, p := range []Purge{{URL: "http://shop.test/%0d%0aX:1"}, {Site: "shop", Tag: "a\r\nX-Injected: 1"}, {Prefix: "http://shop.test/%0d%0a"}} {
			if err := w.edge.Purge(p); err != nil {
				t.Errorf("%+v: %v", p, err)
			}
		}
		if err := w.edge.Purge(Purge{URL: "http://shop.test/\r\nX: 1"}); err == nil {
			t.Error("a URL with a line end was taken")
		}
	})
}

// TestServerSideRequests: no request makes the edge connect to anything but
// the configured origin, and no redirect is followed.
func TestServerSideRequests(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://169.254.169.254/latest/meta-data/")
		w.Header().Set("Cache-Control", "max-age=86400")
		w.WriteHeader(http.StatusFound)
	})
	attack(t, h, nil, func(t *testing.T, w *world) {
		trapped := make(chan string, 10)
		for _, addr := range []string{"169.254.169.254:80", "127.0.0.1:80", "198.51.100.200:80"} {
			ln, err := w.network.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					trapped <- addr
					c.Close()
				}
			}()
		}
		for send, want := range map[string]string{
			"GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n":                                    "421",
			"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":                                          "421",
			"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n":                                          "421",
			"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n":                                              "421",
			"GET / HTTP/1.1\r\nHost: a@127.0.0.1\r\n\r\n":                                        "400",
			"GET http://169.254.169.254/ HTTP/1.1\r\nHost: shop.test\r\n\r\n":                    "421",
			"GET http://shop.test@127.0.0.1/ HTTP/1.1\r\nHost: shop.test\r\n\r\n":                "400",
			"GET http://198.51.100.200/ HTTP/1.1\r\nHost: shop.test\r\n\r\n":                     "421",
			"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: shop.test\r\n\r\n":                     "405",
			"GET /http://169.254.169.254/ HTTP/1.1\r\nHost: shop.test\r\n\r\n":                   "302",
			"GET //169.254.169.254/ HTTP/1.1\r\nHost: shop.test\r\n\r\n":                         "302",
			"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-Host: 169.254.169.254\r\n\r\n":     "302",
			"GET /a HTTP/1.1\r\nHost: shop.test\r\nX-Original-URL: http://127.0.0.1/\r\n\r\n":    "302",
			"GET @169.254.169.254/ HTTP/1.1\r\nHost: shop.test\r\n\r\n":                          "400",
			"POST /post HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi":              "302",
			"GET /proxy?url=http://169.254.169.254/latest HTTP/1.1\r\nHost: shop.test\r\n\r\n":   "302",
			"GET / HTTP/1.1\r\nHost: shop.test\r\nForwarded: host=127.0.0.1;proto=http\r\n\r\n":  "302",
			"OPTIONS http://127.0.0.1/ HTTP/1.1\r\nHost: shop.test\r\nMax-Forwards: 0\r\n\r\n":   "421",
			"GET / HTTP/1.1\r\nHost: shop.test:80@127.0.0.1\r\n\r\n":                             "400",
			"GET / HTTP/1.1\r\nHost: 2852039166\r\n\r\n":                                         "421",
			"GET / HTTP/1.1\r\nHost: 0xa9fea9fe\r\n\r\n":                                         "421",
			"GET / HTTP/1.1\r\nHost: 169.254.169.254.shop.test\r\n\r\n":                          "421",
			"GET / HTTP/1.1\r\nHost: shop.test.169.254.169.254.nip.test\r\n\r\n":                 "421",
			"GET / HTTP/1.1\r\nHost: shop.test\r\nProxy: http://169.254.169.254:80\r\n\r\n":      "302",
			"GET / HTTP/1.1\r\nHost: shop.test\r\nDestination: http://169.254.169.254/\r\n\r\n":  "302",
			"COPY / HTTP/1.1\r\nHost: shop.test\r\nDestination: http://169.254.169.254/\r\n\r\n": "302",
		} {
			if got := firstLine(w.raw(t, send)); !strings.HasPrefix(got, "HTTP/1.1 "+want+" ") {
				t.Errorf("%q: %q, want %s", send, got, want)
			}
		}
		select {
		case addr := <-trapped:
			t.Errorf("the edge connected to %s", addr)
		default:
		}
	})
}

// TestPathTraversal: a pushed site has its files and nothing else, whatever
// the path looks like.
func TestPathTraversal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, pushSites(t))
		defer w.stop()
		w.files = map[string][]byte{"r1/index.html": []byte("<p>root"), "r1/a/b.css": []byte("b{}")}
		if _, err := w.activate("r1"); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{
			"/../etc/passwd", "/a/../../etc/passwd", "/%2e%2e/etc/passwd", "/a/%2e%2e/%2e%2e/etc/passwd", "/..%2fetc%2fpasswd", "/..%5cetc%5cpasswd", "/%2e%2e%5cetc", "/..;/etc/passwd", "/a/..;/b.css", "/....//etc/passwd", "/.../etc/passwd",
			"/%00", "/a/b.css%00", "/a/b.css%00.html", "//etc/passwd", "/a//b.css", "/etc/passwd", "/proc/self/environ", "/a/b.css/", "/a/b.css/.", "/a/b.css/../b.css", "/a%2fb.css", "/a%5cb.css", "/A/B.css", "/a/b.css.", "/a/b.css%20", "/a/b.css::$DATA", "/C:/Windows/win.ini",
			"/a/%c0%ae%c0%ae/b.css", "/a/%252e%252e/index.html", "/a/..%252f/index.html", "/%ff", "/a/./b.css", "/./index.html", "/index.html/..", "/~root", "/.git/config", "/r1/index.html", "/sha256-" + strings.Repeat("0", 64), "/blobs/", "/feed.journal",
		} {
			got := w.raw(t, "GET "+target+" HTTP/1.1\r\nHost: www.test\r\n\r\n")
			if line := firstLine(got); !strings.Contains(line, " 404 ") && !strings.Contains(line, " 400 ") {
				t.Errorf("%s: %q", target, line)
			}
			if strings.Contains(got, "b{}") || strings.Contains(got, "<p>root") || strings.Contains(got, "root:") {
				t.Errorf("%s: %q", target, got)
			}
		}
		if got := w.raw(t, "GET /a/b.css HTTP/1.1\r\nHost: www.test\r\n\r\n"); !strings.Contains(got, "b{}") {
			t.Errorf("the file itself: %q", got)
		}
	})
}

// TestLogInjection: whatever a client sends, each request is one line of the
// log, which is JSON, has no control byte, and is not longer than its bounds.
func TestLogInjection(t *testing.T) {
	var out syncBuffer
	log := NewJSONLog(&out)
	attack(t, http.HandlerFunc(reflecting), func(c *Config) { c.Access = log }, func(t *testing.T, w *world) {
		for _, send := range []string{
			"GET /%1b[2J%0d%0a{\"status\":200} HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"GET /\x1b[2J HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"GET /a HTTP/1.1\r\nHost: shop.test\x1b[2J\r\n\r\n",
			"GET /a HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: \x1b]0;x\x07\r\n\r\n",
			"GET /a HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: \xff\xc2\x85\xe2\x80\xa8\r\nReferer: \"},{\"\r\n\r\n",
			"GET /a?token=secret&x=\"\\u0000 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"GET /" + strings.Repeat("a", 7000) + " HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"GET /" + strings.Repeat("%0a", 1<<20/3) + " HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"GET /a HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
			strings.Repeat("G", 5000) + " /a HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi\x1b[2J /x HTTP/1.1\r\n\r\n",
		} {
			w.rawUntilClosed(t, send)
		}
	})
	log.Close()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 12 {
		t.Errorf("%d lines for 12 requests", len(lines))
	}
	for _, line := range lines {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%.200q: %v", line, err)
		}
		if len(line) > 4*maxLogField || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 }) {
			t.Errorf("%d octets: %.200q", len(line), line)
		}
		if strings.Contains(line, "secret") {
			t.Errorf("a secret: %q", line)
		}
	}
}

// syncBuffer is a buffer that one goroutine writes and another reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestRequestSmugglersConnection: after a body that is malformed the origin's
// connection is not used for anybody else.
func TestRequestSmugglersConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		o := &rawOrigin{network: w.network, say: func(r *http.Request) string {
			return "HTTP/1.1 200 OK\r\nContent-Length: " + fmt.Sprint(len(r.RequestURI)) + "\r\nX: keep\r\n\r\n" + r.RequestURI
		}}
		o.start(t)
		defer o.ln.Close()
		pool := poolTo(t, w.network, rawOriginAddr)
		defer pool.Close()
		if err := w.edge.SetSites([]Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}}); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			got := w.raw(t, "POST /bad HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("bad chunk: %q", got)
			}
			time.Sleep(time.Second)
			target := fmt.Sprintf("/good%d", i)
			if status, _, body := w.fetched(t, target, ""); status != 200 || body != target {
				t.Errorf("after it: %d %q, want %q", status, body, target)
			}
		}
	})
}

// TestStoredStatuses lists what one odd client could leave for all: none of
// the statuses that a request alone can cause is kept by default.
func TestStoredStatuses(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Cache-Control", "max-age=86400")
		w.WriteHeader(status)
	})
	attack(t, h, nil, func(t *testing.T, w *world) {
		var kept []int
		for status := 400; status < 512; status++ {
			target := fmt.Sprintf("/%d", status)
			w.fetched(t, target, "")
			if _, cached, _ := w.fetched(t, target, ""); strings.Contains(cached, "; hit") {
				kept = append(kept, status)
			}
		}
		for _, status := range []int{400, 405, 408, 411, 412, 413, 414, 415, 416, 417, 421, 425, 426, 428, 429, 431} {
			if slices.Contains(kept, status) {
				t.Errorf("%d is kept", status)
			}
		}
		for _, status := range []int{404, 410, 500, 503} {
			if !slices.Contains(kept, status) {
				t.Errorf("%d with a lifetime is not kept", status)
			}
		}
	})
}
