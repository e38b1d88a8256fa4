package edge

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// FuzzCacheControl: any text parses, to lifetimes within bounds, and what
// binds us is found wherever it stands among other members.
func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"", "max-age=60", "NO-STORE", `private="set-cookie, x", max-age="5"`, "max-age=99999999999999999999", "max-age=-1, s-maxage=1.5", `a="\"`, `x="no-store"`, ",,=,", "stale-while-revalidate=10,stale-if-error = 5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cc := parseCacheControl(s)
		for _, d := range []time.Duration{cc.maxAge, cc.sMaxAge, cc.staleIfError, cc.staleWhileRevalidate, cc.maxStale} {
			if d != noDelta && (d < 0 || d > maxDeltaSeconds*time.Second) {
				t.Fatalf("%q: lifetime %v", s, d)
			}
		}
		if !parseCacheControl("no-store,"+s).noStore || !parseCacheControl("Private , "+s).private {
			t.Fatalf("%q hides what stands before it", s)
		}
		if !strings.ContainsRune(s, '"') && !parseCacheControl(s+",no-store").noStore {
			t.Fatalf("%q hides what stands after it", s)
		}
	})
}

// FuzzRange: every answer lies inside the representation, in order, within
// the limits, and never has more octets than there are.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=0-1,3-4,90-99", "bytes=99999999999999999999-", "bytes=0-18446744073709551615", "bytes=5-1", "bytes=,", "items=0-1", "bytes=0-,0-,0-"} {
		f.Add(s, int64(1000))
		f.Add(s, int64(math.MaxInt64))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			size = -(size + 1)
		}
		ranges, answer := parseRanges(s, size)
		if r, a, single := singleRange(s, size); single && (a != answer || a == satisfyRange && r != ranges[0]) || single && len(ranges) > 1 {
			t.Fatalf("%q of %d: %v, %d; as a single range %v, %d", s, size, ranges, answer, r, a)
		}
		if (answer == satisfyRange) != (len(ranges) > 0) || len(ranges) > maxRanges {
			t.Fatalf("%q of %d: %v, %d", s, size, ranges, answer)
		}
		var end int64 // no octet comes twice, so that there are never more than size
		for i, r := range ranges {
			if r.length <= 0 || i > 0 && r.start-end <= coalesceGap || r.start+r.length > size || r.start+r.length < 0 {
				t.Fatalf("%q of %d: %v", s, size, ranges)
			}
			end = r.start + r.length
		}
	})
}

// FuzzDate: the short way to read a date takes what time.Parse takes, and reads
// the same.
func FuzzDate(f *testing.F) {
	for _, s := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Thu, 29 Feb 2024 23:59:59 GMT", "Thu, 29 Feb 2023 00:00:00 GMT", "Fri, 31 Apr 0000 24:00:60 GMT", "sun, 06 nov 1994 08:49:37 gmt"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		short, ok := parseFixdate(s)
		long, err := time.Parse(http.TimeFormat, s)
		if ok && (err != nil || !long.Equal(short)) {
			t.Fatalf("%q: %v, by time.Parse %v, %v", s, short, long, err)
		}
		if !ok && err == nil && long.Format(http.TimeFormat) == s {
			t.Fatalf("%q: not read, by time.Parse %v", s, long)
		}
	})
}

// FuzzHead: what we accept, net/http accepts too and reads in the same way.
func FuzzHead(f *testing.F) {
	for _, c := range framingCases {
		f.Add([]byte(c.send))
	}
	f.Add([]byte("GET http://shop.test/a?b HTTP/1.1\r\nHost: other\r\nX: a\r\nx: b \r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h head
		n, err := h.parse(b)
		if err != nil {
			return
		}
		if n <= 0 || n > len(b) || !bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
			t.Fatalf("%q: the head has %d octets", b, n)
		}
		tg, err := parseTarget(h.target, h.host, false)
		if err != nil || h.method == http.MethodConnect {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: we accept it, net/http: %v", b, err)
		}
		if r.Method != h.method || r.RequestURI != h.target {
			t.Fatalf("%q: %s %s against %s %s", b, h.method, h.target, r.Method, r.RequestURI)
		}
		want := h.contentLength
		switch {
		case h.chunked:
			want = -1
		case want < 0:
			want = 0
		}
		if r.ContentLength != want {
			t.Fatalf("%q: length %d, net/http %d", b, want, r.ContentLength)
		}
		if h.takes() {
			if own := h.request("192.0.2.1"); own.Method != r.Method || own.RequestURI != r.RequestURI || own.Host != r.Host || !reflect.DeepEqual(own.Header, r.Header) {
				t.Fatalf("%q: %+v\nby net/http %+v", b, own, r)
			}
		}
		q, err := readRequest(&http.Request{Method: r.Method, RequestURI: r.RequestURI, Host: r.Host, Header: r.Header, URL: r.URL}, "", false, true)
		if err == nil && q.target != tg {
			t.Fatalf("%q: target %+v, by net/http %+v", b, tg, q.target)
		}
		for name := range r.Header {
			ours, ok := h.combined(name)
			theirs, _ := headerFields(r.Header).combined(name)
			if !ok || ours != theirs {
				t.Fatalf("%q: field %s is %q, net/http has %q", b, name, ours, theirs)
			}
		}
	})
}

// FuzzTarget: the origin is asked for exactly what the key says, and a key
// parses to itself.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/a?b", "//a//b/", "/%2F%2e", "/a|b", "/a;b/..c?..", "http://u:80/x?", "/[a]!$&'()*+,=:@~"} {
		f.Add(s, "Shop.test:8080", false)
		f.Add(s, "[2001:DB8::1]", true)
	}
	f.Fuzz(func(t *testing.T, raw, host string, tls bool) {
		tg, err := parseTarget(raw, host, tls)
		if err != nil {
			return
		}
		u := tg.url()
		if got := u.Scheme + "://" + u.Host + u.RequestURI(); got != tg.key() {
			t.Fatalf("%q on %q: key %q, the origin is asked for %q", raw, host, tg.key(), got)
		}
		if again, err := parseTarget(tg.key(), "other.test", tls); err != nil || again != tg {
			t.Fatalf("%q on %q: key %q parses to %+v, %v", raw, host, tg.key(), again, err)
		}
	})
}

// FuzzHit: whatever Hit answers is one well-formed response whose body is the
// stored one, and the general path gives the same.
func FuzzHit(f *testing.F) {
	e := hitEdge(f)
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n",
		"HEAD /a HTTP/1.1\r\nHost: SHOP.test:80\r\n\r\n",
		"GET http://shop.test/a HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"1\"\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nIf-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nAccept-Language: de\r\n\r\nGET",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nRange: bytes=1-2\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nRange: bytes=-2\r\nIf-Range: \"1\"\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nrange: bytes=3-\r\nIf-Range: Sat, 01 Jan 2000 00:00:00 GMT\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nRange: bytes=9-, 1-1\r\n\r\n",
		"HEAD /a HTTP/1.1\r\nHost: shop.test\r\nRange: bytes=0-0\r\nIf-Match: *\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: shop.test\r\nRange: bytes=0-0\r\nIf-None-Match: W/\"1\", \"2\"\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, body, ok := Hit(nil, b, e.Snapshot(), e.now())
		if !ok {
			return
		}
		defer body.Close()
		var all bytes.Buffer
		all.Write(out)
		if n, err := body.WriteTo(&all); err != nil || n != body.Len() {
			t.Fatalf("%q: body of %d octets, %v", b, n, err)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: a hit, but net/http says %v", b, err)
		}
		got, err := http.ReadResponse(bufio.NewReader(&all), r)
		if err != nil {
			t.Fatalf("%q: %q: %v", b, out, err)
		}
		gotBody, err := io.ReadAll(got.Body)
		if err != nil || all.Len() != 0 {
			t.Fatalf("%q: %v, %d octets too many", b, err, all.Len())
		}
		w := newAnswer()
		e.ServeHTTP(w, r)
		if w.status != got.StatusCode || w.body.String() != string(gotBody) {
			t.Fatalf("%q: %d %q, the handler %d %q", b, got.StatusCode, gotBody, w.status, w.body.String())
		}
		for name := range got.Header {
			if w.header[name] == nil {
				t.Fatalf("%q: %s is %q, and the handler has none", b, name, got.Header[name])
			}
		}
		for name, lines := range w.header {
			if lines != nil && strings.Join(got.Header[name], "|") != strings.Join(lines, "|") {
				t.Fatalf("%q: %s is %q, by the handler %q", b, name, got.Header[name], lines)
			}
		}
	})
}

// newAnswer is a ResponseWriter that keeps what it gets.
type answerWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer() *answerWriter { return &answerWriter{header: http.Header{}} }

func (w *answerWriter) Header() http.Header         { return w.header }
func (w *answerWriter) WriteHeader(status int)      { w.status = status }
func (w *answerWriter) Write(p []byte) (int, error) { return w.body.Write(p) }

// hitEdge has http://shop.test/a stored, at a clock that stands still.
func hitEdge(t testing.TB) *Edge {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Vary", "Accept-Language")
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "hello")
	})
	e, err := New(Config{Name: "fra1", Now: func() time.Time { return now },
		Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(origin)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, language := range []string{"", "de"} {
		r, err := http.NewRequest(http.MethodGet, "http://shop.test/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if language != "" {
			r.Header.Set("Accept-Language", language)
		}
		for range 1000 { // until the fetch's own goroutine has stored it
			runtime.Gosched()
			w := newAnswer()
			e.ServeHTTP(w, r)
			if w.status != 200 || w.body.String() != "hello" {
				t.Fatalf("filling: %d %q", w.status, w.body.String())
			}
			if strings.Contains(w.header.Get("Cache-Status"), "hit") {
				break
			}
		}
	}
	return e
}
