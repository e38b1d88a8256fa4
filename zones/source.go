package zones

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// errStopped is what a source returns when the loader has already noted why
// it stops.
var errStopped = errors.New("stopped")

// source feeds one master file to the parser octet by octet and keeps track of
// lines, since the parser does not tell where a record stood. It takes out what
// the scanner reads alone. It expands $GENERATE itself: the parser's own ignores
// $TTL, lacks nibble mode, and lets a generated $INCLUDE escape from the zone's
// folder.
type source struct {
	l    *loader
	name string // within the zone's folder
	text []byte // what is at hand of it
	at   int

	file  io.ReadCloser // where more text comes from; nil when there is no more
	sum   hash.Hash     // of what has come from file
	piece int           // how much is read at a time

	line  int // of the last octet handed out
	start int // line at which the current entry began
	begin int // offset at which it began
	depth int // of parentheses

	newline, quote, escape, comment, ended bool

	gen     generator
	rest    []byte // of the generated line at hand
	scanner scanner
}

func newSource(l *loader, name string, text []byte) *source {
	return &source{l: l, name: name, text: text, newline: true, ended: true, piece: chunk}
}

// chunk is how much of a large file is read at a time.
const chunk = 256 << 10

// fill reads more text. What is before the current entry goes. It is false when
// there is no more.
func (s *source) fill() bool {
	if s.file == nil {
		return false
	}
	keep := s.begin
	if s.ended {
		keep = s.at
	}
	n := copy(s.text, s.text[keep:])
	s.at, s.begin = s.at-keep, max(0, s.begin-keep)
	s.text = slices.Grow(s.text[:n], s.piece)
	k, err := io.ReadFull(s.file, s.text[n:n+s.piece])
	s.text = s.text[:n+k]
	s.sum.Write(s.text[n:])
	s.l.bytes += int64(k)
	switch {
	case s.l.bytes > maxZoneBytes:
		s.l.stop(s.name, 0, fmt.Sprintf("cannot read the file: more than %d octets of zone text", maxZoneBytes), "split the zone")
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		s.closeFile(nil)
		s.l.digest(s.name, textHash(s.sum.Sum(nil)))
	case err != nil:
		s.closeFile(nil)
		s.l.stop(s.name, 0, unreadable(s.name, err).Text, "")
	}
	return k > 0
}

// closeFile closes the file, if it is not yet.
func (s *source) closeFile(err error) error {
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
		s.file = nil
	}
	return err
}

// ready reads until there is a whole line at hand, or the end. It is false when
// nothing is left.
func (s *source) ready() bool {
	for from := s.at; bytes.IndexByte(s.text[from:], '\n') < 0; {
		have := len(s.text) - s.at
		if !s.fill() {
			break
		}
		from = s.at + have
	}
	return s.at < len(s.text)
}

// ReadByte implements io.ByteReader, by which the parser reads.
func (s *source) ReadByte() (byte, error) {
	for len(s.rest) == 0 && s.gen.left > 0 {
		line, err := s.gen.next(s.rest[:0])
		if s.l.bytes += int64(len(line)); err == nil && s.l.bytes > maxZoneBytes {
			err = fmt.Errorf("the zone has more than %d octets of text, with what $GENERATE makes", maxZoneBytes)
		}
		if err != nil {
			s.l.stop(s.name, s.line, err.Error(), generateHint)
			return 0, errStopped
		}
		s.rest = line
	}
	if len(s.rest) > 0 {
		c := s.rest[0]
		s.rest = s.rest[1:]
		return c, nil
	}
	if s.newline && s.ended && s.scanner.on && s.ready() {
		if s.scan(); s.scanner.behind && !s.l.stopped && s.at < len(s.text) {
			s.rest = s.catchUp()
			return s.ReadByte()
		}
	}
	if s.l.stopped {
		return 0, errStopped
	}
	if s.newline {
		s.ready()
	}
	if s.at >= len(s.text) && !s.fill() {
		return 0, io.EOF
	}
	if s.newline {
		s.line++
		s.newline = false
		if isGenerate(s.text[s.at:]) {
			if err := s.generate(); err != nil {
				s.l.stop(s.name, s.line, err.Error(), generateHint)
				return 0, errStopped
			}
			return s.ReadByte()
		}
	}
	c := s.text[s.at]
	s.at++
	s.track(c)
	return c, nil
}

// track follows the syntax of RFC 1035 §5.1 far enough to know where entries
// begin.
func (s *source) track(c byte) {
	switch {
	case c == '\n':
		s.newline, s.comment, s.escape = true, false, false
		if s.depth == 0 && !s.quote {
			s.ended = true
		}
		return
	case s.comment:
		return
	case s.escape:
		s.escape = false
	case c == '\\':
		s.escape = true
	case c == '"':
		s.quote = !s.quote
	case s.quote:
	case c == ';':
		s.comment = true
		return
	case c == '(':
		s.depth++
	case c == ')':
		s.depth = max(0, s.depth-1)
	case c == ' ', c == '\t', c == '\r':
		return
	}
	if s.ended {
		s.ended, s.start, s.begin = false, s.line, s.at-1
	}
}

// entry is the text of the entry just read.
func (s *source) entry() []byte { return s.text[s.begin:s.at] }

// Read is not called: the parser sees that ReadByte exists.
func (s *source) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Close tells the loader that the parser has left the file.
func (s *source) Close() error {
	s.l.leave(s)
	return nil
}

// Stat makes a source an fs.File.
func (s *source) Stat() (fs.FileInfo, error) { return sourceInfo{s}, nil }

type sourceInfo struct{ s *source }

func (i sourceInfo) Name() string       { return i.s.name }
func (i sourceInfo) Size() int64        { return int64(len(i.s.text)) }
func (i sourceInfo) Mode() fs.FileMode  { return 0o444 }
func (i sourceInfo) ModTime() time.Time { return time.Time{} }
func (i sourceInfo) IsDir() bool        { return false }
func (i sourceInfo) Sys() any           { return nil }

const generateHint = "write $GENERATE start-stop[/step] owner [TTL] [class] TYPE data, on one line"

// isGenerate reports whether the parser would take the line at the start of
// text for a $GENERATE. It drops carriage returns and parentheses wherever
// they stand, so we do.
func isGenerate(text []byte) bool {
	const word = "$GENERATE"
	n := 0
	for _, c := range text {
		if c == '\r' || c == '(' || c == ')' {
			continue
		}
		if n == len(word) || c == '\n' {
			break
		}
		if lower(c) != lower(word[n]) {
			return false
		}
		n++
	}
	return n == len(word)
}

// generate takes the line at hand, a $GENERATE, out of the text.
func (s *source) generate() error {
	line := s.text[s.at:]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	if s.depth > 0 || s.quote {
		return errors.New("$GENERATE within parentheses or a quoted string")
	}
	fields := strings.TrimRight(string(line), "\r")
	g, err := parseGenerate(fields)
	if err != nil {
		return err
	}
	s.gen = g
	s.start, s.begin, s.ended = s.line, s.at, true
	s.at += len(line)
	if s.at < len(s.text) {
		s.at++
	}
	s.newline = true
	return nil
}

// maxGenerate bounds one $GENERATE. A /16 of reverse names is the most that a
// zone has a use for; the records of all of them count for MaxRecords too.
const maxGenerate = 65536

// generator expands a $GENERATE line by line.
type generator struct {
	owner, data    string
	at, step, left int
}

func parseGenerate(line string) (generator, error) {
	var g generator
	if strings.ContainsAny(line, "()") {
		return g, errors.New("parentheses in $GENERATE")
	}
	if strings.Count(strings.ReplaceAll(strings.ReplaceAll(line, `\\`, ""), `\"`, ""), `"`)%2 != 0 {
		return g, errors.New("a quotation mark without its other half in $GENERATE")
	}
	_, after := cutField(line)
	span, after := cutField(after)
	g.owner, g.data = cutField(after)
	if g.data == "" {
		return g, errors.New("$GENERATE is not complete")
	}
	var stop int
	step := 1
	n, err := fmt.Sscanf(span, "%d-%d/%d", &g.at, &stop, &step)
	whole := fmt.Sprintf("%d-%d", g.at, stop)
	if n == 3 {
		whole += fmt.Sprintf("/%d", step)
	}
	if n < 2 || (n == 3 && err != nil) || whole != span {
		return g, fmt.Errorf("bad range %q in $GENERATE", span)
	}
	if g.at < 0 || stop < g.at || step < 1 || stop > 1<<31-1 {
		return g, fmt.Errorf("range %q in $GENERATE does not go upwards", span)
	}
	g.step = step
	g.left = (stop-g.at)/step + 1
	if g.left > maxGenerate {
		return g, fmt.Errorf("range %q in $GENERATE has %d steps, more than %d", span, g.left, maxGenerate)
	}
	return g, nil
}

// cutField cuts the first blank-separated field off s.
func cutField(s string) (field, after string) {
	s = strings.TrimLeft(s, " \t")
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// next appends the next generated line to dst.
func (g *generator) next(dst []byte) ([]byte, error) {
	dst, err := expand(dst, g.owner, g.at)
	if err != nil {
		return nil, err
	}
	if len(dst) == 0 || bytes.IndexByte([]byte("$\"\\;\r"), dst[0]) >= 0 {
		return nil, fmt.Errorf("$GENERATE makes the owner %q", dst)
	}
	dst = append(dst, ' ')
	if dst, err = expand(dst, g.data, g.at); err != nil {
		return nil, err
	}
	g.at += g.step
	g.left--
	return append(dst, '\n'), nil
}

// expand replaces $ by n, ${offset,width,base} by n formatted, and \$ and $$
// by a dollar sign.
func expand(dst []byte, s string, n int) ([]byte, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			if s[i+1] != '$' {
				dst = append(dst, '\\')
			}
			i++
			dst = append(dst, s[i])
		case s[i] != '$':
			dst = append(dst, s[i])
		case strings.HasPrefix(s[i:], "$$"):
			i++
			dst = append(dst, '$')
		case strings.HasPrefix(s[i:], "${"):
			spec, _, ok := strings.Cut(s[i+2:], "}")
			if !ok {
				return nil, errors.New("${ without } in $GENERATE")
			}
			i += 2 + len(spec)
			var err error
			if dst, err = appendFormatted(dst, spec, n); err != nil {
				return nil, err
			}
		default:
			dst = fmt.Appendf(dst, "%d", n)
		}
	}
	return dst, nil
}

// maxGenerateWidth bounds the width of a formatted number: no label is longer.
const maxGenerateWidth = maxLabelBytes

// appendFormatted formats n by offset[,width[,base]].
func appendFormatted(dst []byte, spec string, n int) ([]byte, error) {
	bad := fmt.Errorf("bad modifier ${%s} in $GENERATE", spec)
	parts := strings.Split(spec, ",")
	var offset, width int
	base := "d"
	if _, err := fmt.Sscan(parts[0], &offset); err != nil || len(parts) > 3 {
		return nil, bad
	}
	if len(parts) > 1 {
		if _, err := fmt.Sscan(parts[1], &width); err != nil || width < 0 || width > maxGenerateWidth {
			return nil, bad
		}
	}
	if len(parts) > 2 {
		base = parts[2]
	}
	if n += offset; n < 0 || n > 1<<31-1 {
		return nil, fmt.Errorf("modifier ${%s} in $GENERATE makes a number below 0 or above 2147483647", spec)
	}
	switch base {
	case "d", "o", "x", "X":
		return fmt.Appendf(dst, "%0*"+base, width, n), nil
	case "n", "N":
		return appendNibbles(dst, n, width, base == "N"), nil
	}
	return nil, bad
}

// appendNibbles appends n as hexadecimal digits, the least first, with dots
// between: as ip6.arpa has them. width counts digits and dots.
func appendNibbles(dst []byte, n, width int, upper bool) []byte {
	digits := "0123456789abcdef"
	if upper {
		digits = "0123456789ABCDEF"
	}
	for {
		dst = append(dst, digits[n&15])
		n >>= 4
		width--
		if n == 0 && width <= 0 {
			return dst
		}
		dst = append(dst, '.')
		width--
		if n == 0 && width <= 0 {
			return dst
		}
	}
}
