package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// single is a pool of one origin that behaves so, on every connection.
func single(t *testing.T, f *farm, behave func(net.Conn)) *Pool {
	f.set("a:80", behave)
	return newPool(t, f, PoolConfig{Origins: []string{"http://a"}})
}

// http-checklist 52, reliability.md 2.2: a head that two parsers could read
// differently is an error, and its connection carries nothing more.
func TestOddHeads(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, text := range map[string]string{
		"a megabyte":              ok + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"300 fields":              ok + strings.Repeat("X: x\r\n", 300) + "\r\n",
		"NUL":                     ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"DEL":                     ok + "X: a\x7fb\r\nContent-Length: 0\r\n\r\n",
		"bare CR":                 ok + "X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
		"bare LF":                 ok + "X: a\nContent-Length: 0\r\n\r\n",
		"bare LF at the end":      ok + "Content-Length: 0\r\n\n",
		"bare LF everywhere":      "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"obs-fold":                ok + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
		"obs-fold by tab":         ok + "X: a\r\n\tb\r\nContent-Length: 0\r\n\r\n",
		"space before colon":      ok + "Content-Length : 0\r\n\r\n",
		"no colon":                ok + "Content-Length\r\n\r\n",
		"no name":                 ok + ": x\r\nContent-Length: 0\r\n\r\n",
		"two lengths":             ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"the same length twice":   ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		"a list of lengths":       ok + "Content-Length: 1, 1\r\n\r\nx",
		"a signed length":         ok + "Content-Length: +1\r\n\r\nx",
		"a negative length":       ok + "Content-Length: -1\r\n\r\nx",
		"a hex length":            ok + "Content-Length: 0x1\r\n\r\nx",
		"a huge length":           ok + "Content-Length: 99999999999999999999\r\n\r\nx",
		"an empty length":         ok + "Content-Length:\r\n\r\nx",
		"length and chunked":      ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"gzip, chunked":           ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"chunked twice":           ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"gzip":                    ok + "Transfer-Encoding: gzip\r\n\r\nx",
		"identity, chunked":       ok + "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
		"a coding with parameter": ok + "Transfer-Encoding: binary;q=1\r\n\r\nx",
		"length and identity":     ok + "Content-Length: 1\r\nTransfer-Encoding: identity\r\n\r\nx",
		"chunked in HTTP/1.0":     "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"status 099":              "HTTP/1.1 099 Odd\r\n\r\n",
		"status 1000":             "HTTP/1.1 1000 Odd\r\n\r\n",
		"status 999":              "HTTP/1.1 999 Odd\r\n\r\n",
		"status -20":              "HTTP/1.1 -20 Odd\r\n\r\n",
		"no status":               "HTTP/1.1\r\n\r\n",
		"NUL in the reason":       "HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
		"HTTP/2":                  "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"another protocol":        "ICY 200 OK\r\n\r\n",
		"an empty line first":     "\r\n" + ok + "Content-Length: 0\r\n\r\n",
		"a switch of protocols":   "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"1000 times 100":          strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000) + ok + "Content-Length: 0\r\n\r\n",
		"1000 times early hints":  strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1000) + ok + "Content-Length: 0\r\n\r\n",
		"a malformed interim one": "HTTP/1.1 103 Early Hints\r\nX: a\x00\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				p := single(t, f, answers(text))
				_, err := send(p, http.MethodGet, "")
				if e, ok := errors.AsType[*UpstreamError](err); !ok || e.Phase != PhaseHead || e.Timeout() {
					t.Fatalf("error %v", err)
				}
				f.set("a:80", says("sound"))
				if got := get(t, p); got != "sound" || f.dialled("a:80") != 2 {
					t.Errorf("then %q after %d dials", got, f.dialled("a:80"))
				}
			})
		})
	}
}

// RFC 9112 §6.3 rule 4: under a Transfer-Encoding that is no transfer coding a
// body ends with its connection, which carries nothing else.
func TestUnknownTransferCoding(t *testing.T) {
	for _, coding := range []string{"identity", "binary", "UTF-8"} {
		t.Run(coding, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				p := single(t, f, thenCloses("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: "+coding+"\r\n\r\n0\r\n\r\nbody"))
				for n := 1; n <= 2; n++ {
					req, err := http.NewRequest(http.MethodGet, "http://www.example.com/", nil)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := p.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(resp.Body)
					if string(body) != "0\r\n\r\nbody" || err != nil || resp.Header["Transfer-Encoding"] != nil || resp.ContentLength != -1 {
						t.Errorf("%q, %v, %v", body, err, resp.Header)
					}
					resp.Body.Close()
					synctest.Wait()
					if f.dialled("a:80") != n {
						t.Errorf("%d dials for %d requests", f.dialled("a:80"), n)
					}
				}
				f.set("a:80", answers("HTTP/1.1 204 No Content\r\nTransfer-Encoding: "+coding+"\r\n\r\n"))
				for n := 3; n <= 4; n++ { // nor where there is no body
					if got := get(t, p); got != "" || f.dialled("a:80") != n {
						t.Errorf("%q after %d dials", got, f.dialled("a:80"))
					}
					synctest.Wait()
				}
			})
		})
	}
}

// What an upstream says of how long it keeps a connection is believed, and a
// second taken off: a request that crosses its end is lost.
func TestKeepAliveTimeout(t *testing.T) {
	for field, rest := range map[string]time.Duration{
		"Keep-Alive: timeout=5": 4 * time.Second, "Keep-Alive: max=9, Timeout=3": 2 * time.Second, "Keep-Alive: timeout=1": 0, "Keep-Alive: timeout=0": 0,
		"Keep-Alive: timeout=600": idleTimeout, "Keep-Alive: timeout=x": idleTimeout, "X: y": idleTimeout,
	} {
		bubble(t, func(t *testing.T, f *farm) {
			p := single(t, f, answers("HTTP/1.1 200 OK\r\n"+field+"\r\nContent-Length: 0\r\n\r\n"))
			get(t, p)
			time.Sleep(rest - time.Millisecond)
			get(t, p)
			want := 1
			if rest == 0 {
				want = 2
			}
			if n := f.dialled("a:80"); n != want {
				t.Errorf("%s: %d dials for two requests, want %d", field, n, want)
			}
			time.Sleep(rest + time.Millisecond)
			get(t, p)
			if n := f.dialled("a:80"); n != want+1 {
				t.Errorf("%s: %d dials after that time", field, n)
			}
		})
	}
}

// http-checklist 52: bytes that belong to no response end the connection.
func TestExtraBytesEndTheConnection(t *testing.T) {
	for name, text := range map[string]string{
		"after a length":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"after chunks":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"after 204":       "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
		"after 304":       "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
		"after no length": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				p := single(t, f, answers(text))
				for n := 1; n <= 3; n++ {
					if got := get(t, p); got != "ok" && got != "" {
						t.Fatalf("body %q", got)
					}
					synctest.Wait()
					if f.dialled("a:80") != n {
						t.Errorf("%d dials for %d requests", f.dialled("a:80"), n)
					}
				}
			})
		})
	}
	// A response before there is a request.
	bubble(t, func(t *testing.T, f *farm) {
		p := single(t, f, func(c net.Conn) {
			r := bufio.NewReader(c)
			http.ReadRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			time.Sleep(time.Second)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			http.ReadRequest(r)
		})
		for n := 1; n <= 2; n++ {
			if got := get(t, p); got != "good" || f.dialled("a:80") != n {
				t.Errorf("%q after %d dials", got, f.dialled("a:80"))
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// http-checklist 6, RFC 9110 §15.2: interim responses are told as they come,
// and are never the response.
func TestInterimResponses(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := single(t, f, answers("HTTP/1.1 102 Processing\r\n\r\n"+
			"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		var told []string
		var refuse error
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			told = append(told, fmt.Sprintf("%d%s", code, h["Link"]))
			return refuse
		}})
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := strings.Join(told, " "); got != "102[] 103[</a.css>; rel=preload </b.js>]" || resp.StatusCode != 200 || string(body) != "ok" || resp.Header.Get("Link") != "" {
			t.Errorf("told %s; status %d, body %q, Link %q", got, resp.StatusCode, body, resp.Header["Link"])
		}
		if refuse = errors.New("enough"); true {
			if _, err := p.RoundTrip(req); !errors.Is(err, refuse) {
				t.Errorf("error %v", err)
			}
		}
	})
}

// http-checklist 9: trailer fields stay apart, and what may not be one is dropped.
func TestTrailers(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := single(t, f, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;ext=1\r\nhello\r\n0\r\nX-Sum: 42\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n"))
		for range 2 {
			req, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
			resp, err := p.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.Trailer) != 0 || resp.ContentLength != -1 {
				t.Errorf("before the end: trailer %v, length %d", resp.Trailer, resp.ContentLength)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "hello" || err != nil || len(resp.Trailer) != 1 || resp.Trailer.Get("X-Sum") != "42" || resp.Header.Get("X-Sum") != "" {
				t.Errorf("body %q, %v; trailer %v", body, err, resp.Trailer)
			}
		}
		if f.dialled("a:80") != 1 {
			t.Errorf("%d dials", f.dialled("a:80"))
		}
	})
}

// http-checklist 7: whatever is not whole is an error, and so is what is not sound.
func TestChunkedBodies(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"0\r\n\r\n", "whole "},
		{"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "whole abcde"},
		{"A ;x\r\n0123456789\r\n000\r\n\r\n", "whole 0123456789"},
		{"3\r\nabc\r\n", "broken abc"},
		{"3\r\nabc\r\n0\r\n", "broken abc"},
		{"3\r\nab", "broken ab"},
		{"3\nabc\r\n0\r\n\r\n", "broken "},
		{"3;a\nb\r\nabc\r\n0\r\n\r\n", "broken "},
		{"3\r\nabcd\r\n0\r\n\r\n", "broken abc"},
		{"3\r\nabc\n0\r\n\r\n", "broken abc"},
		{"\r\n3\r\nabc\r\n0\r\n\r\n", "broken "},
		{"0x3\r\nabc\r\n0\r\n\r\n", "broken "},
		{"+3\r\nabc\r\n0\r\n\r\n", "broken "},
		{"-3\r\nabc\r\n0\r\n\r\n", "broken "},
		{"1000000000000000\r\nabc", "broken "},
		{"3" + strings.Repeat(" ", maxChunkLine) + "\r\nabc\r\n0\r\n\r\n", "broken "},
		{strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\na\r\n", 200) + "0\r\n\r\n", "broken " + strings.Repeat("a", 118)},
		{"0\r\nX: a\x00\r\n\r\n", "broken "},
		{"0\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 10) + "\r\n", "broken "},
	} {
		bubble(t, func(t *testing.T, f *farm) {
			p := single(t, f, thenCloses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+test.text))
			got, err := send(p, http.MethodGet, "")
			how := "whole "
			if err != nil {
				how = "broken "
			}
			if how+got != test.want {
				t.Errorf("%.60q: %.60q (%d octets), want %.60q: %v", test.text, how+got, len(got), test.want, err)
			}
		})
	}
}

// scriptedConns answers the n-th request of each connection by a script, and
// counts the requests it has read.
func scriptedConns(requests *atomic.Int64, perConn ...string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for _, text := range perConn {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			requests.Add(1)
			if text == "hang" {
				c.Read(make([]byte, 1))
				return
			}
			io.WriteString(c, text)
		}
	}
}

// A connection is used again, but neither forever nor after its time.
func TestConnectionReuse(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := single(t, f, says("ok"))
		for range maxConnRequests {
			get(t, p)
		}
		if n := f.dialled("a:80"); n != 1 {
			t.Errorf("%d dials for %d requests", n, maxConnRequests)
		}
		get(t, p)
		if n := f.dialled("a:80"); n != 2 {
			t.Errorf("%d dials after one more", n)
		}
		for range 30 { // never idle for long, and old at last
			time.Sleep(idleTimeout / 2)
			get(t, p)
		}
		if n := f.dialled("a:80"); n != 3 {
			t.Errorf("%d dials after %v", n, 15*idleTimeout)
		}
		time.Sleep(idleTimeout + time.Second)
		get(t, p)
		if n := f.dialled("a:80"); n != 4 {
			t.Errorf("%d dials after a pause", n)
		}
		p.Close()
		get(t, p)
		synctest.Wait()
		if n := len(p.ups[0].transport.idle); n != 0 {
			t.Errorf("%d idle connections after Close", n)
		}
	})
}

// What "Connection: close", HTTP/1.0 and a body without length say is kept to.
func TestConnectionEnds(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok":                 "ok",
		"HTTP/1.1 200 OK\r\nConnection: X, Close\r\nContent-Length: 2\r\n\r\nok":              "ok",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok":                                      "ok",
		"HTTP/1.1 200 OK\r\n\r\nto the end":                                                   "to the end",
		"HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\nto the end":                            "to the end",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":              "",
		"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "",
	} {
		bubble(t, func(t *testing.T, f *farm) {
			p := single(t, f, thenCloses(text))
			for range 2 {
				if got := get(t, p); got != want {
					t.Errorf("%q: body %q", text, got)
				}
			}
			if f.dialled("a:80") != 2 {
				t.Errorf("%q: %d dials", text, f.dialled("a:80"))
			}
		})
	}
}

// Requests beyond maxUpstreamConns wait for one that ends, and not forever.
func TestUpstreamConnsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := single(t, f, thenHangs(""))
		for range maxUpstreamConns {
			p.ups[0].transport.slots <- struct{}{}
		}
		begin := time.Now()
		_, err := send(p, http.MethodPost, "")
		e, ok := errors.AsType[*UpstreamError](err)
		if wait := DefaultConnectTimeout + DefaultTLSTimeout; !ok || e.Phase != PhaseConnect || !e.Timeout() || time.Since(begin) != wait {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		f.set("a:80", says("ok"))
		time.AfterFunc(time.Second, func() { <-p.ups[0].transport.slots })
		if got := get(t, p); got != "ok" {
			t.Errorf("with a free one: %q", got)
		}
	})
}

// A caller who leaves in the middle frees the connection at once.
func TestCallerLeavesInTheBody(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := single(t, f, thenHangs("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12"))
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if !errors.Is(err, context.Canceled) || time.Since(begin) != time.Second || len(p.ups[0].transport.slots) != 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}
