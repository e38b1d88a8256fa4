package control

import (
	"maps"
	"slices"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// State is what the log says: a fold of its entries in order, and nothing else.
// The zero State is that of an empty log.
type State struct {
	Sites   map[string]*SiteState
	Drained map[string]uint64 // edge → seq of the drain
	Forced  map[string]string // edge → "up" or "down"
	// Nodes are those that were removed or whose certificate was replaced: the
	// hash of the only good one, "" for none.
	Nodes map[string]string
	// Tokens are those that were added (nil: removed) while several control nodes
	// held the log.
	Tokens map[string]*token
	// Snapshots are those that were made, oldest first.
	Snapshots []MadeSnapshot `json:",omitempty"`
	// LostAt is when entries were lost last, in a snapshot that is made lostKeep after it
	// at the latest: else older versions, which refuse it, could never read one again.
	LostAt time.Time `json:",omitzero"`
}

// SiteState is a site's part.
type SiteState struct {
	Active     origin.Digest   // zero: none yet
	Generation uint64          // seq of the activate entry
	Releases   []SealedRelease // in the order of Seq
	// Forgotten are the last maxReleases that were forgotten, the newest last.
	Forgotten []ForgottenRelease `json:",omitempty"`
	// Previews are the channels beside prod, by name.
	Previews map[string]*Preview `json:",omitempty"`
}

// Preview is a channel beside prod.
type Preview struct {
	Active     origin.Digest
	Generation uint64 // seq of the entry that made it so
	At         time.Time
}

// SealedRelease is one release that may be activated.
type SealedRelease struct {
	Release
	Seq    uint64
	Sealed time.Time
	// Activated is when it last became active; zero: never.
	Activated time.Time
	// Retired is when another one took its place in a channel last; zero: never.
	Retired time.Time `json:",omitzero"`
}

// maxReleases bounds the releases remembered of a site; the oldest that is not
// active is forgotten first. Edges keep at most origin.MaxKeep.
const maxReleases = 1000

// Apply folds one entry in. An error means that the entry is left out: it was
// not written by this version of a control node.
func (s *State) Apply(e feed.Entry) error {
	body, err := DecodeCommand(e)
	if err == nil {
		s.apply(e, body)
	}
	return err
}

// apply is Apply for an entry whose command is decoded.
func (s *State) apply(e feed.Entry, command any) {
	switch b := command.(type) {
	case *Release:
		site := s.site(b.Site)
		site.remember(b.Release)
		if i := slices.IndexFunc(site.Releases, func(r SealedRelease) bool { return r.Release.Release == b.Release }); i >= 0 { // pushed again, so that it is kept
			r := site.Releases[i]
			r.Seq, r.Sealed = e.Seq, time.UnixMilli(e.At)
			site.Releases = append(slices.Delete(site.Releases, i, i+1), r)
			return
		}
		site.Releases = append(site.Releases, SealedRelease{Release: *b, Seq: e.Seq, Sealed: time.UnixMilli(e.At)})
		site.trim(e)
	case *Forget:
		s.site(b.Site).forget(e, b.Releases)
	case *Activate:
		site := s.site(b.Site)
		if site.Active != b.Release {
			site.retire(site.Active, time.UnixMilli(e.At))
		}
		site.Active, site.Generation = b.Release, e.Seq
		if r := site.find(b.Release); r != nil {
			r.Activated = time.UnixMilli(e.At)
		}
	case *Channel:
		site := s.site(b.Site)
		if p := site.Previews[b.Channel]; p != nil && p.Active != b.Release {
			site.retire(p.Active, time.UnixMilli(e.At))
		}
		if b.Release.IsZero() {
			delete(site.Previews, b.Channel)
			return
		}
		if site.Previews == nil {
			site.Previews = map[string]*Preview{}
		}
		site.Previews[b.Channel] = &Preview{Active: b.Release, Generation: e.Seq, At: time.UnixMilli(e.At)}
	case *Drain:
		if e.Kind == KindUndrain {
			delete(s.Drained, b.Edge)
			return
		}
		if s.Drained == nil {
			s.Drained = map[string]uint64{}
		}
		s.Drained[b.Edge] = e.Seq
	case *Force:
		if b.Force == "obey" {
			delete(s.Forced, b.Edge)
			return
		}
		if s.Forced == nil {
			s.Forced = map[string]string{}
		}
		s.Forced[b.Edge] = b.Force
	case *TokenChange:
		if s.Tokens == nil {
			s.Tokens = map[string]*token{}
		}
		s.Tokens[b.Name] = b.Token
	case *NodeCert:
		if s.Nodes == nil {
			s.Nodes = map[string]string{}
		}
		s.Nodes[b.Node] = b.Cert
	case *SnapshotMade:
		s.Snapshots = append(s.Snapshots, MadeSnapshot{*b, e.Seq, time.UnixMilli(e.At).UTC()})
		s.Snapshots = s.Snapshots[max(0, len(s.Snapshots)-maxSnapshots):]
	}
}

func (s *State) site(name string) *SiteState {
	if s.Sites == nil {
		s.Sites = map[string]*SiteState{}
	}
	if s.Sites[name] == nil {
		s.Sites[name] = &SiteState{}
	}
	return s.Sites[name]
}

func (s *SiteState) find(release origin.Digest) *SealedRelease {
	for i := range s.Releases {
		if s.Releases[i].Release.Release == release {
			return &s.Releases[i]
		}
	}
	return nil
}

// inUse reports whether a release is active in some channel.
func (s *SiteState) inUse(release origin.Digest) bool {
	for _, p := range s.Previews {
		if p.Active == release {
			return true
		}
	}
	return s.Active == release
}

// channel returns what is active in a channel and its generation; zero: nothing.
func (s *SiteState) channel(name string) (active origin.Digest, generation uint64) {
	if name == origin.Prod {
		return s.Active, s.Generation
	}
	if p := s.Previews[name]; p != nil {
		return p.Active, p.Generation
	}
	return origin.Digest{}, 0
}

// trim forgets the oldest when there are more than maxReleases.
func (s *SiteState) trim(e feed.Entry) {
	var oldest []origin.Digest
	for i := 0; len(s.Releases)-len(oldest) > maxReleases && i < len(s.Releases)-1; i++ {
		if d := s.Releases[i].Release.Release; !s.inUse(d) {
			oldest = append(oldest, d)
		}
	}
	s.forget(e, oldest)
}

// DrainedEdges returns the names of drained edges, sorted.
func (s *State) DrainedEdges() []string { return slices.Sorted(maps.Keys(s.Drained)) }
