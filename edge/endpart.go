package edge

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// suffixLength reads a Range field that asks for the last n octets (RFC 9110
// §14.1.2) and for nothing else.
func suffixLength(v string) (n int64, ok bool) {
	unit, set, found := strings.Cut(v, "=")
	set, suffix := strings.CutPrefix(trimOWS(set), "-")
	n, ok = parsePosition(set)
	return n, found && suffix && ok && strings.EqualFold(trimOWS(unit), "bytes")
}

// keepEnd keeps the answer to a request for the last n octets whose
// Content-Range names another first octet than that: it has n octets, and ends
// where the representation does. Whatever went wrong there, it is what this
// origin takes for the last n, and its end what it takes for fewer: it answers
// such requests, and no others, since which octets of the representation these
// are is not known (RFC 9111 §3.3). With a strong validator it could come to be
// combined with others, and is not kept (RFC 9110 §14.4). The client whose
// request this was gets it as it came.
func (w *fill) keepEnd(resp *http.Response, obj *stored) (outcome, bool) {
	n, suffix := suffixLength(w.rangeField)
	r, total, ok := parseContentRange(resp.Header["Content-Range"])
	if !suffix || !w.exact || !ok || n == 0 || n >= total || resp.StatusCode != http.StatusPartialContent ||
		resp.ContentLength != n || r.start+r.length != total || obj.strongValidator() != "" {
		return outcome{}, false
	}
	body := make([]byte, n)
	_, err := io.ReadFull(resp.Body, body)
	resp.Body.Close()
	if err != nil {
		return outcome{err: err}, true
	}
	obj.part, obj.size = &part{start: total - n, total: total, end: true}, n
	g := newGrowing(n, w.e.store.arena)
	g.letGoOf() // nobody follows it
	(&bodyFill{fill: w, obj: obj, body: g, resp: &http.Response{Body: io.NopCloser(bytes.NewReader(body))}}).keep()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return outcome{resp: resp, status: resp.StatusCode}, true
}
