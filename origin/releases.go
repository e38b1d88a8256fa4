package origin

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults and limits of Releases.
const (
	// DefaultKeep is how many releases before the active one a site keeps.
	DefaultKeep = 5
	// MaxKeep bounds it: each keeps its blobs on disk and its paths in memory.
	MaxKeep = 50
	// GraceTime is how long fingerprinted paths of a release resolve after it
	// was replaced: pages that were open over a weekend still find their parts.
	GraceTime = 72 * time.Hour
	// maxSiteName bounds a site's name: it becomes a file name.
	maxSiteName = 100
)

// Releases keeps, for each site of an edge, which release is active and those
// in grace, durably, over one Blobs. A request reads a site's pointer once.
//
// A site's channels other than prod are sites of their own here, by the name
// that Place gives them.
//
// Each site has one small file, SITE.json, written by temporary file, sync,
// rename and sync of the folder: after a crash it is the old one or the new.
type Releases struct {
	root  *os.Root
	disk  disk
	dir   string
	blobs *Blobs

	sites atomic.Pointer[map[string]*SiteReleases] // copied on each change

	mu     sync.Mutex          // one Activate, SetKeep, Verify or Sweep at a time
	keep   map[string]int      // by site; absent: DefaultKeep
	state  map[string]pointer  // what each site's file says
	damage map[string][]Damage // by site: found at open or by Verify, not yet healed
}

// SiteReleases is an immutable picture of a site: its active release and those
// in grace.
type SiteReleases struct {
	Active     Digest
	Generation uint64
	Manifest   *Manifest      // never nil
	Grace      []GraceRelease // newest first
}

// GraceRelease is a release that was active before. It is kept for rollback
// for as long as it is among the newest of its site, and fingerprinted paths
// still resolve from it before Until.
type GraceRelease struct {
	Release  Digest
	Manifest *Manifest
	Until    time.Time
}

// Resolve finds a path: in the active release, else, when its class is
// Immutable, in the newest release still in grace at now that has it. It
// allocates nothing.
func (s *SiteReleases) Resolve(path string, now time.Time) (f File, release Digest, ok bool) {
	if f, ok := s.Manifest.Files[path]; ok {
		return f, s.Active, true
	}
	for i := range s.Grace {
		g := &s.Grace[i]
		if !now.Before(g.Until) {
			continue
		}
		if f, ok := g.Manifest.Files[path]; ok && f.Class == Immutable {
			return f, g.Release, true
		}
	}
	return File{}, Digest{}, false
}

// Named returns the manifest of a release that is active, or in grace at now,
// for a request that asks for it by name; else nil.
func (s *SiteReleases) Named(release Digest, now time.Time) *Manifest {
	if release == s.Active {
		return s.Manifest
	}
	for i := range s.Grace {
		if g := &s.Grace[i]; g.Release == release && now.Before(g.Until) {
			return g.Manifest
		}
	}
	return nil
}

// MissingError says which blobs of a release are not stored here. The release
// itself is among them when its manifest is not; its Size is then -1.
type MissingError struct {
	Site    string
	Release Digest
	Blobs   []Blob
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("site %s: release %s: %d blobs are missing here, the first is %s", e.Site, e.Release, len(e.Blobs), e.Blobs[0].Digest)
}

// GenerationError is an activation that is older than what is active, or that
// gives the active generation to another release.
type GenerationError struct {
	Site      string
	Have, Got uint64
	Active    Digest
}

func (e *GenerationError) Error() string {
	return fmt.Sprintf("site %s: generation %d comes after generation %d (release %s) was activated", e.Site, e.Got, e.Have, e.Active)
}

// Damage is something of a site that is not as it should be on disk. The cure
// is to store the named blob again (Blobs.Put) and activate the release again.
type Damage struct {
	Site    string
	Release Digest // zero: the site's own file
	Blob    Digest // the manifest or one of its files; zero: the site's own file
	Why     string
}

// OpenReleases opens the state in dir and loads every site's active release;
// it needs no control node. What is missing or damaged does not fail it: the
// sites keep what works, and Damage tells the rest. Blobs are checked for
// their size only: see Verify.
func OpenReleases(dir string, blobs *Blobs) (*Releases, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("releases in %s: %w", dir, err)
	}
	r := &Releases{root: root, disk: rootDisk{root}, dir: dir, blobs: blobs,
		keep: map[string]int{}, state: map[string]pointer{}, damage: map[string][]Damage{}}
	sites := map[string]*SiteReleases{}
	names, err := fs.Glob(root.FS(), "*"+pointerExt)
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("releases in %s: %w", dir, err)
	}
	for _, name := range names {
		site := strings.TrimSuffix(name, pointerExt)
		p, err := readPointer(root, site)
		if err != nil {
			r.damage[site] = []Damage{{Site: site, Why: err.Error()}}
			continue
		}
		r.state[site] = p
		loaded, damage := r.load(site, p)
		if loaded != nil {
			sites[site] = loaded
		}
		if damage != nil {
			r.damage[site] = damage
		}
	}
	r.sites.Store(&sites)
	return r, nil
}

// Close releases the folder. Pictures that Site returned stay valid.
func (r *Releases) Close() error { return r.root.Close() }

// Site returns the snapshot of the releases at a place (see Place; the site's
// name for its own), or nil.
func (r *Releases) Site(name string) *SiteReleases { return (*r.sites.Load())[name] }

// Sites returns the places (see Place) that have a release, sorted.
func (r *Releases) Sites() []string { return slices.Sorted(maps.Keys(*r.sites.Load())) }

// SetKeep sets how many releases before the active one a site keeps, 0 to
// MaxKeep. It takes effect at the site's next Activate.
func (r *Releases) SetKeep(site string, keep int) error {
	if keep < 0 || keep > MaxKeep {
		return fmt.Errorf("site %s: keep %d: want 0 to %d", site, keep, MaxKeep)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep[site] = keep
	return nil
}

// Damage returns what was found wrong at open, by Activate or by Verify and
// has not been healed, by site.
func (r *Releases) Damage() []Damage {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Damage
	for _, site := range slices.Sorted(maps.Keys(r.damage)) {
		all = append(all, r.damage[site]...)
	}
	return all
}

// Activate makes release (a manifest blob) the active one of site, at being
// the time of the flip. Every blob must be present with its size: else the
// error is a *MissingError and nothing changes. A generation only rises: a
// lower one, or the active one with another release, is a *GenerationError;
// the active one with its own release changes nothing, or heals what Damage
// told. After a nil error the flip survives a power loss.
func (r *Releases) Activate(site string, release Digest, generation uint64, at time.Time) error {
	if err := checkPlace(site); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.state[site]
	if known {
		again := generation == old.Generation && release == old.Active
		if again && len(r.damage[site]) == 0 {
			return nil
		}
		if !again && generation <= old.Generation {
			return &GenerationError{site, old.Generation, generation, old.Active}
		}
	}
	if err := r.complete(site, release); err != nil {
		return err
	}
	next := old.flip(site, release, generation, at, r.keepOf(site))
	loaded, damage := r.load(site, next)
	if loaded == nil || loaded.Active != release {
		return fmt.Errorf("site %s: release %s could not be loaded again: %s", site, release, damage[0].Why)
	}
	if err := next.write(r.disk); err != nil {
		return fmt.Errorf("site %s: activate %s: releases in %s: %w", site, release, r.dir, err)
	}
	r.state[site] = next
	r.setDamage(site, damage)
	r.publish(site, loaded)
	return nil
}

// Restart has the generations of a place begin anew, durably; what is active
// stays so. The log that they are numbers of has been replaced by another one, whose
// numbers may be lower.
func (r *Releases) Restart(place string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, known := r.state[place]
	if !known || p.Generation == 0 {
		return nil
	}
	p.Generation = 0
	if err := p.write(r.disk); err != nil {
		return fmt.Errorf("site %s: releases in %s: %w", place, r.dir, err)
	}
	r.state[place] = p
	if now := r.Site(place); now != nil {
		s := *now
		s.Generation = 0
		r.publish(place, &s)
	}
	return nil
}

func (r *Releases) keepOf(site string) int {
	if keep, ok := r.keep[site]; ok {
		return keep
	}
	if _, channel := SplitPlace(site); channel != Prod {
		return previewKeep
	}
	return DefaultKeep
}

func (r *Releases) setDamage(site string, damage []Damage) {
	if damage == nil {
		delete(r.damage, site)
		return
	}
	r.damage[site] = damage
}

func (r *Releases) publish(site string, s *SiteReleases) {
	sites := maps.Clone(*r.sites.Load())
	sites[site] = s
	r.sites.Store(&sites)
}

// manifest reads a release's manifest from the blobs.
func (r *Releases) manifest(release Digest) (*Manifest, error) {
	content, err := r.blobs.read(release, MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	return ParseManifest(content)
}

// complete checks that a release and all its blobs are stored.
func (r *Releases) complete(site string, release Digest) error {
	m, err := r.manifest(release)
	mismatch := (*MismatchError)(nil)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &mismatch):
		return &MissingError{site, release, []Blob{{release, -1}}}
	case err != nil:
		return fmt.Errorf("site %s: release %s: %w", site, release, err)
	}
	if missing := r.blobs.Missing(m); missing != nil && swapNeedsBlobs {
		return &MissingError{site, release, missing}
	}
	return nil
}

// load makes the picture of a site from its pointer and the blobs. When the
// active release's manifest cannot be read, the newest release before it that
// can be takes its place: old pages are better than none. It returns nil when
// no release can be read.
func (r *Releases) load(site string, p pointer) (*SiteReleases, []Damage) {
	s := &SiteReleases{Generation: p.Generation}
	var damage []Damage
	read := func(release Digest) *Manifest {
		if old := r.loaded(site, release); old != nil {
			return old
		}
		m, err := r.manifest(release)
		if err != nil {
			damage = append(damage, Damage{site, release, release, err.Error()})
			return nil
		}
		return m
	}
	if m := read(p.Active); m != nil {
		s.Active, s.Manifest = p.Active, m
	}
	for _, g := range p.Grace {
		m := read(g.Release)
		switch {
		case m == nil:
		case s.Manifest == nil:
			s.Active, s.Manifest = g.Release, m
		default:
			s.Grace = append(s.Grace, GraceRelease{g.Release, m, time.UnixMilli(g.Until)})
		}
	}
	if s.Manifest == nil {
		return nil, damage
	}
	for _, blob := range s.Manifest.Blobs() {
		if size, ok := r.blobs.Has(blob.Digest); !ok {
			damage = append(damage, Damage{site, s.Active, blob.Digest, "missing"})
		} else if size != blob.Size {
			damage = append(damage, Damage{site, s.Active, blob.Digest, fmt.Sprintf("has %d bytes on disk, want %d", size, blob.Size)})
		}
	}
	return s, damage
}

// loaded returns the manifest of a release that the site's present picture
// holds already, or nil: an activation reads one manifest, not six.
func (r *Releases) loaded(site string, release Digest) *Manifest {
	sites := r.sites.Load()
	if sites == nil || (*sites)[site] == nil {
		return nil
	}
	s := (*sites)[site]
	if s.Active == release {
		return s.Manifest
	}
	for _, g := range s.Grace {
		if g.Release == release {
			return g.Manifest
		}
	}
	return nil
}

// checkSite accepts what is a plain file name everywhere.
func checkSite(site string) error {
	ok := site != "" && len(site) <= maxSiteName && site[0] != '.' && site[0] != '-'
	for i := range len(site) {
		c := site[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("site %.120q: want 1 to %d of a-z, 0-9, dot, dash and underscore, the first a letter or digit", site, maxSiteName)
	}
	return nil
}
