package rewrite

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// everywhere is a site that has every path.
type everywhere struct{ asked int }

func (e *everywhere) Find(path string) File {
	e.asked++
	sum := sha256.Sum256([]byte(path))
	return File{State: Named, Path: path, Name: NameOf(path, sum), Sum: sum}
}

func (e *everywhere) Sum(path, algorithm string) ([]byte, error) {
	switch algorithm {
	case "sha384":
		sum := sha512.Sum384([]byte(path))
		return sum[:], nil
	case "sha512":
		sum := sha512.Sum512([]byte(path))
		return sum[:], nil
	}
	sum := sha256.Sum256([]byte(path))
	return sum[:], nil
}

// settled is a site where every path is one by content.
type settled struct{ everywhere }

func (*settled) Find(path string) File {
	return File{State: Named, Path: path, Name: path, Sum: sha256.Sum256([]byte(path))}
}

var cdn = Base{"https://cdn.test/x"}

// mayChange are the attributes that a page's rewriting may change or add.
var mayChange = []string{"src", "srcset", "imagesrcset", "href", "xlink:href", "poster", "background", "content", "style", "integrity", "crossorigin"}

// tokens are a page's tokens as golang.org/x/net/html reads them, without what
// may change.
func tokens(src []byte) (list []string) {
	z := html.NewTokenizer(bytes.NewReader(src))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return list
		}
		tok := z.Token()
		if tok.Data == "noscript" && kind == html.StartTagToken {
			z.NextIsNotRawText()
		}
		text := tok.Data
		if kind == html.TextToken && len(list) > 0 && (list[len(list)-1] == "StartTag style" || strings.HasPrefix(list[len(list)-1], "StartTag style ")) {
			text = "" // a style sheet: FuzzSheet is for those
		}
		for _, a := range tok.Attr {
			if !slices.Contains(mayChange, a.Key) {
				text += fmt.Sprintf(" %s=%q", a.Key, a.Val)
			}
		}
		list = append(list, kind.String()+" "+text)
	}
}

// What is no reference stays byte for byte; the page has the same tokens, but for
// the attributes that hold references; and a second time there is nothing to do.
func FuzzPage(f *testing.F) {
	for _, seed := range []string{
		`<img src="a.png" alt="x">`, `<IMG SRC=a.png/><p>`, `<script src='a.js' integrity=""></script>`, `<link rel=stylesheet href=a.css crossorigin>`,
		`<style>b{background:url(a.png)}</style>`, `<p style="background:url(&quot;a.png&quot;)">`, `<img srcset="a.png 1x, b.png 2x">`,
		`<script><!-- <script> </script> --></script><img src=a>`, `<!-- x --!><img src=a>`, `<!--><img src=a>`, `<title></title ><img src=a>`,
		`<svg><style/><use href="a.svg#b"/></svg>`, `<noscript><img src="a"></noscript>`, `<base href="/x/"><img src="a">`, `</p src="a>"><img src="a"`,
		`<img src="&#x61;&amp;&notit;&copy=1">`, `<textarea><img src=a></textarea>`, `<img src=a src=b>`, "<img\fsrc\n=\r'a\tb'>", `<plaintext><img src=a>`,
		`<link integrity rel="stylesheet" href="a.css"><script integrity= src=a></script>`, `<img =src=a / src = a>`, `<meta property=og:image content=a>`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		in := bytes.Clone(src)
		res := Page("page", "d/page.html", src, cdn, &everywhere{})
		if !bytes.Equal(in, src) {
			t.Fatal("the source was written to")
		}
		for _, fault := range res.Faults {
			if fault.Line < 1 || fault.Col < 1 || strings.Count(fault.Render(), "\n") < 3 {
				t.Errorf("fault %+v", fault)
			}
		}
		again := Page("page", "d/page.html", res.Out, cdn, &settled{})
		if !bytes.Equal(again.Out, res.Out) {
			t.Errorf("%q became %q, and that %q", src, res.Out, again.Out)
		}
		lower := bytes.ToLower(src)
		// The oracle does not know where it is in SVG.
		if bytes.Contains(lower, []byte("<svg")) || bytes.Contains(lower, []byte("<math")) {
			return
		}
		before := tokens(src)
		after := tokens(res.Out)
		if !slices.Equal(before, after) {
			t.Errorf("%q\nbecame %q\ntokens %q\nbecame %q", src, res.Out, before, after)
		}
	})
}

// Nothing but references changes, and a second time there is nothing to do.
func FuzzSheet(f *testing.F) {
	for _, seed := range []string{
		`@import "a.css";b{background:url(a.png)}`, `b{c:url( 'a.png' )}`, `@import url(a.css)screen;`, `b{c:image-set("a.png" 1x, "b.png" 2x type("x"))}`,
		`/* url(a.png) */ b{content:"url(a.png)"}`, `b{c:u\72l(a.png);d:url(a\.png)}`, `@namespace x url(a.png);`, "b{c:url(a b.png);d:'\n;e:url(a.png)}",
		`b{c:10url(a.png);d:#url(a.png);e:url(a.png`, `@media x{@import "a.css";}`, `b{c:src("a.png");d:src(a.png)}`, `b{c:url("a\
.png")}`, `b{c:url(a.png"b)}`, `\`, `url(\`, `"\`, `@`, `-\`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		in := bytes.Clone(src)
		site := &everywhere{}
		res := Sheet("sheet", "d/sheet.css", src, cdn, site)
		if !bytes.Equal(in, src) {
			t.Fatal("the source was written to")
		}
		again := Sheet("sheet", "d/sheet.css", res.Out, cdn, &settled{})
		if !bytes.Equal(again.Out, res.Out) {
			t.Errorf("%q became %q, and that %q", src, res.Out, again.Out)
		}
		if !bytes.Contains(src, []byte(cdn.prefix)) && site.asked == res.References {
			checkEdits(t, src, res.Out, res.References)
		}
	})
}

// checkEdits finds the addresses in out, and that what stands between them
// stands in src in the same order.
func checkEdits(t *testing.T, src, out []byte, references int) {
	t.Helper()
	parts := bytes.Split(out, []byte(cdn.prefix+"/"))
	if len(parts) != references+1 {
		t.Fatalf("%q became %q with %d references", src, out, references)
	}
	rest := src
	for i, part := range parts {
		if i > 0 { // an address: all that escape writes
			end := bytes.IndexFunc(part, func(r rune) bool { return !plain(r) && !strings.ContainsRune("/_~@+:%", r) })
			if end < 0 {
				end = len(part)
			}
			part = part[end:]
		}
		at := bytes.Index(rest, part)
		if at < 0 || i == 0 && at != 0 {
			t.Fatalf("%q became %q: %q is not of it", src, out, part)
		}
		rest = rest[at+len(part):]
	}
}
