package rewrite

import (
	"html"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value is text of a file after its escapes were read: byte i of text stands at
// raw(i) in the file.
type value struct {
	text string
	from int   // of the text, when nothing was escaped
	at   []int // else of each byte, and of the end
}

func (v value) raw(i int) int {
	if v.at == nil {
		return v.from + i
	}
	return v.at[i]
}

// sub is part of a value.
func (v value) sub(from, to int) value {
	s := value{text: v.text[from:to], from: v.from + from}
	if v.at != nil {
		s.at = v.at[from : to+1]
	}
	return s
}

// builder makes a value byte by byte.
type builder struct {
	text []byte
	at   []int
}

// add appends what stands at a place in the file; the bytes of one escape all
// stand at its beginning.
func (b *builder) add(at int, s string) {
	for i := range len(s) {
		b.text, b.at = append(b.text, s[i]), append(b.at, at)
	}
}

func (b *builder) value(end int) value { return value{text: string(b.text), at: append(b.at, end)} }

// attribute reads character references in src[from:to] by the rules for
// attribute values (HTML Standard §13.2.5.72): "&copy=" is not one.
func attribute(src []byte, from, to int) value {
	raw := string(src[from:to])
	if strings.IndexByte(raw, '&') < 0 {
		return value{text: raw, from: from}
	}
	var b builder
	for i := 0; i < len(raw); {
		if raw[i] == '&' {
			if text, n := charReference(raw[i:]); n > 0 {
				b.add(from+i, text)
				i += n
				continue
			}
		}
		b.add(from+i, raw[i:i+1])
		i++
	}
	return b.value(to)
}

// maxEntity bounds the name of a character reference; the longest has 32.
const maxEntity = 40

// charReference reads the character reference that s begins with: n is its length,
// 0 when it is none.
func charReference(s string) (text string, n int) {
	if len(s) > 1 && s[1] == '#' {
		return numeric(s)
	}
	end := 1
	for end < len(s) && end < maxEntity && (letter(s[end]) || '0' <= s[end] && s[end] <= '9') {
		end++
	}
	if end == 1 {
		return "", 0
	}
	if end < len(s) && s[end] == ';' {
		// A name that is only known in part leaves the rest and the semicolon.
		if text = html.UnescapeString(s[:end+1]); text != s[:end+1] && utf8.RuneCountInString(text) <= 2 {
			return text, end + 1
		}
	}
	if end < len(s) && s[end] == '=' {
		return "", 0
	}
	// Without a semicolon only the whole word counts, in an attribute.
	if text = html.UnescapeString(s[:end]); utf8.RuneCountInString(text) == 1 {
		return text, end
	}
	return "", 0
}

// numeric reads &#65; and &#x41;.
func numeric(s string) (text string, n int) {
	n, base := 2, 10
	if n < len(s) && s[n]|0x20 == 'x' {
		n, base = 3, 16
	}
	from := n
	for n < len(s) && strings.IndexByte("0123456789abcdef"[:base], s[n]|0x20) >= 0 && (s[n] >= 'A' || s[n] >= '0' && s[n] <= '9') {
		n++
	}
	if n == from {
		return "", 0
	}
	digits := s[:n] + ";"
	if n < len(s) && s[n] == ';' {
		n++
	}
	if _, err := strconv.ParseUint(s[from:from+min(len(digits)-1-from, 8)], base, 64); err != nil || len(digits)-1-from > 8 {
		return "\uFFFD", n
	}
	return html.UnescapeString(digits), n // it knows the numbers that mean others
}
