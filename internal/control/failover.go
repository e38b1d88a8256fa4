package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// stallWait is how long one of several control nodes may neither take a byte nor
	// begin its answer: then it is cut off or hangs, and the next is asked. It
	// syncs and copies what it was sent before it answers, so it has a second more for
	// each stallRate bytes.
	stallWait = 15 * time.Second
	stallRate = 2 << 20
)

// extraWait is what a call may take beside stallWait: the key of a time.Duration.
type extraWait struct{}

// errStalled: a control node does nothing.
var errStalled = errors.New("it takes nothing and does not answer")

// repeatable marks a request that does the same when it is made twice.
type repeatable struct{}

func withRepeat(req *http.Request) *http.Request {
	return req.WithContext(context.WithValue(req.Context(), repeatable{}, true))
}

func mayRepeat(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodPut || req.Context().Value(repeatable{}) != nil
}

// elsewhere reports whether another control node may do better: the one that was
// asked could not be reached, went away, hangs, or says that it cannot do it now.
func (c *Client) elsewhere(req *http.Request, err error) bool {
	if err == nil || len(c.addrs) < 2 || req.Context().Err() != nil {
		return false
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Elsewhere || e.Status == http.StatusInternalServerError && mayRepeat(req)
	}
	return !isLocal(err) // the folder that is read, not the way
}

// moveOn has the next control node asked, unless somebody moved on meanwhile.
func (c *Client) moveOn(from int32) {
	if c.at.CompareAndSwap(from, (from+1)%int32(len(c.addrs))) {
		c.http.CloseIdleConnections()
	}
}

// watch bounds how long a request may stand still: it returns the request to make,
// what says that its answer goes on, and what ends the watch once that is read.
func (c *Client) watch(req *http.Request) (_ *http.Request, moved func(), end func(error) error) {
	wait := stallWait
	if len(c.addrs) < 2 || strings.HasPrefix(req.URL.Path, "/v1/receipts") || strings.HasPrefix(req.URL.Path, "/v1/backup") { // which wait, or are long
		return req, func() {}, func(err error) error { return err }
	}
	if c.stall > 0 { // a test's
		wait = c.stall
	}
	if extra, ok := req.Context().Value(extraWait{}).(time.Duration); ok {
		wait += extra
	}
	wait += time.Duration(max(req.ContentLength, 0)/stallRate) * time.Second
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(wait, func() { cancel(errStalled) })
	moved = func() { timer.Reset(wait) }
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{req.Body, moved}
	}
	return req, moved, func(err error) error {
		timer.Stop()
		if err != nil && context.Cause(ctx) == errStalled {
			err = fmt.Errorf("control node %s: %w", c.where, errStalled)
		}
		cancel(nil)
		return err
	}
}

// watchedBody says when a part of a body is on its way.
type watchedBody struct {
	io.ReadCloser
	moved func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.moved()
	return b.ReadCloser.Read(p)
}
