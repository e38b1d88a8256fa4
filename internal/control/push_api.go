package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// bodyStall bounds the wait for the next bytes of an upload.
const bodyStall = 30 * time.Second

// postFirst is the cure of a push that the control node does not know, or no more.
const postFirst = "post the manifest first, with `perigee push`"

// Posted answers a posted manifest: the release, and the blobs to upload.
type Posted struct {
	Release origin.Digest `json:"release"`
	Missing []origin.Blob `json:"missing"`
	// MissingPages: nothing else is answered before these are there.
	MissingPages []origin.Blob `json:"missing_pages,omitempty"`
	// Sealed: the release was pushed before and can be activated as it is.
	Sealed bool `json:"sealed"`
}

// postRelease takes a manifest in canonical form, whole or in pages.
func (s *Server) postRelease(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	q, err := query(r, "channel")
	if err != nil {
		return nil, err
	}
	channel := q.Get("channel")
	if _, err := s.channel(site, &channel); err != nil { // before anything is sent in vain
		return nil, err
	}
	k, err := s.site(site)
	if err != nil {
		return nil, err
	}
	read, pages, err := s.manifestOf(w, r, site)
	if err != nil {
		return nil, err
	}
	if pages != nil {
		return Posted{Missing: []origin.Blob{}, MissingPages: pages}, nil
	}
	done, err := s.reading(r.Context())
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := read()
	if err != nil {
		return nil, err
	}
	m, err := origin.ParseManifest(b)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "push with `perigee push`, which writes manifests in canonical form", "manifest: %v", err)
	}
	for name, f := range m.Files {
		if f.Size > MaxBlobBytes {
			return nil, refuse(http.StatusRequestEntityTooLarge, "", "%s has %d bytes, more than %d", name, f.Size, int64(MaxBlobBytes))
		}
	}
	if _, err := s.unchanged(k, channel, m); err != nil {
		return nil, err
	}
	id, blobs, files := origin.DigestOf(b), m.Blobs(), len(m.Files)
	remark(r, "release %s", id)
	if err := s.fits(site, id, files, blobs); err != nil {
		return nil, err
	}
	// Before anything is called stored: from here on a collection that begins spares it.
	s.mu.Lock()
	s.setOpen(openKey{site, id}, blobs)
	s.mu.Unlock()
	if err := s.blobs.Put(id, int64(len(b)), bytes.NewReader(b)); err != nil {
		return nil, err
	}
	s.arrived(site, origin.Blob{Digest: id, Size: int64(len(b))})
	if err := s.secondCopy(r.Context(), site, origin.Blob{Digest: id, Size: int64(len(b))}); err != nil {
		return nil, err
	}
	p := Posted{Release: id}
	if p.Missing, err = s.missing(r.Context(), site, blobs); err != nil {
		return nil, err
	}
	if p.Missing == nil {
		p.Missing = []origin.Blob{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state.Sites[site]
	p.Sealed = st != nil && st.find(id) != nil && len(p.Missing) == 0
	return p, nil
}

// setOpen remembers a release that is being pushed, as the newest. Called with mu held.
func (s *Server) setOpen(k openKey, blobs []origin.Blob) {
	s.vital[k.release] = true
	o := &openRelease{sizes: make(map[origin.Digest]int64, len(blobs)), touched: s.now()}
	for _, b := range blobs {
		o.sizes[b.Digest] = b.Size
	}
	s.openOrder = append(slices.DeleteFunc(s.openOrder, func(old openKey) bool { return old == k }), k)
	s.open[k] = o
	mine := 0
	for i := len(s.openOrder) - 1; i >= 0; i-- {
		if old := s.openOrder[i]; old.site == k.site {
			if mine++; mine > maxOpenOfSite {
				delete(s.open, old)
				s.openOrder = slices.Delete(s.openOrder, i, i+1)
			}
		}
	}
	total := 0
	for _, o := range s.open {
		total += len(o.sizes)
	}
	for len(s.openOrder) > maxOpen || total > maxOpenBlobs && len(s.openOrder) > 1 {
		total -= len(s.open[s.openOrder[0]].sizes)
		delete(s.open, s.openOrder[0])
		s.openOrder = s.openOrder[1:]
	}
}

// body bounds a request's body in bytes and in the time between two reads.
func (s *Server) body(w http.ResponseWriter, r *http.Request, limit int64) io.Reader {
	return &movingBody{r: http.MaxBytesReader(w, r.Body, limit), c: http.NewResponseController(w)}
}

type movingBody struct {
	r io.Reader
	c *http.ResponseController
}

func (b *movingBody) Read(p []byte) (int, error) {
	// A writer without deadlines (a test's recorder) has no connection that could stall.
	if err := b.c.SetReadDeadline(time.Now().Add(bodyStall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return b.r.Read(p)
}

// readError makes an error of reading the body the caller's.
func readError(err error) error {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return err
	}
	return refuse(http.StatusBadRequest, "push again: what has arrived whole is kept", "the body broke off: %v", err)
}

// putBlob stores a file of a release that is being pushed. Doing it twice is
// harmless. Its digest stands in the path and, for the way, in Content-Digest
// (RFC 9530 §2); its size is what the manifest says.
func (s *Server) putBlob(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	d, err := origin.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	if r.Header.Get("Content-Range") != "" {
		return s.putPart(w, r, site, d)
	}
	sent, err := digestField("Content-Digest", r.Header.Values("Content-Digest"))
	if err != nil {
		return nil, err
	}
	if sent != d {
		return nil, refuse(http.StatusUnprocessableEntity, "", "Content-Digest names another digest than the path")
	}
	size, _ := s.wanted(site, d)
	announced := size
	if r.ContentLength >= 0 {
		announced = r.ContentLength
	}
	if err := s.wantedAt(site, origin.Blob{Digest: d, Size: announced}); err != nil {
		return nil, err
	}
	err = s.blobs.Put(d, size, &bodyReader{r: s.body(w, r, size+1)})
	var broken *bodyError
	if errors.As(err, &broken) {
		return nil, readError(broken.err)
	}
	if err != nil {
		return nil, err
	}
	stored := origin.Blob{Digest: d, Size: size}
	return stored, s.sent(r.Context(), site, stored)
}

// bodyReader marks errors of the body, so that they can be told from the disk's.
type bodyReader struct{ r io.Reader }

type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

// wanted finds the size of a blob in the site's releases that are being pushed.
func (s *Server) wanted(site string, d origin.Digest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, o := range s.open {
		if size, ok := o.sizes[d]; ok && k.site == site {
			o.touched = s.now()
			return size, true
		}
	}
	return 0, false
}

// digestField reads the sha-256 member of a Content-Digest or Repr-Digest field: a
// dictionary of byte sequences, ":" base64 ":" (RFC 9530 §2, RFC 9651 §3.2).
// Members of other algorithms are passed over.
func digestField(name string, fields []string) (d origin.Digest, err error) {
	bad := refuse(http.StatusBadRequest, "send "+name+": sha-256=:BASE64:", "%s with one sha-256 is needed", name)
	found := false
	for member := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		name, value, _ := strings.Cut(strings.Trim(member, " \t"), "=")
		if name != "sha-256" {
			continue
		}
		inner, ok1 := strings.CutPrefix(value, ":")
		inner, ok2 := strings.CutSuffix(inner, ":")
		b, err := base64.StdEncoding.Strict().DecodeString(inner)
		if !ok1 || !ok2 || err != nil || len(b) != len(d) || found {
			return origin.Digest{}, bad
		}
		d, found = origin.Digest(b), true
	}
	if !found {
		return origin.Digest{}, bad
	}
	return d, nil
}

// ContentDigest is the field's value for a digest.
func ContentDigest(d origin.Digest) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(d[:]) + ":"
}

// Sealed answers a seal.
type Sealed struct {
	Release origin.Digest `json:"release"`
	Files   int           `json:"files"`
	Bytes   int64         `json:"bytes"`
}

// toSeal is what a seal answers, and needs, of a release that was posted.
func (s *Server) toSeal(ctx context.Context, id origin.Digest) (out Sealed, blobs []origin.Blob, err error) {
	done, err := s.reading(ctx)
	if err != nil {
		return out, nil, err
	}
	defer done()
	m, err := s.manifest(id)
	if err != nil {
		return out, nil, refuse(http.StatusNotFound, "push again", "the manifest of release %s cannot be read: %v", id, err)
	}
	out = Sealed{Release: id, Files: len(m.Files)}
	for _, f := range m.Files {
		out.Bytes += f.Size
	}
	return out, m.Blobs(), nil
}

// seal puts a release on the log once every blob of it is stored.
func (s *Server) seal(_ http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	id, err := origin.ParseDigest(r.PathValue("id"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	s.mu.Lock()
	_, known := s.open[openKey{site, id}]
	if st := s.state.Sites[site]; st != nil && st.find(id) != nil {
		known = true
	}
	s.mu.Unlock()
	if !known {
		return nil, refuse(http.StatusNotFound, postFirst, "release %s is not being pushed to %s", id, site)
	}
	out, blobs, err := s.toSeal(r.Context(), id)
	if err != nil {
		return nil, err
	}
	missing, err := s.missingAtSeal(r.Context(), site, blobs)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		e := refuse(http.StatusConflict, "push again: only these are sent", "%d blobs of release %s are missing", len(missing), id)
		e.Missing = missing
		return nil, e
	}
	// Also those that were here before: a push that was cut off may have left
	// them without another copy.
	if err := s.secondCopy(r.Context(), site, slices.Concat(blobs, s.manifestBlob(id))...); err != nil {
		return nil, err
	}
	again := errors.New("sealed already")
	_, err = s.command(r.Context(), KindRelease, Release{Site: site, Release: id, Files: out.Files, Bytes: out.Bytes}, func(st *State) error {
		if site := st.Sites[site]; site != nil {
			if r := site.find(id); r != nil && (site.inUse(id) || s.now().Sub(r.lastUsed()) < renewAfter) {
				return again
			}
		}
		return s.quota(site, id, out.Files, blobs)
	})
	if err != nil && err != again {
		return nil, err
	}
	s.mu.Lock()
	s.refer(site, id, blobs) // also after a push that healed a lost blob
	s.mu.Unlock()
	return out, nil
}

// manifestBlob is a stored manifest as a blob.
func (s *Server) manifestBlob(id origin.Digest) []origin.Blob {
	if size, ok := s.blobs.Has(id); ok {
		return []origin.Blob{{Digest: id, Size: size}}
	}
	return nil
}

// Activated answers an activation: wait for receipts of Seq.
type Activated struct {
	Seq        uint64   `json:"seq"`
	Generation uint64   `json:"generation"`
	Hosts      []string `json:"hosts,omitempty"` // of a preview: where it is served
}

// activateRequest is the body of an activation.
type activateRequest struct {
	Release origin.Digest `json:"release"`
	Channel string        `json:"channel,omitempty"` // "" is prod
	// IfGeneration refuses when the channel's generation is another one; 0 is
	// that of a channel without a release.
	IfGeneration *uint64 `json:"if_generation,omitempty"`
}

func (s *Server) activate(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	var req activateRequest
	if err := readJSON(w, r, &req); err != nil {
		return nil, err
	}
	remark(r, "release %s", req.Release)
	if err := checkDigest(req.Release); err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	hosts, err := s.channel(site, &req.Channel)
	if err != nil {
		return nil, err
	}
	kind, body := KindActivate, any(Activate{Site: site, Release: req.Release})
	if req.Channel != origin.Prod {
		kind, body = KindChannel, Channel{Site: site, Channel: req.Channel, Release: req.Release}
	}
	e, err := s.makeActive(r.Context(), site, &req, kind, body)
	if err != nil {
		return nil, err
	}
	return Activated{Seq: e.Seq, Generation: e.Seq, Hosts: hosts}, nil
}

// compareTries bounds how often a release is compared anew because another one
// became active meanwhile.
const compareTries = 5

// makeActive appends the entry of an activation.
func (s *Server) makeActive(ctx context.Context, site string, req *activateRequest, kind string, body any) (e feed.Entry, err error) {
	for range compareTries {
		still, err := s.mayReplace(ctx, site, req.Channel, req.Release)
		if err != nil {
			return e, err
		}
		e, err = s.command(ctx, kind, body, func(st *State) error {
			state := st.Sites[site]
			if state == nil || state.find(req.Release) == nil {
				return state.unknown(site, req.Release)
			}
			if err := state.at(site, req.Channel, req.IfGeneration); err != nil {
				return err
			}
			if req.Channel != origin.Prod && state.Previews[req.Channel] == nil && len(state.Previews) >= maxPreviews {
				return refuse(http.StatusConflict, "perigee channel delete "+site+" CHANNEL", "site %s has %d previews, the limit", site, maxPreviews)
			}
			if still != nil {
				return still(state)
			}
			return nil
		})
		if !errors.Is(err, errMoved) {
			return e, err
		}
	}
	return e, refuse(http.StatusConflict, "push again", "site %s: others become active one after the other", site)
}

// ReleaseList is a site's releases, newest first.
type ReleaseList struct {
	Site       string        `json:"site"`
	Generation uint64        `json:"generation"`
	Releases   []ListRelease `json:"releases"`
}

// ListRelease is one release of the list.
type ListRelease struct {
	Release   origin.Digest `json:"release"`
	Active    bool          `json:"active"`             // in prod
	Previews  []string      `json:"previews,omitempty"` // channels in which it is active
	Files     int           `json:"files"`
	Bytes     int64         `json:"bytes"`
	Seq       uint64        `json:"seq"` // of the entry that sealed it
	Sealed    time.Time     `json:"sealed"`
	Activated *time.Time    `json:"activated,omitempty"` // last
}

func (s *Server) getReleases(_ http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if _, err := s.site(site); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := ReleaseList{Site: site, Releases: []ListRelease{}}
	st := s.state.Sites[site]
	if st == nil {
		return out, nil
	}
	out.Generation = st.Generation
	for i := len(st.Releases) - 1; i >= 0; i-- {
		sr := st.Releases[i]
		l := ListRelease{Release: sr.Release.Release, Active: sr.Release.Release == st.Active, Files: sr.Files, Bytes: sr.Bytes, Seq: sr.Seq, Sealed: sr.Sealed.UTC()}
		for _, name := range slices.Sorted(maps.Keys(st.Previews)) {
			if st.Previews[name].Active == l.Release {
				l.Previews = append(l.Previews, name)
			}
		}
		if !sr.Activated.IsZero() {
			at := sr.Activated.UTC()
			l.Activated = &at
		}
		out.Releases = append(out.Releases, l)
	}
	return out, nil
}
