package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Phase is the part of an exchange with an upstream in which it failed.
type Phase uint8

// The phases, in order.
const (
	PhaseConnect Phase = iota // resolve, connect, or wait for a free connection
	PhaseTLS                  // the handshake
	PhaseSend                 // the request is being written
	PhaseHead                 // waiting for the response's head, or reading it
	PhaseBody                 // reading the response's body
)

func (p Phase) String() string {
	switch p {
	case PhaseConnect:
		return "connect"
	case PhaseTLS:
		return "tls"
	case PhaseSend:
		return "send"
	case PhaseHead:
		return "head"
	}
	return "body"
}

// UpstreamError says which upstream failed, in which phase, and why. When
// several were tried it is about the last.
type UpstreamError struct {
	Upstream string // as configured
	Phase    Phase
	Tries    int  // upstreams tried, this one included
	Answered bool // a byte of a response had come
	Err      error
}

func (e *UpstreamError) Error() string {
	return fmt.Sprintf("origin %s: %s: %v", e.Upstream, e.Phase, e.Err)
}

func (e *UpstreamError) Unwrap() error { return e.Err }

// Timeout reports whether a timeout was the reason.
func (e *UpstreamError) Timeout() bool { return isTimeout(e.Err) }

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// timeoutError is one of our own timeouts.
type timeoutError struct {
	what string
	d    time.Duration
}

func (e timeoutError) Error() string { return fmt.Sprintf("%s for %s", e.what, e.d) }

func (timeoutError) Timeout() bool { return true }

// attemptError is the end of one try.
type attemptError struct {
	*UpstreamError
	seen bool // a byte of a response was seen
}

// try sends out to u and returns the response once its head is complete. trial
// says that this request tries an upstream whose circuit was open.
func (p *Pool) try(u *upstream, out *http.Request, trial, repeat bool, n int) (*http.Response, *attemptError) {
	var at progress
	resp, err := u.transport.roundTrip(out, repeat, &at)
	if err != nil {
		v := bad
		if out.Context().Err() != nil {
			v, err = none, context.Cause(out.Context()) // the caller left: that says nothing about u
		} else if _, ours := errors.AsType[*bodyError](err); ours {
			v = none // nor does a body that the caller could not give
		}
		e := &UpstreamError{u.name, Phase(at.phase.Load()), n, at.seen.Load(), err}
		p.settle(u, v, e, trial)
		return nil, &attemptError{e, e.Answered}
	}
	p.answered(u)
	resp.Body = &body{empty: resp.Body == http.NoBody, ReadCloser: resp.Body, pool: p, up: u, caller: out.Context(), tries: n}
	return resp, nil
}

// body watches the reading of a response's body.
type body struct {
	io.ReadCloser
	pool   *Pool
	up     *upstream
	caller context.Context
	tries  int
	empty  bool // there is nothing to read
	once   sync.Once
	err    error // what ended the reading, for later calls
}

func (b *body) Read(buf []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(buf)
	switch {
	case err == nil:
	case err == io.EOF:
		b.err = err
		b.end(good, nil)
	default:
		v := bad
		if b.caller.Err() != nil {
			v, err = none, context.Cause(b.caller)
		}
		e := &UpstreamError{b.up.name, PhaseBody, b.tries, true, err}
		b.err = e
		b.end(v, e)
	}
	return n, b.err
}

// Buffered is how many octets can be read without a wait, as far as is known.
func (b *body) Buffered() int64 {
	if at, ok := b.ReadCloser.(interface{ Buffered() int64 }); ok && b.err == nil {
		return at.Buffered()
	}
	return 0
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	v := none
	if b.empty {
		v = good
	}
	b.end(v, nil)
	return err
}

// end tells the pool, once, how the exchange went.
func (b *body) end(v verdict, e *UpstreamError) {
	b.once.Do(func() { b.pool.settle(b.up, v, e, false) })
}
