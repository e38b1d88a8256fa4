package origin

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newStatic(t *testing.T, o StaticOptions, pairs ...string) (http.Handler, string) {
	t.Helper()
	dir := tree(t, pairs...)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return Static(root, o), dir
}

// ask sends a request line and fields as they would come over the wire.
func ask(t *testing.T, h http.Handler, head string) *http.Response {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(head, "\n", "\r\n") + "\r\nHost: x\r\n\r\n")))
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Result()
}

// staticCases are request targets, and what comes.
var staticCases = map[string]struct {
	status int
	field  string // "Name: value" of the response
}{
	"/":                         {200, "Content-Type: text/html; charset=utf-8"},
	"/index.html":               {200, "Cache-Control: public, max-age=60"},
	"/a.css":                    {200, "Content-Length: 10"},
	"/a.css?v=2":                {200, "Content-Type: text/css; charset=utf-8"},
	"/in.css":                   {200, "Content-Length: 10"},
	"/app-1a2b3c4d.js":          {200, "Cache-Control: public, max-age=31536000, immutable"},
	"/a%20b.txt":                {200, "Content-Type: text/plain; charset=utf-8"},
	"/what%3f.txt":              {200, ""},
	"/.well-known/security.txt": {200, ""},
	"/docs":                     {301, "Location: /docs/"},
	"/docs?a=%2F&b":             {301, "Location: /docs/?a=%2F&b"},
	"/docs/":                    {200, "Content-Length: 7"},
	"/empty/":                   {404, "Cache-Control: no-cache"},
	"/absent":                   {404, "Content-Type: text/plain; charset=utf-8"},
	"/a.css/":                   {404, ""},
	"/a.css/x":                  {404, ""},
	"/.env":                     {404, ""},
	"/.git/config":              {404, ""},
	"/docs/.hidden":             {404, ""},
	"/.well-known":              {301, ""},
	"/out.txt":                  {404, ""},
	"/etc/passwd":               {404, ""},
	"/etc/":                     {404, ""},
	"/up/":                      {404, ""},
	"/up/x/etc/passwd":          {404, ""},
	"/loop":                     {404, ""},
	"/pipe":                     {404, ""},
	"/../a.css":                 {404, ""},
	"/docs/../a.css":            {404, ""},
	"/docs/%2e%2e/a.css":        {404, ""},
	"/docs/..%2fa.css":          {404, ""},
	"/docs%2Fx.txt":             {404, ""},
	"/docs/..%5ca.css":          {404, ""},
	"/a.css%00":                 {404, ""},
	"//a.css":                   {404, ""},
	"//docs":                    {404, ""},
	"/docs//x.txt":              {404, ""},
	"/./a.css":                  {404, ""},
	"/" + strings.Repeat("a", MaxPathBytes+1): {404, ""},
	"/" + strings.Repeat("a/", 400) + "x":     {404, ""},
	"/%ff%fe":                                 {404, ""},
}

func TestStatic(t *testing.T) {
	h, dir := newStatic(t, StaticOptions{}, "index.html", "<p>root", "a.css", "0123456789", "docs/index.html", "<p>docs", "docs/x.txt", "x",
		"empty/keep.txt", "", ".env", "secret", ".git/config", "x", "docs/.hidden", "x", ".well-known/security.txt", "sec",
		"app-1a2b3c4d.js", "js", "a b.txt", "space", "what?.txt", "q")
	for _, spoil := range []error{
		os.Symlink("/etc/passwd", dir+"/out.txt"), os.Symlink("/etc", dir+"/etc"), os.Symlink("a.css", dir+"/in.css"),
		os.Symlink("..", dir+"/up"), os.Symlink("loop", dir+"/loop"), syscall.Mkfifo(dir+"/pipe", 0o600),
	} {
		if spoil != nil {
			t.Fatal(spoil)
		}
	}
	for target, want := range staticCases {
		for _, method := range []string{"GET", "HEAD"} {
			resp := ask(t, h, method+" "+target+" HTTP/1.1")
			if resp.StatusCode != want.status {
				t.Errorf("%s %.60s: status %d, want %d", method, target, resp.StatusCode, want.status)
			}
			name, value, _ := strings.Cut(want.field, ": ")
			if got := resp.Header.Get(name); got != value {
				t.Errorf("%s %.60s: %s: %q, want %q", method, target, name, got, value)
			}
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %.60s: no nosniff", method, target)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
		if resp := ask(t, h, method+" /a.css HTTP/1.1"); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d, Allow %q", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
}

func TestStaticConditionsAndRanges(t *testing.T) {
	h, _ := newStatic(t, StaticOptions{CacheControl: map[string]string{Asset: "public, max-age=5"}}, "a.css", "0123456789")
	first := ask(t, h, "GET /a.css HTTP/1.1")
	tag, modified := first.Header.Get("ETag"), first.Header.Get("Last-Modified")
	if len(tag) != 2*etagBytes+2 || tag[0] != '"' || modified == "" || first.Header.Get("Cache-Control") != "public, max-age=5" {
		t.Fatalf("fields %v", first.Header)
	}
	for fields, want := range map[string]int{
		"If-None-Match: " + tag:                                   304,
		"If-None-Match: W/" + tag:                                 304,
		`If-None-Match: "other"`:                                  200,
		"If-Modified-Since: " + modified:                          304,
		`If-None-Match: "o"` + "\nIf-Modified-Since: " + modified: 200, // RFC 9110 §13.2.2
		"If-Match: " + tag:                                        200,
		`If-Match: "other"`:                                       412,
		"Range: bytes=2-4":                                        206,
		"Range: bytes=2-4\nIf-Range: " + tag:                      206,
		"Range: bytes=2-4\nIf-Range: \"other\"":                   200,
		"Range: bytes=10-":                                        416,
	} {
		resp := ask(t, h, "GET /a.css HTTP/1.1\n"+fields)
		if resp.StatusCode != want {
			t.Errorf("%q: status %d, want %d", fields, resp.StatusCode, want)
		}
		if want == 304 && (resp.Header.Get("ETag") != tag || resp.Header.Get("Cache-Control") == "") {
			t.Errorf("%q: a 304 without ETag or Cache-Control: %v", fields, resp.Header)
		}
		if want == 206 && resp.Header.Get("Content-Range") != "bytes 2-4/10" {
			t.Errorf("%q: %v", fields, resp.Header)
		}
	}
}

// The ETag follows the content, also when size and time stay.
func TestStaticETagFollowsContent(t *testing.T) {
	h, dir := newStatic(t, StaticOptions{}, "a.txt", "one", "b.txt", "one")
	name := filepath.Join(dir, "a.txt")
	tag := func() string { return ask(t, h, "GET /a.txt HTTP/1.1").Header.Get("ETag") }
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	one := tag()
	if one != tag() || one != ask(t, h, "GET /b.txt HTTP/1.1").Header.Get("ETag") {
		t.Error("equal content has different ETags")
	}
	// A new file renamed over, of the same size and time.
	if err := os.WriteFile(name+".new", []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name+".new", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	two := tag()
	if two == one {
		t.Error("the ETag of other content is the same")
	}
	// Rewritten in place just now, twice within a tick of the clock.
	for _, content := range []string{"abc", "abd", "abe"} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		now := time.Now().Truncate(time.Second)
		if err := os.Chtimes(name, now, now); err != nil {
			t.Fatal(err)
		}
		next := tag()
		if next == two {
			t.Errorf("the ETag of %q is that of what was before", content)
		}
		two = next
	}
}
