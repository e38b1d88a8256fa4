package control

import (
	"net/http"

	"perigee.example/origin"
)

// Quota is what one site may hold; 0 is no limit.
type Quota struct {
	Files  int   // of one release
	Stored int64 // bytes of all blobs of its releases, each once, those being pushed included
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
	total := used.bytes
	for _, size := range more {
		total += size
	}
	if total > q.Stored && len(more) > 0 {
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
