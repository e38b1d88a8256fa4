package control

import (
	"bytes"
	"strings"
)

// decodePurges reads the body of a purges entry as control nodes write it, when no
// string in it needs unquoting: a node reads a thousand of them in one entry. Anything
// else is not ok, and for the JSON decoder.
func decodePurges(b []byte) (*Purges, bool) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"purges":[`))
	if !ok {
		return nil, false
	}
	out := &Purges{Purges: make([]Purge, 0, min(bytes.Count(b, []byte(`{"site":`)), maxShared))}
	for len(out.Purges) < maxShared {
		var p Purge
		if rest, ok = p.decode(rest); !ok {
			return nil, false
		}
		out.Purges = append(out.Purges, p)
		if string(rest) == "]}" {
			return out, true
		}
		if rest, ok = bytes.CutPrefix(rest, []byte(",")); !ok {
			return nil, false
		}
	}
	return nil, false
}

// decode takes one purge off b.
func (p *Purge) decode(b []byte) (rest []byte, ok bool) {
	text := func(name string, to *string) bool {
		if !ok {
			return false
		}
		after, found := bytes.CutPrefix(rest, []byte(name))
		if !found {
			return false
		}
		value, after, found := bytes.Cut(after, []byte(`"`))
		for _, c := range value {
			found = found && c >= ' ' && c < 0x7f && c != '\\'
		}
		*to, rest, ok = string(value), after, found
		return true
	}
	yes := func(name string, to *bool) {
		after, found := bytes.CutPrefix(rest, []byte(name))
		*to, rest = found, after
	}
	rest, ok = b, true
	if !text(`{"site":"`, &p.Site) {
		return b, false
	}
	text(`,"url":"`, &p.URL)
	text(`,"prefix":"`, &p.Prefix)
	text(`,"tag":"`, &p.Tag)
	yes(`,"all":true`, &p.All)
	yes(`,"soft":true`, &p.Soft)
	rest, end := bytes.CutPrefix(rest, []byte("}"))
	return rest, ok && end
}

// plainURL reports a URL that is in normal form at a glance, as nearly all are: a name
// in lower case, no port, and a path of letters, digits and -._~ whose segments begin
// with no dot. Of others NormalURL knows.
func plainURL(s string) bool {
	rest, ok := strings.CutPrefix(s, "http://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "https://")
	}
	slash := strings.IndexByte(rest, '/')
	if !ok || slash < 0 || len(s) > maxURLBytes || !isHost(rest[:slash]) || strings.Contains(rest[:slash], ":") {
		return false
	}
	path := rest[slash:]
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '/', c == '-', c == '_', c == '~':
		case c == '.' && path[i-1] != '/':
		default:
			return false
		}
	}
	return true
}
