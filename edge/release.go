package edge

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
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
)

// Expiry of pushed files by class. A document names others and must be
// validated each time, which costs one 304; a fingerprinted file never changes
// (RFC 8246).
const (
	expiryImmutable = "public, max-age=31536000, immutable"
	expiryDocument  = "no-cache"
	expiryAsset     = "public, max-age=0, must-revalidate"
)

// releaseFile is what a pushed site answers to one path.
type releaseFile struct {
	rel      *origin.SiteReleases // nil: no release is active
	file     origin.File
	release  origin.Digest
	expiry   string
	redirect bool // to the same path with a slash
	status   int  // 0: the releases have no such path
}

// releaseID is the short form of a release's digest.
func releaseID(d origin.Digest) string { return hex.EncodeToString(d[:])[:shortRelease] }

func (f *releaseFile) etag() string { return `"` + f.file.Digest.String() + `"` }

// release returns what the site's releases have for a path. Their pointer is
// read here and nowhere else, so that one answer never mixes two generations.
// named is the request's Perigee-Release.
func (s *Snapshot) release(site *Site, rawPath, named string, now time.Time) (f releaseFile) {
	if s.releases == nil {
		return f
	}
	rel := s.releases.Site(site.Name)
	if rel == nil {
		return f
	}
	m := rel.Manifest
	f.rel, f.release = rel, rel.Active
	if named != "" && !sameRelease(named, rel.Active) {
		for i := range rel.Grace {
			if g := &rel.Grace[i]; now.Before(g.Until) && sameRelease(named, g.Release) {
				m, f.release = g.Manifest, g.Release
				break
			}
		}
	}
	name, ok := manifestName(rawPath)
	if !ok {
		return f
	}
	if f.lookup(m, name); f.status == 0 {
		// Pages that are still open ask for the files of the release they are of.
		if file, release, ok := rel.Resolve(name, now); ok && file.Class == origin.Immutable {
			f.file, f.release, f.status = file, release, http.StatusOK
		}
	}
	f.expiry = expiryOf(site, name, &f.file)
	return f
}

// lookup sets file and status when the manifest answers the path.
func (f *releaseFile) lookup(m *origin.Manifest, name string) {
	page := name
	if name == "" || strings.HasSuffix(name, "/") {
		page += indexPage
	}
	if file, ok := m.Files[page]; ok {
		f.file, f.status = file, http.StatusOK
		return
	}
	if page == name {
		if _, ok := m.Files[name+"/"+indexPage]; ok {
			f.redirect, f.status = true, http.StatusMovedPermanently
		}
	}
}

// notFound makes f the active release's page for paths that it does not have,
// which is never immutable.
func (f *releaseFile) notFound() bool {
	file, ok := f.rel.Manifest.Files[notFoundPage]
	if ok {
		f.file, f.release, f.status, f.expiry = file, f.rel.Active, http.StatusNotFound, expiryDocument
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

// expiryOf is the Cache-Control of a pushed file: the site's first rule that
// matches, else its class's.
func expiryOf(site *Site, name string, f *origin.File) string {
	for i := range site.Rules {
		if r := &site.Rules[i]; globMatches(r.Glob, name) {
			return r.CacheControl
		}
	}
	switch f.Class {
	case origin.Immutable:
		return expiryImmutable
	case origin.Document:
		return expiryDocument
	}
	return expiryAsset
}

func globMatches(glob, name string) bool {
	if dir, ok := strings.CutSuffix(glob, "/**"); ok {
		return strings.HasPrefix(name, dir+"/")
	}
	ok, err := path.Match(glob, name)
	return ok && err == nil
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
	if q.method != http.MethodGet && q.method != http.MethodHead {
		if x.site.Origin != nil {
			return false
		}
		x.w.Header().Set("Allow", "GET, HEAD")
		x.fail(http.StatusMethodNotAllowed, "a pushed site answers GET and HEAD")
		return true
	}
	f := x.snap.release(x.site, q.path, q.header.Get(releaseField), x.e.now())
	if f.status == 0 && x.site.Origin != nil {
		return false
	}
	x.rec.Cache = "release"
	if f.rel == nil {
		x.w.Header().Set("Retry-After", "5")
		x.fail(http.StatusServiceUnavailable, "no release of this site is active on this edge yet")
		return true
	}
	if f.status == 0 && (!acceptsHTML(q.header) || !f.notFound()) {
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
	if f.redirect {
		h["Location"] = []string{x.q.path + "/" + x.q.query}
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
	v := &validators{}
	if f.status == http.StatusOK {
		v.etag = f.etag()
		h["Etag"] = []string{v.etag}
	}
	x.serve(f.status, v, fileBody{blob, f.file.Size})
}

// acceptsHTML reports whether a page is any use to who asks.
func acceptsHTML(h http.Header) bool {
	accept, ok := headerFields(h).combined("Accept")
	if !ok {
		return true
	}
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
