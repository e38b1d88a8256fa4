package edge

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/memnet"
)

// lateListener gives connections on which a deadline that has passed is set late:
// what late holds is called before, once.
type lateListener struct {
	net.Listener
	late *atomic.Pointer[func()]
}

type lateConn struct {
	net.Conn
	late *atomic.Pointer[func()]
}

func (l lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return lateConn{c, l.late}, err
}

func (c lateConn) SetReadDeadline(t time.Time) error {
	if t.Equal(past) {
		if f := c.late.Swap(nil); f != nil {
			(*f)()
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// TestLateEnd: who ends a connection that rests, to make room or at shutdown, does so
// when its next request has come, and even waits for the origin: that is answered.
func TestLateEnd(t *testing.T) {
	for _, ask := range []string{askGated, "POST /a HTTP/1.1\r\nHost: s.test\r\nContent-Length: 0\r\n\r\n"} {
		for _, shutdown := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) { lateEnd(t, ask, shutdown) })
		}
	}
}

func lateEnd(t *testing.T, ask string, shutdown bool) {
	asked, goesOn := make(chan struct{}), make(chan struct{})
	origin := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/a" {
			close(asked)
			<-goesOn
		}
		io.WriteString(w, "hello")
	}
	e, err := New(Config{Limits: &Limits{}, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(http.HandlerFunc(origin))}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	n := memnet.New()
	memory, err := n.Listen("tcp", edgeAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	var late atomic.Pointer[func()]
	ln := lateListener{memory, &late}
	ctx, cancel := context.WithCancel(t.Context())
	s, done := newServer(e, ln), make(chan error, 1)
	s.most = 1
	go func() { done <- s.serve(ctx, ln) }()
	dial := func() net.Conn {
		c, err := n.DialFrom(t.Context(), clientAddr, edgeAddr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := dial()
	r := bufio.NewReader(c)
	io.WriteString(c, "GET /first HTTP/1.1\r\nHost: s.test\r\n\r\n")
	bodyOf(t, r)
	synctest.Wait()
	ended := make(chan struct{})
	f := func() {
		io.WriteString(c, ask)
		<-asked
		time.Sleep(2 * lookAfter)
		close(ended)
	}
	late.Store(&f)
	if shutdown {
		cancel()
	} else {
		defer dial().Close() // it needs the room
	}
	<-ended
	synctest.Wait()
	close(goesOn)
	if got := bodyOf(t, r); got != "hello" {
		t.Errorf("%q", got)
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
