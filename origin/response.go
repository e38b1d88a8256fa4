package origin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Limits of what an upstream sends.
const (
	// maxResponseHead bounds a response's head; beyond, it is an error. Common
	// origins send 1 KiB; 64 KiB leaves room for policies and cookies.
	maxResponseHead = 64 << 10
	// maxResponseFields bounds its field lines.
	maxResponseFields = 256
	// maxInterim bounds the interim responses before a final one. Early hints
	// come once or twice.
	maxInterim = 16
	// maxTrailerBytes bounds a trailer section.
	maxTrailerBytes = 8 << 10
	// maxLengthDigits bounds Content-Length: 10¹⁸ octets are no body.
	maxLengthDigits = 18
)

// responseHead is the head of a response, interim or final.
type responseHead struct {
	status            int
	minor             int    // of HTTP/1.minor
	proto, statusText string // as http.Response has them
	header            http.Header
	length            int64 // of Content-Length; -1: none
	chunks            bool  // Transfer-Encoding: chunked
	close             bool  // the connection ends with this response
	// unframed: a Transfer-Encoding that is no transfer coding.
	unframed bool
}

// readHead reads lines up to and with an empty one. p is told once the first
// byte has come. What it returns holds until the next read.
func readHead(r *bufio.Reader, limit int, p *progress) ([]byte, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	p.seen.Store(true)
	if b, _ := r.Peek(r.Buffered()); bytes.HasPrefix(b, []byte("HTTP/1.")) {
		// Most come whole.
		if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 && i+4 <= limit {
			_, _ = r.Discard(i + 4) // they are there
			return b[:i+4], nil
		}
	}
	var head []byte
	for start := 0; ; start = len(head) { // of the line
		for {
			part, err := r.ReadSlice('\n')
			if len(head)+len(part) > limit {
				return nil, fmt.Errorf("the head has more than %d bytes", limit)
			}
			head = append(head, part...)
			if err == nil {
				break
			}
			if err != bufio.ErrBufferFull {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return nil, err
			}
		}
		if line := head[start:]; len(line) <= 2 {
			return head, nil // CRLF; or what the parser refuses
		}
		if start == 0 && !bytes.HasPrefix(head, []byte("HTTP/1.")) {
			return nil, fmt.Errorf("malformed head: %.40q is no HTTP/1 status line", head)
		}
	}
}

// parseResponse reads a whole head, its empty line included. It accepts less
// than RFC 9112 lets a client accept: lines end in CRLF alone, no line is
// folded, nothing stands between a name and its colon, and one thing says
// where the body ends. An upstream that breaks these rules is mistaken about
// where its message ends, or somebody else is writing it.
func parseResponse(head []byte) (*responseHead, error) {
	line, rest, err := cutLine(string(head))
	if err != nil {
		return nil, err
	}
	h := &responseHead{length: -1}
	if err := h.statusLine(line); err != nil {
		return nil, err
	}
	if h.header, err = parseFields(rest); err != nil {
		return nil, err
	}
	return h, h.framing()
}

// cutLine cuts a line off, without its CRLF.
func cutLine(s string) (line, rest string, err error) {
	line, rest, ok := strings.Cut(s, "\n")
	if !ok || !strings.HasSuffix(line, "\r") {
		return "", "", errors.New("malformed head: a line does not end in CRLF")
	}
	return line[:len(line)-1], rest, nil
}

// statusLine reads "HTTP/1.1 200 OK" (RFC 9112 §4). The space before an empty
// reason may be missing, as many servers have it.
func (h *responseHead) statusLine(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	switch version {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		return fmt.Errorf("malformed head: %.40q is no HTTP/1 status line", line)
	}
	code, reason, _ := strings.Cut(rest, " ")
	if len(code) != 3 {
		return fmt.Errorf("malformed head: %.40q is no HTTP/1 status line", line)
	}
	for i := range 3 {
		if code[i] < '0' || code[i] > '9' {
			return fmt.Errorf("malformed head: %.40q is no HTTP/1 status line", line)
		}
		h.status = h.status*10 + int(code[i]-'0')
	}
	// A status outside 100 to 599 has no meaning that we could pass on (RFC
	// 9110 §15), and we asked for no switch of protocols.
	if h.status < 100 || h.status > 599 || h.status == http.StatusSwitchingProtocols {
		return fmt.Errorf("status %s is none that could be passed on", code)
	}
	if !plainText(reason) {
		return errors.New("malformed head: the reason phrase holds a control byte")
	}
	h.proto, h.statusText = version, strings.TrimSpace(rest)
	return nil
}

// parseFields reads field lines up to an empty one, which must be the last.
func parseFields(s string) (http.Header, error) {
	h := http.Header{}
	lines := make([]string, 0, min(strings.Count(s, "\n"), maxResponseFields)) // room for the values of all fields
	for n := 0; ; n++ {
		line, rest, err := cutLine(s)
		if err != nil {
			return nil, err
		}
		if s = rest; line == "" {
			if s != "" {
				return nil, errors.New("malformed head: it goes on after its end")
			}
			return h, nil
		}
		if n == maxResponseFields {
			return nil, fmt.Errorf("the head has more than %d fields", maxResponseFields)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) { // that a folded line begins with a space is in here
			return nil, fmt.Errorf("malformed head: %.40q is no field line", line)
		}
		value = strings.Trim(value, " \t")
		if !plainText(value) {
			return nil, fmt.Errorf("malformed head: the value of %.40s holds a control byte", name)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if have := h[name]; have != nil {
			h[name] = append(have, value)
			continue
		}
		lines = append(lines, value)
		h[name] = lines[len(lines)-1 : len(lines) : len(lines)]
	}
}

// framing decides what says where the body ends (RFC 9112 §6.3).
func (h *responseHead) framing() error {
	lengths, codings := h.header["Content-Length"], h.header["Transfer-Encoding"]
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return errors.New("both Content-Length and Transfer-Encoding")
	case len(lengths) > 1:
		return errors.New("more than one Content-Length")
	case len(lengths) == 1:
		n, ok := parseLength(lengths[0])
		if !ok {
			return fmt.Errorf("malformed Content-Length %.40q", lengths[0])
		}
		h.length = n
	case len(codings) > 0:
		unknown := len(codings) == 1 && isToken(codings[0]) && !transferCodings[strings.ToLower(codings[0])]
		if !unknown && (len(codings) != 1 || !strings.EqualFold(codings[0], "chunked")) {
			return fmt.Errorf("Transfer-Encoding %.40q is not a single chunked", strings.Join(codings, ", "))
		}
		if h.minor == 0 {
			return errors.New("Transfer-Encoding in HTTP/1.0")
		}
		h.chunks, h.unframed = !unknown, unknown
		delete(h.header, "Transfer-Encoding")
	}
	h.close = h.unframed || h.minor == 0 && !listed(h.header["Connection"], "keep-alive") || listed(h.header["Connection"], "close")
	return nil
}

// transferCodings are the registered ones (RFC 9112 §7). We send no TE, so none
// but chunked may come (§7.4): one that comes all the same was applied, and we
// undo none. Any other word ("binary", "identity") names nothing that could have been
// applied: the body is what it is, and ends with the connection (§6.3 rule 4).
var transferCodings = map[string]bool{"chunked": true, "compress": true, "x-compress": true, "deflate": true, "gzip": true, "x-gzip": true, "trailers": true}

// keepAlive is what "Keep-Alive: timeout=5" says in seconds: after so long an idle
// connection is closed over there, and a request that is on its way then is lost.
// 0 is that nothing is said. No standard has the field; Node, Apache and others
// send it.
func keepAlive(lines []string) time.Duration {
	for _, line := range lines {
		for m := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.Trim(m, " \t"), "=")
			if n, err := strconv.ParseUint(value, 10, 16); err == nil && strings.EqualFold(name, "timeout") {
				return max(time.Duration(n)*time.Second, time.Nanosecond)
			}
		}
	}
	return 0
}

func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > maxLengthDigits {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// listed reports whether a comma-separated list over several lines has token.
func listed(lines []string, token string) bool {
	for _, line := range lines {
		for m := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(m, " \t"), token) {
				return true
			}
		}
	}
	return false
}
