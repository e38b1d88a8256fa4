package edge

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// hopByHop fields concern one connection only (RFC 9110 §7.6.1), beside those
// that Connection names. Proxy-Authenticate and the like are meant for the
// next proxy, which is us.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Http2-Settings": true,
	"Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Authentication-Info": true,
}

// unkeyed are request fields that origins use to build pages and that are in
// no cache key: what a client sends there would poison the page for others
// (CVE-2018-14773 is one of many). Ours replace them where we have one.
var unkeyed = map[string]bool{
	"Forwarded": true, "Forwarded-For": true, "X-Forwarded": true,
	"X-Host": true, "X-Http-Host-Override": true, "X-Original-Host": true, "X-Backend-Host": true, "X-Server-Name": true, "Proxy-Host": true,
	"X-Original-Url": true, "X-Original-Uri": true, "X-Rewrite-Url": true, "X-Override-Url": true, "X-Http-Destinationurl": true, "X-Proxy-Url": true, "Proxy-Url": true,
	"Base-Url": true, "Request-Uri": true, "X-Envoy-Original-Path": true, "X-Script-Name": true, "X-Scheme": true, "X-Url-Scheme": true, "Front-End-Https": true,
	"X-Http-Method-Override": true, "X-Http-Method": true, "X-Method-Override": true,
	"X-Real-Ip": true, "X-Client-Ip": true, "Client-Ip": true, "True-Client-Ip": true, "X-Cluster-Client-Ip": true, "Proxy-Client-Ip": true, "Wl-Proxy-Client-Ip": true,
	"X-Originating-Ip": true, "X-Remote-Ip": true, "X-Remote-Addr": true, "X-Proxyuser-Ip": true, "Cf-Connecting-Ip": true, "Fastly-Client-Ip": true,
	"X-Azure-Clientip": true, "X-Azure-Socketip": true, "X-Envoy-External-Address": true,
	// Between a server and the application behind it: never from outside.
	"Proxy": true, "X-Sendfile-Type": true, "X-Accel-Mapping": true, "X-Middleware-Subrequest": true, "X-Now-Route-Matches": true, "X-Invoke-Path": true, "X-Invoke-Status": true, "X-Invoke-Query": true,
}

// isUnkeyed reports a field, by its canonical name, that origins build pages
// from and no key covers.
func isUnkeyed(name string) bool {
	return unkeyed[name] || strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Forward-")
}

// conditional fields are a client's own: its conditions are evaluated here,
// against what is stored, and never sent with a fill.
var conditional = []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"}

// endToEnd returns a copy of h without the fields that must not travel: hop
// by hop, and named by Connection. It has room for more fields.
func endToEnd(h http.Header, more int) http.Header {
	out := make(http.Header, len(h)+more) // up to eight are one piece of memory
	for name, lines := range h {
		if !hopByHop[name] {
			out[name] = lines[:len(lines):len(lines)]
		}
	}
	for _, line := range h["Connection"] {
		for {
			m, rest, ok := nextMember(line)
			if !ok {
				break
			}
			delete(out, http.CanonicalHeaderKey(m))
			line = rest
		}
	}
	return out
}

// forwarded is the header of the request to the origin: the client's fields
// without those that must not travel and those that no key covers, and then
// ours, so that no Connection field of the client can remove them.
func (e *Edge) forwarded(site *Site, q *request) http.Header {
	out := endToEnd(q.header, 8)
	for name := range out {
		plain := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if isUnkeyed(plain) && !slices.Contains(site.KeyFields, name) || plain != name && (hopByHop[plain] || framing[plain]) {
			delete(out, name)
		}
	}
	if v, ok := headerFields(out).combined("Accept-Encoding"); ok {
		out["Accept-Encoding"] = []string{normaliseEncoding(v)}
	}
	delete(out, appliedField)
	delete(out, asOfField)
	delete(out, "Content-Length")
	delete(out, "Host")
	delete(out, "Expect")
	lines := [...]string{q.client, q.scheme(), q.authority}
	if q.client != "" {
		out["X-Forwarded-For"] = lines[0:1:1]
	}
	out["X-Forwarded-Proto"] = lines[1:2:2]
	out["X-Forwarded-Host"] = lines[2:3:3]
	appendLine(out, "Via", e.via)
	appendLine(out, "Cdn-Loop", e.loop)
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = noAgent // else net/http puts its own
	}
	return out
}

var noAgent = []string{""}

// appendLine appends a line to those of a field. It shares it with others.
func appendLine(h http.Header, name string, line []string) {
	if have := h[name]; have != nil {
		line = append(have[:len(have):len(have)], line...)
	}
	h[name] = line[:len(line):len(line)]
}

// framing fields decide where a message ends; written with "_" for "-", they
// decide it for lax parsers.
var framing = map[string]bool{"Content-Length": true, "Transfer-Encoding": true, "Host": true}

// looped reports that a request has been through this edge before (RFC 8586).
func (e *Edge) looped(h http.Header) bool {
	for _, line := range h["Cdn-Loop"] {
		for {
			m, rest, ok := nextMember(line)
			if !ok {
				break
			}
			id, _, _ := strings.Cut(m, ";")
			if trimOWS(id) == e.id {
				return true
			}
			line = rest
		}
	}
	return false
}

// received cleans the header of a response from the origin: what is kept and
// what is sent on both start from it. Tags are ours alone.
func received(h http.Header) http.Header {
	out := endToEnd(h, 1)
	delete(out, "Content-Length")
	delete(out, asOfField)
	for _, name := range tagFields {
		delete(out, name)
	}
	return out
}

// receivedHere is received of a response that is ours, and not looked at by others: its
// header itself, but for its length, where there is nothing to clean. So it is of most.
func receivedHere(h http.Header) http.Header {
	for name := range h {
		if hopByHop[name] || name == asOfField || name == "Age" || slices.Contains(tagFields, name) {
			return received(h)
		}
	}
	delete(h, "Content-Length")
	return h
}

// lastForward counts Max-Forwards of an OPTIONS request down, and answers one
// that has come to its end (RFC 9110 §7.6.2). TRACE goes nowhere anyway.
func (x *exchange) lastForward() bool {
	lines := x.q.header["Max-Forwards"]
	if x.q.method != http.MethodOptions || len(lines) != 1 {
		return false
	}
	n, ok := parseDelta(lines[0])
	if !ok {
		return false
	}
	if n > 0 {
		x.q.header["Max-Forwards"] = []string{strconv.FormatInt(n-1, 10)}
		return false
	}
	h := x.w.Header()
	h["Allow"] = []string{"GET, HEAD, OPTIONS"}
	h["Content-Length"] = []string{"0"}
	x.writeHeader(http.StatusOK)
	return true
}
