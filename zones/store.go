package zones

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Source is one zone and its master file.
type Source struct {
	Origin string
	Path   string
	// AutoSerial has the store raise the serial when the file changes and its
	// serial is not above the one served last. It needs StoreConfig.State.
	AutoSerial bool
}

// StoreConfig says which zones a Store holds.
type StoreConfig struct {
	Zones []Source
	// Globs are patterns as of path/filepath.Match. Each file that matches is a
	// zone; its name without ".zone" is the origin. Hidden files and editors'
	// backups are passed over, and a zone of Zones goes before a file.
	Globs []string
	// State is a folder in which the last good copy of each zone is kept, so
	// that it survives a restart with a bad, cut-off or missing file. Empty
	// keeps none.
	State string
	// MaxRecords bounds each zone; 0 means DefaultMaxRecords.
	MaxRecords int
	// Changed, if not nil, is called after a reload that changed a zone that is
	// served, or the status of one, once for all of them. It must not call
	// Reload, Accept or Configure.
	Changed func()
}

// Store holds a set of zones and keeps them up to date with their files. A zone
// whose file turns bad, shrinks suspiciously or goes away keeps its last good
// version, and Status says so until it is cured. All methods are safe for
// concurrent use.
type Store struct {
	state   string
	max     int
	changed func()

	snapshot atomic.Pointer[[]*Zone]

	reload  sync.Mutex // held by whoever changes what follows
	mu      sync.Mutex // held too while it is changed, and by readers
	zones   []Source
	globs   []string
	entries map[string]*entry // by origin
	refused []Status          // files that cannot be a zone
	saving  problem           // why copies cannot be kept
	watch   problem           // why only the poll sees changes
	unsaved int               // how many copies are yet to be written
	serials map[string]given  // of zones with AutoSerial, as the state folder has them; nil is not read
	started bool
	looked  time.Duration // how long the last look at all files took, reading them left out; Watch's own

	parsed  atomic.Int64 // zones that were parsed, ever
	garbage atomic.Int64 // octets of images that were replaced since the last collection
}

// Status is how one zone of a Store stands. Origin is empty for a file that
// cannot be a zone, and for trouble of the store itself.
type Status struct {
	Origin string
	File   string
	Loaded bool // it is served
	Serial uint32
	Names  int  // owner names, empty non-terminals not counted
	Held   bool // a new version waits for Accept
	Saved  bool // served from the copy in the state folder
	// Problem says what is wrong, with file and line where there is one, until
	// it is cured; empty when all is well.
	Problem string
	Hint    string // the cure of Problem
	Since   time.Time
	// Findings of the last time that the file was read, warnings too.
	Findings []Finding
}

// entry is one zone of a Store.
type entry struct {
	origin   string
	source   Source
	fromGlob bool

	zone   *Zone    // served; nil before the first good load
	hash   textHash // of the text that zone was made from
	serial uint32   // the last one that was raised as it should be
	base   textHash // of the text that had it
	copied bool     // zone comes from the state folder
	tail   textHash // of the copy in the state folder; zero is none

	read time.Time  // when the file was last read; zero is never
	last loaded     // what that gave, without the zone
	racy bool       // the file was so young that a later write may not show in its times
	held *loaded    // a good zone that waits for Accept
	next []seenFile // a change that has not stood for settle yet
	seen time.Time  // since when next has stood
	fix  problem
}

// textHash is the SHA-256 of all the text of a zone.
type textHash [sha256.Size]byte

// problem is what Status says is wrong.
type problem struct {
	text, hint string
	since      time.Time
}

// set notes a problem; one that stands keeps its time. It reports whether
// that is a change.
func (p *problem) set(text, hint string) bool {
	if p.text == text {
		p.hint = hint
		return false
	}
	*p = problem{text: text, hint: hint, since: time.Now()}
	if text == "" {
		*p = problem{}
	}
	return true
}

// NewStore makes a Store. It has no zones before Reload.
func NewStore(c StoreConfig) (*Store, error) {
	s := &Store{state: c.State, max: c.MaxRecords, changed: c.Changed, entries: map[string]*entry{}}
	s.snapshot.Store(&[]*Zone{})
	return s, s.Configure(c.Zones, c.Globs)
}

// Configure sets which zones the store holds, from the next Reload on. It is
// the only way, but for Accept, by which a zone is ever taken out. On error
// nothing changes.
func (s *Store) Configure(zones []Source, globs []string) error {
	seen := map[string]string{}
	var errs []error
	zones = slices.Clone(zones)
	for i, z := range zones {
		wire, err := ParseName(z.Origin)
		if err != nil {
			errs = append(errs, fmt.Errorf("zone %q: %w", z.Origin, err))
			continue
		}
		origin := FormatName(appendLower(nil, wire))
		if first, ok := seen[origin]; ok {
			errs = append(errs, fmt.Errorf("zone %s has two files, %s and %s: remove one", origin, first, z.Path))
		}
		seen[origin] = z.Path
		if z.AutoSerial && s.state == "" {
			errs = append(errs, fmt.Errorf("zone %s: a serial cannot be raised without a state folder to keep it in", origin))
		}
		zones[i].Origin = origin
	}
	for _, g := range globs {
		if _, err := filepath.Match(g, ""); err != nil {
			errs = append(errs, fmt.Errorf("zone_files %q: %w", g, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.reload.Lock()
	defer s.reload.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones, s.globs = zones, slices.Clone(globs)
	return nil
}

// Zones is what is served at the moment, by origin. Do not modify it.
func (s *Store) Zones() []*Zone { return *s.snapshot.Load() }

// Status describes every zone, by origin, and what else is wrong.
func (s *Store) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.refused)
	for _, p := range []problem{s.saving, s.watch} {
		if p.text != "" {
			list = append(list, Status{Problem: p.text, Hint: p.hint, Since: p.since})
		}
	}
	for _, e := range s.entries {
		list = append(list, e.status())
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Origin+" "+a.File, b.Origin+" "+b.File) })
	return list
}

func (e *entry) status() Status {
	st := Status{Origin: e.origin, File: e.source.Path, Held: e.held != nil, Saved: e.copied,
		Problem: e.fix.text, Hint: e.fix.hint, Since: e.fix.since, Findings: e.last.findings}
	if e.zone != nil {
		st.Loaded, st.Serial, st.Names = true, e.zone.Serial(), e.zone.Len()
	}
	return st
}

// Accept lets a zone lose what its new version lacks: a version that was held
// back is served from now on, and a zone found by a pattern whose file is gone
// is taken out. It accepts this one version: a different one is held back again.
func (s *Store) Accept(origin string) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	wire, err := ParseName(origin)
	if err != nil {
		return err
	}
	origin = FormatName(appendLower(nil, wire))
	e := s.entries[origin]
	switch {
	case e == nil:
		return fmt.Errorf("there is no zone %s", origin)
	case e.held != nil:
		s.mu.Lock()
		e.serve(*e.held)
		s.mu.Unlock()
		s.publish()
		s.tell()
		return s.save([]*entry{e})
	case e.last.unread && e.fromGlob && !exists(e.source.Path):
		s.mu.Lock()
		delete(s.entries, origin)
		s.mu.Unlock()
		s.publish()
		s.tell()
		return s.forget(origin)
	case e.last.unread:
		return fmt.Errorf("zone %s: %s cannot be read: restore it, or take the zone out of the configuration", origin, e.source.Path)
	}
	return fmt.Errorf("zone %s has nothing to accept", origin)
}

func (s *Store) tell() {
	if s.changed != nil {
		s.changed()
	}
}

// publish makes what the entries hold the snapshot. It reports whether that
// is a change.
func (s *Store) publish() bool {
	list := make([]*Zone, 0, len(s.entries))
	for _, e := range s.entries {
		if e.zone != nil {
			list = append(list, e.zone)
		}
	}
	slices.SortFunc(list, func(a, b *Zone) int { return strings.Compare(a.text, b.text) })
	if slices.Equal(list, s.Zones()) {
		return false
	}
	s.snapshot.Store(&list)
	return true
}

// settle is how long a changed file must stand still before it is read: a
// program that writes in one go is done in less.
const settle = 200 * time.Millisecond

// maxSettleRounds bounds how often Reload waits for files that keep changing.
// Two seconds; whoever writes for longer is read by the next poll.
const maxSettleRounds = 10

// Reload reads every zone whose text has changed and serves the new versions,
// all of them at once. Files that are being written are waited for, for a
// while. The error, if any, joins what went wrong with each zone, which keeps
// its last good version.
func (s *Store) Reload(ctx context.Context) error {
	return s.reloadAnd(ctx, saveRound)
}

// Load is the first Reload of a process that calls Watch next, which keeps the
// copies: nobody waits for the disk before the first answer.
func (s *Store) Load(ctx context.Context) error { return s.reloadAnd(ctx, 0) }

func (s *Store) reloadAnd(ctx context.Context, save int) error {
	err := s.scan(ctx, true, save)
	for range maxSettleRounds {
		if !s.unsettled(nil) {
			break
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(settle):
		}
		err = errors.Join(err, s.scan(ctx, false, save))
	}
	return errors.Join(err, s.problems())
}

// problems joins what is wrong with each zone.
func (s *Store) problems() error {
	var errs []error
	for _, st := range s.Status() {
		if st.Problem != "" {
			text := st.Problem
			if st.Origin != "" {
				text = "zone " + st.Origin + ": " + text
			}
			if st.Hint != "" {
				text += "; " + st.Hint
			}
			errs = append(errs, errors.New(text))
		}
	}
	return errors.Join(errs...)
}

// unsettled reports whether a file has changed and not yet stood still, and
// adds its zone to touched, if that is not nil.
func (s *Store) unsettled(touched map[*entry]bool) bool {
	s.reload.Lock()
	defer s.reload.Unlock()
	found := false
	for _, e := range s.entries {
		if e.next != nil {
			found = true
			if touched != nil {
				touched[e] = true
			}
		}
	}
	return found
}

// backlog is how many copies are yet to be written.
func (s *Store) backlog() int {
	s.reload.Lock()
	defer s.reload.Unlock()
	return s.unsaved
}

// readers is how many zones are read at once: all cores at the start, half of
// them later, when there is something to answer too.
func (s *Store) readers() int {
	n := runtime.GOMAXPROCS(0)
	if s.started {
		n /= 2
	}
	return max(1, n)
}
