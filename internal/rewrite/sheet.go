package rewrite

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// Sheet rewrites a style sheet. path is where the site has it, shown what
// faults call it. Its references are read as from that path: who serves it under
// another name does so in the same folder of the base.
func Sheet(shown, path string, src []byte, base Base, site Site) Result {
	f := &file{shown: shown, src: src, base: base, site: site, sheet: true, at: placeOf(path)}
	if f.checkEncoding() {
		f.css(value{text: string(src)})
	}
	return f.done()
}

// sheet reads tokens as CSS Syntax Level 3 §4 says, those that matter here: where
// a string, a comment or a url() begins and ends, and what it is the value of.
type sheet struct {
	f *file
	v value
	s string
	i int

	open      []byte // the brackets that are open: 's' of an image-set(), else 'o'
	importing bool   // behind @import, before its URL
	naming    bool   // in @namespace, whose URL is a name
}

// css rewrites the references of a style sheet, or of a style attribute.
func (f *file) css(v value) {
	c := &sheet{f: f, v: v, s: v.text}
	for c.i < len(c.s) {
		c.token()
	}
}

func (c *sheet) token() {
	s, i := c.s, c.i
	switch b := s[i]; {
	case space(b):
		c.i++
	case b == '/' && strings.HasPrefix(s[i:], "/*"):
		if n := strings.Index(s[i+2:], "*/"); n >= 0 {
			c.i = i + 2 + n + 2
		} else {
			c.i = len(s)
		}
	case b == '"' || b == '\'':
		from, to, ok := c.str()
		if ok && (c.importing || len(c.open) > 0 && c.open[len(c.open)-1] == 's') {
			c.reference(from, to)
		}
		c.importing = false
	case b == '@':
		c.i++
		c.at(c.ident())
	case b == '#':
		c.i++
		c.name()
		c.importing = false
	case '0' <= b && b <= '9':
		c.number()
		c.importing = false
	case c.starts(i):
		c.word(c.ident())
	default:
		c.i++
		c.bracket(b)
	}
}

// bracket follows brackets, and where a rule ends.
func (c *sheet) bracket(b byte) {
	switch b {
	case '(', '[', '{':
		c.open = append(c.open, 'o')
		c.naming = c.naming && b != '{'
	case ')', ']', '}':
		if len(c.open) > 0 {
			c.open = c.open[:len(c.open)-1]
		}
	case ';':
		c.naming = false
	}
	c.importing = false
}

// at takes an at-keyword.
func (c *sheet) at(name string) {
	c.importing = len(c.open) == 0 && strings.EqualFold(name, "import")
	c.naming = strings.EqualFold(name, "namespace")
}

// word takes an identifier, which may be a function's name.
func (c *sheet) word(name string) {
	if c.i >= len(c.s) || c.s[c.i] != '(' {
		c.importing = false
		return
	}
	c.i++
	switch strings.ToLower(name) {
	case "url", "src":
		c.url(strings.EqualFold(name, "url"))
	case "image-set", "-webkit-image-set":
		c.open = append(c.open, 's')
	default:
		c.open = append(c.open, 'o')
	}
	c.importing = false
}

// url takes what is in url( up to its bracket, which for a string in quotes is
// left open: modifiers may follow.
func (c *sheet) url(bare bool) {
	for c.i < len(c.s) && space(c.s[c.i]) {
		c.i++
	}
	if c.i < len(c.s) && (c.s[c.i] == '"' || c.s[c.i] == '\'') || !bare {
		c.open = append(c.open, 'o')
		if c.i < len(c.s) && (c.s[c.i] == '"' || c.s[c.i] == '\'') {
			if from, to, ok := c.str(); ok {
				c.reference(from, to)
			}
		}
		return
	}
	from, bad := c.i, false
	for c.i < len(c.s) && c.s[c.i] != ')' {
		switch b := c.s[c.i]; {
		case b == '\\':
			c.i++
			bad = bad || c.i < len(c.s) && c.s[c.i] == '\n'
		case b == '"' || b == '\'' || b == '(' || b < ' ' && !space(b) || b == 0x7f:
			bad = true
		}
		c.i++
	}
	c.i = min(c.i, len(c.s))
	to := c.i
	for to > from && space(c.s[to-1]) && !(to-1 > from && c.s[to-2] == '\\') {
		to--
	}
	if c.i < len(c.s) {
		c.i++
	}
	if !bad && to > from && !spaced(c.s[from:to]) {
		c.reference(from, to)
	}
}

// spaced reports white space inside of a url() without quotes, which breaks it.
func spaced(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			_, n := escaped(s[i:])
			i += n - 1
		} else if space(s[i]) {
			return true
		}
	}
	return false
}

// str takes a string; ok is false for one that a line end broke.
func (c *sheet) str() (from, to int, ok bool) {
	quote := c.s[c.i]
	from = c.i + 1
	for c.i++; c.i < len(c.s); c.i++ {
		switch c.s[c.i] {
		case quote:
			c.i++
			return from, c.i - 1, true
		case '\\':
			if c.i++; strings.HasPrefix(c.s[min(c.i, len(c.s)):], "\r\n") {
				c.i++
			}
		case '\n', '\r', '\f':
			return from, c.i, false
		}
	}
	c.i = len(c.s)
	return from, c.i, false
}

// reference rewrites the URL in s[from:to].
func (c *sheet) reference(from, to int) {
	if !c.naming {
		c.f.reference(unescape(c.v.sub(from, to)), use{})
	}
}

// starts reports whether an identifier begins at i (§4.3.9).
func (c *sheet) starts(i int) bool {
	if i < len(c.s) && c.s[i] == '-' {
		i++
	}
	if i >= len(c.s) {
		return false
	}
	b := c.s[i]
	return letter(b) || b == '_' || b == '-' || b >= utf8.RuneSelf || b == '\\' && i+1 < len(c.s) && c.s[i+1] != '\n'
}

// ident takes an identifier.
func (c *sheet) ident() string {
	from := c.i
	c.name()
	name := c.s[from:c.i]
	if strings.IndexByte(name, '\\') >= 0 {
		name = unescape(value{text: name}).text
	}
	return name
}

// name takes name code points.
func (c *sheet) name() {
	for c.i < len(c.s) {
		switch b := c.s[c.i]; {
		case letter(b) || '0' <= b && b <= '9' || b == '_' || b == '-' || b >= utf8.RuneSelf:
			c.i++
		case b == '\\' && c.i+1 < len(c.s) && c.s[c.i+1] != '\n':
			_, n := escaped(c.s[c.i:])
			c.i += n
		default:
			return
		}
	}
}

// number takes a number and its unit.
func (c *sheet) number() {
	digits := func() {
		for c.i < len(c.s) && '0' <= c.s[c.i] && c.s[c.i] <= '9' {
			c.i++
		}
	}
	digits()
	if c.i+1 < len(c.s) && c.s[c.i] == '.' && '0' <= c.s[c.i+1] && c.s[c.i+1] <= '9' {
		c.i++
		digits()
	}
	if c.i+2 < len(c.s) && c.s[c.i]|0x20 == 'e' && (c.s[c.i+1] == '+' || c.s[c.i+1] == '-') && '0' <= c.s[c.i+2] && c.s[c.i+2] <= '9' {
		c.i += 2
		digits()
	}
	if c.starts(c.i) {
		c.name()
	}
}

// escaped reads the escape that s begins with (§4.3.7), and its length.
func escaped(s string) (text string, n int) {
	n = 1
	for n < len(s) && n <= 6 && strings.IndexByte("0123456789abcdefABCDEF", s[n]) >= 0 {
		n++
	}
	if n == 1 {
		if len(s) == 1 {
			return "\uFFFD", 1
		}
		_, size := utf8.DecodeRuneInString(s[1:])
		return s[1 : 1+size], 1 + size
	}
	b, _ := hex.DecodeString(strings.Repeat("0", 7-n) + s[1:n])
	r := rune(0)
	for _, c := range b {
		r = r<<8 | rune(c)
	}
	if r == 0 || !utf8.ValidRune(r) {
		r = utf8.RuneError
	}
	switch {
	case strings.HasPrefix(s[n:], "\r\n"):
		n += 2
	case n < len(s) && space(s[n]):
		n++
	}
	return string(r), n
}

// unescape reads the escapes of a string or an identifier.
func unescape(v value) value {
	if strings.IndexByte(v.text, '\\') < 0 {
		return v
	}
	var b builder
	for i := 0; i < len(v.text); {
		if v.text[i] != '\\' {
			b.add(v.raw(i), v.text[i:i+1])
			i++
			continue
		}
		switch rest := v.text[i+1:]; { // the end of a line is no part of a string
		case strings.HasPrefix(rest, "\r\n"):
			i += 3
			continue
		case rest != "" && strings.IndexByte("\n\r\f", rest[0]) >= 0:
			i += 2
			continue
		}
		text, n := escaped(v.text[i:])
		b.add(v.raw(i), text)
		i += n
	}
	return b.value(v.raw(len(v.text)))
}
