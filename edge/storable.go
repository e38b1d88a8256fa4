package edge

import "net/http"

// refusal says why a response is not stored, as a token for Cache-Status; "" means
// that it is.
type refusal string

// understood are the status codes whose caching rules we know, for
// must-understand (RFC 9111 §5.2.2.3).
var understood = map[int]bool{
	200: true, 203: true, 204: true, 300: true, 301: true, 302: true, 303: true, 307: true, 308: true,
	404: true, 410: true, 451: true, 500: true, 501: true, 502: true, 503: true, 504: true,
}

// oneClients are client errors that one client's odd request can cause: kept
// for others they would deny them the page (cache-poisoned denial of service).
// A site may store them all the same.
var oneClients = map[int]bool{400: true, 405: true, 413: true, 414: true}

// neverStored are status codes of one client or one moment, whatever a site
// says: 428, 429, 431 and 511 must not be stored (RFC 6585), 417 answers an
// expectation that no key covers, and so do 408, 411, 412, 415, 416, 421, 425
// and 426 a body, a condition, a range or a connection.
var neverStored = map[int]bool{
	408: true, 411: true, 412: true, 415: true, 416: true, 417: true, 421: true, 425: true, 426: true, 428: true, 429: true, 431: true, 511: true,
}

// hidesDirectives reports a Connection that names a field which says who may have
// the response. No sender may do that (RFC 9110 §7.6.1); the field goes all the
// same, and a response that lacks it is nobody else's.
func hidesDirectives(h http.Header) bool {
	for _, line := range h["Connection"] {
		for {
			m, rest, ok := nextMember(line)
			if !ok {
				break
			}
			switch http.CanonicalHeaderKey(m) {
			case "Cache-Control", "Cdn-Cache-Control", vendorControl, "Vary", "Set-Cookie":
				return true
			}
			line = rest
		}
	}
	return false
}

// storable decides whether a shared cache may store the response to a GET,
// and whether we do (RFC 9111 §3). authorized says that the request carried
// Authorization; explicit that the response gives a freshness lifetime, or has
// got one by heuristic.
func storable(site *Site, status int, h http.Header, cc *cacheControl, authorized, explicit bool) refusal {
	switch {
	case status < 200:
		return "not-final"
	case status == http.StatusPartialContent || status == http.StatusNotModified:
		return "partial"
	case neverStored[status] || oneClients[status] && !site.StoreClientErrors:
		return "client-error"
	case cc.mustUnderstand && !understood[status]:
		return "must-understand"
	case cc.noStore && !cc.mustUnderstand:
		return "no-store"
	case cc.private:
		return "private"
	case authorized && !sharesAuthorized(cc):
		return "authorization"
	case len(h["Set-Cookie"]) > 0 && !site.ShareSetCookie:
		// Legal to store (RFC 9111 §7.3); sharing one visitor's session is not sane.
		return "set-cookie"
	case varyAny(h["Vary"]):
		return "vary-any"
	case explicit || hasValidator(h) && heuristicallyCacheable(status) && status < 500:
		// Without a lifetime, it is validated at each use.
		return ""
	}
	return "no-lifetime"
}

// sharesAuthorized says whether a response may be used across requests with
// Authorization (RFC 9111 §3.5).
func sharesAuthorized(cc *cacheControl) bool {
	return cc.public || cc.sMaxAge != noDelta || cc.mustRevalidate
}

// heuristicallyCacheable are the status codes of RFC 9110 §15.1, but for 206.
func heuristicallyCacheable(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

func hasValidator(h http.Header) bool {
	return len(h["Etag"]) > 0 || len(h["Last-Modified"]) > 0
}

// mustValidateStale says that a response may not be used stale, not even when
// the origin fails (RFC 9111 §4.2.4, §5.2.2.2, §5.2.2.8, §5.2.2.10).
func mustValidateStale(cc *cacheControl) bool {
	return cc.mustRevalidate || cc.proxyRevalidate || cc.noCache || cc.sMaxAge != noDelta
}
