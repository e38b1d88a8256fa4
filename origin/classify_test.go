package origin

import (
	"path"
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	for name, want := range map[string]string{
		// The counterexamples of the rule.
		"app-bootstrap5.css":        Asset,
		"photo-20240101.jpg":        Asset,
		"img/Photo2024.jpg":         Asset,
		"My-Photo2024.jpg":          Asset,
		"Report.ReleaseNotes12.pdf": Asset,
		"My-Final-Draft3.pdf":       Asset,
		"deadbeef.css":              Asset, // no stem
		"1a2b3c4d.css":              Asset, // no stem
		"-1a2b3c4d.css":             Asset, // no stem
		"app-deadbeef.css":          Asset, // no digit
		"app-12345678.css":          Asset, // no letter
		"app-1a2b3c4.css":           Asset, // 7 digits
		"app1a2b3c4d.css":           Asset, // no separator
		"app-4QXK2BGE.js":           Asset, // no lower case
		"app-1a2b3c4d":              Asset, // no extension
		"0.A_a00000.":               Asset, // nor here
		"app-1a2b3c4d.min.js":       Asset, // not the last part
		"a-1a2b3c4d/app.js":         Asset, // not in the file's name

		"app-1a2b3c4d.css":                 Immutable,
		"app.1a2b3c4d.css":                 Immutable,
		"app_1A2B3C4D.css":                 Immutable,
		"a/b/main.0123456789abcdef0123.js": Immutable,
		"assets/index-DiwrgTd4.js":         Immutable,
		"assets/index-B_x-9aQz.js":         Immutable, // base64url, inner separators
		"chunk.aZ09aZ09aZ.woff2":           Immutable,
		"data-1a2b3c4d.json":               Immutable,

		"index.html": Document, "a/page-1a2b3c4d.html": Document, "INDEX.HTM": Document,
		"data.json": Document, "app.webmanifest": Document,
		"sw.js": Document, "js/service-worker.js": Document, "firebase-messaging-sw.js": Document, "ngsw-worker.js": Document,
		"app.js": Asset, "style.css": Asset, "robots.txt": Asset, "LICENSE": Asset, "a.b/": Asset,
	} {
		if got := Classify(name); got != want {
			t.Errorf("Classify(%q) = %s, want %s", name, got, want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, name := range []string{"app-1a2b3c4d.css", "index.html", "", "/", "a.", "-.", "x-B_x-9aQz.js"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		class := Classify(name)
		if class != Immutable && class != Document && class != Asset {
			t.Fatalf("Classify(%q) = %q", name, class)
		}
		base := path.Base(name)
		if class == Immutable && (len(base) < len("a-12345678.x") || !strings.ContainsAny(base, "0123456789") || strings.HasSuffix(strings.ToLower(base), ".html")) {
			t.Errorf("Classify(%q) = %s", name, class)
		}
		if got := Classify("some/where/" + base); base != "." && base != "/" && got != class {
			t.Errorf("Classify(%q) = %s, but %s in a folder", name, class, got)
		}
	})
}

func TestTypeOf(t *testing.T) {
	for name, want := range map[string]string{
		"a.html": "text/html; charset=utf-8", "A.CSS": "text/css; charset=utf-8", "x/y.js": "text/javascript; charset=utf-8",
		"a.json": "application/json", "a.svg": "image/svg+xml; charset=utf-8", "a.jpeg": "image/jpeg", "a": DefaultType, "a.unknown": DefaultType, "a.tar.gz": "application/gzip",
	} {
		if got := TypeOf(name); got != want {
			t.Errorf("TypeOf(%q) = %q, want %q", name, got, want)
		}
	}
	for ext, typ := range typeByExt {
		if ext != strings.ToLower(ext) || ext[0] != '.' || !validType(typ) {
			t.Errorf("table: %q: %q", ext, typ)
		}
		if strings.HasPrefix(typ, "text/") && !strings.HasSuffix(typ, "; charset=utf-8") {
			t.Errorf("table: %q is text without charset", ext)
		}
	}
}
