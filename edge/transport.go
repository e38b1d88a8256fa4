package edge

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
)

// HandlerTransport makes a handler of this process an origin: each round trip
// is one call of it, in a goroutine of its own, and its body streams.
func HandlerTransport(h http.Handler) http.RoundTripper { return handlerTransport{h} }

type handlerTransport struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	in := r.Clone(ctx)
	in.RequestURI = r.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, pw: pw, head: make(chan struct{})}
	go func() {
		var failure error = io.ErrUnexpectedEOF // unless it comes to its end
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				slog.Error("an origin's handler panicked", "url", r.URL.String(), "why", p)
			}
			in.Body.Close()
			w.finish(failure)
			cancel()
		}()
		t.h.ServeHTTP(w, in)
		failure = nil
	}()
	select {
	case <-w.head:
	case <-r.Context().Done():
		cancel()
		pr.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	if w.failed {
		pr.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: cancelBody{pr, cancel}, ContentLength: w.length(r.Method), Request: r,
	}, nil
}

// cancelBody tells the handler when nobody reads any more.
type cancelBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b cancelBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// pipeWriter is the handler's ResponseWriter.
type pipeWriter struct {
	header, sent http.Header
	status       int
	failed       bool
	pw           *io.PipeWriter
	head         chan struct{}
	once         sync.Once
	declared     int64
	written      int64
}

func (w *pipeWriter) Header() http.Header { return w.header }

// Flush implements http.Flusher: every write is handed on at once.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

func (w *pipeWriter) WriteHeader(status int) {
	if status < 200 {
		return
	}
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		w.declared = -1
		if n, ok := parseDelta(w.sent.Get("Content-Length")); ok && n < maxDeltaSeconds {
			w.declared = n
		}
		close(w.head)
	})
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.written += int64(len(p))
	return w.pw.Write(p)
}

// length of the response, -1 for unknown.
func (w *pipeWriter) length(method string) int64 {
	if method == http.MethodHead || bodyAllowed(w.status) {
		return w.declared
	}
	return 0
}

// finish ends the response; a body shorter than declared is cut, not whole.
func (w *pipeWriter) finish(failure error) {
	if failure != nil {
		w.once.Do(func() { w.failed = true; close(w.head) })
	} else {
		w.WriteHeader(http.StatusOK)
		if w.declared > w.written && w.written > 0 {
			failure = io.ErrUnexpectedEOF
		}
	}
	w.pw.CloseWithError(failure)
}
