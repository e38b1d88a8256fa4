package origin

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

const (
	// Prod is the channel that a site's own hosts serve. "" means it too.
	Prod = "prod"
	// PreviewPrefix begins the names of all other channels, so that a preview
	// takes no host name that somebody uses for something else.
	PreviewPrefix = "preview-"
	// maxChannel bounds a channel's name: it is the first label of its host
	// (RFC 1035 §2.3.4).
	maxChannel = 63
	// previewKeep is how many releases before the active one a preview keeps:
	// pages that are open in front of whoever looks at it still find their parts.
	previewKeep = 1
)

// CheckChannel accepts prod, and preview- with a name behind it: together one
// label of a host name, in lower case.
func CheckChannel(name string) error {
	rest, ok := strings.CutPrefix(name, PreviewPrefix)
	if name == Prod {
		return nil
	}
	ok = ok && rest != "" && len(name) <= maxChannel && rest[0] != '-' && rest[len(rest)-1] != '-'
	for i := range len(rest) {
		c := rest[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("channel %.80q: want %s, or %sNAME with a NAME of a-z, 0-9 and dashes within, %d bytes in all", name, Prod, PreviewPrefix, maxChannel)
	}
	return nil
}

// Place is the name under which Releases holds a channel of a site: the site's
// own for prod, else SITE@CHANNEL.
func Place(site, channel string) string {
	if channel == "" || channel == Prod {
		return site
	}
	return site + "@" + channel
}

// SplitPlace is the reverse of Place.
func SplitPlace(place string) (site, channel string) {
	site, channel, ok := strings.Cut(place, "@")
	if !ok {
		return place, Prod
	}
	return site, channel
}

// checkPlace accepts what Place makes of a good site and a good channel.
func checkPlace(place string) error {
	site, channel := SplitPlace(place)
	if Place(site, channel) != place {
		return fmt.Errorf("channel %.80q: the site's own place has no channel behind it", place)
	}
	return errors.Join(checkSite(site), CheckChannel(channel))
}

// Channel returns the snapshot of a channel's releases, or nil.
func (r *Releases) Channel(site, channel string) *SiteReleases {
	if channel == "" || channel == Prod {
		return r.Site(site)
	}
	return (*r.sites.Load())[site+"@"+channel]
}

// Forget takes releases out of those that a place keeps beside the active one,
// durably: their paths are no longer found in grace. The active one stays. Their blobs stay
// for the next Sweep.
func (r *Releases) Forget(place string, releases []Digest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, known := r.state[place]
	if !known {
		return nil
	}
	next := p
	next.Grace = slices.DeleteFunc(slices.Clone(p.Grace), func(g gracePointer) bool { return slices.Contains(releases, g.Release) })
	if len(next.Grace) == len(p.Grace) {
		return nil
	}
	if err := next.write(r.disk); err != nil {
		return fmt.Errorf("site %s: forget %d releases: releases in %s: %w", place, len(releases), r.dir, err)
	}
	r.state[place] = next
	loaded, damage := r.load(place, next)
	r.setDamage(place, damage)
	if loaded != nil {
		r.publish(place, loaded)
	}
	return nil
}

// Remove forgets a preview, durably, when its generation is below the given
// one: that of the removal. What was removed already is no error. Its blobs
// stay for the next Sweep.
func (r *Releases) Remove(place string, generation uint64) error {
	if err := checkPlace(place); err != nil {
		return err
	}
	if site, channel := SplitPlace(place); channel == Prod {
		return fmt.Errorf("site %s: its own releases are never removed", site)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, known := r.state[place]; known && p.Generation > generation {
		return nil // made again since
	}
	if err := r.disk.remove(place + pointerExt); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: releases in %s: %w", place, r.dir, explainDisk(err))
	}
	if err := r.disk.syncDir("."); err != nil {
		return fmt.Errorf("remove %s: releases in %s: %w", place, r.dir, explainDisk(err))
	}
	delete(r.state, place)
	delete(r.damage, place)
	sites := maps.Clone(*r.sites.Load())
	delete(sites, place)
	r.sites.Store(&sites)
	return nil
}
