package rewrite

import (
	"bytes"
	"slices"
	"strings"
)

// Page rewrites an HTML page. path is where the site has it, shown what faults
// call it. A path that ends in .xhtml is read as XML.
func Page(shown, path string, src []byte, base Base, site Site) Result {
	p := &page{file: file{shown: shown, src: src, base: base, site: site, at: placeOf(path)}, xml: strings.HasSuffix(strings.ToLower(path), ".xhtml")}
	if !p.checkEncoding() {
		return p.done()
	}
	s := scanner{src: src, xml: p.xml}
	for s.next() {
		p.element(&s.tag)
	}
	return p.done()
}

// page is one page whose references are rewritten.
type page struct {
	file
	xml   bool
	based bool // a <base> was seen: further ones do not count

	modules int // whether module scripts may move: 0 not looked at, 1 they may, -1
}

// element rewrites the references of one element. To add one: a case here, its
// name in knownNames, a line in docs/push.md and one in testdata.
func (p *page) element(t *tag) {
	switch t.name {
	case "base":
		if a := t.get("href"); a != nil && !p.based {
			p.based, p.at = true, p.at.move(p.value(a).text)
		}
	case "img":
		p.attrs(t, use{}, "src")
		p.sources(t, "srcset")
	case "source":
		p.attrs(t, use{}, "src")
		p.sources(t, "srcset")
	case "video":
		p.attrs(t, use{}, "src", "poster")
	case "audio":
		p.attrs(t, use{}, "src")
	case "input":
		if p.word(t, "type") == "image" {
			p.attrs(t, use{}, "src")
		}
	case "body", "table", "td", "th", "tr":
		p.attrs(t, use{}, "background")
	case "image", "feimage":
		p.attrs(t, use{}, "href", "xlink:href")
	case "use": // browsers take it from no other host
		p.attrs(t, use{sameHost: true}, "href", "xlink:href")
	case "track": // nor this, without crossorigin on its parent
		p.attrs(t, use{keep: true}, "src")
	case "object":
		p.attrs(t, use{keep: true}, "data")
	case "embed":
		p.attrs(t, use{keep: true}, "src")
	case "meta":
		if slices.Contains(imageMetas, p.word(t, "property")) || slices.Contains(imageMetas, p.word(t, "name")) {
			p.attrs(t, use{}, "content")
		}
	case "script":
		p.script(t)
	case "link":
		p.link(t)
	case "style":
		p.style(t)
	}
	if a := t.get("style"); a != nil && a.to > a.from {
		p.css(p.value(a))
	}
}

// imageMetas are the <meta> that name a picture or the like for those who show
// a link to the page. They want whole URLs.
var imageMetas = []string{
	"og:image", "og:image:url", "og:image:secure_url", "og:video", "og:video:url", "og:video:secure_url", "og:audio", "og:audio:url",
	"og:audio:secure_url", "twitter:image", "twitter:image:src", "msapplication-tileimage",
}

// value is an attribute's value.
func (p *page) value(a *attr) value { return attribute(p.src, a.from, a.to) }

// word is an attribute's value without space around, in lower case.
func (p *page) word(t *tag, name string) string {
	a := t.get(name)
	if a == nil {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(p.value(a).text))
}

// credentials: it is fetched with cookies, which only the page's host may have.
func (p *page) credentials(t *tag, u use) use {
	u.sameHost = u.sameHost || p.word(t, "crossorigin") == "use-credentials"
	return u
}

// attrs rewrites attributes that are one reference each.
func (p *page) attrs(t *tag, u use, names ...string) {
	for _, name := range names {
		if a := t.get(name); a != nil {
			p.reference(p.value(a), p.credentials(t, u))
		}
	}
}

// sources rewrites a srcset.
func (p *page) sources(t *tag, name string) {
	if a := t.get(name); a != nil {
		p.srcset(p.value(a), p.credentials(t, use{}))
	}
}

// style rewrites a <style>. In SVG and XHTML it is markup: what has any in it is
// left alone.
func (p *page) style(t *tag) {
	body := p.src[t.bodyFrom:t.bodyTo]
	if (t.foreign || p.xml) && bytes.ContainsAny(body, "<&") {
		return
	}
	if kind := p.word(t, "type"); kind == "" || kind == "text/css" {
		p.css(value{text: string(body), from: t.bodyFrom})
	}
}

// javaScript are the types of classic scripts (MIME Sniffing §4.6, those in use).
var javaScript = []string{"", "text/javascript", "application/javascript", "application/x-javascript", "text/ecmascript", "application/ecmascript", "text/jscript"}

// script rewrites a <script src>.
//
// A module script's own imports count from where it is, and a module that is
// fetched at two addresses runs twice. Its imports are in the script, and stay
// as they are; so it moves only when its name is one by content already, as
// bundlers make them: their imports are relative, and lead to such names beside
// it. When the page imports modules itself, they stay all.
func (p *page) script(t *tag) {
	src := t.get("src")
	if src == nil || t.foreign { // SVG's scripts know no integrity
		return
	}
	kind := p.word(t, "type")
	module := kind == "module"
	if !module && !slices.Contains(javaScript, kind) {
		return
	}
	p.checked(t, src, use{module: module, keep: module && !p.modulesMay()})
}

// modulesMay reports whether the page leaves modules to be moved: it has no
// import map, and no module script of its own.
func (p *page) modulesMay() bool {
	if p.modules == 0 {
		p.modules = 1
		for s := (scanner{src: p.src, xml: p.xml}); s.next(); {
			if s.tag.name != "script" {
				continue
			}
			if kind := p.word(&s.tag, "type"); kind == "importmap" || kind == "module" && s.tag.get("src") == nil {
				p.modules = -1
			}
		}
	}
	return p.modules > 0
}

// link rewrites a <link>, by what it is for.
func (p *page) link(t *tag) {
	href := t.get("href")
	p.sources(t, "imagesrcset")
	if href == nil {
		return
	}
	rel := strings.Fields(p.word(t, "rel"))
	is := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(rel, n) })
	}
	as := p.word(t, "as")
	switch {
	case is("stylesheet"), is("preload") && (as == "script" || as == "style"):
		p.checked(t, href, use{})
	case is("modulepreload"):
		p.checked(t, href, use{module: true, keep: !p.modulesMay()})
	case is("preload") && (as == "image" || as == "font" || as == "audio" || as == "video"),
		is("icon", "apple-touch-icon", "apple-touch-icon-precomposed", "apple-touch-startup-image", "mask-icon", "fluid-icon", "image_src"):
		p.attrs(t, use{}, "href")
	case is("preload", "manifest"): // scripts fetch it, or it is a page of its own kind
		p.attrs(t, use{keep: true}, "href")
	case is("prefetch"):
		p.attrs(t, use{optional: true}, "href")
	}
}
