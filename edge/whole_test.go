package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hasCome is a body all of which has come, as an origin.Pool's says it.
type hasCome struct{ *bytes.Reader }

func (b hasCome) Buffered() int64 { return int64(b.Len()) }
func (hasCome) Close() error      { return nil }

// given is an origin that gives one response. hook is called for each request.
type given struct {
	atHand bool
	status int
	length int
	header http.Header
	hook   func()
	asked  int
}

func (g *given) RoundTrip(r *http.Request) (*http.Response, error) {
	g.asked++
	if g.hook != nil {
		g.hook()
	}
	resp := &http.Response{StatusCode: g.status, Header: g.header.Clone(), ContentLength: int64(g.length), Request: r}
	body := bytes.NewReader(bytes.Repeat([]byte("0123456789"), g.length/10+1)[:g.length])
	if resp.Body = io.NopCloser(body); g.atHand {
		resp.Body = hasCome{body}
	}
	return resp, nil
}

// logged are the records of a log but for their times.
type loggedRecords []string

func (l *loggedRecords) Log(r *AccessRecord) {
	*l = append(*l, fmt.Sprint(r.Method, r.Path, r.Status, r.Bytes, r.Cache, r.CacheStatus, r.Site))
}

// said is what a client of the loop got for some requests, and what was logged.
func (g *given) said(t *testing.T, asks []string) (heads []http.Header, bodies []string, log loggedRecords) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e, err := New(Config{Access: &log, Now: func() time.Time { return now }, Seed: 1, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: g}}})
	if err != nil {
		t.Fatal(err)
	}
	c := dialLoop(t, e)
	r := bufio.NewReader(c)
	for _, ask := range asks {
		io.WriteString(c, strings.Replace(ask, "\n", " HTTP/1.1\r\nHost: s.test\r\n", 1)+"\r\n")
		resp, err := http.ReadResponse(r, &http.Request{Method: ask[:strings.IndexByte(ask, ' ')]})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Header["Status"] = []string{resp.Status}
		heads, bodies = append(heads, resp.Header), append(bodies, string(body))
		synctest.Wait() // it is stored
	}
	c.Close()
	synctest.Wait()
	e.Close()
	holdsNothing(t, e.store)
	return heads, bodies, log
}

// TestWholeIsLikeAnyOther: a response that has come whole, and one that is read as it
// comes, give the same answers, are stored alike, and are logged alike.
func TestWholeIsLikeAnyOther(t *testing.T) {
	origins := []given{}
	for _, length := range []int{0, 1, 512, 513, 10_000, 20_000, 32_000, 100_000} {
		origins = append(origins, given{status: 200, length: length, header: http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"a"`}, "Content-Type": {"text/css"}}})
	}
	for _, h := range []http.Header{
		{"Cache-Control": {"no-store"}},
		{"Cache-Control": {"private"}},
		{"Cache-Control": {"no-cache"}, "Etag": {`"a"`}},
		{"Cache-Control": {`no-cache="X-Own", max-age=60`}, "X-Own": {"secret"}},
		{"Cache-Control": {"max-age=60"}, "Set-Cookie": {"a=b"}},
		{"Cache-Control": {"max-age=60"}, "Vary": {"Accept-Encoding, X-Other"}, "Accept-Ranges": {"none"}},
		{"Cache-Control": {"max-age=60", "must-revalidate"}, "Perigee-Cdn-Cache-Control": {"max-age=5"}, "Surrogate-Key": {"a b"}, "Warning": {"1", "2"}},
		{"Last-Modified": {"Mon, 01 Dec 2025 12:00:00 GMT"}, "Date": {"Fri, 02 Jan 2026 03:04:00 GMT"}, "Age": {"3"}, "Keep-Alive": {"timeout=5"}, "Connection": {"x-gone"}, "X-Gone": {"1"}},
	} {
		for _, status := range []int{200, 203, 204, 301, 404, 410, 500, 503} {
			origins = append(origins, given{status: status, length: 100, header: h})
			if status == 204 {
				origins[len(origins)-1].length = 0
			}
		}
	}
	asks := []string{
		"GET /a\n", "GET /a\n",
		"GET /b?x=1\nRange: bytes=0-4\r\n", "GET /b?x=1\nRange: bytes=-5\r\n",
		"GET /c\nIf-None-Match: \"a\"\r\n", "GET /c\nIf-None-Match: \"other\"\r\n",
		"GET /d\nIf-Modified-Since: Mon, 01 Dec 2025 12:00:00 GMT\r\n", "HEAD /d\n",
		"GET /e\nAuthorization: Basic x\r\n", "GET /e\n",
		"GET /f\nCache-Control: no-cache\r\nAccept-Encoding: gzip\r\n", "GET /f\nAccept-Encoding: gzip\r\n",
		"GET /g\nUser-Agent: x\r\nReferer: y\r\n", "GET /g\nIf-Match: \"a\"\r\n",
		"HEAD /h\n", "GET /h\n",
	}
	synctest.Test(t, func(t *testing.T) {
		for _, g := range origins {
			plain, whole := g, g
			whole.atHand = true
			heads, bodies, log := plain.said(t, asks)
			heads2, bodies2, log2 := whole.said(t, asks)
			for i := range asks {
				if !reflect.DeepEqual(heads[i], heads2[i]) || bodies[i] != bodies2[i] {
					t.Errorf("%d %v, %d: %q:\n%v %.20q\nand whole\n%v %.20q", g.status, g.header, g.length, asks[i], heads[i], bodies[i], heads2[i], bodies2[i])
				}
			}
			if !reflect.DeepEqual(log, log2) || plain.asked != whole.asked {
				t.Errorf("%d %v, %d: %d and %d requests, logged\n%v\nand\n%v", g.status, g.header, g.length, plain.asked, whole.asked, strings.Join(log, "\n"), strings.Join(log2, "\n"))
			}
		}
	})
}

// TestWholeAndPurged: what was purged, or invalidated, after its fetch began answers
// who asked for it, and is not stored.
func TestWholeAndPurged(t *testing.T) {
	for _, invalidate := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := &given{atHand: true, status: 200, length: 10, header: http.Header{"Cache-Control": {"max-age=60"}}}
			e := gatedEdge(t, g, 0)
			g.hook = func() {
				if invalidate {
					e.invalidate("http://s.test/a", nil)
				} else if err := e.Purge(Purge{URL: "http://s.test/a"}); err != nil {
					t.Error(err)
				}
			}
			c := dialLoop(t, e)
			r := bufio.NewReader(c)
			for range 3 {
				io.WriteString(c, askGated)
				if got := bodyOf(t, r); got != "0123456789" {
					t.Fatalf("%q", got)
				}
			}
			if g.asked != 3 {
				t.Errorf("the origin was asked %d times", g.asked)
			}
		})
	}
}

// TestWholeWithoutRoom: it is passed on when responses under way take all the room.
func TestWholeWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := gatedEdge(t, &given{atHand: true, status: 200, length: 30_000, header: http.Header{"Cache-Control": {"max-age=60"}}}, 1<<20)
		if !e.store.reserve(512 << 10) {
			t.Fatal("half of it is not to be had")
		}
		c := dialLoop(t, e)
		r := bufio.NewReader(c)
		for range 2 {
			io.WriteString(c, askGated)
			if got := bodyOf(t, r); len(got) != 30_000 {
				t.Fatalf("%d octets", len(got))
			}
		}
		e.store.release(512 << 10)
	})
}

// TestFlightContext: it ends as one of package context does, for who waits for Done,
// for a context that was made of it, and for who is called after.
func TestFlightContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		c := &flightContext{values: context.WithValue(context.Background(), key{}, "v")}
		child, cancel := context.WithCancel(c)
		defer cancel()
		called := make(chan struct{}, 3)
		note := func() { called <- struct{}{} }
		context.AfterFunc(c, note)
		c.AfterFunc(note)
		stop, stopOther := c.AfterFunc(note), context.AfterFunc(c, note)
		if !stop() || stop() || !stopOther() || c.Err() != nil || c.Value(key{}) != "v" || child.Value(key{}) != "v" {
			t.Error("before its end")
		}
		c.cancel()
		c.cancel()
		<-c.Done()
		<-child.Done()
		c.AfterFunc(note)
		synctest.Wait()
		if len(called) != 3 || c.Err() != context.Canceled || context.Cause(child) != context.Canceled {
			t.Errorf("%d calls, %v, %v", len(called), c.Err(), context.Cause(child))
		}
	})
}

// TestCloseEndsFlights: those under way, and those that begin after it.
func TestCloseEndsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		w := newAnswer()
		go func() { time.Sleep(time.Second); e.Close() }()
		for range 2 {
			if call(t.Context(), e, w); w.status != http.StatusBadGateway {
				t.Errorf("%d", w.status)
			}
		}
	})
}
