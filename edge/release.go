package edge

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"perigee.example/origin"
)

const (
	// shortRelease is how many hex digits of a release's digest Perigee-Release
	// shows: enough to tell a site's releases apart.
	shortRelease = 12
	releaseField = "Perigee-Release"
	notFoundPage = "404.html"
	indexPage    = "index.html"
	// Whatever a preview's host answers is not for search engines: else they find
	// the site twice, and what is not published yet.
	robotsField = "X-Robots-Tag"
	noRobots    = "noindex"
	originField = "Access-Control-Allow-Origin"
)

// anyOrigin is sent with fingerprinted files when no rule says otherwise: pages of
// another host of the site may then use them as fonts, and scripts and styles
// with integrity (Fetch Standard §3.3). Such a file is asked for by its content.
var anyOrigin = origin.Field{Name: originField, Value: "*"}

// Expiry of what stands in for another path, and of redirects.
const (
	expiryDocument = origin.ExpiryDocument
	expiryAsset    = origin.ExpiryAsset
)

// releaseFile is what a pushed site answers to one path.
type releaseFile struct {
	rel      *origin.SiteReleases // nil: no release is active
	file     origin.File
	release  origin.Digest
	expiry   string
	location string // a redirect's target
	coding   string // of file; "" is the content itself
	identity origin.Digest
	varies   bool // other requests get another variant
	fields   []origin.Field
	preview  bool
	status   int // 0: the releases have no such path
}

// releaseID is the short form of a release's digest.
func releaseID(d origin.Digest) string { return hex.EncodeToString(d[:])[:shortRelease] }

// etag is a strong validator of exactly these octets: the digest of the content
// and the coding (RFC 9110 §8.8.3.3).
func (f *releaseFile) etag() string {
	if f.coding == "" {
		return `"` + f.identity.String() + `"`
	}
	return `"` + f.identity.String() + "-" + f.coding + `"`
}

// asked is what of a request decides among a release's answers.
type asked struct {
	channel     string // "" is prod
	path, query string // as they came
	named       string // Perigee-Release
	accept      string // Accept-Encoding
	types       string // Accept
	anyType     bool   // there is no Accept
}

// html reports whether a page is any use to who asks.
func (a *asked) html() bool { return a.anyType || acceptsHTML(a.types) }

// release returns what the site's releases have for a path. Their pointer is
// read here and nowhere else, so that one answer never mixes two generations.
// The order: forced redirects, files, redirects, files in grace, rewrites.
func (s *Snapshot) release(site *Site, a asked, now time.Time) (f releaseFile) {
	if s.releases == nil {
		return f
	}
	rel := s.releases.Channel(site.Name, a.channel)
	if rel == nil {
		return f
	}
	m := rel.Manifest
	f.rel, f.release, f.preview = rel, rel.Active, a.channel != ""
	if a.named != "" && !sameRelease(a.named, rel.Active) {
		for i := range rel.Grace {
			if g := &rel.Grace[i]; now.Before(g.Until) && sameRelease(a.named, g.Release) {
				m, f.release = g.Manifest, g.Release
				break
			}
		}
	}
	name, ok := manifestName(a.path)
	if !ok {
		return f
	}
	fallback := false
	switch {
	case len(m.Redirects) > 0 && f.redirected(m, origin.Forced, name, a):
	case f.lookup(m, name, a):
	case len(m.Redirects) > 0 && f.redirected(m, origin.Unforced, name, a):
	case f.inGrace(name, now):
	case len(m.Redirects) > 0 && f.redirected(m, origin.Rewriting, name, a):
		fallback = true
	}
	if f.status == 0 || f.location != "" {
		return f
	}
	f.expiry = origin.ExpiryOf(site.Rules, name, f.file.Class)
	f.finish(m, name, a.accept, fallback)
	return f
}

// finish applies the header rules and chooses the variant. A document that
// stands in for another path is never kept under its name.
func (f *releaseFile) finish(m *origin.Manifest, name, accept string, fallback bool) {
	if fallback {
		f.expiry = expiryDocument
	}
	if len(m.Headers) > 0 {
		f.fields = m.Fields("/" + name)
		f.fields = slices.DeleteFunc(f.fields, func(field origin.Field) bool {
			switch field.Name {
			case "Cache-Control":
				if !fallback {
					f.expiry = field.Value
				}
			case "Content-Type":
				f.file.Type = field.Value
			case "X-Content-Type-Options": // always sent
			case robotsField: // of a preview, its host's
				return f.preview
			default:
				return false
			}
			return true
		})
	}
	if f.file.Class == origin.Immutable && !slices.ContainsFunc(f.fields, func(field origin.Field) bool { return field.Name == originField }) {
		f.fields = append(f.fields, anyOrigin)
	}
	f.identity, f.varies = f.file.Digest, len(f.file.Variants) > 0
	if v := f.file.Variant(accept); v != nil {
		f.coding, f.file.Digest, f.file.Size = v.Coding, v.Digest, v.Size
	}
}

// lookup reports whether the manifest answers the path.
func (f *releaseFile) lookup(m *origin.Manifest, name string, a asked) bool {
	page := name
	if name == "" || strings.HasSuffix(name, "/") {
		page += indexPage
	}
	if file, ok := m.Files[page]; ok {
		f.file, f.status = file, http.StatusOK
		return true
	}
	if page == name {
		if _, ok := m.Files[name+"/"+indexPage]; ok {
			f.location, f.status = a.path+"/"+a.query, http.StatusMovedPermanently
			return true
		}
	}
	return false
}

// inGrace finds a fingerprinted file of an older release: pages that are still
// open ask for the parts of the release that they are of.
func (f *releaseFile) inGrace(name string, now time.Time) bool {
	file, release, ok := f.rel.Resolve(name, now)
	if !ok || file.Class != origin.Immutable {
		return false
	}
	f.file, f.release, f.status = file, release, http.StatusOK
	return true
}

// redirected applies the first redirect of a kind.
func (f *releaseFile) redirected(m *origin.Manifest, kind origin.RedirectKind, name string, a asked) bool {
	var c origin.Captures
	r := m.Redirect(kind, "/"+name, &c)
	if r == nil {
		return false
	}
	if !r.Rewrites() {
		f.location, f.status = c.Expand(r.To, true), r.Status
		if a.query != "" && !strings.Contains(f.location, "?") {
			f.location += a.query
		}
		return true
	}
	if !f.lookup(m, c.Expand(r.To, false)[1:], a) || f.location != "" {
		f.location, f.status = "", 0
		return false
	}
	// A page is no use to who asks for a script or a picture: it would be kept
	// under that name.
	if f.file.Class == origin.Document && !r.Force && (!a.html() || assetName(name)) {
		f.status = 0
		return false
	}
	f.status = r.Status
	return true
}

// assetName reports whether a path looks like a part of a page: it has an
// extension, and not that of a page.
func assetName(name string) bool {
	switch ext := strings.ToLower(path.Ext(name)); ext {
	case "", ".", ".html", ".htm", ".xhtml", ".php":
		return false
	default:
		return len(ext) <= 6
	}
}

// notFound makes f the active release's page for paths that it does not have,
// which is never immutable.
func (f *releaseFile) notFound(accept string) bool {
	file, ok := f.rel.Manifest.Files[notFoundPage]
	if ok {
		f.file, f.release, f.status, f.expiry = file, f.rel.Active, http.StatusNotFound, expiryDocument
		f.finish(f.rel.Manifest, notFoundPage, accept, true)
	}
	return ok
}

func sameRelease(named string, d origin.Digest) bool {
	return strings.EqualFold(named, releaseID(d)) || named == d.String()
}

// manifestName is the manifest's name of a path: decoded, without the leading
// slash. An encoded separator is in no manifest.
func manifestName(raw string) (string, bool) {
	name := raw[1:]
	if strings.IndexByte(name, '%') < 0 {
		return name, true
	}
	for i := 0; i+2 < len(name); i++ {
		if name[i] == '%' && (strings.EqualFold(name[i+1:i+3], "2f") || strings.EqualFold(name[i+1:i+3], "5c")) {
			return "", false
		}
	}
	name, err := url.PathUnescape(name)
	return name, err == nil
}

// fileBody is an open blob.
type fileBody struct {
	file   *os.File
	length int64
}

func (b fileBody) size() int64 { return b.length }
func (b fileBody) writeRange(_ context.Context, w io.Writer, start, length int64) (int64, error) {
	n, err := io.Copy(w, io.NewSectionReader(b.file, start, length))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// pushed answers from the site's releases. It returns false when the origin
// is to answer.
func (x *exchange) pushed() bool {
	q := x.q
	if x.channel != "" && x.snap.releases.Channel(x.site.Name, x.channel) == nil {
		x.fail(http.StatusNotFound, "no preview of this name is on this edge")
		return true
	}
	if q.method != http.MethodGet && q.method != http.MethodHead {
		if x.site.Origin != nil {
			return false
		}
		x.w.Header().Set("Allow", "GET, HEAD")
		x.fail(http.StatusMethodNotAllowed, "a pushed site answers GET and HEAD")
		return true
	}
	accept := strings.Join(q.header["Accept-Encoding"], ",")
	types, typed := headerFields(q.header).combined("Accept")
	a := asked{x.channel, q.path, q.query, q.header.Get(releaseField), accept, types, !typed}
	f := x.snap.release(x.site, a, x.e.now())
	if f.status == 0 && x.site.Origin != nil {
		return false
	}
	x.rec.Cache = "release"
	if f.rel == nil {
		x.w.Header().Set("Retry-After", "5")
		x.fail(http.StatusServiceUnavailable, "no release of this site is active on this edge yet")
		return true
	}
	if f.status == 0 && (!a.html() || !f.notFound(accept)) {
		x.fail(http.StatusNotFound, "the active release has no such path")
		return true
	}
	x.rec.Release = releaseID(f.release)
	x.serveFile(&f)
	return true
}

// serveFile answers with a file of a release, or its redirect.
func (x *exchange) serveFile(f *releaseFile) {
	h := x.w.Header()
	h[releaseField] = []string{releaseID(f.release)}
	if f.location != "" {
		h["Location"] = []string{f.location}
		h["Cache-Control"] = []string{expiryAsset}
		h["Content-Length"] = []string{"0"}
		x.writeHeader(f.status)
		return
	}
	blob, err := x.e.blobs.Open(f.file.Digest)
	if err != nil {
		x.e.log.Error("blob of a release cannot be read", "site", x.site.Name, "path", x.q.path, "blob", f.file.Digest.String(), "why", err)
		x.fail(http.StatusServiceUnavailable, "a file of the release cannot be read on this edge")
		return
	}
	defer blob.Close()
	x.status.hit = true
	h["Content-Type"] = []string{f.file.Type}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Cache-Control"] = []string{f.expiry}
	if f.coding != "" {
		h["Content-Encoding"] = []string{f.coding}
	}
	if f.varies {
		h["Vary"] = []string{"Accept-Encoding"}
	}
	for _, field := range f.fields {
		h[field.Name] = []string{field.Value}
	}
	v := &validators{}
	if f.status == http.StatusOK {
		v.etag = f.etag()
		h["Etag"] = []string{v.etag}
	}
	x.serve(f.status, v, fileBody{blob, f.file.Size})
}

// acceptsHTML reports whether an Accept takes text/html.
func acceptsHTML(accept string) bool {
	for {
		m, rest, ok := nextMember(accept)
		if !ok {
			return false
		}
		kind, _, _ := strings.Cut(m, ";")
		switch lower(trimOWS(kind)) {
		case "text/html", "text/*", "*/*":
			return true
		}
		accept = rest
	}
}
