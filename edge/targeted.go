package edge

import (
	"net/http"
	"strconv"
)

// vendorControl is the targeted field for this software alone: it is read, and
// sent on to other caches only, never to clients. CDN-Cache-Control is sent to
// all, since a CDN before us may read it (RFC 9213 §2.2).
const vendorControl = "Perigee-Cache-Control"

// targets are the targeted fields that we read, in this order: the first that
// is valid and not empty counts, and then Cache-Control and Expires do not
// (RFC 9213 §2.2).
var targets = [...]string{vendorControl, "Cdn-Cache-Control"}

// responseDirectives reads the directives of a response.
func responseDirectives(h http.Header) (cc cacheControl, targeted bool) {
	for _, name := range targets {
		if v, ok := headerFields(h).combined(name); ok {
			if cc, ok := parseTargeted(v); ok {
				return cc, true
			}
		}
	}
	v, _ := headerFields(h).combined("Cache-Control")
	return parseCacheControl(v), false
}

// parseTargeted reads a targeted field, which is a Dictionary of structured
// fields (RFC 9213 §2.1, RFC 9651 §3.2): names in lower case, seconds as
// Integers, directives without argument as Booleans. ok is false when it is
// empty or does not parse: then it must be ignored whole. A member of another
// type than its directive has is ignored alone.
func parseTargeted(v string) (cc cacheControl, ok bool) {
	members, ok := parseDictionary(v)
	if !ok || len(members) == 0 {
		return cacheControl{}, false
	}
	cc = noDirectives()
	for name, item := range members {
		switch item.kind {
		case sfBoolean:
			if item.text == "1" && !takesSeconds[name] {
				cc.set(name, "", false)
			}
		case sfInteger:
			if takesSeconds[name] {
				n, _ := strconv.ParseInt(item.text, 10, 64) // at most 15 digits
				cc.set(name, strconv.FormatInt(max(n, 0), 10), true)
			}
		case sfString:
			if name == "no-cache" || name == "private" {
				cc.set(name, item.text, true)
			}
		}
	}
	return cc, true
}

// takesSeconds are the directives whose argument is delta-seconds.
var takesSeconds = map[string]bool{"max-age": true, "s-maxage": true, "stale-while-revalidate": true, "stale-if-error": true, "max-stale": true}
