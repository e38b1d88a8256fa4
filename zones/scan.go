package zones

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// scanner reads the lines that most of a large zone is made of, without making
// a string of any: one record on one line, of a common type, in plain
// characters. What it does not understand wholly it leaves to the parser, which
// then reads that entry as if it had read all before; so every rule, and every
// error, is the parser's. FuzzScanner holds both against each other.
type scanner struct {
	on     bool   // false once something was seen that it cannot follow
	origin []byte // of $ORIGIN, wire form as written
	zone   []byte // the zone's origin, lower case

	ttl   uint32
	known bool // there is a TTL for records without one
	fixed bool // by $TTL

	owner  []byte // the last one, relative to the zone, as written
	owned  bool   // there is one
	behind bool   // the parser has not seen the last owner and TTL
	within bool   // the parser has an entry that it has made no record of yet
	line   int    // of the last directive, which may be looked at twice

	name  []byte // scratch
	rdata []byte
}

func newScanner(origin []byte) scanner {
	return scanner{on: true, origin: origin, zone: origin}
}

// scan takes lines off the text as long as it understands them. While the
// parser is within an entry, which may go on where it should not, it only looks.
func (s *source) scan() {
	for !s.l.stopped && s.ready() {
		end := bytes.IndexByte(s.text[s.at:], '\n')
		if end < 0 {
			end = len(s.text) - s.at
		}
		line := s.text[s.at : s.at+end]
		if len(line) > 0 && line[0] == '$' {
			s.directive(bytes.TrimSuffix(line, []byte{'\r'}))
			return
		}
		if s.scanner.within || s.at+end == len(s.text) || !s.quick(line) {
			s.scanner.within = true
			return
		}
		s.line++
		s.at += end + 1
	}
}

// catchUp is a line that tells the parser the owner and the TTL of what was
// read without it; the record that it makes of it is dropped.
func (s *source) catchUp() []byte {
	q := &s.scanner
	q.behind = false
	s.l.skip = true
	return fmt.Appendf(nil, "%s %d IN TXT x\n", FormatName(append(slices.Clone(q.owner), q.zone...)), q.ttl)
}

// took notes what the parser made of an entry.
func (q *scanner) took(owner []byte, ttl uint32) {
	q.owned, q.behind, q.within = owner != nil, false, false
	q.owner = append(q.owner[:0], owner...)
	if !q.fixed && (q.known || ttl != 0) {
		q.ttl, q.known = ttl, true
	}
}

// field cuts the first field off a line; it is nil for what only the parser
// understands.
func field(line []byte) (word, rest []byte) {
	for i, c := range line {
		if c == ' ' || c == '\t' {
			for j := i + 1; j < len(line); j++ {
				if line[j] != ' ' && line[j] != '\t' {
					return line[:i], line[j:]
				}
			}
			return line[:i], nil
		}
		if !plain[c] {
			return nil, nil
		}
	}
	return line, nil
}

// plain are the octets that mean themselves wherever they stand in a field.
var plain = func() (p [256]bool) {
	for c := byte('!'); c <= '~'; c++ {
		p[c] = bytes.IndexByte([]byte(`"();\$`), c) < 0
	}
	return p
}()

// blankOrComment reports whether nothing, or only a comment, is left of a line.
func blankOrComment(line []byte) bool {
	line = bytes.TrimLeft(line, " \t")
	return len(line) == 0 || line[0] == ';'
}

// quick reads one line, without its end. It changes nothing when it is false.
func (s *source) quick(line []byte) bool {
	q := &s.scanner
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if blankOrComment(line) {
		return bytes.IndexByte(line, '\r') < 0
	}
	var owner []byte // as written; nil is the last one
	fresh := line[0] != ' ' && line[0] != '\t'
	if !fresh {
		if !q.owned {
			return false
		}
		line = bytes.TrimLeft(line, " \t")
	} else {
		var word []byte
		word, line = field(line)
		if owner = q.ownerOf(word); owner == nil {
			return false
		}
	}
	if !fresh {
		owner = q.owner
	}
	ttl, explicit, line := q.head(line)
	word, data := field(line)
	rrtype := commonType(word)
	if rrtype == 0 || !explicit && !q.known || len(data) == 0 || !q.data(rrtype, data) {
		return false
	}
	if !explicit {
		ttl = q.ttl
	} else if !q.fixed {
		q.ttl, q.known = ttl, true
	}
	s.l.take(s, owner, record{pos: pos{uint32(s.line + 1), s.l.fileIndex(s)}, rrtype: rrtype, ttl: ttl}, q.rdata)
	if fresh {
		q.owner = append(q.owner[:0], owner...)
	}
	q.owned, q.behind = true, true
	return true
}

// ownerOf is an owner relative to the zone, as written; nil when it is not in
// the zone or not plain. It is empty, not nil, for the apex.
func (q *scanner) ownerOf(word []byte) []byte {
	if len(word) == 0 {
		return nil
	}
	name, ok := q.appendName(q.name[:0], word)
	q.name = name
	cut := len(name) - len(q.zone)
	if !ok || cut < 0 || !equalLower(name[cut:], q.zone) || !onBoundary(name, cut) {
		return nil
	}
	return name[:cut:cut]
}

// onBoundary reports whether a label begins at an offset of a name.
func onBoundary(name []byte, at int) bool {
	i := 0
	for i < at {
		i += 1 + int(name[i])
	}
	return i == at
}

// appendName appends a name in wire form, as written.
func (q *scanner) appendName(dst, word []byte) ([]byte, bool) {
	base := len(dst)
	if len(word) == 1 && word[0] == '@' {
		return append(dst, q.origin...), true
	}
	if len(word) == 1 && word[0] == '.' {
		return append(dst, 0), true
	}
	start := len(dst)
	dst = append(dst, 0)
	for _, c := range word {
		if c != '.' {
			dst = append(dst, c)
			continue
		}
		n := len(dst) - start - 1
		if n == 0 || n > maxLabelBytes {
			return dst, false
		}
		dst[start] = byte(n)
		start = len(dst)
		dst = append(dst, 0)
	}
	if n := len(dst) - start - 1; n > maxLabelBytes {
		return dst, false
	} else if n > 0 {
		dst[start] = byte(n)
		dst = append(dst, q.origin...)
	}
	return dst, len(dst)-base <= maxNameBytes
}

// head reads TTL and class, in any order, off what follows the owner.
func (q *scanner) head(line []byte) (ttl uint32, explicit bool, rest []byte) {
	class := false
	for {
		word, after := field(line)
		switch {
		case !class && len(word) == 2 && word[0]|0x20 == 'i' && word[1]|0x20 == 'n':
			class = true
		case !explicit && len(word) > 0 && '0' <= word[0] && word[0] <= '9':
			n, ok := number(word, 999_999_999)
			if !ok {
				return 0, false, nil
			}
			ttl, explicit = n, true
		default:
			return ttl, explicit, line
		}
		line = after
	}
}

// number reads digits, at most as many as fit.
func number(word []byte, most uint32) (uint32, bool) {
	if len(word) == 0 || len(word) > 9 {
		return 0, false
	}
	n := uint32(0)
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint32(c-'0')
	}
	return n, n <= most
}

// commonType is one of the types that data reads; 0 for all others.
func commonType(word []byte) uint16 {
	var buf [5]byte
	if len(word) > len(buf) {
		return 0
	}
	for i, c := range word {
		buf[i] = c &^ 0x20
	}
	switch string(buf[:len(word)]) {
	case "A":
		return typeA
	case "AAAA":
		return typeAAAA
	case "NS":
		return typeNS
	case "CNAME":
		return typeCNAME
	case "PTR":
		return typePTR
	case "MX":
		return typeMX
	case "SRV":
		return typeSRV
	case "TXT":
		return typeTXT
	}
	return 0
}

// data reads the data of a record into q.rdata.
func (q *scanner) data(rrtype uint16, line []byte) bool {
	out := q.rdata[:0]
	numbers := 0
	switch rrtype {
	case typeTXT:
		return q.text(line)
	case typeMX:
		numbers = 1
	case typeSRV:
		numbers = 3
	}
	for range numbers {
		word, rest := field(line)
		n, ok := number(word, 1<<16-1)
		if !ok {
			return false
		}
		out = binary.BigEndian.AppendUint16(out, uint16(n))
		line = rest
	}
	word, rest := field(line)
	if len(word) == 0 || !blankOrComment(rest) || bytes.IndexByte(rest, '\r') >= 0 {
		return false
	}
	ok := false
	switch rrtype {
	case typeA:
		out, ok = appendIPv4(out, word)
	case typeAAAA:
		out, ok = appendIPv6(out, word)
	default:
		out, ok = q.appendName(out, word)
	}
	q.rdata = out
	return ok
}

// text reads character strings in quotes, apart from each other, without
// escapes. More than fits into a record is the parser's to refuse.
func (q *scanner) text(line []byte) bool {
	out := q.rdata[:0]
	for !blankOrComment(line) {
		if line[0] != '"' {
			return false
		}
		end := 1
		for end < len(line) && line[end] != '"' {
			if c := line[end]; c < ' ' || c > '~' || c == '\\' {
				return false
			}
			end++
		}
		if end == len(line) || end == 1 || end-1 > 255 {
			return false
		}
		out = append(append(out, byte(end-1)), line[1:end]...)
		line = line[end+1:]
		if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			return false
		}
		line = bytes.TrimLeft(line, " \t")
	}
	q.rdata = out
	return len(out) > 0 && len(out) <= maxRRset && bytes.IndexByte(line, '\r') < 0
}

func appendIPv4(dst, word []byte) ([]byte, bool) {
	parts, n, digits := 0, uint32(0), 0
	for i := 0; i <= len(word); i++ {
		if i == len(word) || word[i] == '.' {
			if digits == 0 || n > 255 || parts == 4 {
				return dst, false
			}
			dst = append(dst, byte(n))
			parts, n, digits = parts+1, 0, 0
			continue
		}
		c := word[i]
		if c < '0' || c > '9' || digits == 3 || digits > 0 && n == 0 {
			return dst, false
		}
		n = n*10 + uint32(c-'0')
		digits++
	}
	return dst, parts == 4
}

// appendIPv6 reads an address of groups, perhaps with one "::".
func appendIPv6(dst, word []byte) ([]byte, bool) {
	base := len(dst)
	gap := -1
	for i := 0; i < len(word); {
		if word[i] == ':' {
			if i+1 == len(word) || word[i+1] != ':' || gap >= 0 {
				return dst, false
			}
			gap = len(dst)
			if i += 2; i == len(word) {
				break
			}
		}
		n, digits := uint32(0), 0
		for ; i < len(word) && word[i] != ':'; i++ {
			v, ok := hexDigit(word[i])
			if !ok || digits == 4 {
				return dst, false
			}
			n = n<<4 | v
			digits++
		}
		if digits == 0 || len(dst)-base == 16 {
			return dst, false
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
		if i < len(word) && (i+1 == len(word) || word[i+1] != ':') {
			if i++; i == len(word) {
				return dst, false
			}
		}
	}
	missing := 16 - (len(dst) - base)
	if gap < 0 || missing < 2 {
		return dst, gap < 0 && missing == 0
	}
	return slices.Insert(dst, gap, make([]byte, missing)...), true
}

func hexDigit(c byte) (uint32, bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint32(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return uint32(c|0x20-'a') + 10, true
	}
	return 0, false
}

// directive follows what a line tells the parser, which reads it too.
func (s *source) directive(line []byte) {
	q := &s.scanner
	if q.line == s.line+1 {
		return
	}
	q.line = s.line + 1
	word, rest := field(line[1:])
	arg, rest := field(rest)
	ok := len(arg) > 0 && blankOrComment(rest)
	switch {
	case bytes.EqualFold(word, []byte("INCLUDE")), bytes.EqualFold(word, []byte("GENERATE")):
		return // what they bring is the parser's; took tells what it made of it
	case ok && bytes.EqualFold(word, []byte("TTL")):
		if ttl, plain := ttlOf(arg); plain {
			q.ttl, q.known, q.fixed = ttl, true, true
			return
		}
	case ok && bytes.EqualFold(word, []byte("ORIGIN")):
		if name, plain := q.appendName(nil, arg); plain && len(name) > 0 {
			q.origin = name
			return
		}
	}
	q.on = false
}

// ttlOf reads a TTL, perhaps in units: 1h30m.
func ttlOf(word []byte) (uint32, bool) {
	units := map[byte]uint64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}
	var sum, n uint64
	for _, c := range word {
		if '0' <= c && c <= '9' {
			n = n*10 + uint64(c-'0')
		} else if unit := units[lower(c)]; unit > 0 {
			sum, n = sum+n*unit, 0
		} else {
			return 0, false
		}
		if n > maxTTL || sum > maxTTL {
			return 0, false
		}
	}
	return uint32(sum + n), len(word) > 0 && sum+n <= maxTTL
}
