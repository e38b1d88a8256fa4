package origin

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzParseResponse: no head makes it panic, and one that it takes is read
// alike by net/http: the same status, fields and framing.
func FuzzParseResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.0 404\r\nConnection: keep-alive\r\nX:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\nX: y\n\n", "HTTP/1.1 200 \xff\r\nx: \xff\r\n\r\n", "HTTP/1.1 200 OK\r\n X: folded\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := readHead(bufio.NewReader(bytes.NewReader(b)), maxResponseHead, new(progress))
		if err != nil {
			return
		}
		h, err := parseResponse(raw)
		if err != nil {
			return
		}
		if bytes.ContainsAny(raw, "\x00\x7f") || bytes.Count(raw, []byte("\n")) != bytes.Count(raw, []byte("\r\n")) || bytes.Count(raw, []byte("\r")) != bytes.Count(raw, []byte("\r\n")) {
			t.Fatalf("accepted %q", raw)
		}
		if h.unframed {
			return // net/http knows chunked alone
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(append(raw, "0\r\n\r\n"...))), nil)
		if err != nil {
			if strings.Contains(err.Error(), "Trailer") || len(h.header["Trailer"]) > 0 {
				return // net/http judges the trailer's names here, we where they stand
			}
			t.Fatalf("%q: accepted, net/http says %v", raw, err)
		}
		if std.StatusCode != h.status || std.ProtoMinor != h.minor {
			t.Fatalf("%q: status %d, minor %d; net/http %d, %d", raw, h.status, h.minor, std.StatusCode, std.ProtoMinor)
		}
		if h.status >= 200 && h.status != 204 && h.status != 304 {
			if chunked := len(std.TransferEncoding) > 0; chunked != h.chunks || !chunked && std.ContentLength != h.length {
				t.Fatalf("%q: chunked %v, length %d; net/http %v, %d", raw, h.chunks, h.length, std.TransferEncoding, std.ContentLength)
			}
		}
		for name, lines := range std.Header {
			if strings.Join(h.header[name], "\n") != strings.Join(lines, "\n") {
				t.Fatalf("%q: %s is %q; net/http %q", raw, name, h.header[name], lines)
			}
		}
	})
}

// FuzzChunkedReader: what it takes for whole, net/http takes for the same.
func FuzzChunkedReader(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "3\r\nabc\r\n0\r\nX: y\r\n\r\n", "3;a=b\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n", "ffffffffffffffff\r\n", "3\r\n000\r\n0 00\r\n\r\n", "3\t;\r\nabc\r\n0\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &chunkedReader{r: bufio.NewReader(bytes.NewReader(b)), trailer: http.Header{}}
		body, err := io.ReadAll(c)
		if err != nil {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(b))), nil)
		if err != nil {
			t.Fatal(err)
		}
		std, err := io.ReadAll(resp.Body)
		if err != nil && (bytes.Contains(b, []byte("\t;")) || bytes.Contains(b, []byte(" ;"))) {
			return // white space before an extension (RFC 9112 §7.1.1), which net/http refuses
		}
		if err != nil {
			t.Fatalf("%q: %q is whole; net/http says %v", b, body, err)
		}
		if !bytes.Equal(std, body) {
			t.Fatalf("%q: %q; net/http %q", b, body, std)
		}
	})
}

// TLS that ends without close_notify is a cut, not an end (RFC 9112 §9.8).
func TestCutTLSBodyIsNotWhole(t *testing.T) {
	keys := httptest.NewUnstartedServer(nil)
	keys.StartTLS()
	cert := keys.TLS.Certificates[0]
	keys.Close()
	for _, proper := range []bool{true, false} {
		f := newFarm()
		f.set("a:443", func(c net.Conn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			if _, err := http.ReadRequest(bufio.NewReader(s)); err != nil {
				return
			}
			io.WriteString(s, "HTTP/1.1 200 OK\r\n\r\nhalf of")
			if proper {
				s.Close()
			}
		})
		p := newPool(t, f, PoolConfig{Origins: []string{"https://a"}, TLS: &tls.Config{InsecureSkipVerify: true}})
		body, err := send(p, http.MethodGet, "")
		if body != "half of" || (err == nil) != proper {
			t.Errorf("closed properly: %v; body %q, error %v", proper, body, err)
		}
	}
}
