package origin

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
)

const (
	// maxChunkLine bounds the line of a chunk's size, extensions included.
	maxChunkLine = 256
	// maxChunkDigits bounds a chunk's size to 2⁶⁰ octets.
	maxChunkDigits = 15
	// maxChunkWaste bounds the bytes of size lines beyond 64 for each chunk, so
	// that extensions cannot cost more than the body (CVE-2023-39326).
	maxChunkWaste = 16 << 10
)

// chunkedReader reads a chunked body (RFC 9112 §7.1), as strictly as heads are
// read. At its end it has the trailer fields.
type chunkedReader struct {
	r       *bufio.Reader
	left    int64 // of the chunk
	begun   bool  // a chunk has been read: its CRLF comes before the next size
	waste   int
	trailer http.Header // filled at the end
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	return n, short(err)
}

// next reads up to the next chunk's first octet; io.EOF is the proper end.
func (c *chunkedReader) next() error {
	if c.begun {
		if line, err := c.line(2); err != nil || line != "" {
			return orMalformed(err, "malformed chunk: it is longer than it says")
		}
	}
	c.begun = true
	line, err := c.line(maxChunkLine)
	if err != nil {
		return err
	}
	if c.waste += max(0, len(line)-64); c.waste > maxChunkWaste {
		return errors.New("malformed chunk: too many extensions")
	}
	n := 0
	for n < len(line) && unhex(line[n]) >= 0 {
		c.left = c.left<<4 | int64(unhex(line[n]))
		if n++; n > maxChunkDigits {
			return errors.New("malformed chunk: its size is no size")
		}
	}
	if rest := strings.TrimLeft(line[n:], " \t"); n == 0 || rest != "" && rest[0] != ';' || !plainText(line) {
		return errors.New("malformed chunk: its size is no size")
	}
	if c.left > 0 {
		return nil
	}
	return c.end()
}

// end reads the trailer section.
func (c *chunkedReader) end() error {
	var section string
	for {
		line, err := c.line(maxTrailerBytes)
		if err != nil {
			return err
		}
		section += line + "\r\n"
		if line == "" {
			break
		}
		if len(section) > maxTrailerBytes {
			return errors.New("the trailer section is too long")
		}
	}
	fields, err := parseFields(section)
	if err != nil {
		return err
	}
	for name, lines := range fields {
		if !notInTrailer[name] {
			c.trailer[name] = lines
		}
	}
	return io.EOF
}

// notInTrailer are fields whose place is the head alone, since they frame,
// route, modify the request, authenticate or say how to take the content (RFC
// 9110 §6.5.1).
var notInTrailer = map[string]bool{
	"Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Connection": true, "Keep-Alive": true, "Te": true, "Upgrade": true,
	"Host": true, "Content-Type": true, "Content-Encoding": true, "Content-Range": true, "Cache-Control": true, "Expires": true, "Age": true,
	"Date": true, "Location": true, "Vary": true, "Set-Cookie": true, "Www-Authenticate": true, "Proxy-Authenticate": true, "Authorization": true,
	"Etag": true, "Last-Modified": true, "Cdn-Cache-Control": true, "Pragma": true, "Retry-After": true,
}

// line reads a line of at most limit bytes, and returns it without its CRLF.
func (c *chunkedReader) line(limit int) (string, error) {
	var line []byte
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return "", short(err)
		}
		if b == '\n' {
			break
		}
		if line = append(line, b); len(line) > limit {
			return "", errors.New("malformed chunk: a line is too long")
		}
	}
	if n := len(line) - 1; n >= 0 && line[n] == '\r' {
		return string(line[:n]), nil
	}
	return "", errors.New("malformed chunk: a line does not end in CRLF")
}

// short is err, where an end is no proper end.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func orMalformed(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
