package origin

import (
	"context"
	"errors"
	"time"
)

// Verify hashes every blob of every site's active and kept releases, removes
// those that have rotted, and returns what is wrong; Damage tells it from then
// on too. It reads the whole folder: run it rarely, and at low priority.
// Requests and activations go on meanwhile. The error is that of ctx.
func (r *Releases) Verify(ctx context.Context) ([]Damage, error) {
	bad := map[Digest]string{}
	done := map[Digest]bool{}
	for _, site := range r.Sites() {
		for release, m := range r.Site(site).releases() {
			for _, d := range append(blobDigests(m), release) {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				if done[d] {
					continue
				}
				done[d] = true
				if err := r.blobs.Verify(d); err != nil {
					bad[d] = err.Error()
				}
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Damage
	for _, site := range r.Sites() {
		var damage []Damage
		for _, d := range r.damage[site] {
			if d.Blob == d.Release && !r.Site(site).holds(d.Release) {
				damage = append(damage, d) // a manifest that could not be read, so was not looked into
			}
		}
		for release, m := range r.Site(site).releases() {
			for _, d := range append(blobDigests(m), release) {
				if why, ok := bad[d]; ok {
					damage = append(damage, Damage{site, release, d, why})
				}
			}
		}
		r.setDamage(site, damage)
		all = append(all, damage...)
	}
	return all, nil
}

// holds reports whether release is in the picture.
func (s *SiteReleases) holds(release Digest) bool {
	for have := range s.releases() {
		if have == release {
			return true
		}
	}
	return false
}

// releases yields the active and the kept releases.
func (s *SiteReleases) releases() func(yield func(Digest, *Manifest) bool) {
	return func(yield func(Digest, *Manifest) bool) {
		if !yield(s.Active, s.Manifest) {
			return
		}
		for _, g := range s.Grace {
			if !yield(g.Release, g.Manifest) {
				return
			}
		}
	}
}

func blobDigests(m *Manifest) []Digest {
	blobs := m.Blobs()
	list := make([]Digest, 0, len(blobs)+1)
	for _, b := range blobs {
		list = append(list, b.Digest)
	}
	return list
}

// ErrDamaged keeps Sweep from removing anything.
var ErrDamaged = errors.New("a site's file or manifest cannot be read, so it is not known what it refers to: heal it first (see Damage)")

// Sweep removes blobs that no active or kept release of any site refers to and
// that were last written or kept before olderThan. It removes nothing while a
// site's file or manifest is damaged (ErrDamaged). Activate waits meanwhile.
func (r *Releases) Sweep(olderThan time.Time) (Swept, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := map[Digest]bool{}
	for site, p := range r.state {
		used[p.Active] = true
		for _, g := range p.Grace {
			used[g.Release] = true
		}
		if s := r.Site(site); s != nil {
			for release, m := range s.releases() {
				used[release] = true
				for _, d := range blobDigests(m) {
					used[d] = true
				}
			}
		}
	}
	for _, list := range r.damage {
		for _, d := range list {
			if d.Blob.IsZero() || d.Blob == d.Release {
				return Swept{}, ErrDamaged
			}
		}
	}
	return r.blobs.Sweep(func(d Digest) bool { return used[d] }, olderThan)
}
