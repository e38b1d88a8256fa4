package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFileBytes bounds perigee.toml. Four thousand edges, or ten thousand
// steered names, fit into it. go-toml's search for keys that are defined twice
// takes time that grows with the square of their number: the worst file of this
// size takes seconds, one of 4 MiB minutes.
const maxFileBytes = 512 << 10

// source is the text of a file and where its lines begin.
type source struct {
	file  string
	text  []byte
	lines []int // offset of the first byte of each line
}

func newSource(file string, text []byte) *source {
	s := &source{file: file, text: text, lines: []int{0}}
	for i, c := range text {
		if c == '\n' && i+1 < len(text) {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// span is a range of bytes in the text.
type span struct{ from, to int }

// line returns the text of line n, from 1, without its end.
func (s *source) line(n int) []byte {
	from, to := s.lines[n-1], len(s.text)
	if n < len(s.lines) {
		to = s.lines[n]
	}
	return bytes.TrimRight(s.text[from:to], "\r\n")
}

// position turns a span into line and columns. A span over several lines ends
// with its first.
func (s *source) position(at span) Position {
	at.from = min(max(at.from, 0), len(s.text))
	at.to = min(max(at.to, at.from), len(s.text))
	n := sort.Search(len(s.lines), func(i int) bool { return s.lines[i] > at.from })
	line, begin := s.line(n), s.lines[n-1]
	from := min(at.from-begin, len(line))
	to := min(max(at.to-begin, from), len(line))
	for from > 0 && from < len(line) && !utf8.RuneStart(line[from]) {
		from-- // a parser of octets may point into a character
	}
	for to < len(line) && !utf8.RuneStart(line[to]) {
		to++
	}
	p := Position{File: s.file, Line: n, Col: utf8.RuneCount(line[:from]) + 1}
	p.EndCol = p.Col + max(1, utf8.RuneCount(line[from:to]))
	return p
}

// kind is what a node is.
type kind uint8

const (
	tableKind kind = iota + 1
	arrayKind
	stringKind
	integerKind
	floatKind
	boolKind
	timeKind
)

func (k kind) String() string {
	return [...]string{"nothing", "a table", "a list", "a string", "a whole number", "a number", "true or false", "a date or time"}[k]
}

// node is one key and its value, with where each stands.
type node struct {
	kind   kind
	key    string
	keyAt  span
	at     span   // of the value; of a table, its name
	text   string // a string's value; else the value as written
	list   []*node
	byName map[string]*node // tables
}

func (n *node) child(key string) *node { return n.byName[key] }

func (n *node) add(c *node) {
	if n.byName == nil {
		n.byName = map[string]*node{}
	}
	if n.byName[c.key] == nil { // toml.Unmarshal has refused a second one
		n.byName[c.key] = c
		n.list = append(n.list, c)
	}
}

// parseTree reads TOML into nodes in file order. go-toml decodes it first, for
// its rules about keys and tables that are defined twice; the walk over its
// syntax tree then only has to keep order and places.
func parseTree(s *source) (*node, *Error) {
	if i := invalidUTF8(s.text); i >= 0 {
		return nil, s.error(span{i, i + 1}, "", "this is not UTF-8", "save the file in UTF-8")
	}
	if bytes.HasPrefix(s.text, []byte("\xef\xbb\xbf")) {
		return nil, s.error(span{0, 0}, "", "the file begins with a byte order mark", "save it as UTF-8 without one")
	}
	var discard map[string]any
	if err := toml.Unmarshal(s.text, &discard); err != nil {
		return nil, s.syntaxError(err)
	}
	root := &node{kind: tableKind}
	current := root
	var p unstable.Parser
	p.Reset(s.text)
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table:
			current = descend(root, keys(e.Key()))
		case unstable.ArrayTable:
			current = appendTable(root, keys(e.Key()))
		case unstable.KeyValue:
			addKeyValue(s, current, e)
		}
	}
	if err := p.Error(); err != nil {
		return nil, s.syntaxError(err)
	}
	return root, nil
}

func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	i := 0
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// syntaxError puts an error of go-toml into our form.
func (s *source) syntaxError(err error) *Error {
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return s.error(span{0, 0}, "", strings.TrimPrefix(err.Error(), "toml: "), "")
	}
	row, col := de.Position()
	row = min(max(row, 1), len(s.lines))
	from := s.lines[row-1] + max(col-1, 0)
	to := from
	for to < len(s.text) && !bytes.ContainsRune([]byte(" \t\r\n=,]}#"), rune(s.text[to])) {
		to++
	}
	path := ""
	for _, k := range de.Key() {
		path = join(path, k)
	}
	text, hint := strings.TrimPrefix(de.Error(), "toml: "), ""
	for _, h := range syntaxHints {
		if strings.Contains(text, h.part) {
			hint = h.hint
			break
		}
	}
	return s.error(span{from, to}, path, text, hint)
}

// syntaxHints are cures for the mistakes that people make in TOML, by a part of
// go-toml's message.
var syntaxHints = []struct{ part, hint string }{
	{"at start of value", `a string stands in quotes: key = "value"`},
	{"escape character", "a backslash in double quotes begins an escape; write the string in single quotes"},
	{"cannot have new lines", "close the quotes on the same line"},
	{"'=' after key", `write key = "value", or [table] for a table`},
	{"is incomplete", "close it with ]"},
	{"at start of key", `a key with other characters than letters, digits, - and _ stands in quotes: "*.xml" = …`},
}

type keyPart struct {
	name string
	at   span
}

func keys(it unstable.Iterator) []keyPart {
	var parts []keyPart
	for it.Next() {
		k := it.Node()
		parts = append(parts, keyPart{string(k.Data), spanOf(k.Raw)})
	}
	return parts
}

func spanOf(r unstable.Range) span { return span{int(r.Offset), int(r.Offset + r.Length)} }

// descend finds or makes the table that a dotted key names. An array of tables
// on the way means its last one (TOML 1.0, "Array of Tables").
func descend(n *node, parts []keyPart) *node {
	for _, k := range parts {
		c := n.child(k.name)
		if c == nil {
			c = &node{kind: tableKind, key: k.name, keyAt: k.at, at: k.at}
			n.add(c)
		}
		if c.kind == arrayKind && len(c.list) > 0 {
			c = c.list[len(c.list)-1]
		}
		n = c
	}
	// The header itself is the better place to point at than the first mention.
	if last := parts[len(parts)-1]; n.kind == tableKind && n.key == last.name {
		n.keyAt, n.at = last.at, last.at
	}
	return n
}

func appendTable(root *node, parts []keyPart) *node {
	last := parts[len(parts)-1]
	parent := root
	if len(parts) > 1 {
		parent = descend(root, parts[:len(parts)-1])
	}
	list := parent.child(last.name)
	if list == nil {
		list = &node{kind: arrayKind, key: last.name, keyAt: last.at, at: last.at}
		parent.add(list)
	}
	t := &node{kind: tableKind, key: last.name, keyAt: last.at, at: last.at}
	list.list = append(list.list, t)
	return t
}

func addKeyValue(s *source, table *node, e *unstable.Node) {
	parts := keys(e.Key())
	if len(parts) > 1 {
		table = descend(table, parts[:len(parts)-1])
	}
	last := parts[len(parts)-1]
	// The syntax tree knows where a list or an inline table ends, as the end of
	// its expression, but not where it begins: just past the equals sign.
	at := span{last.at.to, int(e.Raw.Offset + e.Raw.Length)}
	for at.from < at.to && bytes.IndexByte([]byte(" \t="), s.text[at.from]) >= 0 {
		at.from++
	}
	c := value(s, e.Value(), at)
	c.key, c.keyAt = last.name, last.at
	table.add(c)
}

// value turns a value's syntax into a node. at is its place, for lists and
// inline tables, whose ends the syntax tree does not know.
func value(s *source, v *unstable.Node, at span) *node {
	if container := v.Kind == unstable.Array || v.Kind == unstable.InlineTable; v.Raw.Length > 0 && !container {
		at = spanOf(v.Raw)
	}
	n := &node{at: at, text: string(v.Data)}
	switch v.Kind {
	case unstable.String:
		n.kind = stringKind
	case unstable.Integer:
		n.kind = integerKind
	case unstable.Float:
		n.kind = floatKind
	case unstable.Bool:
		n.kind = boolKind
	case unstable.Array:
		n.kind = arrayKind
		it := v.Children()
		for it.Next() {
			n.list = append(n.list, value(s, it.Node(), at))
		}
	case unstable.InlineTable:
		n.kind = tableKind
		it := v.Children()
		for it.Next() {
			addKeyValue(s, n, it.Node())
		}
	default:
		n.kind = timeKind
	}
	return n
}

// error makes an Error at a span.
func (s *source) error(at span, path, text, hint string) *Error {
	p := s.position(at)
	return &Error{
		File: p.File, Line: p.Line, Col: p.Col, EndCol: p.EndCol,
		Path: path, Text: text, Hint: hint, line: string(s.line(p.Line)),
	}
}

// join appends a key to a path, quoted if it is not a bare key.
func join(path, key string) string {
	if !bare(key) {
		key = fmt.Sprintf("%q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func bare(key string) bool {
	return key != "" && !slices.ContainsFunc([]byte(key), func(c byte) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	})
}
