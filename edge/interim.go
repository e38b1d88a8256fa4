package edge

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
)

// maxInterim bounds the interim responses that wait to be passed on to the
// client whose request leads a fetch. Those beyond are dropped, as one may
// (RFC 9110 §15.2).
const maxInterim = 16

// interim is a response of class 1xx. It is passed on to the client whose
// request it answers, and to no other; it is never stored (RFC 8297 §3).
type interim struct {
	status int
	header http.Header
}

// withInterim hands the interim responses to a request made with the returned
// context to pass. "100 Continue" is no concern of others: net/http answers
// the client's expectation when its body is first read.
func withInterim(ctx context.Context, pass func(interim)) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
		if status != http.StatusContinue {
			pass(interim{status, received(http.Header(h))})
		}
		return nil
	}})
}

// interims are the values by which interim responses of a fetch that the connection's
// goroutine carries out reach the exchange that it is in.
func (c *conn) interims() context.Context {
	if c.values == nil {
		c.values = withInterim(context.Background(), func(i interim) { c.x.inform(i) })
	}
	return c.values
}

// inform passes an interim response on: not to HTTP/1.0, which knows none
// (RFC 9110 §15.2), and early hints over HTTP/1.1 only to clients that are known not
// to take them for the response (RFC 8297 §3), or if the site says so. Sec-Fetch-Mode
// makes a client known: who sends it follows the Fetch standard, whose HTTP-network
// fetch goes on to the next response after each of class 1xx.
func (x *exchange) inform(i interim) {
	switch {
	case !x.r.ProtoAtLeast(1, 1):
		return
	case i.status == http.StatusEarlyHints && x.r.ProtoMajor < 2 && !x.site.EarlyHintsAll && !x.q.has("Sec-Fetch-Mode"):
		return
	}
	h := x.w.Header()
	final := maps.Clone(h)
	clear(h)
	maps.Copy(h, i.header)
	x.w.WriteHeader(i.status)
	clear(h)
	maps.Copy(h, final)
}

// trailers sends trailer fields behind a body of unknown length, where alone
// they have a place. They stay apart from the header (RFC 9110 §6.5.1) and are
// not stored.
func (x *exchange) trailers(t http.Header) {
	if !x.r.ProtoAtLeast(1, 1) {
		return
	}
	h := x.w.Header()
	for name, lines := range received(t) {
		h[http.TrailerPrefix+name] = lines
	}
}
