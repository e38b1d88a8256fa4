package edge

import "strings"

// maxMembers bounds a Dictionary, as RFC 9651 §3.2 asks at least for.
const maxMembers = 1024

// sfKind is the type of a structured field's item (RFC 9651 §3).
type sfKind uint8

const (
	sfInteger sfKind = iota
	sfDecimal
	sfString
	sfToken
	sfBytes
	sfBoolean // text is "0" or "1"
	sfDate
	sfDisplay
	sfInner // a list in parentheses, whose content nobody needs here
)

// sfItem is a member's value; its parameters are read and forgotten.
type sfItem struct {
	kind sfKind
	text string
}

// sfParser reads a structured field by the algorithms of RFC 9651 §4.2. rest
// is what has not been read.
type sfParser struct{ rest string }

// parseDictionary reads a Dictionary (RFC 9651 §4.2.2). ok is false on any
// error: such a field has no value at all.
func parseDictionary(v string) (members map[string]sfItem, ok bool) {
	p := &sfParser{strings.Trim(v, " ")}
	members = map[string]sfItem{}
	for p.rest != "" {
		name, ok := p.key()
		if !ok || len(members) >= maxMembers {
			return nil, false
		}
		item := sfItem{sfBoolean, "1"}
		if p.take('=') {
			if item, ok = p.itemOrList(); !ok {
				return nil, false
			}
		} else if !p.parameters() {
			return nil, false
		}
		members[name] = item // of a repeated name the last counts
		p.ows()
		if p.rest == "" {
			break
		}
		if !p.take(',') {
			return nil, false
		}
		if p.ows(); p.rest == "" {
			return nil, false // a trailing comma
		}
	}
	return members, true
}

func (p *sfParser) ows() { p.rest = strings.TrimLeft(p.rest, " \t") }

func (p *sfParser) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// span takes the longest start whose bytes all satisfy ok.
func (p *sfParser) span(ok func(c byte) bool) string {
	i := 0
	for i < len(p.rest) && ok(p.rest[i]) {
		i++
	}
	s := p.rest[:i]
	p.rest = p.rest[i:]
	return s
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isAlpha(c byte) bool { return isLower(c | 0x20) }

func (p *sfParser) key() (string, bool) {
	if p.rest == "" || !isLower(p.rest[0]) && p.rest[0] != '*' {
		return "", false
	}
	return p.span(func(c byte) bool {
		return isLower(c) || isDigit(c) || c == '_' || c == '-' || c == '.' || c == '*'
	}), true
}

func (p *sfParser) parameters() bool {
	for p.take(';') {
		p.rest = strings.TrimLeft(p.rest, " ")
		if _, ok := p.key(); !ok {
			return false
		}
		if p.take('=') {
			if _, ok := p.bareItem(); !ok {
				return false
			}
		}
	}
	return true
}

func (p *sfParser) itemOrList() (sfItem, bool) {
	if !p.take('(') {
		item, ok := p.bareItem()
		return item, ok && p.parameters()
	}
	for {
		p.rest = strings.TrimLeft(p.rest, " ")
		if p.take(')') {
			return sfItem{kind: sfInner}, p.parameters()
		}
		if _, ok := p.bareItem(); !ok || !p.parameters() {
			return sfItem{}, false
		}
		if p.rest == "" || p.rest[0] != ' ' && p.rest[0] != ')' {
			return sfItem{}, false
		}
	}
}

func (p *sfParser) bareItem() (sfItem, bool) {
	if p.rest == "" {
		return sfItem{}, false
	}
	switch c := p.rest[0]; {
	case c == '-' || isDigit(c):
		return p.number()
	case c == '"':
		return p.str()
	case c == '*' || isAlpha(c):
		return sfItem{sfToken, p.span(func(c byte) bool { return tokenBytes[c] || c == ':' || c == '/' })}, true
	case c == ':':
		p.rest = p.rest[1:]
		text := p.span(func(c byte) bool { return isAlpha(c) || isDigit(c) || c == '+' || c == '/' || c == '=' })
		return sfItem{sfBytes, text}, p.take(':')
	case c == '?':
		p.rest = p.rest[1:]
		if p.take('0') {
			return sfItem{sfBoolean, "0"}, true
		}
		return sfItem{sfBoolean, "1"}, p.take('1')
	case c == '@':
		p.rest = p.rest[1:]
		item, ok := p.number()
		return sfItem{sfDate, item.text}, ok && item.kind == sfInteger
	case c == '%':
		return p.display()
	}
	return sfItem{}, false
}

// number reads an Integer of at most 15 digits, or a Decimal of at most 12
// and 3 (RFC 9651 §4.2.4).
func (p *sfParser) number() (sfItem, bool) {
	sign := ""
	if p.take('-') {
		sign = "-"
	}
	whole := p.span(isDigit)
	if whole == "" {
		return sfItem{}, false
	}
	if !p.take('.') {
		return sfItem{sfInteger, sign + whole}, len(whole) <= 15
	}
	part := p.span(isDigit)
	return sfItem{sfDecimal, sign + whole + "." + part}, len(whole) <= 12 && part != "" && len(part) <= 3
}

// str reads a String (RFC 9651 §4.2.5).
func (p *sfParser) str() (sfItem, bool) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return sfItem{sfString, b.String()}, true
		case c == '\\':
			if i++; i >= len(p.rest) || p.rest[i] != '"' && p.rest[i] != '\\' {
				return sfItem{}, false
			}
			b.WriteByte(p.rest[i])
		case c < ' ' || c > '~':
			return sfItem{}, false
		default:
			b.WriteByte(c)
		}
	}
	return sfItem{}, false
}

// display reads a Display String (RFC 9651 §4.2.10) and leaves it encoded.
func (p *sfParser) display() (sfItem, bool) {
	if !strings.HasPrefix(p.rest, `%"`) {
		return sfItem{}, false
	}
	for i := 2; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			text := p.rest[2:i]
			p.rest = p.rest[i+1:]
			return sfItem{sfDisplay, text}, true
		case c == '%':
			if i+2 >= len(p.rest) || unhexLower(p.rest[i+1]) < 0 || unhexLower(p.rest[i+2]) < 0 {
				return sfItem{}, false
			}
			i += 2
		case c < ' ' || c > '~':
			return sfItem{}, false
		}
	}
	return sfItem{}, false
}

func unhexLower(c byte) int {
	if c >= 'A' && c <= 'F' {
		return -1
	}
	return unhex(c)
}
