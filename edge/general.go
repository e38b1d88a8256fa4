package edge

import (
	"context"
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// What Hit leaves and is as plain as a hit's request, a miss above all, the loop
// answers by the rules of all requests (ServeHTTP) itself: over a request and a
// ResponseWriter of its own, in the connection's goroutine. net/http's server gets
// what has a body, an expectation, an upgrade, or another connection option.

// lookAfter is how long a client may wait for its answer before it is looked at
// whether it is still there. That takes a goroutine, which most answers need not
// wait for.
const lookAfter = 20 * time.Millisecond

// takes reports whether the loop answers a request that Hit left.
func (h *head) takes() bool { return h.plain() && h.target[0] == '/' }

// request is the head as net/http would give it. It shares nothing with the
// octets that the head was read from.
func (h *head) request(client string) *http.Request {
	text := strings.Clone(h.text[:h.end])
	own := func(s span) string { return text[h.at+int(s.from) : h.at+int(s.to)] }
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: client,
		Header: make(http.Header, len(h.lines))}
	if h.method == http.MethodHead {
		r.Method = http.MethodHead
	}
	r.RequestURI = text[len(h.method)+1:][:len(h.target)]
	path, _, _ := strings.Cut(r.RequestURI, "?")
	r.URL = &url.URL{Path: path}
	lines := make([]string, len(h.lines))
	for i, l := range h.lines {
		name, value := textproto.CanonicalMIMEHeaderKey(own(l.name)), own(l.value)
		if name == "Host" {
			r.Host = value
			continue
		}
		if have := r.Header[name]; have != nil {
			r.Header[name] = append(have, value)
			continue
		}
		lines[i] = value
		r.Header[name] = lines[i : i+1 : i+1]
	}
	if p := r.Header["Pragma"]; len(p) > 0 && p[0] == "no-cache" && r.Header["Cache-Control"] == nil {
		r.Header["Cache-Control"] = []string{"no-cache"} // RFC 9111 §5.4, as net/http has it
	}
	return r
}

// general answers the request at the start of what is read by all rules, and
// then those behind it as far as the loop can.
func (c *conn) general() course {
	for {
		d := c.desk
		r := d.head.request(c.peer)
		d.buf = d.buf[d.head.end:]
		if !c.generalOne(r) {
			c.lingers = c.lingers && c.watch.end(c) // who watches would read too
			return endIt
		}
		if !c.watch.end(c) {
			return endIt
		}
		if len(d.buf) > 0 {
			if v := c.turnHere(); v != byAllRules {
				return c.put(v)
			}
			continue
		}
		if !c.rests(time.Now()) {
			return endIt
		}
		return c.put(waitMore)
	}
}

// turnHere is turn outside of rawLoop. It keeps the descriptor from being closed
// meanwhile, at shutdown say: else its number could be another's by then, and what
// is written go there.
func (c *conn) turnHere() course {
	if c.raw == nil {
		return c.turn()
	}
	v := endIt
	c.raw.Control(func(fd uintptr) { // an error is that it is closed
		c.fd = fd
		v = c.turn()
	})
	return v
}

// generalOne answers one request. It reports whether the connection can go on.
func (c *conn) generalOne(r *http.Request) (goesOn bool) {
	if c.ctx == nil {
		c.ctx, c.gone = context.WithCancel(context.Background())
	}
	w := &responseWriter{c: c, left: -1, bodyless: r.Method == http.MethodHead}
	defer func() {
		switch cause := recover(); cause {
		case nil:
		case http.ErrAbortHandler:
			goesOn = false
		default:
			panic(cause) // the loop survives it
		}
	}()
	c.writing = true
	c.watch.begin(c)
	x := &exchange{e: c.s.e, w: w, r: r, ctx: c.ctx, snap: c.snap, client: c.peer, watch: &c.watch}
	c.x = x
	defer func() { c.x = nil }()
	x.serveRequest(c.state)
	goesOn = w.finish()
	c.writing = !goesOn
	return goesOn
}

// watch looks whether a client that waits for its answer is still there.
type watch struct {
	timer *time.Timer
	done  chan struct{} // gets one value from each look

	mu     sync.Mutex
	ending bool
	octet  [1]byte
	came   bool    // octet is one of the next request's
	left   bool    // the client has gone
	fl     *flight // that the connection's goroutine carries out
}

// begin starts a watch that looks after a while.
func (w *watch) begin(c *conn) {
	if w.timer == nil {
		w.done = make(chan struct{}, 1)
		w.timer = time.AfterFunc(lookAfter, func() { w.look(c) })
		return
	}
	w.timer.Reset(lookAfter)
}

// end ends the watch, and puts what it read where it belongs. It reports whether
// the client is still there.
func (w *watch) end(c *conn) bool {
	if w.timer.Stop() {
		return true
	}
	w.mu.Lock()
	w.ending = true
	c.Conn.SetReadDeadline(past)
	w.mu.Unlock()
	<-w.done
	w.ending = false
	c.arm(time.Now().Add(lookAgain))
	if w.came {
		w.came = false
		d := c.desk
		d.buf = d.in[:copy(d.in, d.buf)]
		d.room()[0] = w.octet[0]
		d.buf = d.in[:len(d.buf)+1]
	}
	return !w.left
}

// look waits for an octet, the client's end, or that of the watch.
func (w *watch) look(c *conn) {
	defer func() { w.done <- struct{}{} }()
	for {
		w.mu.Lock()
		if w.ending {
			w.mu.Unlock()
			return
		}
		c.Conn.SetReadDeadline(time.Time{})
		w.mu.Unlock()
		n, err := c.Conn.Read(w.octet[:])
		w.came = n > 0
		if n > 0 || err == nil {
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		// It is that of end; or of who ends connections that rest, as this one did when
		// they looked at it.
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ending {
		return
	}
	w.left = true
	c.gone()
	if w.fl != nil {
		c.s.e.leaveEarly(w.fl)
	}
}

// leads says which flight the connection's goroutine carries out, nil for none:
// it leaves that for a client that has gone.
func (w *watch) leads(e *Edge, fl *flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fl = fl; fl != nil && w.left {
		e.leaveEarly(fl)
	}
}
