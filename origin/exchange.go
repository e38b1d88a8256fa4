package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// continueTimeout is how long a body waits for "100 Continue" that was
	// asked for; then it goes out all the same (RFC 9110 §10.1.1).
	continueTimeout = time.Second
	// lateAnswer is how long an upstream that stopped reading may take to say
	// why: it may have answered before it closed.
	lateAnswer = time.Second
	// sendBuffer is the buffer a request's body passes through.
	sendBuffer = 32 << 10
)

var errBodyLength = errors.New("the request's body is not as long as declared")

// exchange is one request and its response on a connection.
type exchange struct {
	c    *conn
	req  *http.Request
	p    *progress
	stop func() bool // ends the watch on the caller's context
	// Of a request with a body, which is sent beside the reading; else nil:
	proceed chan struct{} // closed by "100 Continue"
	over    chan struct{} // closed by the final response's head, or by failure
	sent    chan struct{} // closed when no more of the request will be sent
	sendErr error         // why it was not sent whole; after sent
	ended   sync.Once

	mu   sync.Mutex // guards whose the connection's read deadline is
	head bool       // the final head has come: the deadline is the body's

	// What it brings, here since each would be allocated for each.
	resp   http.Response
	body   exchangeBody
	length lengthReader
}

// roundTrip sends req and returns the response once its head is complete. A
// kept connection that was closed under us, before a byte came back, is no
// answer: when repeat allows it, the request goes out once more on a new one.
//
// Interim responses go to the Got1xxResponse hook of the request's
// httptrace.ClientTrace; its other hooks are not called.
func (t *transport) roundTrip(req *http.Request, repeat bool, p *progress) (*http.Response, error) {
	resp, err := t.attempt(req, p, false)
	if err == nil || !repeat || !p.reused || p.seen.Load() || req.Context().Err() != nil || isTimeout(err) {
		return resp, err
	}
	if req.GetBody != nil {
		again := new(http.Request)
		*again = *req
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
		req = again
	}
	return t.attempt(req, p, true)
}

func (t *transport) attempt(req *http.Request, p *progress, fresh bool) (*http.Response, error) {
	room := heads.Get().(*[]byte)
	head, err := appendRequestHead((*room)[:0], req)
	if *room = head; !hasBody(req) { // else it is sent beside this
		defer heads.Put(room)
	}
	if err != nil {
		p.enter(PhaseSend)
		closeBody(req)
		return nil, err
	}
	c, err := t.acquire(req.Context(), p, fresh)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	x := &exchange{c: c, req: req, p: p}
	x.stop = afterFunc(req.Context(), func() { c.Close() })
	p.enter(PhaseSend)
	if hasBody(req) {
		x.proceed, x.over, x.sent = make(chan struct{}), make(chan struct{}), make(chan struct{})
		c.SetReadDeadline(time.Time{}) // the last response's, which was for its body
		go x.send(head)
	} else {
		closeBody(req)
		x.send(head)
	}
	resp, err := x.receive()
	if err != nil {
		x.end(false)
		if x.isSent() && x.sendErr != nil && !p.seen.Load() {
			err = x.sendErr
		}
	}
	return resp, err
}

// afterFunc is context.AfterFunc. A context that has such a method is asked itself:
// package context would put one of its own between.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	if own, ok := ctx.(interface {
		AfterFunc(f func()) func() bool
	}); ok {
		return own.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// heads is room for those of requests.
var heads = sync.Pool{New: func() any { return new([]byte) }}

// appendRequestHead appends the head of req as it is sent: what the caller gave, and
// the framing. It refuses what would be read as something else.
func appendRequestHead(b []byte, req *http.Request) ([]byte, error) {
	method, target, host := req.Method, req.URL.RequestURI(), req.Host
	if method == "" {
		method = http.MethodGet
	}
	if !isToken(method) {
		return b, fmt.Errorf("method %q is no token", method)
	}
	for _, s := range []string{target, host} {
		for i := range len(s) {
			if s[i] <= ' ' || s[i] == 0x7f {
				return b, fmt.Errorf("request target or host %q holds a byte that it cannot hold", s)
			}
		}
	}
	b = slices.Grow(b, 1024)
	for _, s := range [...]string{method, " ", target, " HTTP/1.1\r\nHost: ", host, "\r\n"} {
		b = append(b, s...)
	}
	var some [32]string
	names := some[:0]
	for name := range req.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if framesRequest[name] || name == "User-Agent" && len(req.Header[name]) == 1 && req.Header[name][0] == "" {
			continue
		}
		for _, value := range req.Header[name] {
			if !isToken(name) || !plainText(value) {
				return b, fmt.Errorf("field %q of the request is malformed", name)
			}
			b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
		}
	}
	switch {
	case hasBody(req) && req.ContentLength > 0:
		b = append(b, "Content-Length: "+strconv.FormatInt(req.ContentLength, 10)+"\r\n"...)
	case hasBody(req):
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...) // RFC 9110 §8.6
	}
	return append(b, "\r\n"...), nil
}

// framesRequest are fields that the request's own parts decide.
var framesRequest = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Connection": true, "Keep-Alive": true}

// send sends the request; with a body, in a goroutine of its own, since an
// upstream may answer before it has all of it.
func (x *exchange) send(head []byte) {
	body := x.sent != nil
	if body {
		defer close(x.sent)
		defer x.req.Body.Close()
	}
	if x.c.look != nil {
		head = head[x.c.look.send(head):]
	}
	if len(head) > 0 {
		_, x.sendErr = x.c.Write(head)
	}
	if x.sendErr == nil && body {
		x.sendErr = x.sendBody()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.head {
		return
	}
	wait := x.c.t.c.HeaderTimeout
	if ours := (*bodyError)(nil); errors.As(x.sendErr, &ours) || isTimeout(x.sendErr) {
		wait = -1 // there is no whole request to answer; or the upstream does not even read
	} else if x.sendErr != nil {
		wait = min(wait, lateAnswer)
	} else {
		x.p.phase.CompareAndSwap(int32(PhaseSend), int32(PhaseHead))
	}
	x.c.SetReadDeadline(time.Now().Add(wait))
}

func (x *exchange) sendBody() error {
	if listed(x.req.Header["Expect"], "100-continue") {
		timer := time.NewTimer(continueTimeout)
		defer timer.Stop()
		select {
		case <-x.proceed:
		case <-timer.C:
		case <-x.over:
			return errors.New("answered before the body was sent")
		}
	}
	chunked, left := x.req.ContentLength <= 0, x.req.ContentLength
	buf := make([]byte, sendBuffer)
	for {
		n, err := x.req.Body.Read(buf)
		if n > 0 {
			part := buf[:n]
			if chunked {
				part = append(strconv.AppendInt(make([]byte, 0, n+16), int64(n), 16), "\r\n"...)
				part = append(append(part, buf[:n]...), "\r\n"...)
			} else if left -= int64(n); left < 0 {
				return &bodyError{errBodyLength}
			}
			if _, err := x.c.Write(part); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && chunked:
			_, err := io.WriteString(x.c, "0\r\n\r\n")
			return err
		case err == io.EOF && left > 0:
			return &bodyError{errBodyLength}
		case err == io.EOF:
			return nil
		case err != nil:
			return &bodyError{err}
		}
	}
}

// bodyError is what the caller's body failed with: no fault of the upstream.
type bodyError struct{ error }

func (e *bodyError) Unwrap() error { return e.error }

// receive reads heads until a final one has come.
func (x *exchange) receive() (*http.Response, error) {
	trace := httptrace.ContextClientTrace(x.req.Context())
	proceeds := x.sent == nil
	for n := 0; ; n++ {
		head, err := readHead(x.c.r, maxResponseHead, x.p)
		if err != nil {
			return nil, x.headError(err)
		}
		h, err := parseResponse(head)
		if err != nil {
			return nil, err
		}
		if h.status >= 200 {
			x.mu.Lock()
			x.head = true
			x.mu.Unlock()
			if x.over != nil {
				close(x.over)
			}
			return x.response(h), nil
		}
		if n == maxInterim {
			return nil, fmt.Errorf("more than %d interim responses", maxInterim)
		}
		if h.status == http.StatusContinue && !proceeds {
			proceeds = true // it may come after 103, and again
			close(x.proceed)
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(h.status, textproto.MIMEHeader(h.header)); err != nil {
				return nil, err
			}
		}
	}
}

// headError says what the end of reading a head means.
func (x *exchange) headError(err error) error {
	if isTimeout(err) {
		return timeoutError{"no response head", x.c.t.c.HeaderTimeout}
	}
	return err
}

// response makes the response of a final head. With no body to come, the
// connection is free at once.
func (x *exchange) response(h *responseHead) *http.Response {
	resp := &x.resp
	*resp = http.Response{
		Status: h.statusText, StatusCode: h.status, Proto: h.proto, ProtoMajor: 1, ProtoMinor: h.minor,
		Header: h.header, ContentLength: h.length, Body: http.NoBody, Request: x.req, Close: h.close,
	}
	x.c.rest = keepAlive(h.header["Keep-Alive"])
	b := &x.body
	b.x, b.keep = x, !h.close
	none := h.status == http.StatusNoContent || h.status == http.StatusNotModified
	switch {
	case x.req.Method == http.MethodHead || none:
		// A body where there can be none would be read as the next response.
		x.end(b.keep && (h.status == http.StatusNotModified || !none || !h.chunks && h.length <= 0))
		return resp
	case h.chunks:
		resp.TransferEncoding = []string{"chunked"}
		resp.Trailer = http.Header{}
		b.src = &chunkedReader{r: x.c.r, trailer: resp.Trailer}
	case h.length == 0:
		x.end(b.keep)
		return resp
	case h.length > 0:
		x.length = lengthReader{x.c.r, h.length}
		b.src = &x.length
	default: // ends with the connection (RFC 9112 §6.3 rule 8)
		b.src, b.keep = x.c.r, false
	}
	resp.Body = b
	return resp
}

// lengthReader reads a body of a known length; its last octets come with io.EOF.
type lengthReader struct {
	r    io.Reader
	left int64
}

func (l *lengthReader) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left == 0 {
		return n, io.EOF
	}
	return n, short(err)
}

// exchangeBody is the body of a response.
type exchangeBody struct {
	x    *exchange
	src  io.Reader
	keep bool // the connection can be used again after it
	err  error
}

func (b *exchangeBody) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	between := b.x.c.t.c.BetweenTimeout
	if b.src != &b.x.length || b.x.c.r.Buffered() == 0 { // else it is a copy of what has come
		b.x.c.SetReadDeadline(time.Now().Add(between))
	}
	n, err := b.src.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && b.src == b.x.c.r && b.x.c.cut():
		err = io.ErrUnexpectedEOF
		b.x.end(false)
	case err == io.EOF:
		b.x.end(b.keep)
	default:
		if isTimeout(err) {
			err = timeoutError{"no byte of the body", between}
		}
		b.x.end(false)
	}
	b.err = err
	return n, err
}

// Buffered is how many octets of the body can be read without a wait, of a body
// whose length is known.
func (b *exchangeBody) Buffered() int64 {
	l, ok := b.src.(*lengthReader)
	if !ok || b.err != nil {
		return 0
	}
	return min(l.left, int64(b.x.c.r.Buffered()))
}

// Close ends the exchange. A body that was not read to its end costs the
// connection, unless all that is left has already come: that is passed over, and the
// connection is used again.
func (b *exchangeBody) Close() error {
	if l, ok := b.src.(*lengthReader); ok && b.err == nil && b.keep && l.left <= int64(b.x.c.r.Buffered()) {
		b.x.c.r.Discard(int(l.left))
		b.x.end(true)
	}
	b.x.end(false)
	if b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
	return nil
}

// isSent reports that no more of the request will be sent.
func (x *exchange) isSent() bool {
	if x.sent == nil {
		return true
	}
	select {
	case <-x.sent:
		return true
	default:
		return false
	}
}

// end lets go of the connection, once. reuse says that the response ended where
// messages end; the request must have, too.
func (x *exchange) end(reuse bool) {
	x.ended.Do(func() {
		if !x.stop() {
			reuse = false // closed: the caller has left
		}
		if x.over != nil {
			select {
			case <-x.over:
			default:
				close(x.over)
			}
		}
		if x.isSent() {
			x.c.release(reuse && x.sendErr == nil)
			return
		}
		if !reuse {
			x.c.release(false)
			return
		}
		go func() { // the sender is about to end, or else it never will
			timer := time.NewTimer(lateAnswer)
			defer timer.Stop()
			select {
			case <-x.sent:
				x.c.release(x.sendErr == nil)
			case <-timer.C:
				x.c.release(false)
			}
		}()
	})
}
