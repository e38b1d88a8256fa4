package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"perigee.example/origin"
)

const (
	// maxPathsTold bounds the paths that one error names: a screenful.
	maxPathsTold = 20
	// lookBack is how many releases before the active one a push is compared
	// with, as far as they were replaced within origin.GraceTime.
	lookBack = 5
)

// errMoved: another release became active while one was compared with it.
var errMoved = errors.New("the active release has changed")

// served are the releases whose files browsers have from a channel: the active
// one, and those of prod that are in grace.
func (s *Server) served(site, channel string) (releases []origin.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state.Sites[site]
	if st == nil {
		return nil
	}
	active, _ := st.channel(channel)
	if active.IsZero() {
		return nil
	}
	releases = append(releases, active)
	if channel != origin.Prod {
		return releases
	}
	since := s.now().Add(-origin.GraceTime)
	var older []*SealedRelease
	for i := range st.Releases {
		if r := &st.Releases[i]; !r.Activated.IsZero() && r.lastActive().After(since) && r.Release.Release != active {
			older = append(older, r)
		}
	}
	slices.SortFunc(older, func(a, b *SealedRelease) int { return b.lastActive().Compare(a.lastActive()) })
	for _, r := range older[:min(len(older), lookBack)] {
		releases = append(releases, r.Release.Release)
	}
	return releases
}

// unchanged refuses a manifest that has other bytes for a path which the channel
// serves as immutable. It returns the active release that it has compared with.
func (s *Server) unchanged(k *KnownSite, channel string, next *origin.Manifest) (active origin.Digest, err error) {
	for i, release := range s.served(k.Name, channel) {
		if i == 0 {
			active = release
		}
		now, err := s.manifest(release)
		if err != nil {
			s.log.Error("manifest cannot be compared with", "site", k.Name, "release", release.String(), "err", err)
			continue // a lost manifest must not stop the push that heals it
		}
		paths, n := origin.Unchangeable(now, next, k.Expiry, maxPathsTold)
		if n == 0 {
			continue
		}
		slices.Sort(paths)
		more := ""
		if n > len(paths) {
			more = ", …"
		}
		return active, refuse(http.StatusConflict,
			"give them other names, as build tools do; a path that is not to be immutable needs another rule in [site."+k.Name+".expiry], or in _headers of a release that still has the old bytes",
			"other bytes for what release %.19s serves as immutable, so that browsers keep the old: %s%s (%d in all)", release, strings.Join(paths, ", "), more, n)
	}
	return active, nil
}

// mayReplace is unchanged for a release that is to become active in prod for the
// first time; a rollback is never refused. It returns the check that the active
// release is still the one compared with, nil when there is nothing to check.
func (s *Server) mayReplace(ctx context.Context, site, channel string, release origin.Digest) (func(*SiteState) error, error) {
	k, err := s.site(site)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	r := (*SealedRelease)(nil)
	if st := s.state.Sites[site]; st != nil {
		r = st.find(release)
	}
	first := r != nil && r.Activated.IsZero()
	s.mu.Unlock()
	if channel != origin.Prod || !first {
		return nil, nil
	}
	done, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	next, err := s.manifest(release)
	if err != nil {
		return nil, nil // the edges will say that it cannot be fetched
	}
	active, err := s.unchanged(k, channel, next)
	if err != nil {
		return nil, err
	}
	return func(st *SiteState) error {
		if st.Active != active {
			return errMoved
		}
		return nil
	}, nil
}
