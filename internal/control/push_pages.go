package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"perigee.example/origin"
)

const (
	// maxPostBytes bounds a manifest that comes in one message: some ten thousand
	// files. A larger one comes in pages.
	maxPostBytes = 8 << 20
	// pagedBytes is from where Push sends pages: below, a list of them saves nothing.
	pagedBytes = 256 << 10
	// maxPageListBytes bounds a list of pages: MaxPages of them.
	maxPageListBytes = 512 << 10
	// pageType is the Content-Type of a list of pages.
	pageType = "application/vnd.perigee.pages+json"
	// pageAge is how long a page is kept after it was last asked for: the next
	// release of a site usually shares most of them.
	pageAge = 7 * 24 * time.Hour
	// maxPagesBytes is how much of pages comes until those that the last list does not
	// name go before their time: a token can announce one list after the other.
	maxPagesBytes = 4 * origin.MaxManifestBytes
	// maxReaders bounds the manifests that are read at a time: one of the longest
	// takes a few hundred MiB while it is.
	maxReaders = 2
)

// PageList announces a manifest in pages: its pieces in order.
type PageList struct {
	Release origin.Digest `json:"release"`
	Pages   []origin.Blob `json:"pages"`
}

// pageStores are the pages of each site, apart: what one site has sent is not
// told to another.
type pageStores struct {
	dir string
	mu  sync.Mutex
	of  map[string]*pageStore
}

type pageStore struct {
	*origin.Blobs
	swept  time.Time
	wanted map[origin.Digest]int64 // pages of the last list
	came   int64                   // bytes of pages since they were swept last
}

func (p *pageStores) open(site string, now time.Time) (*pageStore, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of[site]
	if s == nil {
		b, err := origin.OpenBlobs(filepath.Join(p.dir, site))
		if err != nil {
			return nil, err
		}
		s = &pageStore{Blobs: b}
		p.of[site] = s
	}
	if now.Sub(s.swept) > pageAge/7 {
		s.swept = now
		if _, err := s.Sweep(func(origin.Digest) bool { return false }, now.Add(-pageAge)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// want sets the pages that the site announces.
func (p *pageStores) want(s *pageStore, pages map[origin.Digest]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.wanted = pages
}

// add notes that a page came, and makes room when too much of them did.
func (p *pageStores) add(s *pageStore, size int64, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.came += size; s.came <= maxPagesBytes {
		return nil
	}
	s.came = 0
	_, err := s.Sweep(func(d origin.Digest) bool { _, ok := s.wanted[d]; return ok }, now)
	return err
}

func (p *pageStores) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.of {
		_ = s.Close() // a folder handle: nothing is unwritten
	}
}

// manifestOf takes the manifest that a request brings, whole or as a list of pages,
// which read puts together: many times the request's size, so only for one of
// maxReaders. Without an error, missing says which pages have to be sent first.
func (s *Server) manifestOf(w http.ResponseWriter, r *http.Request, site string) (read func() ([]byte, error), missing []origin.Blob, err error) {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && t == "application/json":
		b, err := io.ReadAll(s.body(w, r, maxPostBytes))
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return nil, nil, refuse(http.StatusRequestEntityTooLarge, "update perigee on the machine that pushes: it sends a long one in pages", "the manifest has more than %d bytes", maxPostBytes)
		}
		if err != nil {
			return nil, nil, readError(err)
		}
		return func() ([]byte, error) { return b, nil }, nil, nil
	case err == nil && t == pageType:
		return s.fromPages(w, r, site)
	}
	return nil, nil, refuse(http.StatusUnsupportedMediaType, "send Content-Type: application/json", "the body must be a manifest")
}

// reading waits until the caller may read a manifest, one of maxReaders, which done ends.
func (s *Server) reading(ctx context.Context) (done func(), err error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	select {
	case s.readers <- struct{}{}:
		return func() { <-s.readers }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Server) fromPages(w http.ResponseWriter, r *http.Request, site string) (read func() ([]byte, error), missing []origin.Blob, err error) {
	var list PageList
	text, err := io.ReadAll(s.body(w, r, maxPageListBytes))
	if err != nil {
		return nil, nil, readError(err)
	}
	if err := decodeStrict(bytes.NewReader(text), &list); err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "", "the list of pages is not one: %v", err)
	}
	total := int64(0)
	for _, p := range list.Pages {
		if p.Size <= 0 || p.Size > origin.MaxPageBytes {
			return nil, nil, refuse(http.StatusBadRequest, "", "page %s has %d bytes: 1 to %d", p.Digest, p.Size, origin.MaxPageBytes)
		}
		total += p.Size
	}
	if n := len(list.Pages); n == 0 || n > origin.MaxPages || total > origin.MaxManifestBytes {
		return nil, nil, refuse(http.StatusRequestEntityTooLarge, "", "%d pages of %d bytes: 1 to %d of %d", n, total, origin.MaxPages, origin.MaxManifestBytes)
	}
	store, err := s.pages.open(site, s.now())
	if err != nil {
		return nil, nil, err
	}
	wanted := make(map[origin.Digest]int64, len(list.Pages))
	for _, p := range list.Pages {
		wanted[p.Digest] = p.Size
	}
	s.pages.want(store, wanted) // before any is called stored
	asked := make(map[origin.Digest]bool, len(list.Pages))
	for _, p := range list.Pages {
		if !asked[p.Digest] && !store.Keep(p.Digest, p.Size) {
			missing = append(missing, p)
		}
		asked[p.Digest] = true
	}
	if missing != nil {
		return nil, missing, nil
	}
	return func() ([]byte, error) { return list.read(store.Blobs, total) }, nil, nil
}

// read puts the pages together, total bytes in all.
func (l *PageList) read(from *origin.Blobs, total int64) (b []byte, err error) {
	b = make([]byte, 0, total)
	for _, p := range l.Pages {
		if b, err = appendBlob(b, from, p); err != nil {
			return nil, err
		}
	}
	if got := origin.DigestOf(b); got != l.Release {
		return nil, refuse(http.StatusUnprocessableEntity, "push again", "the pages together are %s, not %s", got, l.Release)
	}
	return b, nil
}

func appendBlob(b []byte, from *origin.Blobs, p origin.Blob) ([]byte, error) {
	f, err := from.Open(p.Digest)
	if errors.Is(err, fs.ErrNotExist) { // another push of the site announced its own, and there was no room for both
		return nil, refuse(http.StatusConflict, "push again", "page %s of the manifest is gone: somebody else pushes at the same time", p.Digest)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n := len(b)
	b = slices.Grow(b, int(p.Size))[:n+int(p.Size)]
	_, err = io.ReadFull(f, b[n:])
	return b, err
}

// putPage stores a page of the list that the site announced last.
func (s *Server) putPage(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	d, err := origin.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	store, err := s.pages.open(site, s.now())
	if err != nil {
		return nil, err
	}
	s.pages.mu.Lock()
	size, ok := store.wanted[d]
	s.pages.mu.Unlock()
	if !ok {
		return nil, refuse(http.StatusNotFound, "post the list of pages first, with `perigee push`", "no manifest that is announced for %s has page %s", site, d)
	}
	err = store.Put(d, size, &bodyReader{r: s.body(w, r, size+1)})
	var broken *bodyError
	if errors.As(err, &broken) {
		return nil, readError(broken.err)
	}
	if err == nil {
		err = s.pages.add(store, size, s.now())
	}
	return origin.Blob{Digest: d, Size: size}, err
}

// announce posts a manifest, in pages when it is long: pages that the control
// node has of another release are not sent again.
func (p *pushing) announce(ctx context.Context, b []byte, id origin.Digest) (out Posted, err error) {
	path := sitePath(p.o.Site, "/releases") + channelQuery(p.o.Channel)
	if len(b) < pagedBytes {
		return out, p.c.post(ctx, path, "application/json", b, &out)
	}
	list := PageList{Release: id}
	content := map[origin.Digest][]byte{}
	for _, page := range origin.Pages(b) {
		d := origin.DigestOf(page)
		list.Pages = append(list.Pages, origin.Blob{Digest: d, Size: int64(len(page))})
		content[d] = page
	}
	text, err := json.Marshal(list)
	if err != nil {
		return out, err
	}
	for range uploadTries { // somebody else may have announced another one meanwhile
		out = Posted{}
		if err := p.c.post(ctx, path, pageType, text, &out); err != nil || len(out.MissingPages) == 0 {
			return out, err
		}
		err := each(ctx, uploaders, out.MissingPages, func(ctx context.Context, page origin.Blob) error {
			return p.again(ctx, func() error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.c.base+sitePath(p.o.Site, "/pages/"+page.Digest.String()), bytes.NewReader(content[page.Digest]))
				if err != nil {
					return err
				}
				var answer origin.Blob
				return p.c.send(req, &answer)
			})
		})
		var e *Error
		if err != nil && !(errors.As(err, &e) && e.Status == http.StatusNotFound) {
			return out, err
		}
	}
	return out, fmt.Errorf("site %s: pages of the manifest are still missing after %d tries: is somebody else pushing? push again", p.o.Site, uploadTries)
}
