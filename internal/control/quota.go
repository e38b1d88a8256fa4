package control

import (
	"maps"
	"net/http"
	"time"

	"perigee.example/origin"
)

// Quota is what one site may hold; 0 is no limit.
type Quota struct {
	Files  int   // of one release
	Stored int64 // bytes of all blobs of its releases, each once, and of what was sent for others
}

// maxOpenOfSite bounds the releases of one site that are pushed at one time: its
// own oldest is forgotten first, so that one site's do not push out the others'.
const maxOpenOfSite = 16

// held is what the releases of one site hold.
type held struct {
	blobs map[origin.Digest]struct{}
	bytes int64
}

// addHeld adds blobs to what a site holds.
func addHeld(of map[string]*held, site string, blobs []origin.Blob) {
	if of[site] == nil {
		of[site] = &held{blobs: map[origin.Digest]struct{}{}}
	}
	of[site].add(blobs)
}

func (h *held) add(blobs []origin.Blob) {
	for _, b := range blobs {
		if _, there := h.blobs[b.Digest]; !there {
			h.blobs[b.Digest] = struct{}{}
			h.bytes += b.Size
		}
	}
}

// maxUnsealed bounds the files of a site that are remembered there.
const maxUnsealed = maxOpenBlobs

// unsealed is what each site has sent, manifests included, that is in no sealed release
// of it: it stays on the disk for a while after the push is forgotten. It is not kept
// over a restart.
type unsealed map[string]map[origin.Digest]unsealedBlob

type unsealedBlob struct {
	size int64
	at   time.Time
}

// remove takes out what became a sealed release.
func (u unsealed) remove(site string, release origin.Digest, blobs []origin.Blob) {
	of := u[site]
	delete(of, release)
	for _, b := range blobs {
		delete(of, b.Digest)
	}
}

// expire takes out what came before a time.
func (u unsealed) expire(site string, before time.Time) {
	maps.DeleteFunc(u[site], func(_ origin.Digest, b unsealedBlob) bool { return b.at.Before(before) })
}

// unsealedFor is how long what was sent and not sealed stays stored.
func (s *Server) unsealedFor() time.Duration {
	if s.bucket != nil {
		return bucketAge
	}
	return blobAge
}

// arrived notes what a site has sent.
func (s *Server) arrived(site string, blobs ...origin.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.unsealed[site]
	if of == nil {
		of = map[origin.Digest]unsealedBlob{}
		s.unsealed[site] = of
	}
	now, h := s.now(), s.held[site]
	for _, b := range blobs {
		if h != nil {
			if _, sealed := h.blobs[b.Digest]; sealed {
				continue
			}
		}
		if _, there := of[b.Digest]; there || len(of) < maxUnsealed {
			of[b.Digest] = unsealedBlob{b.Size, now}
		}
	}
}

// quota says whether a release fits into what its site may hold, before anything
// of it is sent: the release by itself (413), and beside the others (507). Called
// with mu held.
func (s *Server) quota(site string, id origin.Digest, files int, blobs []origin.Blob) error {
	known, err := s.site(site)
	if err != nil {
		return err
	}
	q := known.Quota
	if q.Files > 0 && files > q.Files {
		return refuse(http.StatusRequestEntityTooLarge, "push fewer files, or raise max_files of [site."+site+"]", "the release has %d files, and a release of %s may have %d", files, site, q.Files)
	}
	if q.Stored == 0 {
		return nil
	}
	own := int64(0)
	for _, b := range blobs {
		own += b.Size
	}
	raise := "push less, or raise max_stored of [site." + site + "]"
	if own > q.Stored {
		return refuse(http.StatusRequestEntityTooLarge, raise, "the release has %d bytes, and %s may hold %d", own, site, q.Stored)
	}
	used := s.held[site]
	if used == nil {
		used = &held{}
	}
	more := map[origin.Digest]int64{}
	note := func(d origin.Digest, size int64) {
		if _, there := used.blobs[d]; !there {
			more[d] = size
		}
	}
	for _, b := range blobs {
		note(b.Digest, b.Size)
	}
	for k, o := range s.open {
		if k.site == site && k.release != id {
			for d, size := range o.sizes {
				note(d, size)
			}
		}
	}
	s.unsealed.expire(site, s.now().Add(-s.unsealedFor()))
	for d, b := range s.unsealed[site] {
		if d != id {
			note(d, b.size)
		}
	}
	total := used.bytes
	for _, size := range more {
		total += size
	}
	if len(s.unsealed[site]) >= maxUnsealed {
		return refuse(http.StatusInsufficientStorage, "push what was begun to its end, or wait until it is removed", "%s has sent %d files that are in no release", site, len(s.unsealed[site]))
	}
	if total > q.Stored && len(more) > 0 {
		if len(s.unsealed[site]) > 0 {
			raise += "; what was sent and became no release counts for " + s.unsealedFor().String()
		}
		return refuse(http.StatusInsufficientStorage, raise, "with this release %s would hold %d bytes, and it may hold %d", site, total, q.Stored)
	}
	return nil
}

// fits is quota without mu.
func (s *Server) fits(site string, id origin.Digest, files int, blobs []origin.Blob) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quota(site, id, files, blobs)
}
