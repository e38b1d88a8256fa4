package edge

import "strings"

const (
	// maxRepeatedBytes and maxRepeatedLines bound what is kept of a connection's
	// last head, and with it the memory of one that rests: a browser's takes 1 KiB.
	maxRepeatedBytes = 2 << 10
	maxRepeatedLines = 32
)

// repeated is what the field lines of a connection's last head said. Who asks again
// mostly sends the same ones behind another request line, and to compare them takes a
// twentieth of the time that it takes to read them.
type repeated struct {
	text []byte // from the first field line to the end of the head
	fieldLines
	// The host and the authority of the target are so many octets at the start of
	// the Host field; 0: that is not known. They hold for one scheme.
	host, authority int
	tls             bool
}

// keep takes down what a head says that has been parsed whole.
func (r *repeated) keep(h *head) {
	text := h.text[h.at:h.end]
	if h.repeats || h.minor != 1 || len(text) > maxRepeatedBytes || len(h.lines) > maxRepeatedLines {
		return
	}
	kept, lines := append(r.text[:0], text...), append(r.lines[:0], h.lines...)
	*r = repeated{text: kept, fieldLines: h.fieldLines}
	r.lines = lines
}

// likeBefore reports whether a head of HTTP/1.1, of which all before at is parsed,
// has the octets of same from there to its end. It then is what that was.
func (h *head) likeBefore() bool {
	s := h.same
	if s == nil || h.minor != 1 || len(s.text) == 0 {
		return false
	}
	if rest := h.text[h.at:]; len(rest) < len(s.text) || rest[:len(s.text)] != string(s.text) {
		return false
	}
	h.fieldLines, h.end, h.repeats = s.fieldLines, h.at+len(s.text), true
	h.host = h.value(h.hostLine)
	return true
}

// readTarget makes a target of what a parsed head asks for.
func (h *head) readTarget(t *target, tls bool) error {
	s := h.same
	if h.repeats && s.host > 0 && s.tls == tls && h.target[0] == '/' && len(h.target) <= maxTargetBytes {
		t.tls, t.host, t.authority = tls, h.host[:s.host], h.host[:s.authority]
		return t.setResource(h.target)
	}
	var err error
	if *t, err = parseTarget(h.target, h.host, tls); err != nil {
		return err
	}
	if h.repeats && h.target[0] == '/' && strings.HasPrefix(h.host, t.host) && strings.HasPrefix(h.host, t.authority) {
		s.host, s.authority, s.tls = len(t.host), len(t.authority), tls
	}
	return nil
}
