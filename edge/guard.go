package edge

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// maxChunkLine bounds a chunk's size line: 15 hex digits and an extension that
// nobody sends.
const maxChunkLine = 256

var errFraming = errors.New("the request's framing is malformed")

// refusedMethod is that of the request which net/http gets in place of a head
// that we refuse: guard cannot answer by itself, since the answer to the request
// before may still be under way. See server.serveHTTP.
const refusedMethod = "REFUSED"

// badBodyLine is what net/http gets in place of a line of a body that we
// refuse. It is malformed to net/http at each place where such a line may stand,
// and ends what it may be (trailers are looked at when their end has come).
// An error instead would be one of the connection, and abort the request before
// it can be answered.
var badBodyLine = []byte("?\r\n\r\n")

var refusedRequest = []byte(refusedMethod + " / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n")

// guard lets through to net/http only heads that the loop would accept too,
// and bodies whose end both see at the same place. It follows the framing of
// the requests on one connection.
type guard struct {
	head  *head
	state guardState
	left  int64  // octets of a body or chunk still to come
	lines int    // octets of trailers so far
	names int    // trailer fields so far
	ready []byte // approved, not yet read
	late  *time.Timer
	// refused is why refusedRequest is the last that net/http got.
	refused atomic.Pointer[refused]
	slow    atomic.Bool // a body did not come in time
}

type guardState int

const (
	atHead guardState = iota
	inBody
	atChunk    // a size line
	inChunk    // its octets
	atChunkEnd // their CRLF
	atTrailer
	atEnd // nothing more is let through
)

// Read gives net/http approved octets.
func (c *conn) Read(p []byte) (int, error) {
	g := &c.guard
	if len(g.ready) == 0 && len(c.buf) == 0 && g.state == atHead && c.phase.Load() == resting {
		// net/http waits for the next request: the loop answers what Hit can.
		if c.mem = nil; c.loop() == endIt {
			return 0, io.EOF
		}
	}
	for len(g.ready) == 0 {
		n, err := g.approve(c.buf)
		if err != nil {
			return 0, err
		}
		if len(g.ready) == 0 && n == 0 {
			if err := c.readMore(); err != nil {
				if g.state != atHead && errors.Is(err, os.ErrDeadlineExceeded) {
					g.slow.Store(true) // before the error aborts the request
				}
				return 0, err
			}
			if g.state == atHead && g.late == nil {
				// Deadlines are net/http's, and it waits for a whole head as if
				// the connection were idle.
				g.late = time.AfterFunc(headTimeout, func() { c.Conn.Close() })
			}
			continue
		}
		if len(g.ready) > 0 {
			g.inTime()
		}
		c.buf = c.buf[n:]
	}
	n := copy(p, g.ready)
	g.ready = g.ready[n:]
	return n, nil
}

// inTime says that the head has come.
func (g *guard) inTime() {
	if g.late != nil {
		g.late.Stop()
		g.late = nil
	}
}

// approve takes octets off b, makes them ready and returns how many. 0 means
// that more must come first.
func (g *guard) approve(b []byte) (int, error) {
	switch g.state {
	case atHead:
		return g.approveHead(b)
	case inBody, inChunk:
		n := int(min(g.left, int64(len(b))))
		g.ready = b[:n]
		if g.left -= int64(n); g.left == 0 {
			g.state++ // after a chunk its CRLF
			if g.state == atChunk {
				g.state = atHead
			}
		}
		return n, nil
	case atChunk, atChunkEnd, atTrailer:
		return g.approveLine(b)
	}
	return 0, errFraming
}

func (g *guard) approveHead(b []byte) (int, error) {
	skipped := len(b) - len(skipEmptyLine(b))
	b = b[skipped:]
	if len(b) == 0 {
		return skipped, nil
	}
	if g.head == nil {
		g.head = new(head)
	}
	n, err := g.head.parse(b)
	switch {
	case err == errHeadIncomplete:
		return skipped, nil
	case err != nil:
		g.ready, g.state = refusedRequest, atEnd
		var bad *refused
		errors.As(err, &bad) // parse returns no other
		g.refused.Store(bad)
		return skipped + len(b), nil
	}
	g.ready = b[:n]
	switch {
	case g.head.chunked:
		g.state = atChunk
	case g.head.contentLength > 0:
		g.state, g.left = inBody, g.head.contentLength
	}
	return skipped + n, nil
}

func (g *guard) approveLine(b []byte) (int, error) {
	i := bytes.IndexByte(b, '\n')
	limit := maxChunkLine
	if g.state == atTrailer {
		limit = maxHeadBytes - g.lines
	}
	if i < 0 && len(b) <= limit {
		return 0, nil
	}
	if i < 1 || i >= limit || b[i-1] != '\r' {
		return g.badBody(b), nil
	}
	line := string(b[:i-1])
	ok := true
	switch g.state {
	case atChunk:
		g.left, ok = parseChunkSize(line)
		if g.state, g.lines, g.names = inChunk, 0, 0; g.left == 0 {
			g.state = atTrailer
		}
	case atChunkEnd:
		g.state, ok = atChunk, line == ""
	case atTrailer:
		if g.lines += i; line == "" {
			g.state = atHead
		} else {
			name, _, colon := strings.Cut(line, ":")
			g.names++
			ok = colon && isToken(name) && g.names <= maxFields
		}
	}
	if !ok {
		return g.badBody(b), nil
	}
	g.ready = b[:i+1]
	return i + 1, nil
}

// badBody ends the connection's input with a line that net/http refuses.
func (g *guard) badBody(b []byte) int {
	g.ready, g.state = badBodyLine, atEnd
	return len(b)
}

// parseChunkSize reads a chunk's size line without its CRLF (RFC 9112 §7.1).
func parseChunkSize(line string) (int64, bool) {
	digits, ext, hasExt := strings.Cut(line, ";")
	if digits == "" || len(digits) > 15 || hasExt && strings.ContainsFunc(ext, isControl) {
		return 0, false
	}
	var n int64
	for i := range len(digits) {
		d := unhex(digits[i])
		if d < 0 {
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	return n, true
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
