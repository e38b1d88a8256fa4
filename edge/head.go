package edge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"unsafe"
)

const (
	// maxHeadBytes bounds a request's head, request line included. It is no
	// larger than what common origins take by all fields together, so that we
	// accept nothing they refuse. Offsets fit 16 bits.
	maxHeadBytes = 32 << 10
	// maxFields bounds its field lines; browsers send about 20.
	maxFields = 128
	// maxLengthDigits bounds Content-Length: 10¹⁸ is no body.
	maxLengthDigits = 18
)

// errHeadIncomplete says that a head's end has not come yet.
var errHeadIncomplete = errors.New("the head is not complete")

type span struct{ from, to uint16 }

// fieldLine is where a name and a value stand, counted from the first field line.
type fieldLine struct{ name, value span }

// fieldLines is what the field lines of a head say. Nothing in it depends on what
// stands before them, but for the version.
type fieldLines struct {
	lines         []fieldLine
	lengths       uint64 // bit n%64 is set if a name has n octets
	hosts         int
	hostLine      int   // of lines, if there is one
	contentLength int64 // -1: none
	chunked       bool
	conditional   bool // there is a field that conditions or ranges may come by
	unusual       bool // there is a field that is the general path's
}

// head is a parsed HTTP/1.x request head. It points into the bytes it was
// parsed from, which must not change while it is in use.
type head struct {
	text           string
	at, end        int // of the field lines in text; end once it is parsed whole
	method, target string
	minor          int // of HTTP/1.minor
	host           string
	fieldLines
	same    *repeated // what it is compared with; nil: nothing
	repeats bool      // the fields are those of same
	key     []byte    // room for the cache key
	room    [maxFields]fieldLine
	stored  stored // a view of what Hit found for it
}

// parse reads the head at the start of b and returns its length, empty line
// included. It accepts less than RFC 9112 lets a server accept: lines end in
// CRLF alone, no folding, no white space before a colon, one framing. Anything
// else is a *refused error, after which the connection must be closed: where
// the next message starts is a matter of opinion.
func (h *head) parse(b []byte) (int, error) {
	limited := b
	if len(limited) > maxHeadBytes {
		limited = limited[:maxHeadBytes]
	}
	h.text = unsafe.String(unsafe.SliceData(limited), len(limited))
	h.fieldLines, h.host, h.repeats = fieldLines{lines: h.room[:0], contentLength: -1}, "", false
	line, pos, err := h.line(0)
	if err == nil {
		err = h.requestLine(line)
	}
	if h.at = pos; err == nil && h.likeBefore() {
		return h.end, nil
	}
	for err == nil {
		var next int
		if line, next, err = h.line(pos); err != nil {
			break
		}
		if line == "" {
			if err = h.checkFraming(); err != nil {
				return 0, err
			}
			h.end = next
			return next, nil
		}
		err = h.field(line, pos)
		pos = next
	}
	if err == errHeadIncomplete && len(b) >= maxHeadBytes {
		if len(h.lines) == 0 && pos == 0 {
			return 0, refuse(http.StatusRequestURITooLong, "the request line is too long")
		}
		return 0, refuse(http.StatusRequestHeaderFieldsTooLarge, "the head has more than %d bytes", maxHeadBytes)
	}
	return 0, err
}

// line returns the line at pos and where the next one starts.
func (h *head) line(pos int) (string, int, error) {
	i := strings.IndexByte(h.text[pos:], '\n')
	if i < 0 {
		return "", 0, errHeadIncomplete
	}
	if i == 0 || h.text[pos+i-1] != '\r' {
		return "", 0, refuse(http.StatusBadRequest, "a line ends without CR")
	}
	return h.text[pos : pos+i-1], pos + i + 1, nil
}

func (h *head) requestLine(line string) error {
	method, rest, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !isToken(method) || target == "" || version != "HTTP/1.1" && strings.ContainsAny(version, " \t") {
		return refuse(http.StatusBadRequest, "the request line is malformed")
	}
	if !isVisible(target) {
		return refuse(http.StatusBadRequest, "the request target holds a byte that a URI cannot hold")
	}
	switch version {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
		h.minor = 0
	default:
		if len(version) == 8 && strings.HasPrefix(version, "HTTP/") {
			return refuse(http.StatusHTTPVersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are spoken here")
		}
		return refuse(http.StatusBadRequest, "the request line is malformed")
	}
	h.method, h.target = method, target
	return nil
}

func (h *head) field(line string, pos int) error {
	if len(h.lines) == maxFields {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "the head has more than %d fields", maxFields)
	}
	colon := 0 // found by walking over the name, which must be looked at anyway
	for colon < len(line) && tokenBytes[line[colon]] {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return refuse(http.StatusBadRequest, "a field line has a malformed name")
	}
	from, to := colon+1, len(line)
	for from < to && (line[from] == ' ' || line[from] == '\t') {
		from++
	}
	for to > from && (line[to-1] == ' ' || line[to-1] == '\t') {
		to--
	}
	if !validValue(line[from:to]) {
		return refuse(http.StatusBadRequest, "a field value holds a control byte")
	}
	pos -= h.at
	h.lines = append(h.lines, fieldLine{span{uint16(pos), uint16(pos + colon)}, span{uint16(pos + from), uint16(pos + to)}})
	h.lengths |= 1 << (colon % 64)
	return h.special(line[:colon], line[from:to])
}

// validValue reports whether a field value has no control bytes but tabs. It
// looks at eight bytes at a time, which made a browser's head a quarter cheaper.
func validValue(v string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(v), len(v))
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		del := w ^ ones*0x7f
		// A byte below 0x20, or none of DEL's: its top bit is set by the
		// subtraction, and was not before. A borrow may flag a good byte too.
		if ((w-ones*' ')&^w|(del-ones)&^del)&tops != 0 && !validOctets(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return validOctets(b)
}

// isVisible reports whether s has visible ASCII alone.
func isVisible(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		del := w ^ ones*0x7f
		if (w|(w-ones*'!')|(del-ones)&^del)&tops != 0 && !visibleOctets(b[:8]) { // as in validValue
			return false
		}
		b = b[8:]
	}
	return visibleOctets(b)
}

func visibleOctets(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

func validOctets(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// special takes down the fields that decide framing and routing, and whether
// there are such as Hit must look at. Their lengths tell them from most others.
func (h *head) special(name, value string) error {
	switch len(name) {
	case 4:
		if strings.EqualFold(name, "Host") {
			if h.hosts++; h.hosts > 1 {
				return refuse(http.StatusBadRequest, "there are two Host fields")
			}
			h.host, h.hostLine = value, len(h.lines)-1
		}
	case 5:
		h.conditional = h.conditional || strings.EqualFold(name, "Range")
	case 6:
		h.unusual = h.unusual || strings.EqualFold(name, "Expect")
	case 7:
		h.unusual = h.unusual || strings.EqualFold(name, "Upgrade")
	case 8:
		h.unusual = h.unusual || strings.EqualFold(name, "Cdn-Loop")
		h.conditional = h.conditional || isIf(name)
	case 10:
		h.unusual = h.unusual || strings.EqualFold(name, "Connection") && !strings.EqualFold(value, "keep-alive")
	case 13, 19: // If-None-Match, If-Unmodified-Since
		h.conditional = h.conditional || isIf(name)
	case 14:
		if strings.EqualFold(name, "Content-Length") {
			return h.length(value)
		}
	case 17:
		h.conditional = h.conditional || isIf(name) // If-Modified-Since
		// EqualFold folds U+212A to k: the length tells.
		if !strings.EqualFold(name, "Transfer-Encoding") {
			return nil
		}
		if h.chunked || len(value) != len("chunked") || !strings.EqualFold(value, "chunked") {
			return refuse(http.StatusBadRequest, "Transfer-Encoding is not a single chunked")
		}
		h.chunked = true
	}
	return nil
}

// isIf reports whether a name is that of a condition, or one like it.
func isIf(name string) bool { return strings.EqualFold(name[:3], "If-") }

func (h *head) length(value string) error {
	if h.contentLength >= 0 {
		return refuse(http.StatusBadRequest, "there are two Content-Length fields")
	}
	if value == "" || len(value) > maxLengthDigits {
		return refuse(http.StatusBadRequest, "Content-Length is malformed")
	}
	h.contentLength = 0
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return refuse(http.StatusBadRequest, "Content-Length is malformed")
		}
		h.contentLength = h.contentLength*10 + int64(value[i]-'0')
	}
	return nil
}

func (h *head) checkFraming() error {
	switch {
	case h.chunked && h.contentLength >= 0:
		return refuse(http.StatusBadRequest, "there are both Transfer-Encoding and Content-Length")
	case h.chunked && h.minor == 0:
		return refuse(http.StatusBadRequest, "HTTP/1.0 has no Transfer-Encoding")
	case h.hosts == 0 && h.minor == 1:
		return refuse(http.StatusBadRequest, "there is no Host field")
	}
	return nil
}

// bodyless reports that no body follows the head.
func (h *head) bodyless() bool { return h.contentLength <= 0 && !h.chunked }

func (h *head) name(i int) string  { return h.of(h.lines[i].name) }
func (h *head) value(i int) string { return h.of(h.lines[i].value) }

func (h *head) of(s span) string { return h.text[h.at+int(s.from) : h.at+int(s.to)] }

// combined implements fields.
func (h *head) combined(name string) (string, bool) {
	if h.lengths>>(len(name)%64)&1 == 0 {
		return "", false
	}
	found := -1
	for i := range h.lines {
		if n := h.lines[i].name; int(n.to-n.from) != len(name) || !strings.EqualFold(h.name(i), name) {
			continue
		}
		if found >= 0 {
			return h.join(name), true
		}
		found = i
	}
	if found < 0 {
		return "", false
	}
	return h.value(found), true
}

func (h *head) join(name string) string {
	var lines []string
	for i := range h.lines {
		if strings.EqualFold(h.name(i), name) {
			lines = append(lines, h.value(i))
		}
	}
	return strings.Join(lines, ", ")
}

// isToken reports a token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return true
}

var tokenBytes = func() (t [256]bool) {
	for c := '0'; c <= 'z'; c++ {
		t[c] = c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a'
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = true
	}
	return t
}()

// skipEmptyLine removes one CRLF before a request line (RFC 9112 §2.2).
func skipEmptyLine(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\r\n")) }
