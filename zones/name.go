package zones

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	maxNameBytes  = 255 // RFC 1035 §2.3.4, with the root label
	maxLabelBytes = 63  // RFC 1035 §2.3.4
	maxLabels     = 127 // as many one-octet labels fit into maxNameBytes, the root not counted
)

// ParseName turns a name in presentation form (RFC 1035 §5.1: "\." and "\DDD"
// are escapes) into wire form, as written. A missing final dot is supplied.
func ParseName(text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("empty name")
	}
	wire := make([]byte, 1, len(text)+2)
	if text == "." {
		return wire, nil
	}
	start := 0 // of the current label in wire
	for i := 0; i < len(text); {
		if text[i] == '.' {
			if len(wire)-start == 1 {
				return nil, fmt.Errorf("name %q has an empty label", text)
			}
			wire[start] = byte(len(wire) - start - 1)
			start = len(wire)
			wire = append(wire, 0)
			i++
			continue
		}
		c, n := unescape(text[i:])
		if n == 0 {
			return nil, fmt.Errorf("name %q has a bad escape", text)
		}
		i += n
		wire = append(wire, c)
		if len(wire)-start-1 > maxLabelBytes {
			return nil, fmt.Errorf("name %q has a label of more than %d octets", text, maxLabelBytes)
		}
	}
	if n := len(wire) - start - 1; n > 0 {
		wire[start] = byte(n)
		wire = append(wire, 0)
	}
	if len(wire) > maxNameBytes {
		return nil, fmt.Errorf("name %q is longer than %d octets", text, maxNameBytes)
	}
	return wire, nil
}

// unescape reads one octet of a label in presentation form. n is 0 when the
// escape is broken.
func unescape(s string) (c byte, n int) {
	if s[0] != '\\' {
		return s[0], 1
	}
	if len(s) < 2 {
		return 0, 0
	}
	if s[1] < '0' || s[1] > '9' {
		return s[1], 2
	}
	if len(s) < 4 {
		return 0, 0
	}
	v := 0
	for _, d := range []byte(s[1:4]) {
		if d < '0' || d > '9' {
			return 0, 0
		}
		v = v*10 + int(d-'0')
	}
	if v > 255 {
		return 0, 0
	}
	return byte(v), 4
}

// FormatName turns a well-formed name in wire form into presentation form,
// with the final dot. What is not printable or has a meaning in master files
// is escaped.
func FormatName(wire []byte) string {
	if len(wire) <= 1 {
		return "."
	}
	var b strings.Builder
	for i := 0; i < len(wire) && wire[i] != 0; {
		end := min(i+1+int(wire[i]), len(wire))
		for _, c := range wire[i+1 : end] {
			switch {
			case strings.IndexByte(`.\"();@$`, c) >= 0:
				b.WriteByte('\\')
				b.WriteByte(c)
			case c <= ' ' || c >= 0x7f:
				fmt.Fprintf(&b, `\%03d`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('.')
		i = end
	}
	return b.String()
}

// nameLen is the length of the uncompressed name at the start of b, or 0 when
// there is none.
func nameLen(b []byte) int {
	for i := 0; i < len(b) && i < maxNameBytes; {
		if b[i] == 0 {
			return i + 1
		}
		if b[i] > maxLabelBytes {
			return 0
		}
		i += 1 + int(b[i])
	}
	return 0
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// appendLower appends b in lower case. Over a whole name in wire form it is
// safe, since length octets are below 'A'.
func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, lower(c))
	}
	return dst
}

// equalLower reports whether b in lower case is lowered.
func equalLower(b, lowered []byte) bool {
	if len(b) != len(lowered) {
		return false
	}
	for i, c := range b {
		if lower(c) != lowered[i] {
			return false
		}
	}
	return true
}

// below reports whether name is at or below parent, both lower case.
func below(name, parent []byte) bool {
	if !bytes.HasSuffix(name, parent) {
		return false
	}
	cut := len(name) - len(parent)
	for i := 0; i <= cut; i += 1 + int(name[i]) {
		if i == cut {
			return true
		}
	}
	return false
}

// appendKey appends a key that sorts, octet by octet, as the name does in
// canonical order (RFC 4034 §6.1): the labels from the root down, lower case,
// each closed by a zero, with the octets 0 and 1 escaped so that the closing
// zero is the least.
func appendKey(dst, name []byte) []byte {
	var starts [maxLabels]uint8
	n := 0
	for i := 0; i < len(name) && name[i] != 0 && n < maxLabels; i += 1 + int(name[i]) {
		starts[n] = uint8(i)
		n++
	}
	for n--; n >= 0; n-- {
		at := int(starts[n])
		for _, c := range name[at+1 : at+1+int(name[at])] {
			if c <= 1 {
				dst = append(dst, 1, c+1)
			} else {
				dst = append(dst, lower(c))
			}
		}
		dst = append(dst, 0)
	}
	return dst
}
