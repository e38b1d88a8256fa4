package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// chromium returns the request heads of two visits to a page, as Chromium sent
// them: the second one's ask whether what it has is still good.
func chromium(t testing.TB) (heads [][]byte) {
	all, err := os.ReadFile("testdata/chromium.heads")
	if err != nil {
		t.Fatal(err)
	}
	for head := range bytes.SplitAfterSeq(all, []byte("\r\n\r\n")) {
		if len(head) > 0 {
			heads = append(heads, head)
		}
	}
	return heads
}

// page is the origin of what chromium asks for: every path has two variants, and
// the ETag that the second visit asks by.
func page(t testing.TB) http.Handler {
	etags := map[string]string{}
	for _, head := range chromium(t) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatal(err)
		}
		if tag := r.Header.Get("If-None-Match"); tag != "" {
			etags[r.URL.Path] = tag
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := strings.Repeat(r.URL.Path[:1], 1024)
		if strings.HasSuffix(r.URL.Path, ".mp4") {
			body = strings.Repeat("0123456789abcdef", 1<<12)
		}
		h := w.Header()
		h.Set("Cache-Control", "public, max-age=3600")
		h.Set("Content-Type", "text/plain")
		h.Set("Vary", "Accept-Encoding")
		h.Set("Last-Modified", "Mon, 05 Oct 2026 09:10:11 GMT")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "br") {
			h.Set("Content-Encoding", "br")
			h.Set("Etag", etags[r.URL.Path])
		} else {
			h.Set("Etag", `"identity"`)
		}
		h.Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body)
	})
}

// TestChromium: of what a browser asks for nearly all goes the fast path, over
// its connections, from the first visit on; and it gets what it asked for.
func TestChromium(t *testing.T) {
	e, dial := serveLoopback(t, page(t))
	for _, path := range []string{"/", "/img/logo.svg"} { // the other variant
		storeAt(t, e, path)
	}
	before := e.Stats().Sites["shop"].Requests
	const visits, connections = 50, 6
	heads := chromium(t)
	statuses := map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range connections {
		c := dial()
		wg.Go(func() {
			r := bufio.NewReader(c)
			for range visits {
				for j := i; j < len(heads); j += connections {
					c.Write(heads[j])
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						t.Error(err)
					}
					if resp.StatusCode != http.StatusNotModified && resp.Header.Get("Content-Encoding") == "" && !bytes.Contains(heads[j], []byte("identity")) {
						t.Errorf("%.40q got the other variant", heads[j])
					}
					mu.Lock()
					statuses[resp.StatusCode]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	// The video is asked for without coding, whose variant has another ETag.
	if n := visits * len(heads) / 20; statuses[200] != 9*n || statuses[206] != 2*n || statuses[304] != 9*n {
		t.Errorf("%d times two visits got %v", n, statuses)
	}
	var fast, all uint64
	for how, n := range e.Stats().Sites["shop"].Requests {
		if n -= before[how]; how.Path == "fast" {
			fast += n
		}
		all += n
	}
	t.Logf("%d of %d requests were fast", fast, all)
	if 100*fast < 95*all {
		t.Errorf("%d of %d requests were fast: less than 95 %%", fast, all)
	}
}

// storeAt has http://shop.test/path stored, without Accept-Encoding.
func storeAt(t testing.TB, e *Edge, path string) {
	for range 1000 { // until the fetch's own goroutine has stored it
		runtime.Gosched()
		w := newAnswer()
		r, err := http.NewRequest(http.MethodGet, "http://shop.test"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.ServeHTTP(w, r); strings.Contains(w.header.Get("Cache-Status"), "hit") {
			return
		}
	}
	t.Fatalf("%s is not stored", path)
}

// fetchesEnd waits till what has been fetched is stored: that may be after its client
// has it.
func fetchesEnd(e *Edge) {
	for {
		e.flights.mu.Lock()
		n := len(e.flights.all)
		e.flights.mu.Unlock()
		if n == 0 {
			return
		}
		runtime.Gosched()
	}
}

// hits are heads that Hit answers, with what is to come, from browserEdge.
func hits(t testing.TB) map[string][]byte {
	heads := chromium(t)
	bare := "GET /img/logo.svg HTTP/1.1\r\nHost: shop.test\r\n"
	found := map[string][]byte{
		"bare":  []byte(bare + "\r\n"),
		"range": []byte(bare + "Range: bytes=100-199\r\nIf-Range: \"identity\"\r\n\r\n"),
		"since": []byte(bare + "If-Modified-Since: Mon, 05 Oct 2026 09:10:11 GMT\r\n\r\n"),
	}
	for _, head := range heads {
		if bytes.HasPrefix(head, []byte("GET /img/logo.svg ")) {
			name := "chromium"
			if bytes.Contains(head, []byte("If-None-Match")) {
				name = "revisit"
			}
			found[name] = head
		}
	}
	return found
}

// browserEdge has both variants of what hits asks for stored, at a clock that
// stands still.
func browserEdge(t testing.TB) *Edge {
	now := time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)
	e, err := New(Config{Name: "fra1", Now: func() time.Time { return now },
		Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(page(t))}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, head := range hits(t) {
		for range 1000 {
			w := newAnswer()
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Del("Range")
			r.Header.Del("If-Modified-Since")
			if e.ServeHTTP(w, r); strings.Contains(w.header.Get("Cache-Status"), "hit") {
				break
			}
		}
	}
	return e
}

// TestHitAllocatesNothing: and it is a hit that each of the heads gets.
func TestHitAllocatesNothing(t *testing.T) {
	e := browserEdge(t)
	want := map[string]struct {
		status int
		size   int64
	}{"bare": {200, 1024}, "chromium": {200, 1024}, "range": {206, 100}, "since": {304, 0}, "revisit": {304, 0}}
	for name, head := range hits(t) {
		out := make([]byte, 0, 4096)
		snap, now := e.Snapshot(), e.now()
		allocs := testing.AllocsPerRun(1000, func() {
			_, body, ok := Hit(out[:0], head, snap, now)
			if !ok || body.Len() != want[name].size || body.Status != want[name].status {
				t.Fatalf("%s: %v, %d, %d octets", name, ok, body.Status, body.Len())
			}
			if n, err := body.WriteTo(io.Discard); n != body.Len() || err != nil {
				t.Fatal(n, err)
			}
			body.Close()
		})
		if allocs != 0 && !raceEnabled {
			t.Errorf("%s: a hit allocates %v times", name, allocs)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	e := browserEdge(b)
	snap, now := e.Snapshot(), e.now()
	out := make([]byte, 0, 4096)
	for _, name := range []string{"bare", "chromium", "range", "since", "revisit"} {
		head := hits(b)[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, body, ok := Hit(out[:0], head, snap, now)
				if !ok {
					b.Fatal("no hit")
				}
				body.Close()
			}
		})
	}
}
