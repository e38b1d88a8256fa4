package origin

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// On real sockets: an upstream stops, another takes over, it comes back.
func TestLoopbackFailover(t *testing.T) {
	handler := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name) })
	}
	a, b := httptest.NewServer(handler("a")), httptest.NewServer(handler("b"))
	defer b.Close()
	p, err := NewPool(PoolConfig{Origins: []string{a.URL, b.URL}, Balance: ActivePassive})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := sequence(t, p, 3); got != "aaa" {
		t.Errorf("both up: %s", got)
	}
	a.CloseClientConnections()
	a.Close()
	if got := sequence(t, p, 10); got != strings.Repeat("b", 10) {
		t.Errorf("a stopped: %s", got)
	}
	if s := p.Status(); s[0].Circuit != "open" || s[0].Failed != openAfter || s[1].Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// A connection that the origin closed while it was idle costs nothing.
func TestLoopbackStaleConnection(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	p, err := NewPool(PoolConfig{Origins: []string{server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 20 {
		if got := get(t, p); got != "ok" {
			t.Errorf("got %q", got)
		}
		server.CloseClientConnections()
	}
	if s := p.Status()[0]; s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// On real sockets: raw servers that hang, half-close and talk garbage.
func TestLoopbackFaults(t *testing.T) {
	for _, test := range []struct {
		name    string
		behave  func(c *net.TCPConn)
		phase   Phase
		timeout bool
	}{
		{"half-closes without a word", func(c *net.TCPConn) { _ = c.CloseWrite() }, PhaseHead, false},
		{"resets", func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }, PhaseHead, false},
		{"hangs", func(c *net.TCPConn) {}, PhaseHead, true},
		{"garbage", func(c *net.TCPConn) { _, _ = c.Write([]byte("\x00\x01\x02\r\n\r\n")); _ = c.CloseWrite() }, PhaseHead, false},
		{"short body", func(c *net.TCPConn) {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123"))
			_ = c.CloseWrite()
		}, PhaseBody, false},
		{"stops in the body", func(c *net.TCPConn) {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123"))
		}, PhaseBody, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						r := bufio.NewReader(c)
						if _, err := http.ReadRequest(r); err == nil {
							test.behave(c.(*net.TCPConn))
							_, _ = r.ReadByte() // until the pool hangs up
						}
					}()
				}
			}()
			const short = 100 * time.Millisecond
			p, err := NewPool(PoolConfig{Origins: []string{"http://" + listener.Addr().String()}, HeaderTimeout: short, BetweenTimeout: short})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			_, err = send(p, http.MethodGet, "")
			e, ok := errors.AsType[*UpstreamError](err)
			if !ok || e.Phase != test.phase || e.Timeout() != test.timeout {
				t.Errorf("error %v", err)
			}
			if s := p.Status()[0]; s.InFlight != 0 || s.Failed != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// HTTPS: the certificate must be the upstream's, whatever the Host says; a
// handshake that fails or hangs is of phase tls.
func TestLoopbackTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	p, err := NewPool(PoolConfig{Origins: []string{server.URL}, TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := get(t, p); got != "www.example.com" {
		t.Errorf("got %q", got)
	}
	strict, err := NewPool(PoolConfig{Origins: []string{server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer strict.Close()
	_, err = send(strict, http.MethodGet, "")
	if e, ok := errors.AsType[*UpstreamError](err); !ok || e.Phase != PhaseTLS {
		t.Errorf("unknown root: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it accepts in the kernel and never answers
	mute, err := NewPool(PoolConfig{Origins: []string{"https://" + listener.Addr().String()}, TLSTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	_, err = send(mute, http.MethodGet, "")
	if e, ok := errors.AsType[*UpstreamError](err); !ok || e.Phase != PhaseTLS || !e.Timeout() {
		t.Errorf("no handshake: %v", err)
	}
}

// On a real socket: what an upstream says unasked on an idle connection is never
// the answer to the next request.
func TestLoopbackUnasked(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const good, evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	idle, said := make(chan struct{}), make(chan struct{})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, good)
					<-idle
					_, _ = io.WriteString(c, evil)
					said <- struct{}{}
				}
			}()
		}
	}()
	p, err := NewPool(PoolConfig{Origins: []string{"http://" + listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 10 {
		if got := get(t, p); got != "good" {
			t.Fatalf("got %q", got)
		}
		idle <- struct{}{}
		<-said
	}
}

// On a real socket: the deadline that a response left on its connection is not
// that of the next one, whose request may take longer to send.
func TestLoopbackDeadlineLeft(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		_ = control.Flush()
		_, _ = io.Copy(w, r.Body)
	}))
	defer server.Close()
	p, err := NewPool(PoolConfig{Origins: []string{server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	get(t, p)
	c := p.ups[0].transport.pop()
	if c == nil || c.watched != nil {
		t.Fatal("no connection is idle and not watched yet")
	}
	_ = c.SetReadDeadline(time.Unix(1, 0)) // it has passed while the request is sent
	c.park(time.Now())
	body, upload := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, "http://www.example.com/", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := p.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.WriteString(upload, "late")
	_ = upload.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "late" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
