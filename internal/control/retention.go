package control

import (
	"cmp"
	"slices"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// Retain says which releases of a site stay, beside those that are active in a
// channel. The zero Retain keeps all.
type Retain struct {
	// Releases is how many that were active before stay, however old: what a
	// rollback finds.
	Releases int
	// For is how long one stays after it was sealed, or was active last; 0: for ever.
	For time.Duration
}

const (
	// MinRetain is the least Retain.For: as long as edges answer from releases in grace,
	// and pushes are compared with them; and far longer than any push takes from
	// the seal to the activation.
	MinRetain = origin.GraceTime
	// MaxForgotten bounds the releases that one entry forgets: 75 bytes of 64 KiB
	// for each. A node's journal remembers as many of a site.
	MaxForgotten = 500
	// renewAfter is from which age on a release that is pushed again is sealed
	// again, so that it is not forgotten as an old one before it is activated.
	renewAfter = time.Hour
)

// Forget says that releases of a site can never be activated again, unless they
// are pushed again. What nothing else needs of them is removed: on the control
// nodes once forgottenFor is over, on edges when they do not serve it. One
// that is active somewhere when the entry comes is not forgotten.
type Forget struct {
	Site     string          `json:"site"`
	Releases []origin.Digest `json:"releases"`
}

// ForgottenRelease is one that was sealed and is forgotten.
type ForgottenRelease struct {
	Release origin.Digest
	Seq     uint64 // of the entry that forgot it
	At      time.Time
}

// forget takes releases out of what may be activated.
func (s *SiteState) forget(e feed.Entry, releases []origin.Digest) {
	for _, d := range releases {
		i := slices.IndexFunc(s.Releases, func(r SealedRelease) bool { return r.Release.Release == d })
		if i < 0 || s.inUse(d) {
			continue
		}
		s.Releases = slices.Delete(s.Releases, i, i+1)
		s.Forgotten = append(s.Forgotten, ForgottenRelease{d, e.Seq, time.UnixMilli(e.At)})
	}
	if n := len(s.Forgotten) - maxReleases; n > 0 {
		s.Forgotten = slices.Delete(s.Forgotten, 0, n)
	}
}

// activeUnsealed are releases that are active and may not be activated: a control
// node of a version that knows no Forget can write such an entry.
func (s *SiteState) activeUnsealed() (list []origin.Digest) {
	if !s.Active.IsZero() && s.find(s.Active) == nil {
		list = append(list, s.Active)
	}
	for _, p := range s.Previews {
		if s.find(p.Active) == nil {
			list = append(list, p.Active)
		}
	}
	return list
}

// forgotten finds a release among those that were forgotten.
func (s *SiteState) forgotten(release origin.Digest) *ForgottenRelease {
	for i := range s.Forgotten {
		if s.Forgotten[i].Release == release {
			return &s.Forgotten[i]
		}
	}
	return nil
}

// remember takes a release out of those that are forgotten: it was pushed again.
func (s *SiteState) remember(release origin.Digest) {
	s.Forgotten = slices.DeleteFunc(s.Forgotten, func(f ForgottenRelease) bool { return f.Release == release })
}

// retire notes that a release is no longer active in a channel.
func (s *SiteState) retire(release origin.Digest, at time.Time) {
	if r := s.find(release); r != nil {
		r.Retired = at
	}
}

// lastActive is when a release was active last; zero: never.
func (r *SealedRelease) lastActive() time.Time {
	if r.Retired.After(r.Activated) {
		return r.Retired
	}
	return r.Activated
}

// lastUsed is when a release was sealed, or active last.
func (r *SealedRelease) lastUsed() time.Time {
	if at := r.lastActive(); at.After(r.Sealed) {
		return at
	}
	return r.Sealed
}

// due are the releases that may be forgotten now, the oldest first: those that
// retain does not keep, that are active nowhere, and that nobody is pushing.
func (s *SiteState) due(retain Retain, now time.Time, pushed func(origin.Digest) bool) (due []*SealedRelease) {
	if retain.For == 0 {
		return nil
	}
	var old []*SealedRelease
	for i := range s.Releases {
		if r := &s.Releases[i]; !s.inUse(r.Release.Release) {
			old = append(old, r)
		}
	}
	slices.SortStableFunc(old, func(a, b *SealedRelease) int {
		return cmp.Or(b.lastUsed().Compare(a.lastUsed()), cmp.Compare(b.Seq, a.Seq))
	})
	back := 0 // how many that the site itself served stay
	for _, r := range old {
		if !r.Activated.IsZero() && back < retain.Releases {
			back++
			continue
		}
		if now.Sub(r.lastUsed()) < max(retain.For, MinRetain) || pushed(r.Release.Release) {
			continue
		}
		due = append(due, r)
	}
	slices.Reverse(due)
	return due
}
