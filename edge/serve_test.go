package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/logqueue"
	"perigee.example/internal/memnet"
)

// collected keeps access records.
type collected struct {
	mu      sync.Mutex
	records []AccessRecord
}

func (c *collected) Log(r *AccessRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records = append(c.records, *r)
}

func TestPipelinedHits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &collected{}
		w := newWorld(t, true, func(c *Config) { c.Access = log })
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: "hello"})
		w.raw(t, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		got := w.raw(t, strings.Repeat("GET /a?token=1234&x=1 HTTP/1.1\r\nHost: shop.test\r\n\r\n", 0)+
			strings.Repeat("GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n", 1000)+
			"GET /a?token=secret&x=1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		if n := strings.Count(got, "Cache-Status: fra1; hit"); n != 1000 {
			t.Errorf("%d hits of 1000", n)
		}
		time.Sleep(time.Second)
		log.mu.Lock()
		defer log.mu.Unlock()
		if len(log.records) != 1002 {
			t.Fatalf("%d access records", len(log.records))
		}
		r := log.records[500]
		if r.Client != clientAddr.String() || r.Site != "shop" || r.Method != "GET" || r.Host != "shop.test" || r.Path != "/a" ||
			r.Status != 200 || r.Bytes != 5 || r.Cache != "hit" || r.CacheStatus != "fra1; hit; ttl=59" {
			t.Errorf("record of a hit: %+v", r)
		}
		if r := log.records[1001]; r.Path != "/a?token=…&x=1" || r.Status != 501 || r.Cache != "miss" {
			t.Errorf("record of a miss: %+v", r)
		}
	})
}

// TestSlowHead: whoever sends a head octet by octet is cut off in time, before
// the first request and after it, in the loop and in net/http.
func TestSlowHead(t *testing.T) {
	for _, before := range []string{"", "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, true, nil)
			defer w.stop()
			c, err := w.network.DialFrom(context.Background(), clientAddr, edgeAddr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, before)
			time.Sleep(time.Second)
			start := time.Now()
			for i := 0; ; i++ {
				if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[i:i+1]); err != nil {
					break
				}
				if time.Sleep(time.Second); i > 40 {
					t.Fatal("still connected after 40 s")
				}
			}
			if d := time.Since(start); d < 9*time.Second || d > 13*time.Second {
				t.Errorf("cut off after %v", d)
			}
		})
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"max-age=600"}}, body: "hello"})
		w.raw(t, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		c, err := w.network.DialFrom(context.Background(), clientAddr, edgeAddr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		start := time.Now()
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != idleTimeout {
			t.Errorf("closed after %v", d)
		}
	})
}

// TestShutdown: idle connections end at once, a request under way is answered
// with Connection: close.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		ln, err := n.Listen("tcp", edgeAddr.String())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, ln) }()
		dial := func() io.ReadWriteCloser {
			c, err := n.DialFrom(t.Context(), clientAddr, edgeAddr)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		busy, idle := dial(), dial()
		io.WriteString(busy, "GET /a HTTP/1.1\r\nHost: s.test\r\n\r\n")
		io.WriteString(idle, "GET /-/health HTTP/1.1\r\nHost: s.test\r\n\r\n")
		synctest.Wait()
		start := time.Now()
		stop()
		rest, err := io.ReadAll(idle)
		if d := time.Since(start); err != nil || !strings.Contains(string(rest), "ok") || d > time.Second {
			t.Errorf("idle: %q, %v after %v", rest, err, d)
		}
		if _, err := n.DialFrom(t.Context(), clientAddr, edgeAddr); err == nil {
			t.Error("it still accepts")
		}
		time.Sleep(3 * time.Second)
		close(g.head)
		g.body <- "hello"
		close(g.body)
		rest, err = io.ReadAll(busy)
		if err != nil || !strings.HasPrefix(string(rest), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(rest), "Connection: close\r\n") && !strings.Contains(string(rest), "hello") {
			t.Errorf("busy: %q, %v", rest, err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("shutdown took %v", d)
		}
	})
}

func TestHeadLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		for _, c := range []struct{ send, want string }{
			{"GET /" + strings.Repeat("a", maxTargetBytes) + " HTTP/1.1\r\nHost: shop.test\r\n\r\n", "414"},
			{"GET /" + strings.Repeat("a", maxHeadBytes), "414"},
			{"GET / HTTP/1.1\r\nHost: shop.test\r\nX: " + strings.Repeat("a", maxHeadBytes) + "\r\n\r\n", "431"},
			{"GET / HTTP/1.1\r\nHost: shop.test\r\n" + strings.Repeat("X: a\r\n", maxFields) + "\r\n", "431"},
			{"GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n", "505"},
			{"GET https://shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n", "421"},
			{"GET http://shop.test@evil.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n", "400"},
			{"GET / HTTP/1.1\r\nHost: shop.test:port\r\n\r\n", "400"},
			{"GET / HTTP/1.1\r\nHost: \r\n\r\n", "400"},
			{"CONNECT shop.test:80 HTTP/1.1\r\nHost: shop.test\r\n\r\n", "405"},
			{"OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n", "200"},
		} {
			if got := firstLine(w.raw(t, c.send)); !strings.HasPrefix(got, "HTTP/1.1 "+c.want) {
				t.Errorf("%.60q: %q, want %s", c.send, got, c.want)
			}
		}
		if seen := w.requests(false); len(seen) != 0 {
			t.Errorf("the origin saw %q", seen)
		}
	})
}

// TestAbsoluteFormWins: RFC 9112 §3.2.2, the authority of the target replaces Host.
func TestAbsoluteFormWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		w.say("GET /a", answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: "hello"})
		for _, want := range []string{"stored", "hit"} {
			got := w.raw(t, "GET http://SHOP.test:80/a HTTP/1.1\r\nHost: evil.test\r\n\r\n")
			if !strings.Contains(got, "hello") || !strings.Contains(got, want) {
				t.Errorf("got %q, want %s", got, want)
			}
		}
		if seen := w.requests(true); len(seen) != 1 || !strings.Contains(seen[0], "Host: shop.test\n") {
			t.Errorf("the origin saw %q", seen)
		}
	})
}

// failingWriter takes nothing.
type failingWriter struct{ gate chan struct{} }

func (w failingWriter) Write(p []byte) (int, error) { <-w.gate; return 0, errors.New("disk full") }

func TestJSONLog(t *testing.T) {
	var out bytes.Buffer
	l := NewJSONLog(&out)
	l.Log(&AccessRecord{Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Method: "GET", Path: "/\x1b[2J\x7f\n\u0085\"\\\xff" + strings.Repeat("a", 5000), Status: 200, Bytes: 5, Duration: 1500 * time.Microsecond, Cache: "hit"})
	l.Close()
	line := out.String()
	for _, c := range line[:len(line)-1] {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			t.Errorf("control character %q in %q", c, line)
		}
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatal(err)
	}
	path := got["path"].(string)
	if !strings.HasPrefix(path, "/\x1b[2J\x7f\n\u0085\"\\\ufffda") || len(path) > maxLogField+2 {
		t.Errorf("path came back as %.40q, %d octets", path, len(path))
	}
	if got["time"] != "2026-01-02T03:04:05.000006Z" || got["seconds"] != 0.0015 || got["status"] != 200.0 || got["site"] != nil {
		t.Errorf("got %v", got)
	}
}

// TestJSONLogDropsAndCounts: with a stuck disk requests go on, and every
// record that is missing is counted.
func TestJSONLogDropsAndCounts(t *testing.T) {
	gate := make(chan struct{})
	l := NewJSONLog(failingWriter{gate})
	const n = 3 * logqueue.LinesBytes / 2000
	for range n {
		l.Log(&AccessRecord{Status: 200, UserAgent: strings.Repeat("x", 2000)})
	}
	if l.Dropped() == 0 {
		t.Error("nothing dropped with the disk stuck")
	}
	close(gate)
	l.Close()
	if l.Dropped() != n {
		t.Errorf("%d counted of %d lost", l.Dropped(), n)
	}
}

// TestCombinedLog: the format of Apache; nothing that a client sends ends a field
// or a line.
func TestCombinedLog(t *testing.T) {
	var out bytes.Buffer
	l := NewCombinedLog(&out)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	l.Log(&AccessRecord{Time: at, Client: "192.0.2.1", Method: "GET", Path: "/a\"b\n?x=1", Proto: "HTTP/1.1", Status: 200, Bytes: 5, Referer: "https://a.test/?x", UserAgent: "curl\x1b[2J\\"})
	l.Log(&AccessRecord{Time: at, Client: "2001:db8::1", Status: 400})
	l.Close()
	want := `192.0.2.1 - - [02/Jan/2026:03:04:05 +0100] "GET /a\"b\x0a?x=1 HTTP/1.1" 200 5 "https://a.test/?x" "curl\x1b[2J\\"` + "\n" +
		`2001:db8::1 - - [02/Jan/2026:03:04:05 +0100] "-" 400 - "-" "-"` + "\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestHide: the parameters of the configuration, in place of the usual ones.
func TestHide(t *testing.T) {
	s := newSecrets([]string{"Ticket"})
	if got := s.path("/a", "?ticket=1&token=2"); got != "/a?ticket=…&token=2" {
		t.Error(got)
	}
	if got := s.reference("https://a.test/b?TICKET=1"); got != "https://a.test/b?TICKET=…" {
		t.Error(got)
	}
	if got := newSecrets([]string{}).path("/a", "?token=2"); got != "/a?token=2" {
		t.Error(got)
	}
}

func TestLoggedPath(t *testing.T) {
	for _, c := range []struct{ path, query, want string }{
		{"/a", "", "/a"},
		{"/a", "?", "/a?"},
		{"/a", "?x=1&y", "/a?x=1&y"},
		{"/a", "?TOKEN=1&x=2&sig=3;key=4", "/a?TOKEN=…&x=2&sig=…;key=…"},
		{"/a", "?t%6Fken=1&%zz=1&token", "/a?t%6Fken=…&%zz=…&token"},
	} {
		if got := newSecrets(nil).path(c.path, c.query); got != c.want {
			t.Errorf("%s%s: %s, want %s", c.path, c.query, got, c.want)
		}
	}
}

// TestLoggedTimes: times and durations are written as package time writes them.
func TestLoggedTimes(t *testing.T) {
	start := time.Date(2026, 12, 31, 23, 59, 58, 999_999_499, time.FixedZone("", -3600))
	for _, d := range []time.Duration{0, 1, 500, 1001, 999_999_500, time.Second, 90*time.Second + 5*time.Microsecond, -time.Millisecond} {
		at := start.Add(d)
		if got, want := string(appendStamp(nil, at)), at.UTC().Format("2006-01-02T15:04:05.000000Z07:00"); got != want {
			t.Errorf("%v is logged as %s", want, got)
		}
		if got, want := string(appendSeconds(nil, d)), strconv.FormatFloat(d.Round(time.Microsecond).Seconds(), 'f', 6, 64); got != want {
			t.Errorf("%v is logged as %s, want %s", d, got, want)
		}
	}
}
