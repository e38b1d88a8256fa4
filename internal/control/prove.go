package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"perigee.example/internal/durable"
	"perigee.example/origin"
)

const (
	// provedDir is the folder of what each site has sent and not sealed.
	provedDir = "proved"
	// provedMagic starts a file; its last byte is the format's version.
	provedMagic = "PGPROVE\x01"
	// maxProved bounds the blobs of a site there: what its pushes can be of.
	maxProved = maxOpenBlobs
	// siteField names, between control nodes, the site that has sent blobs.
	siteField = "Perigee-Site"
)

// proofs are the blobs that sites have sent, and that are in no sealed release of
// theirs yet: a site is told that a blob is here only when it has sent it itself, so
// that nobody learns what others have by asking, or gets it served by its digest.
//
// They are kept in a file for each site, of digests, that is not synced: when it is
// lost, blobs are sent again.
type proofs struct {
	dir string
	mu  sync.Mutex
	of  map[string]map[origin.Digest]struct{}
}

// load reads what a site has sent. Called with mu held.
func (p *proofs) load(site string) map[origin.Digest]struct{} {
	if set := p.of[site]; set != nil {
		return set
	}
	set := map[origin.Digest]struct{}{}
	p.of[site] = set
	path := filepath.Join(p.dir, site)
	b, err := readFile(path, int64(len(provedMagic)+maxProved*len(origin.Digest{})))
	rest, ok := bytes.CutPrefix(b, []byte(provedMagic))
	if err != nil || !ok {
		_ = os.Remove(path) // of another version, if it is there: what it says is sent again
		return set
	}
	for ; len(rest) >= len(origin.Digest{}); rest = rest[len(origin.Digest{}):] {
		set[origin.Digest(rest[:len(origin.Digest{})])] = struct{}{}
	}
	if len(rest) > 0 { // a crash cut the last one short: the next begins where it did
		_ = os.Truncate(path, int64(len(b)-len(rest)))
	}
	return set
}

// has reports whether a site has sent a blob.
func (p *proofs) has(site string, d origin.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.load(site)[d]
	return ok
}

// add notes blobs that a site has sent.
func (p *proofs) add(site string, blobs ...origin.Blob) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	set := p.load(site)
	var news []byte
	for _, b := range blobs {
		if _, there := set[b.Digest]; !there && len(set) < maxProved {
			set[b.Digest] = struct{}{}
			news = append(news, b.Digest[:]...)
		}
	}
	if news == nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(p.dir, site), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("what site %s has sent is not noted: %w", site, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		news = append([]byte(provedMagic), news...)
	}
	_, err = f.Write(news)
	return err
}

// compact forgets what a site holds in sealed releases, and all of it when nothing was
// added since olderThan.
func (p *proofs) compact(site string, olderThan time.Time, holds func(origin.Digest) bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := filepath.Join(p.dir, site)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	set, left := p.load(site), map[origin.Digest]struct{}{}
	b := []byte(provedMagic)
	for d := range set {
		if !st.ModTime().Before(olderThan) && !holds(d) {
			left[d] = struct{}{}
			b = append(b, d[:]...)
		}
	}
	p.of[site] = left
	switch len(left) {
	case 0:
		return os.Remove(path)
	case len(set):
		return nil
	}
	if err := durable.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, st.ModTime()) // nothing was added
}

// proved reports whether a site has a blob by its own doing: it sent it, or a sealed
// release of its holds it.
func (s *Server) proved(site string, d origin.Digest) bool {
	s.mu.Lock()
	h := s.held[site]
	ok := false
	if h != nil {
		_, ok = h.blobs[d]
	}
	s.mu.Unlock()
	return ok || s.proofs.has(site, d)
}

// missing are those of a release's blobs that its site has to send: what is not here,
// and what it has never sent. The others are young again (origin.Blobs.Keep).
func (s *Server) missing(ctx context.Context, site string, blobs []origin.Blob) (missing []origin.Blob, err error) {
	if s.bucket != nil {
		return s.missingThere(ctx, site, blobs)
	}
	for _, b := range blobs {
		if !s.proved(site, b.Digest) || !s.blobs.Keep(b.Digest, b.Size) {
			missing = append(missing, b)
		}
	}
	return missing, nil
}
