package rewrite

import (
	"encoding/hex"
	"net/url"
	"path"
	"strings"
	"unicode"
)

// place is from where relative references count.
type place struct {
	dir  string // "" or "docs/api/"
	away bool   // another host (<base href="https://…">): no reference is ours
}

// placeOf is where the references of a file count from.
func placeOf(file string) place { return place{dir: file[:strings.LastIndexByte(file, '/')+1]} }

// reference is one that leads to a path of the site.
type reference struct {
	path     string // decoded, without its leading slash
	from, to int    // where in the text the path stands; behind it are query and fragment
	rooted   bool   // it was written with a leading slash
}

// resolve reads a reference as the URL Standard does for a page of a web site.
// ok is false when it leads to another host or is of another scheme, or when it
// is empty, or has only a query or a fragment: the page itself.
func (p place) resolve(text string) (ref reference, ok bool) {
	ref.from, ref.to = 0, len(text)
	for ref.from < ref.to && text[ref.from] <= ' ' {
		ref.from++
	}
	for ref.to > ref.from && text[ref.to-1] <= ' ' {
		ref.to--
	}
	if i := strings.IndexAny(text[ref.from:ref.to], "?#"); i >= 0 {
		ref.to = ref.from + i
	}
	raw := text[ref.from:ref.to]
	if strings.ContainsAny(raw, "\t\n\r") { // the standard takes them out
		raw = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(raw)
	}
	if raw == "" || p.away || hasScheme(raw) {
		return ref, false
	}
	raw = strings.ReplaceAll(raw, `\`, "/")
	if strings.HasPrefix(raw, "//") {
		return ref, false
	}
	if ref.rooted = raw[0] == '/'; ref.rooted {
		ref.path = clean("", raw[1:])
	} else {
		ref.path = clean(p.dir, raw)
	}
	return ref, true
}

// move is the place after a <base href>.
func (p place) move(href string) place {
	ref, ok := p.resolve(href)
	switch raw := strings.TrimSpace(href); {
	case ok:
		return place{dir: ref.path[:strings.LastIndexByte(ref.path, '/')+1]}
	case raw == "" || raw[0] == '#' || raw[0] == '?':
		return p
	}
	return place{away: true}
}

// hasScheme reports whether s begins with a scheme (RFC 3986 §3.1).
func hasScheme(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case letter(c):
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return i > 0 && c == ':'
		}
	}
	return false
}

// clean takes dot segments out of dir, which has none and is decoded, and raw,
// and decodes raw. What cannot be decoded stays: no file is called so.
func clean(dir, raw string) string {
	var out []string
	if dir != "" {
		out = strings.Split(strings.TrimSuffix(dir, "/"), "/")
	}
	parts := strings.Split(raw, "/")
	for i, part := range parts {
		last := i == len(parts)-1
		switch dots := strings.ReplaceAll(strings.ToLower(part), "%2e", "."); {
		case dots == "." && !last:
		case dots == "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		case dots == ".":
			out = append(out, "")
		default:
			if decoded, err := url.PathUnescape(part); err == nil && !strings.ContainsAny(decoded, `/\`) {
				part = decoded
			}
			out = append(out, part)
		}
	}
	return strings.Join(out, "/")
}

// escape writes a path so that it can stand in a URL in HTML, in srcset, and in
// CSS with and without quotes.
func escape(p string) string {
	var b strings.Builder
	for i := range len(p) {
		if c := p[i]; plain(rune(c)) || strings.IndexByte("/_~@+:", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}

func plain(r rune) bool {
	return r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// nameDigits is how many hex digits a name by content has: 48 bits are the same
// for two contents of one path never, and the push would be refused.
const nameDigits = 12

// NameOf is a path with a fingerprint of its content before the extension. The
// fingerprint has a letter and a digit, by which such names are known.
func NameOf(p string, sum [32]byte) string {
	digits, n := hex.EncodeToString(sum[:]), nameDigits
	for n < len(digits) && (!strings.ContainsAny(digits[:n], "0123456789") || !strings.ContainsAny(digits[:n], "abcdef")) {
		n++
	}
	ext := path.Ext(p)
	return strings.TrimSuffix(p, ext) + "-" + digits[:n] + ext
}

// shownPath is a path in a message.
func shownPath(p string) string { return "/" + printable(p) }

// printable has no character that moves a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}
