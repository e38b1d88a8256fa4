package rewrite

import (
	"bytes"
	"strings"
)

// scanner finds the tags of a page as browsers' tokenizers do (HTML Standard
// §13.2.5), and passes over text, comments, and what is in scripts and the like.
// What is in <noscript> and <template> counts as markup: somebody may see it.
type scanner struct {
	src []byte
	xml bool // XHTML: nothing in it is raw, and <script/> is whole
	pos int

	tag     tag
	name    []byte   // of the tag, kept for the next
	foreign []string // <svg> and <math> that are open, and what in them is HTML again
}

// tag is one start tag. Its parts are valid until the next one.
type tag struct {
	name     string // in lower case
	from, to int    // from "<" to behind ">"
	attrs    []attr
	whole    bool // it ends in "/>"
	foreign  bool // of SVG or MathML

	bodyFrom, bodyTo int // what is in a raw element: a script, a style
}

// attr is one attribute.
type attr struct {
	name     []byte // as written
	end      int    // behind all of it
	from, to int    // its value, without quotes
	valued   bool   // it has a "="
	quoted   bool
}

// get is the first attribute of a name, the one that counts.
func (t *tag) get(name string) *attr {
	for i := range t.attrs {
		if len(t.attrs[i].name) == len(name) && strings.EqualFold(string(t.attrs[i].name), name) {
			return &t.attrs[i]
		}
	}
	return nil
}

// next finds the next start tag.
func (s *scanner) next() bool {
	for {
		i := bytes.IndexByte(s.src[s.pos:], '<')
		if i < 0 || s.pos+i+1 >= len(s.src) {
			s.pos = len(s.src)
			return false
		}
		at := s.pos + i
		switch c := s.src[at+1]; {
		case letter(c):
			if !s.readTag(at, at+1) {
				s.pos = len(s.src) // a tag without its end is none
				return false
			}
			s.opened()
			return true
		case c == '/' && at+2 < len(s.src) && letter(s.src[at+2]):
			if !s.readTag(at, at+2) {
				s.pos = len(s.src)
				return false
			}
			s.closed()
		case c == '/' || c == '?' || c == '!':
			s.pos = s.declaration(at)
		default:
			s.pos = at + 1
		}
	}
}

// declaration passes over what begins with "<!", "<?" or a broken "</".
func (s *scanner) declaration(at int) int {
	rest := s.src[at:]
	switch {
	case bytes.HasPrefix(rest, []byte("<!--")):
		return at + comment(rest, s.xml)
	case (s.xml || len(s.foreign) > 0 && s.foreign[len(s.foreign)-1] != "") && bytes.HasPrefix(rest, []byte("<![CDATA[")):
		return s.behind(at, "]]>")
	case s.xml && rest[1] == '?':
		return s.behind(at, "?>")
	case s.xml && bytes.HasPrefix(rest, []byte("<!DOCTYPE")):
		if end := bytes.IndexByte(rest, '>'); end >= 0 {
			if i := bytes.IndexByte(rest[:end], '['); i >= 0 { // it declares something
				return s.behind(at, "]>")
			}
		}
	}
	return s.behind(at, ">")
}

func (s *scanner) behind(at int, end string) int {
	if i := bytes.Index(s.src[at:], []byte(end)); i >= 0 {
		return at + i + len(end)
	}
	return len(s.src)
}

// comment is the length of the comment that b begins with.
func comment(b []byte, xml bool) int {
	if !xml {
		for _, short := range []string{"<!-->", "<!--->"} {
			if bytes.HasPrefix(b, []byte(short)) {
				return len(short)
			}
		}
	}
	for i := len("<!--"); i < len(b); i++ {
		j := bytes.Index(b[i:], []byte("--"))
		if j < 0 {
			return len(b)
		}
		i += j
		if rest := b[i+2:]; bytes.HasPrefix(rest, []byte(">")) {
			return i + 3
		} else if !xml && bytes.HasPrefix(rest, []byte("!>")) {
			return i + 4
		}
	}
	return len(b)
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r' }

// readTag reads the tag whose name begins at name; false when it has no end.
func (s *scanner) readTag(at, name int) bool {
	b, i := s.src, name
	for i < len(b) && !space(b[i]) && b[i] != '/' && b[i] != '>' {
		i++
	}
	s.name = append(s.name[:0], b[name:i]...)
	for j, c := range s.name {
		if 'A' <= c && c <= 'Z' {
			s.name[j] = c | 0x20
		}
	}
	t := &s.tag
	*t = tag{name: known(s.name), from: at, attrs: t.attrs[:0]}
	for {
		for i < len(b) && (space(b[i]) || b[i] == '/') {
			i++
		}
		if i >= len(b) {
			return false
		}
		if b[i] == '>' {
			t.whole = b[i-1] == '/'
			t.to, s.pos = i+1, i+1
			if n := len(t.attrs); t.whole && n > 0 && t.attrs[n-1].end == i {
				t.whole = false // the slash is the end of a value
			}
			return true
		}
		if i = s.readAttr(i); i < 0 {
			return false
		}
	}
}

// readAttr reads the attribute that begins at i and returns where it ends, -1
// when the file ends before.
func (s *scanner) readAttr(i int) int {
	b, from := s.src, i
	for i++; i < len(b) && !space(b[i]) && b[i] != '/' && b[i] != '>' && b[i] != '='; i++ {
	}
	a := attr{name: b[from:i], end: i, from: i, to: i}
	j := i
	for j < len(b) && space(b[j]) {
		j++
	}
	if j >= len(b) {
		return -1
	}
	if b[j] != '=' {
		s.tag.attrs = append(s.tag.attrs, a)
		return i
	}
	for j++; j < len(b) && space(b[j]); j++ {
	}
	if j >= len(b) {
		return -1
	}
	a.valued = true
	switch quote := b[j]; quote {
	case '"', '\'':
		n := bytes.IndexByte(b[j+1:], quote)
		if n < 0 {
			return -1
		}
		a.quoted, a.from, a.to, a.end = true, j+1, j+1+n, j+n+2
	default:
		a.from = j
		for j < len(b) && !space(b[j]) && b[j] != '>' {
			j++
		}
		a.to, a.end = j, j
	}
	s.tag.attrs = append(s.tag.attrs, a)
	return a.end
}

// known returns a name without allocating those that matter here.
func known(name []byte) string {
	if s, ok := knownNames[string(name)]; ok {
		return s
	}
	return ""
}

// knownNames are the elements that mean something to the scanner or the rewriter.
var knownNames = func() map[string]string {
	m := map[string]string{}
	for name := range strings.SplitSeq(rawNames+" "+breakouts+" "+
		"base img source video audio track input script link meta object embed image feimage use td th tr style svg math foreignobject desc title", " ") {
		m[name] = name
	}
	return m
}()

const (
	// rawNames are the elements whose content has no tags (HTML Standard §13.2.6).
	rawNames = "script style textarea title xmp iframe noembed noframes plaintext"
	// breakouts end SVG and MathML that was left open (§13.2.6.5).
	breakouts = "b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing menu meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul var"
)

var rawElement, breakout = set(rawNames), set(breakouts)

func set(names string) map[string]bool {
	m := map[string]bool{}
	for name := range strings.SplitSeq(names, " ") {
		m[name] = true
	}
	return m
}

// maxForeign bounds the nesting of SVG and MathML that is followed.
const maxForeign = 64

// opened notes what a start tag changes for what follows.
func (s *scanner) opened() {
	t := &s.tag
	inside := len(s.foreign) > 0 && s.foreign[len(s.foreign)-1] != ""
	if inside && breakout[t.name] {
		s.foreign, inside = s.foreign[:0], false
	}
	switch {
	case t.name == "svg" || t.name == "math":
		if t.foreign = true; !t.whole && len(s.foreign) < maxForeign {
			s.foreign = append(s.foreign, t.name)
		}
	case inside && (t.name == "foreignobject" || t.name == "desc"):
		if !t.whole && len(s.foreign) < maxForeign {
			s.foreign = append(s.foreign, "")
		}
	default:
		t.foreign = inside
	}
	if rawElement[t.name] && !(t.whole && (s.xml || inside)) && (!s.xml || t.name == "style") {
		t.bodyFrom, t.bodyTo = s.pos, s.rawEnd(t.name)
		if !s.xml {
			s.pos = t.bodyTo
		}
	}
}

// closed notes what an end tag changes.
func (s *scanner) closed() {
	name := s.tag.name
	if name == "foreignobject" || name == "desc" {
		name = ""
	} else if name != "svg" && name != "math" {
		return
	}
	for i := len(s.foreign) - 1; i >= 0; i-- {
		if s.foreign[i] == name {
			s.foreign = s.foreign[:i]
			return
		}
	}
}

// rawEnd is where the content of a raw element ends: before its end tag.
func (s *scanner) rawEnd(name string) int {
	if name == "plaintext" {
		return len(s.src)
	}
	// A script in a comment in a script does not end it (§13.2.5.20 and on).
	escaped, nested := false, false
	for i := s.pos; i < len(s.src); i++ {
		j := bytes.IndexAny(s.src[i:], "<-")
		if j < 0 {
			break
		}
		i += j
		rest := s.src[i:]
		switch {
		case s.src[i] == '-':
			if escaped && bytes.HasPrefix(rest, []byte("-->")) {
				escaped, nested = false, false
			}
		case closes(rest, name):
			if !nested {
				return i
			}
			nested = false
		case name != "script":
		case !escaped && bytes.HasPrefix(rest, []byte("<!--")):
			escaped = true
			i++ // the dashes may be those of "-->", too
		case escaped && !nested && opens(rest, name):
			nested = true
		}
	}
	return len(s.src)
}

// closes reports whether b begins with the end tag of a name.
func closes(b []byte, name string) bool { return len(b) > 1 && b[1] == '/' && named(b[2:], name) }

// opens reports whether b begins with the start tag of a name.
func opens(b []byte, name string) bool { return named(b[1:], name) }

func named(b []byte, name string) bool {
	return len(b) > len(name) && strings.EqualFold(string(b[:len(name)]), name) && (space(b[len(name)]) || b[len(name)] == '/' || b[len(name)] == '>')
}
