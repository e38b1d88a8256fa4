package origin

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// http-checklist 53, RFC 9110 §9.2.2, §9.3.1: a request goes out again by
// itself only when it is idempotent, its body is at hand, no byte came back,
// and the connection had carried another before it.
func TestRepeatsOnlyOnReusedConnections(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, test := range []struct {
		name, method, body string
		perConn            []string // answers on each connection; the second is to the request under test
		first              bool     // it is the first of its connection
		requests           int64    // that the origin reads in all
		works              bool
	}{
		{"GET", http.MethodGet, "", []string{ok, ""}, false, 3, true},
		{"PUT with a body at hand", http.MethodPut, "body", []string{ok, ""}, false, 3, true},
		{"POST", http.MethodPost, "body", []string{ok, ""}, false, 2, false},
		{"POST without body", http.MethodPost, "", []string{ok, ""}, false, 2, false},
		{"PATCH", http.MethodPatch, "body", []string{ok, ""}, false, 2, false},
		{"a byte was seen", http.MethodGet, "", []string{ok, "H"}, false, 2, false},
		{"an interim response was seen", http.MethodGet, "", []string{ok, "HTTP/1.1 103 Early Hints\r\n\r\n"}, false, 2, false},
		{"a timeout", http.MethodGet, "", []string{ok, "hang"}, false, 2, false},
		{"a new connection", http.MethodGet, "", []string{""}, true, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				var requests atomic.Int64
				p := single(t, f, scriptedConns(&requests, test.perConn...))
				if !test.first {
					get(t, p)
				}
				_, err := send(p, test.method, test.body)
				synctest.Wait()
				if (err == nil) != test.works || requests.Load() != test.requests {
					t.Errorf("%d requests reached the origin, want %d; error %v", requests.Load(), test.requests, err)
				}
			})
		})
	}
}

// http-checklist 54: a body waits for 100 when it was announced so; a final
// answer in its place is the answer, and the body never goes out.
func TestExpectContinue(t *testing.T) {
	const final = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
	for _, test := range []struct {
		name, first string
		status      int
		body        string
		wait        time.Duration
	}{
		{"goes on", "HTTP/1.1 100 Continue\r\n\r\n", 201, "body", 0},
		{"goes on after hints", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", 201, "body", 0},
		{"goes on after early hints", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", 201, "body", 0},
		{"refuses", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", 417, "", 0},
		{"says nothing", "", 201, "body", continueTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				got := make(chan string, 1)
				p := single(t, f, func(c net.Conn) {
					r := bufio.NewReader(c)
					req, err := http.ReadRequest(r)
					if err != nil || req.Header.Get("Expect") != "100-continue" {
						return
					}
					io.WriteString(c, test.first)
					b, _ := io.ReadAll(req.Body)
					got <- string(b)
					io.WriteString(c, final)
				})
				begin := time.Now()
				req, _ := http.NewRequest(http.MethodPost, "http://x/", strings.NewReader("body"))
				req.Header.Set("Expect", "100-continue")
				resp, err := p.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(begin)
				resp.Body.Close()
				time.Sleep(2 * lateAnswer)
				if body := <-got; resp.StatusCode != test.status || body != test.body || took != test.wait {
					t.Errorf("status %d, the origin got %q, after %v", resp.StatusCode, body, took)
				}
			})
		})
	}
}

// http-checklist 54: an answer that comes while the body is still going out is
// the answer, also when the origin then closes; its connection carries no more.
func TestEarlyAnswer(t *testing.T) {
	for _, closes := range []bool{false, true} {
		bubble(t, func(t *testing.T, f *farm) {
			p := single(t, f, func(c net.Conn) {
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
				if !closes {
					c.Read(make([]byte, 1)) // and no more: the sender stands still
					time.Sleep(time.Minute)
				}
			})
			req, _ := http.NewRequest(http.MethodPost, "http://x/", io.LimitReader(endless{}, 1<<40))
			resp, err := p.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge || string(text) != "big" || err != nil {
				t.Errorf("status %d, body %q, %v", resp.StatusCode, text, err)
			}
			time.Sleep(2 * time.Minute)
			f.set("a:80", says("next"))
			if got := get(t, p); got != "next" || f.dialled("a:80") != 2 {
				t.Errorf("then %q after %d dials", got, f.dialled("a:80"))
			}
		})
	}
}

// The caller's request must be framed as it says.
func TestRequestBodyLength(t *testing.T) {
	for _, length := range []int64{3, 5} {
		bubble(t, func(t *testing.T, f *farm) {
			p := single(t, f, says("ok"))
			req, _ := http.NewRequest(http.MethodPost, "http://x/", io.NopCloser(strings.NewReader("body")))
			req.ContentLength = length
			resp, err := p.RoundTrip(req)
			if err == nil { // the origin may have answered to the octets that were announced
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				time.Sleep(2 * lateAnswer)
				get(t, p)
			}
			if s := p.Status()[0]; s.Failed != 0 {
				t.Errorf("the upstream was blamed: %+v", s)
			}
			if err == nil && (length > 4 || f.dialled("a:80") != 2) || err != nil && !errors.Is(err, errBodyLength) {
				t.Errorf("length %d: %v, %d dials", length, err, f.dialled("a:80"))
			}
		})
	}
}

func TestMalformedRequestIsNotSent(t *testing.T) {
	for _, spoil := range []func(r *http.Request){
		func(r *http.Request) { r.Method = "GET /x HTTP/1.1\r\nX:" },
		func(r *http.Request) { r.Host = "a\r\nX: y" },
		func(r *http.Request) { r.URL.RawQuery = "a b" },
		func(r *http.Request) { r.Header["X"] = []string{"a\r\nY: b"} },
		func(r *http.Request) { r.Header["X\r\nY"] = []string{"a"} },
		func(r *http.Request) { r.Header["X"] = []string{"a\x00"} },
	} {
		bubble(t, func(t *testing.T, f *farm) {
			p := single(t, f, says("ok"))
			req, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
			spoil(req)
			if _, err := p.RoundTrip(req); err == nil || f.dialled("a:80") != 0 {
				t.Errorf("%q %q: error %v, %d dials", req.Method, req.Header, err, f.dialled("a:80"))
			}
		})
	}
}
