package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
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
	Tries    int // upstreams tried, this one included
	Err      error
}

func (e *UpstreamError) Error() string {
	return fmt.Sprintf("origin %s: %s: %v", e.Upstream, e.Phase, e.Err)
}

func (e *UpstreamError) Unwrap() error { return e.Err }

// Timeout reports whether a timeout was the reason.
func (e *UpstreamError) Timeout() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.Err)
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
func (p *Pool) try(u *upstream, out *http.Request, trial bool, n int) (*http.Response, *attemptError) {
	ctx, cancel := context.WithCancelCause(out.Context())
	var phase atomic.Int32
	var seen atomic.Bool
	wait := p.c.ConnectTimeout + p.c.TLSTimeout
	timer := time.AfterFunc(wait, func() { cancel(timeoutError{"no connection", wait}) })
	trace := &httptrace.ClientTrace{
		GetConn: func(string) {
			timer.Reset(wait)
			phase.Store(int32(PhaseConnect))
		},
		TLSHandshakeStart: func() { phase.CompareAndSwap(int32(PhaseConnect), int32(PhaseTLS)) },
		GotConn: func(httptrace.GotConnInfo) {
			timer.Stop()
			phase.Store(int32(PhaseSend))
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				phase.CompareAndSwap(int32(PhaseSend), int32(PhaseHead))
			}
		},
		GotFirstResponseByte: func() {
			seen.Store(true)
			phase.Store(int32(PhaseHead))
		},
	}
	resp, err := u.transport.RoundTrip(out.WithContext(httptrace.WithClientTrace(ctx, trace)))
	timer.Stop()
	if err == nil {
		// A status outside 200 to 599 has no meaning that we could pass on
		// (RFC 9110 §15), and we asked for no switch of protocols.
		if resp.StatusCode < 200 || resp.StatusCode > 599 {
			resp.Body.Close()
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && out.Context().Err() == nil {
			err = cause
		}
		cancel(nil)
		e := &UpstreamError{u.name, Phase(phase.Load()), n, err}
		// net/http tells that it wrote a small request before it flushed it.
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "write" {
			e.Phase = PhaseSend
		}
		v := bad
		if out.Context().Err() != nil {
			v = none // the caller left: that says nothing about u
		}
		p.settle(u, v, e, trial)
		return nil, &attemptError{e, seen.Load()}
	}
	p.answered(u)
	b := &body{empty: resp.Body == http.NoBody, ReadCloser: resp.Body, pool: p, up: u, caller: out.Context(), ctx: ctx, cancel: cancel, tries: n}
	b.timer = time.AfterFunc(p.c.BetweenTimeout, func() { cancel(timeoutError{"no byte of the body", p.c.BetweenTimeout}) })
	b.timer.Stop()
	resp.Body = b
	return resp, nil
}

// body watches the reading of a response's body.
type body struct {
	io.ReadCloser
	pool   *Pool
	up     *upstream
	caller context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // runs while a Read does
	tries  int
	empty  bool // there is nothing to read
	once   sync.Once
	err    error // what ended the reading, for later calls
}

func (b *body) Read(buf []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.timer.Reset(b.pool.c.BetweenTimeout)
	n, err := b.ReadCloser.Read(buf)
	b.timer.Stop()
	switch {
	case err == nil:
	case err == io.EOF:
		b.err = err
		b.end(good, nil)
	default:
		if cause := context.Cause(b.ctx); cause != nil && b.caller.Err() == nil {
			err = cause
		}
		e := &UpstreamError{b.up.name, PhaseBody, b.tries, err}
		b.err = e
		v := bad
		if b.caller.Err() != nil {
			v = none
		}
		b.end(v, e)
	}
	return n, b.err
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
	b.once.Do(func() {
		b.timer.Stop()
		b.cancel(nil)
		b.pool.settle(b.up, v, e, false)
	})
}
