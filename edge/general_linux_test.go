//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package edge

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// whileLogged is an access log that calls what it holds, once, at a hit.
type whileLogged struct{ f atomic.Pointer[func()] }

func (l *whileLogged) Log(r *AccessRecord) {
	if r.Cache == "hit" {
		if f := l.f.Swap(nil); f != nil {
			(*f)()
		}
	}
}

// TestDescriptorOfPipelined: a hit behind a miss is written by the descriptor's
// number, outside of rawLoop. Nobody who closes the connection meanwhile, shutdown
// say, frees that number for another file.
func TestDescriptorOfPipelined(t *testing.T) {
	logged := &whileLogged{}
	f := files{"/0": []byte("zero"), "/1": []byte("one")}
	e, err := New(Config{Access: logged, Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(f)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, done := newServer(e, ln), make(chan error, 1)
	go func() { done <- s.serve(ctx, ln) }()
	storeAt(t, e, "/0")
	closed, held := make(chan struct{}), false
	end := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			go func() { c.Conn.Close(); close(closed) }()
			for c.Conn.SetWriteDeadline(time.Time{}) == nil { // till that has begun
				runtime.Gosched()
			}
		}
		for range 1000 {
			runtime.Gosched()
		}
		select {
		case <-closed:
		default:
			held = true
		}
	}
	logged.f.Store(&end)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /0 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
	r := bufio.NewReader(c)
	if one, zero := bodyOf(t, r), bodyOf(t, r); one != "one" || zero != "zero" {
		t.Errorf("%q, %q", one, zero)
	}
	<-closed
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !held {
		t.Error("the descriptor was closed while it was in use")
	}
}
