package edge

import (
	"net/http"
)

// request is what the general path knows of one request.
type request struct {
	target
	method string
	header http.Header // end to end: what Connection names, neither key nor origin sees
	client string      // address without port
	cc     cacheControl
}

// readRequest makes a request of what was read, by the same rules as Hit. loops says
// that r is the connection loop's, which nobody else has.
func readRequest(r *http.Request, client string, tls, loops bool) (*request, error) {
	q := &request{method: r.Method, header: requestFields(r, loops), client: client, cc: noDirectives()}
	switch r.Method {
	case http.MethodTrace:
		return q, refuse(http.StatusMethodNotAllowed, "TRACE is not answered")
	case "PURGE", "BAN", "REFRESH":
		// Caches in use obey these from addresses that they trust: the origin
		// would trust ours, and anybody can send one (purges come by the feed).
		return q, refuse(http.StatusMethodNotAllowed, "a purge goes through the control node")
	case http.MethodConnect:
		return q, refuse(http.StatusMethodNotAllowed, "this is no forward proxy")
	}
	raw := r.RequestURI
	if raw == "" { // a request made by hand
		raw = r.URL.RequestURI()
	}
	if raw == "*" {
		return q, refuse(http.StatusBadRequest, "the request target is no path")
	}
	t, err := parseTarget(raw, r.Host, tls)
	if err != nil {
		return q, err
	}
	q.target = t
	if v, ok := headerFields(q.header).combined("Cache-Control"); ok {
		q.cc = parseCacheControl(v)
	}
	return q, nil
}

// requestFields are the fields of a request, end to end: those of the loop's own where
// it has no others. Nobody changes them, but lastForward those of another method.
func requestFields(r *http.Request, loops bool) http.Header {
	if loops = loops && r.Method != http.MethodOptions; loops {
		for name := range r.Header {
			loops = loops && !hopByHop[name]
		}
	}
	if loops {
		return r.Header
	}
	return endToEnd(r.Header, 0)
}

func (q *request) fields() fields { return headerFields(q.header) }

func (q *request) has(name string) bool { return len(q.header[name]) > 0 }

// safe methods change nothing at the origin (RFC 9110 §9.2.1).
func (q *request) safe() bool {
	switch q.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}
