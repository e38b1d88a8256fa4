package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is an origin that writes down every octet it gets, and answers when
// a request is whole.
type recorder struct {
	mu  sync.Mutex
	got []string // by connection
}

// octets writes down what came on one connection.
type octets struct {
	o *recorder
	i int
}

func (w octets) Write(p []byte) (int, error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	w.o.got[w.i] += string(p)
	return len(p), nil
}

func (o *recorder) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		i := len(o.got)
		o.got = append(o.got, "")
		o.mu.Unlock()
		go func() {
			defer c.Close()
			in := bufio.NewReader(io.TeeReader(c, octets{o, i}))
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}()
	}
}

// framingCases are requests that two parsers could read differently. %s is
// where a smuggled request would stand. Those that are not refused must reach
// the origin as exactly one request with one framing.
var framingCases = []struct {
	name, send string
	passes     bool
}{
	{"plain", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello", true},
	{"chunked", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true},
	{"chunked in capitals", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true},
	{"CL and TE", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", false},
	{"TE and CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n%s\r\n0\r\n\r\n", false},
	{"two TE", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", false},
	{"chunked twice", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", false},
	{"TE identity", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", false},
	{"TE xchunked", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", false},
	{"TE with vertical tab", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", false},
	{"TE and 1.0", "POST /a HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{"space before colon", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", false},
	{"folded TE", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", false},
	{"first line folded", "POST /a HTTP/1.1\r\n Host: shop.test\r\n\r\n", false},
	{"two CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello", false},
	{"two equal CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", false},
	{"CL list", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5, 5\r\n\r\nhello", false},
	{"CL with sign", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: +5\r\n\r\nhello", false},
	{"negative CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: -5\r\n\r\nhello", false},
	{"hex CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0x5\r\n\r\nhello", false},
	{"empty CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length:\r\n\r\nhello", false},
	{"huge CL", "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 18446744073709551621\r\n\r\nhello", false},
	{"bare LF", "POST /a HTTP/1.1\nHost: shop.test\nContent-Length: 5\n\nhello", false},
	{"bare LF in one line", "GET /a HTTP/1.1\r\nHost: shop.test\r\nX: a\nContent-Length: 40\r\n\r\n", false},
	{"bare CR in a value", "GET /a HTTP/1.1\r\nHost: shop.test\r\nX: a\rContent-Length: 40\r\n\r\n", false},
	{"NUL in a value", "GET /a HTTP/1.1\r\nHost: shop.test\r\nX: a\x00b\r\n\r\n", false},
	{"NUL in a name", "GET /a HTTP/1.1\r\nHost: shop.test\r\nX\x00: a\r\n\r\n", false},
	{"empty name", "GET /a HTTP/1.1\r\nHost: shop.test\r\n: a\r\n\r\n", false},
	{"no colon", "GET /a HTTP/1.1\r\nHost: shop.test\r\nX\r\n\r\n", false},
	{"two Hosts", "GET /a HTTP/1.1\r\nHost: shop.test\r\nHost: evil.test\r\n\r\n", false},
	{"no Host", "GET /a HTTP/1.1\r\nX: a\r\n\r\n", false},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: shop.test\r\n\r\n", false},
	{"two spaces", "GET  /a HTTP/1.1\r\nHost: shop.test\r\n\r\n", false},
	{"HTTP/0.9", "GET /a\r\n\r\n", false},
	{"chunk size with LF", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", false},
	{"chunk extension with LF", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", false},
	{"chunk size with 0x", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", false},
	{"chunk longer than its size", "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", false},
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n"

// TestSmuggling puts the edge before an origin that records octets. Each case
// is the first request of its connection, and the second, after one that was
// handed over to net/http.
func TestSmuggling(t *testing.T) {
	ran := 0
	for _, c := range framingCases {
		for _, before := range []string{"", "POST /first HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi"} {
			ran++
			t.Run(fmt.Sprintf("%s/%d", c.name, len(before)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { smuggle(t, before, c.send, c.passes) })
			})
		}
	}
	if ran < 70 {
		t.Errorf("ran %d cases only", ran)
	}
}

func smuggle(t *testing.T, before, send string, passes bool) {
	w := newWorld(t, true, nil)
	defer w.stop()
	rec := &recorder{}
	ln, err := w.network.Listen("tcp", "192.0.2.9:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go rec.serve(ln)
	tr := poolTo(t, w.network, "192.0.2.9:80")
	defer tr.Close()
	if err := w.edge.SetSites([]Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: tr}}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(send, "%s") {
		send = fmt.Sprintf(send, smuggled)
	}
	got := w.raw(t, before+send+smuggled)
	synctest.Wait()
	time.Sleep(time.Second)
	rec.mu.Lock()
	all := strings.Join(rec.got, "|")
	rec.mu.Unlock()
	if before != "" {
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("the first request got %q", got)
		}
		if _, got, _ = strings.Cut(got, "\r\n\r\nok"); strings.Count(all, "POST /first") != 1 {
			t.Errorf("the origin saw %q", all)
		}
	}
	if passes {
		if strings.Count(all, "POST /a ") != 1 || strings.Count(all, "GET /smuggled ") != 1 || strings.Count(got, "HTTP/1.1 200") != 2 {
			t.Errorf("the client saw %q, the origin %q", got, all)
		}
		return
	}
	if strings.Contains(all, "smuggled") || strings.Contains(got, "200 OK") {
		t.Errorf("a second request went through: the client saw %q, the origin %q", got, all)
	}
	if !strings.Contains(firstLine(got), " 400 ") {
		t.Errorf("answered %q, want 400", got)
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\r\n")
	return line
}
