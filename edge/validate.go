package edge

import (
	"net/http"
	"strings"
	"time"
)

// validators are what conditions are compared with.
type validators struct {
	etag         string // as sent: `"x"`, `W/"x"`, or "" for none
	lastModified time.Time
	date         time.Time // of the response, to tell a strong Last-Modified
	unmodified   bool      // there is no Last-Modified: date stands in (RFC 9111 §4.3.2)
}

// verdict of evaluating a request's conditions.
type verdict int

const (
	perform verdict = iota // answer as if there were no condition
	notModified
	preconditionFailed
)

// evaluate decides a GET's or HEAD's conditions in the order of RFC 9110
// §13.2.2, but for If-Range, which rangeApplies decides.
func (v *validators) evaluate(f fields) verdict {
	if im, ok := f.combined("If-Match"); ok {
		if !etagListed(im, v.etag, strongMatch) {
			return preconditionFailed
		}
	} else if ius, ok := f.combined("If-Unmodified-Since"); ok && !v.lastModified.IsZero() {
		if t, ok := parseDate(ius, v.date); ok && v.lastModified.After(t) {
			return preconditionFailed
		}
	}
	if inm, ok := f.combined("If-None-Match"); ok {
		if etagListed(inm, v.etag, weakMatch) {
			return notModified
		}
		return perform
	}
	if ims, ok := f.combined("If-Modified-Since"); ok {
		modified := v.lastModified
		if v.unmodified {
			modified = v.date
		}
		if t, ok := parseDate(ims, v.date); ok && !modified.IsZero() && !modified.After(t) {
			return notModified
		}
	}
	return perform
}

// rangeApplies evaluates If-Range (RFC 9110 §13.1.5): the Range counts only
// while the representation is the one the client has parts of.
func (v *validators) rangeApplies(f fields) bool {
	ir, ok := f.combined("If-Range")
	if !ok {
		return true
	}
	if strings.HasPrefix(ir, `"`) || strings.HasPrefix(ir, "W/") {
		return strongMatch(ir, v.etag)
	}
	t, ok := parseDate(ir, v.date)
	// An exact match of a date that is strong: a second before Date at least
	// (RFC 9110 §8.8.2.2).
	return ok && !v.lastModified.IsZero() && t.Equal(v.lastModified) && v.date.Sub(v.lastModified) >= time.Second
}

// etagListed reports whether an If-Match or If-None-Match value names etag,
// or is "*" (a representation exists whenever this is asked).
func etagListed(list, etag string, match func(a, b string) bool) bool {
	list = trimOWS(list)
	if list == "*" {
		return true
	}
	if unquotedTag(list) {
		return match(list, etag)
	}
	for list != "" {
		tag, rest, ok := nextETag(list)
		if !ok {
			return false
		}
		if match(tag, etag) {
			return true
		}
		list = rest
	}
	return false
}

// nextETag cuts an entity tag off a list. A tag may hold commas, and no
// escapes (RFC 9110 §8.8.3).
func nextETag(s string) (tag, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t,")
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if start >= len(s) || s[start] != '"' {
		return "", "", false
	}
	end := strings.IndexByte(s[start+1:], '"')
	if end < 0 {
		return "", "", false
	}
	n := start + 1 + end + 1
	return s[:n], strings.TrimLeft(s[n:], " \t,"), true
}

// strongMatch is the strong comparison of RFC 9110 §8.8.3.2. A tag without
// quotes is never strong.
func strongMatch(a, b string) bool {
	return a == b && strings.HasPrefix(a, `"`)
}

// unquotedTag reports an entity tag whose origin forgot the quotes. It is good
// enough to ask whether something has changed.
func unquotedTag(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == ',' || c == '*' || c == 0x7f {
			return false
		}
	}
	return s != "" && !strings.HasPrefix(s, "W/")
}

// quoted is a tag with its quotes.
func quoted(tag string) string {
	if unquotedTag(tag) {
		return `"` + tag + `"`
	}
	return tag
}

// weakMatch is the weak comparison of RFC 9110 §8.8.3.2. Quotes that one side
// forgot make no other content.
func weakMatch(a, b string) bool {
	a, b = quoted(strings.TrimPrefix(a, "W/")), quoted(strings.TrimPrefix(b, "W/"))
	return a == b && a != ""
}

// kept304 are the fields of a stored response that a 304 does not replace,
// beside those that are hop by hop: they describe the stored octets (RFC 9111
// §3.2), and the validator that was sent is the one that stands.
var kept304 = map[string]bool{
	"Content-Length": true, "Etag": true, "Content-Encoding": true, "Content-Range": true,
	"Content-Md5": true, "Content-Digest": true, // of content, which a 304 has none of
	"Transfer-Encoding": true, "Trailer": true,
}

// updatedHeader is the header of a stored response after a 304 (RFC 9111
// §3.2). fresh is the 304's, already rid of hop-by-hop fields.
func updatedHeader(stored, fresh http.Header) http.Header {
	h := stored.Clone()
	for name, lines := range fresh {
		if !kept304[name] {
			h[name] = lines
		}
	}
	if _, ok := fresh["Age"]; !ok {
		delete(h, "Age")
	}
	return h
}

// confirms reports whether a 304 freshens a response that was validated
// (RFC 9111 §4.3.4): its validator is ours, or it has none.
func (v *validators) confirms(h http.Header) bool {
	if lines := h["Etag"]; len(lines) > 0 {
		return v.etag != "" && weakMatch(lines[0], v.etag)
	}
	if lines := h["Last-Modified"]; len(lines) > 0 && v.etag == "" {
		t, ok := parseDate(lines[0], v.date)
		return ok && t.Equal(v.lastModified)
	}
	return true
}
