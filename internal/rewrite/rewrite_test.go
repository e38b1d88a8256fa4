package rewrite

import (
	"strings"
	"testing"
)

func TestParseBase(t *testing.T) {
	for text, want := range map[string]string{
		"/": "", "https://cdn.test": "https://cdn.test", "https://CDN.test/": "https://cdn.test", "http://127.0.0.1:8080": "http://127.0.0.1:8080",
		"https://cdn.test/www/": "https://cdn.test/www", "https://[::1]:8443": "https://[::1]:8443", "https://cdn.test/a b": "https://cdn.test/a%20b",
	} {
		if b, err := ParseBase(text); err != nil || b.prefix != want {
			t.Errorf("%q: %q, %v", text, b.prefix, err)
		}
	}
	for _, bad := range []string{
		"", "cdn.test", "//cdn.test", "ftp://cdn.test", "https://", "https://a@cdn.test", "https://cdn.test?", "https://cdn.test/?a", "https://cdn.test#", "https://c\u00e4n.test",
		"https://cdn.test\"x", "/www", "https://cdn_x.test", "https://cdn.test\n",
	} {
		if b, err := ParseBase(bad); err == nil {
			t.Errorf("%q is %q", bad, b.prefix)
		}
	}
}

// URL Standard §4.4, for the references of a page at docs/api/.
func TestResolve(t *testing.T) {
	p := placeOf("docs/api/index.html")
	for ref, want := range map[string]string{
		"a.png": "docs/api/a.png", "/a.png": "a.png", "../a.png": "docs/a.png", "../../../a.png": "a.png", "./a.png": "docs/api/a.png", "/": "", ".": "docs/api/",
		"..": "docs/", "a/": "docs/api/a/", "a/..": "docs/api/", "%2E%2e/a": "docs/a", "a%20b": "docs/api/a b", "100%.png": "docs/api/100%.png",
		"a%2Fb": "docs/api/a%2Fb", `..\a`: "docs/a", " a.png\n": "docs/api/a.png", "a\n.png": "docs/api/a.png", "a.png?x=/b#c": "docs/api/a.png", "a:b/c": "-",
		"./a:b": "docs/api/a:b", "": "-", "#a": "-", "?a": "-", "//host/a": "-", `\\host\a`: "-", "https://host/a": "-", "data:,x": "-", "java\nscript:x": "-", " ": "-",
		"1a:b": "docs/api/1a:b", "a//b": "docs/api/a//b", "caf\u00e9": "docs/api/caf\u00e9", "caf%C3%A9": "docs/api/caf\u00e9", "/..": "", "/../a": "a",
	} {
		got, ok := p.resolve(ref)
		if !ok {
			got.path = "-"
		}
		if got.path != want {
			t.Errorf("%q: %q, want %q", ref, got.path, want)
		}
		if ok && strings.ContainsAny(ref[got.from:got.to], "?#") {
			t.Errorf("%q: the path is %q", ref, ref[got.from:got.to])
		}
	}
}

// HTML Standard §13.2.5.72: character references in attribute values.
func TestAttribute(t *testing.T) {
	for raw, want := range map[string]string{
		"a&amp;b": "a&b", "a&ampb": "a&ampb", "a&amp=b": "a&amp=b", "a&amp": "a&", "a&amp ": "a& ", "&notit;": "&notit;", "&notin;": "\u2209", "&copy=1": "&copy=1", "&copy": "\u00a9",
		"&#65;": "A", "&#x41": "A", "&#X41;z": "Az", "&#x41g": "Ag", "&#": "&#", "&#;": "&#;", "&#x;": "&#x;", "&": "&", "&;": "&;", "&nosuch;": "&nosuch;", "&#0;": "\uFFFD",
		"&#99999999999;": "\uFFFD", "&#x110000;": "\uFFFD", "&#128;": "\u20ac", "&sol;": "/", "&semi;": ";", "&lt;&gt;": "<>", "&NotEqualTilde;": "\u2242\u0338",
	} {
		v := attribute([]byte("x"+raw+"y"), 1, 1+len(raw))
		if v.text != want {
			t.Errorf("%q: %q, want %q", raw, v.text, want)
		}
		if v.raw(0) != 1 || v.raw(len(v.text)) != 1+len(raw) {
			t.Errorf("%q: from %d to %d", raw, v.raw(0), v.raw(len(v.text)))
		}
	}
}

// A name by content has a letter and a digit in it, whatever the digest.
func TestNameOf(t *testing.T) {
	var digits, letters [32]byte
	for i := range digits {
		digits[i], letters[i] = 0x11, 0xaa
	}
	digits[31], letters[7] = 0x1a, 0xa1
	for want, got := range map[string]string{
		"a/b-111111111111111111111111111111111111111111111111111111111111111a.js": NameOf("a/b.js", digits),
		"b.min-aaaaaaaaaaaaaaa1.css": NameOf("b.min.css", letters),
		"a.b/c-aaaaaaaaaaaaaaa1":     NameOf("a.b/c", letters),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A fault deep in one long line shows the place, and moves nobody's cursor.
func TestFaultInALongLine(t *testing.T) {
	src := "<p>\u00e9\x1b[2J" + strings.Repeat("\u00e9", 5000) + `<img src="none.png">` + strings.Repeat("x", 5000)
	res := Page("a.html", "a.html", []byte(src), cdn, &nowhere{})
	if len(res.Faults) != 1 {
		t.Fatalf("%d faults", len(res.Faults))
	}
	f := res.Faults[0]
	if f.Line != 1 || f.Col != 5019 {
		t.Errorf("%d:%d", f.Line, f.Col)
	}
	lines := strings.Split(f.Render(), "\n")
	if i := strings.Index(lines[2], "^"); i < 0 || len(lines[1]) > 300 || !strings.HasPrefix(string([]rune(lines[1])[i:]), "none.png") || strings.Count(lines[2], "^") != len("none.png") {
		t.Errorf("%s", f.Render())
	}
	many := Page("a.html", "a.html", []byte(strings.Repeat(`<img src=none>`, 100)), cdn, &nowhere{})
	if len(many.Faults) != maxFaults || many.More != 100-maxFaults {
		t.Errorf("%d faults and %d more", len(many.Faults), many.More)
	}
}

// nowhere is a site that has nothing.
type nowhere struct{ everywhere }

func (nowhere) Find(string) File { return File{} }

// A page that browsers would read as UTF-16 is not passed over in silence.
func TestUTF16(t *testing.T) {
	res := Page("a.html", "a.html", []byte("\xff\xfe<\x00p\x00>\x00"), cdn, &everywhere{})
	if len(res.Faults) != 1 || !strings.Contains(res.Faults[0].Text, "UTF-16") {
		t.Errorf("%+v", res.Faults)
	}
}
