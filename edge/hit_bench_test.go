package edge

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// chromiumPage is the head of a request as Chromium 120 sends it.
const chromiumPage = "GET /page%d HTTP/1.1\r\nHost: s.test\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n" +
	"sec-ch-ua: \"Not_A Brand\";v=\"8\", \"Chromium\";v=\"120\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n" +
	"Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n" +
	"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: session=0123456789abcdef; theme=dark\r\n\r\n"

// pagesEdge has n pages of 1 KiB stored, and the requests for them.
func pagesEdge(t testing.TB, n int, head string) (*Edge, [][]byte) {
	body := strings.Repeat("x", 1024)
	e, err := New(Config{MemoryBytes: 1 << 30, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, ContentLength: 1024, Body: io.NopCloser(strings.NewReader(body)), Request: r, Header: http.Header{
			"Cache-Control": {"max-age=86400"}, "Content-Type": {"text/html; charset=utf-8"}, "Etag": {`"0123456789abcdef"`},
			"Vary": {"Accept-Encoding"}, "Last-Modified": {"Mon, 23 Nov 2026 12:00:00 GMT"}, "Server": {"origin"}}}, nil
	})}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	requests := make([][]byte, n)
	for i := range requests {
		requests[i] = fmt.Appendf(nil, head, i)
		r, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("http://s.test/page%d", i), nil)
		if strings.Contains(head, "gzip") {
			r.Header.Set("Accept-Encoding", "gzip, deflate, br")
		}
		for range 1000 { // until the fetch's own goroutine has stored it
			runtime.Gosched()
			w := newAnswer()
			if e.ServeHTTP(w, r); strings.Contains(w.header.Get("Cache-Status"), "hit") {
				break
			}
		}
	}
	return e, requests
}

// TestHitOfPagesAllocatesNothing, whether one variant is stored or more.
func TestHitOfPagesAllocatesNothing(t *testing.T) {
	for _, head := range []string{"GET /page%d HTTP/1.1\r\nHost: s.test\r\n\r\n", chromiumPage} {
		e, requests := pagesEdge(t, 4, head)
		out, now, snap := make([]byte, 0, 4096), time.Now(), e.Snapshot()
		i := 0
		if n := testing.AllocsPerRun(200, func() {
			_, body, ok := Hit(out, requests[i%4], snap, now)
			if !ok || body.Len() != 1024 {
				t.Fatal("no hit")
			}
			body.Close()
			i++
		}); n != 0 && !raceEnabled {
			t.Errorf("%v allocations", n)
		}
		holdsNothing(t, e.store)
	}
}

func BenchmarkHitPages(b *testing.B) {
	for _, c := range []struct {
		name, head string
		n          int
	}{
		{"bare", "GET /page%d HTTP/1.1\r\nHost: s.test\r\n\r\n", 16},
		{"chromium", chromiumPage, 16},
		{"bare, 100000 pages", "GET /page%d HTTP/1.1\r\nHost: s.test\r\n\r\n", 100_000},
	} {
		b.Run(c.name, func(b *testing.B) {
			e, requests := pagesEdge(b, c.n, c.head)
			out, now, snap := make([]byte, 0, 4096), time.Now(), e.Snapshot()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				_, body, ok := Hit(out, requests[i], snap, now)
				if !ok {
					b.Fatal("no hit")
				}
				body.Close()
				if i += 7919; i >= len(requests) {
					i %= len(requests)
				}
			}
		})
	}
}

// BenchmarkHitRepeated is BenchmarkHitPages of a connection whose requests have the
// same fields, as a browser's mostly have.
func BenchmarkHitRepeated(b *testing.B) {
	for name, form := range map[string]string{"bare": "GET /page%d HTTP/1.1\r\nHost: s.test\r\n\r\n", "chromium": chromiumPage} {
		b.Run(name, func(b *testing.B) {
			e, requests := pagesEdge(b, 16, form)
			out, now, snap := make([]byte, 0, 4096), time.Now(), e.Snapshot()
			h := head{same: new(repeated)}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				var body Body
				if _, err := h.parse(requests[i]); err != nil {
					b.Fatal(err)
				}
				h.same.keep(&h)
				if _, ok := hit(out, &h, snap, now, &body); !ok {
					b.Fatal("no hit")
				}
				body.Close()
				i = (i + 1) % len(requests)
			}
		})
	}
}
