package origin

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, path, want string // want: captures as name=part, or "no"
	}{
		{"/", "/", ""}, {"/", "/a", "no"}, {"/a", "/a", ""}, {"/a", "/a/", "no"}, {"/a/", "/a", "no"},
		{"/*", "/", "splat="}, {"/*", "/a/b", "splat=a/b"}, {"/a/*", "/a/", "splat="}, {"/a/*", "/a", "splat="}, {"/a/*", "/ab", "no"}, {"/a/*", "/a/b/c", "splat=b/c"},
		{"/img-*", "/img-1.png", "splat=1.png"}, {"/img-*", "/img-", "splat="}, {"/img-*", "/im", "no"}, {"/img-*", "/img-a/b", "splat=a/b"},
		{"/:year/:slug", "/2026/hello", "year=2026 slug=hello"}, {"/:year/:slug", "/2026/", "no"}, {"/:year", "/2026/x", "no"},
		{"/:a/*", "/x/y/z", "a=x splat=y/z"}, {"/A", "/a", "no"}, {"/a//b", "/a//b", ""}, {"/a", "", "no"},
	} {
		var cap Captures
		got := "no"
		if MatchPattern(c.pattern, c.path, &cap) {
			var parts []string
			for i := range cap.n {
				parts = append(parts, cap.names[i]+"="+cap.parts[i])
			}
			got = strings.Join(parts, " ")
		}
		if got != c.want {
			t.Errorf("%s on %s: %q, want %q", c.pattern, c.path, got, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { MatchPattern("/:a/b/*", "/x/b/c/d", nil) }); n != 0 {
		t.Errorf("a match allocates %v times", n)
	}
}

// What a placeholder holds never leads to another host, and never breaks a field.
func TestExpand(t *testing.T) {
	for _, c := range []struct{ pattern, path, to, want string }{
		{"/old/*", "/old/a b/ü", "/new/:splat", "/new/a%20b/%C3%BC"},
		{"/x/*", "/x//evil.test/", "/:splat", "/evil.test/"},
		{"/x/*", "/x/\r\nSet-Cookie: a", "https://h.test/:splat", "https://h.test/%0D%0ASet-Cookie:%20a"},
		{"/:a/*", "/evil.test/", "/:splat/:a", "/evil.test"},
		{"/:a/:b", "/1/2", "/:b/:a/:c", "/2/1/:c"},
		{"/:a", "/1", "https://h.test:8443/:a", "https://h.test:8443/1"},
		{"/:ab", "/1", "/:abc/:ab", "/:abc/1"},
	} {
		var cap Captures
		if !MatchPattern(c.pattern, c.path, &cap) {
			t.Fatalf("%s does not match %s", c.pattern, c.path)
		}
		if got := cap.Expand(c.to, true); got != c.want {
			t.Errorf("%s on %s to %s: %s, want %s", c.pattern, c.path, c.to, got, c.want)
		}
	}
}

func TestParseHeaders(t *testing.T) {
	got, err := ParseHeaders("\ufeff# all\r\n/*\r\n  x-frame-options: DENY\n\n/a/:b\n\tLink: </x>; rel=preload\n\t! X-Frame-Options\n")
	want := []HeaderRule{{For: "/*", Set: []Field{{"X-Frame-Options", "DENY"}}}, {For: "/a/:b", Set: []Field{{"Link", "</x>; rel=preload"}}, Remove: []string{"X-Frame-Options"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"  X-A: 1\n":                              `_headers:1: "X-A: 1" stands before any path`,
		"/a\n  Content-Length: 5\n":               "_headers:2: field Content-Length is the server's to set",
		"/a\n  Set-Cookie: a=b\n":                 "_headers:2: field Set-Cookie is the server's to set",
		"/a\n  nonsense\n":                        `_headers:2: "nonsense" is no field`,
		"/a\n  X A: 1\n":                          `_headers:2: "X A" is no field name`,
		"/a\n  X-A: \x01\n":                       "_headers:2: the value of X-A has an octet that a field cannot carry",
		"https://h.test/*\n  X-A: 1\n":            `_headers:1: "https://h.test/*": the pattern must begin with a slash`,
		"/a\n/b\n  X-A: 1\n":                      `_headers:1: "/a" has no fields`,
		"/a*b\n  X-A: 1\n":                        `_headers:1: "/a*b": the pattern has a * that is not its last character`,
		strings.Repeat("/a\n  X-A: 1\n", 201):     "_headers:402: 201 rules, the limit is 200",
		"/a\n" + strings.Repeat("  X-A: 1\n", 51): "_headers:52: more than 50 fields for one path",
	} {
		checkRuleError(t, text, want, func() error { _, err := ParseHeaders(text); return err }())
	}
}

func checkRuleError(t *testing.T, text, want string, err error) {
	t.Helper()
	if e, ok := errors.AsType[*RuleError](err); !ok || !strings.HasPrefix(e.Error(), want) {
		t.Errorf("%.60q: %v, want %s", text, err, want)
	}
}

func TestParseRedirects(t *testing.T) {
	got, err := ParseRedirects("# moved\n/a /b\n/c https://h.test/:splat 301!  # with force\n/* /index.html 200\n")
	want := []Redirect{{"/a", "/b", 302, false}, {"/c", "https://h.test/:splat", 301, true}, {"/*", "/index.html", 200, false}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"/a\n":                           "_redirects:1: 1 words",
		"\n/a /b 301 Country=de\n":       "_redirects:2: 4 words",
		"/a /b Country=de\n":             `_redirects:1: "Country=de" is no status`,
		"/a /b 418\n":                    `_redirects:1: redirect from "/a": status 418: want 301, 302, 303, 307, 308, 200 or 404`,
		"/a //evil.test\n":               `_redirects:1: redirect from "/a": the target must begin with a slash, https:// or http://`,
		"/a javascript:x\n":              `_redirects:1: redirect from "/a": the target must begin with a slash, https:// or http://`,
		"/a https://h.test/x 200\n":      `_redirects:1: redirect from "/a": status 200 serves a file of the release: the target must begin with a slash`,
		"a /b\n":                         `_redirects:1: redirect from "a": must begin with a slash`,
		"/a /a\n":                        `_redirects:1: "/a" leads to itself`,
		strings.Repeat("/a /b\n", 2_001): "_redirects:2001: 2001 redirects, the limit is 2000",
	} {
		checkRuleError(t, text, want, func() error { _, err := ParseRedirects(text); return err }())
	}
}

// A manifest with rules that a push would refuse is refused by the control node
// and by every edge, too.
func TestManifestChecksRules(t *testing.T) {
	for name, edit := range map[string]func(*Manifest){
		"a field that is the server's": func(m *Manifest) { m.Headers = []HeaderRule{{For: "/*", Set: []Field{{"Content-Length", "1"}}}} },
		"a line break in a value":      func(m *Manifest) { m.Headers = []HeaderRule{{For: "/*", Set: []Field{{"X-A", "1\r\nX-B: 2"}}}} },
		"a redirect to a script":       func(m *Manifest) { m.Redirects = []Redirect{{From: "/a", To: "javascript:1", Status: 301}} },
		"a status that is none":        func(m *Manifest) { m.Redirects = []Redirect{{From: "/a", To: "/b", Status: 999}} },
		"a variant that is no smaller": func(m *Manifest) {
			f := m.Files["a"]
			f.Variants = []Variant{{"br", DigestOf([]byte("v")), f.Size}}
			m.Files["a"] = f
		},
		"an unknown coding": func(m *Manifest) {
			f := m.Files["a"]
			f.Variants = []Variant{{"lzma", DigestOf([]byte("v")), 1}}
			m.Files["a"] = f
		},
		"codings out of order": func(m *Manifest) {
			f := m.Files["a"]
			f.Variants = []Variant{{"gzip", DigestOf([]byte("v")), 1}, {"br", DigestOf([]byte("w")), 1}}
			m.Files["a"] = f
		},
	} {
		m := manifestOf("a", "content")
		edit(m)
		if _, _, err := m.Canonical(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzRuleFiles(f *testing.F) {
	f.Add("/*\n  X-A: 1\n! B\n", "/a/*", "/a/b/c")
	f.Add("/a /b/:splat 301!\n/* /index.html 200", "/:a/:b", "/1/2")
	f.Fuzz(func(t *testing.T, text, pattern, path string) {
		headers, err1 := ParseHeaders(text)
		redirects, err2 := ParseRedirects(text)
		m := manifestOf("a", "content")
		if err1 == nil {
			m.Headers = headers
		}
		if err2 == nil {
			m.Redirects = redirects
		}
		if _, _, err := m.Canonical(); err != nil {
			t.Fatalf("what was parsed is refused: %v", err)
		}
		var c Captures
		if MatchPattern(pattern, path, &c) {
			if to := c.Expand("/:splat", true); strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\r\n") {
				t.Fatalf("%q on %q leads to %q", pattern, path, to)
			}
		}
		for _, h := range m.Fields(path) {
			if text := fmt.Sprintf("%s: %s", h.Name, h.Value); strings.ContainsAny(text, "\r\n") {
				t.Fatalf("field %q", text)
			}
		}
	})
}
