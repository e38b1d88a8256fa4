package zones

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A write right after a reading may leave the file's times as they were. How
// long "right after" is depends on the file system: two seconds on FAT and old
// network file systems, which have no parts of a second, else a clock tick.
const (
	coarseTick = 2 * time.Second
	fineTick   = 20 * time.Millisecond
)

// racy reports whether a file was so young when it was read that a later write
// may not show. Such a zone is read once more.
func racy(files []seenFile, read time.Time) bool {
	return slices.ContainsFunc(files, func(f seenFile) bool {
		if f.info == nil {
			return false
		}
		tick := fineTick
		if f.info.ModTime().Nanosecond() == 0 {
			tick = coarseTick
		}
		return read.Sub(f.info.ModTime()) < tick
	})
}

// scan looks which files have changed, reads those that stand still, and
// serves what is good of them. force reads all files. It keeps copies of at
// most save zones.
func (s *Store) scan(ctx context.Context, force bool, save int) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	start := time.Now()
	changed := s.match()
	var due []*entry
	for _, origin := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entries[origin]; e.due(time.Now(), force, s.started) {
			due = append(due, e)
		}
	}
	s.looked = time.Since(start)
	s.take(ctx, due, changed)
	if ctx.Err() == nil {
		s.started = true
	}
	var unsaved []*entry
	for _, e := range s.entries {
		if e.zone != nil && !e.copied && e.tail != e.hash {
			unsaved = append(unsaved, e)
		}
	}
	s.unsaved = max(0, len(unsaved)-save)
	return errors.Join(ctx.Err(), s.save(unsaved[:min(len(unsaved), save)]))
}

// scanOnly is scan for the zones whose files somebody has seen change, so that
// one change of 20,000 zones does not cost a look at 20,000 files. Those that
// stand still again are taken out of the list.
func (s *Store) scanOnly(ctx context.Context, touched map[*entry]bool) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	var due, unsaved []*entry
	for e := range touched {
		if s.entries[e.origin] != e {
			delete(touched, e)
		} else if e.due(time.Now(), false, true) {
			due = append(due, e)
		}
	}
	s.take(ctx, due, false)
	for e := range touched {
		if e.zone != nil && !e.copied && e.tail != e.hash && len(unsaved) < saveRound {
			unsaved = append(unsaved, e)
		}
		if e.next == nil {
			delete(touched, e)
		}
	}
	return errors.Join(ctx.Err(), s.save(unsaved))
}

// readingLeaves is about what reading a small zone leaves to the collector.
const readingLeaves = 8 << 10

// take reads the zones that are due, serves what is good of them, and tells of
// it, once.
func (s *Store) take(ctx context.Context, due []*entry, changed bool) {
	outcomes := s.readAll(ctx, due)
	s.garbage.Add(int64(len(due)) * readingLeaves)
	s.settleSerials(due, outcomes)
	for _, o := range outcomes {
		if o != nil && o.zone != nil && o.moving == nil && !o.same {
			o.zone = overlaid(o.old, o.zone)
		}
	}
	s.mu.Lock()
	for i, e := range due {
		if outcomes[i] != nil {
			before, old := e.status(), e.zone
			e.apply(outcomes[i])
			if old != nil && (e.zone == nil || e.zone.base != old.base) {
				s.garbage.Add(int64(len(old.base.arena)))
			}
			changed = changed || !sameStatus(before, e.status())
		}
	}
	s.mu.Unlock()
	if s.publish() || changed {
		s.tell()
	}
}

// sameStatus compares what a person would look at.
func sameStatus(a, b Status) bool {
	return a.Origin == b.Origin && a.File == b.File && a.Serial == b.Serial && a.Names == b.Names && a.Loaded == b.Loaded &&
		a.Held == b.Held && a.Saved == b.Saved && a.Problem == b.Problem
}

// match brings the entries in line with the configuration and with the files
// that its patterns find. A file that is gone takes no zone with it. It reports
// whether the list of zones, or of what is refused, has changed.
func (s *Store) match() (changed bool) {
	wanted := map[string]*entry{}
	for _, z := range s.zones {
		wanted[z.Origin] = &entry{origin: z.Origin, source: z}
	}
	var refused []Status
	refuse := func(st Status) {
		st.Since = time.Now()
		for _, old := range s.refused {
			if old.File == st.File && old.Problem == st.Problem {
				st.Since = old.Since
			}
		}
		refused = append(refused, st)
	}
	for _, file := range s.found() {
		origin, err := originOfFile(file)
		if err != nil {
			refuse(Status{File: file, Problem: file + ": " + err.Error(), Hint: "name the file after its zone: example.com.zone"})
			continue
		}
		if w := wanted[origin]; w == nil {
			wanted[origin] = &entry{origin: origin, source: Source{Origin: origin, Path: file}, fromGlob: true}
		} else if filepath.Clean(w.source.Path) != filepath.Clean(file) {
			refuse(Status{Origin: origin, File: file, Problem: file + ": ignored, since the zone is read from " + w.source.Path, Hint: "keep one of the two files"})
		}
	}
	s.keepGone(wanted)
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = !slices.EqualFunc(s.refused, refused, sameStatus)
	s.refused = refused
	for origin, e := range s.entries {
		w := wanted[origin]
		if w == nil {
			delete(s.entries, origin)
			// Should the zone come back one day, its old copy is no measure of
			// the new file. One that cannot be removed is only a nuisance.
			_ = s.forget(origin)
			changed = true
			continue
		}
		e.fromGlob = w.fromGlob
		if e.source != w.source {
			e.source = w.source
			e.last.files = []seenFile{{path: w.source.Path}}
		}
	}
	for origin, w := range wanted {
		if s.entries[origin] == nil {
			w.last.files = []seenFile{{path: w.source.Path}}
			s.entries[origin] = w
			changed = true
		}
	}
	return changed
}

// keepGone adds the zones whose file was found by a pattern once and is gone.
func (s *Store) keepGone(wanted map[string]*entry) {
	gone := map[string]string{}
	for origin, e := range s.entries {
		if e.fromGlob {
			gone[origin] = e.source.Path
		}
	}
	if !s.started {
		maps.Copy(gone, s.savedSources())
	}
	for origin, path := range gone {
		if wanted[origin] == nil && slices.ContainsFunc(s.globs, func(g string) bool { ok, _ := filepath.Match(g, path); return ok }) {
			wanted[origin] = &entry{origin: origin, source: Source{Origin: origin, Path: path}, fromGlob: true}
		}
	}
}

// leftovers are the ends of names that editors and other tools leave behind.
var leftovers = []string{"~", ".swp", ".tmp", ".bak", ".orig", ".jnl"}

// found lists the files that the patterns match, without what editors leave.
func (s *Store) found() []string {
	known := map[string]bool{} // so that each poll does not look at all of them
	for _, e := range s.entries {
		known[e.source.Path] = true
	}
	var files []string
	seen := map[string]bool{}
	for _, g := range s.globs {
		matches, _ := filepath.Glob(g) // Configure has checked the pattern
		for _, m := range matches {
			base := filepath.Base(m)
			if strings.HasPrefix(base, ".") || slices.ContainsFunc(leftovers, func(end string) bool { return strings.HasSuffix(base, end) }) {
				continue
			}
			if seen[m] {
				continue
			}
			if !known[m] {
				if info, err := os.Stat(m); err == nil && info.IsDir() {
					continue
				}
			}
			seen[m] = true
			files = append(files, m)
		}
	}
	return files
}

func originOfFile(file string) (string, error) {
	name, err := ParseName(strings.TrimSuffix(filepath.Base(file), ".zone"))
	if err != nil {
		return "", err
	}
	return FormatName(appendLower(nil, name)), nil
}

// restat looks at files again.
func restat(files []seenFile) []seenFile {
	now := make([]seenFile, len(files))
	for i, f := range files {
		now[i] = statFile(f.path)
		now[i].sum = f.sum
	}
	return now
}

func sameFiles(a, b []seenFile) bool {
	return slices.EqualFunc(a, b, func(a, b seenFile) bool {
		if a.info == nil || b.info == nil {
			return a.path == b.path && a.info == nil && b.info == nil
		}
		return a.path == b.path && os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() &&
			a.info.ModTime().Equal(b.info.ModTime()) && a.info.Mode() == b.info.Mode()
	})
}

// youngest is when the latest change of the files was.
func youngest(files []seenFile) time.Time {
	var t time.Time
	for _, f := range files {
		if f.info != nil && f.info.ModTime().After(t) {
			t = f.info.ModTime()
		}
	}
	return t
}

// due reports whether the files of a zone are to be read now. A change must
// have stood for settle: what is read at once is likely half of it. Only the
// first start, which has nothing older to serve, does not wait.
func (e *entry) due(now time.Time, force, started bool) bool {
	if e.read.IsZero() && !started {
		return true
	}
	files := restat(e.last.files)
	if !e.read.IsZero() && sameFiles(files, e.last.files) {
		e.next = nil
		return force || e.racy && now.Sub(e.read) > coarseTick
	}
	if force && files[0].info != nil && now.Sub(youngest(files)) > settle {
		return true
	}
	if e.next == nil || !sameFiles(e.next, files) {
		e.next, e.seen = files, now
		return false
	}
	return now.Sub(e.seen) >= settle
}

// outcome is what reading a zone's files gave.
type outcome struct {
	loaded
	start  time.Time
	moving []seenFile // the files changed meanwhile: nothing of this counts
	same   bool       // the text is what it was: nothing was parsed
	saved  *savedCopy // for the first reading: the copy in the state folder
	old    *Zone      // what is served, or was before a restart
	lost   string     // what the zone would lose that must be accepted first
	unkept error      // why the serial of this version cannot be kept
}

// readAll reads zones in parallel. An outcome is nil when ctx ended before.
func (s *Store) readAll(ctx context.Context, due []*entry) []*outcome {
	outcomes := make([]*outcome, len(due))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(s.readers(), len(due)) {
		wg.Go(func() {
			for i := range next {
				outcomes[i] = s.examine(due[i])
			}
		})
	}
	for i := range due {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return outcomes
}

// examine reads one zone and compares it with what is served. It changes nothing.
func (s *Store) examine(e *entry) *outcome {
	o := &outcome{start: time.Now()}
	if o.same = unchanged(e.last.files); o.same {
		o.files = restat(e.last.files)
		return o
	}
	s.parsed.Add(1)
	o.loaded = load(e.source.Path, Options{Origin: e.origin, MaxRecords: s.max})
	if now := restat(o.files); !sameFiles(now, o.files) {
		o.moving = now
		return o
	}
	hash := e.hash
	o.old = e.zone
	if e.read.IsZero() && o.old == nil {
		if o.saved = s.readSaved(e.origin); o.saved != nil {
			o.old, hash = o.saved.zone, o.saved.hash
		}
	}
	if o.zone != nil && o.old != nil && hash != o.hash {
		o.lost = shrinkage(o.old, o.zone)
	}
	return o
}

// apply takes an outcome over.
func (e *entry) apply(o *outcome) {
	if o.moving != nil {
		e.next, e.seen = o.moving, time.Now()
		if e.zone == nil && e.read.IsZero() {
			e.wrong(e.source.Path+": the file keeps changing while it is read", "wait until it is written")
		}
		return
	}
	if c := o.saved; c != nil {
		e.zone, e.hash, e.base, e.tail, e.serial, e.copied = c.zone, c.hash, c.hash, c.hash, c.zone.serial, true
	}
	// Read a second time without a difference, a file whose time lies ahead is
	// not young any more.
	again := o.start.Sub(e.read) > coarseTick && sameFiles(e.last.files, o.files)
	e.racy = !again && racy(o.files, o.start)
	e.read, e.next = o.start, nil
	if o.same {
		e.last.files = o.files
		return
	}
	e.last = o.loaded
	e.last.zone = nil
	switch {
	case o.unkept != nil:
		e.held = nil
		e.racy, e.last.files[0].sum = true, textHash{} // so that it is tried again
		e.wrong(fmt.Sprintf("%s: the serial of the new version cannot be kept: %v%s", e.source.Path, o.unkept, e.standing()), "make the state folder writable")
	case o.zone == nil:
		e.held = nil
		e.bad()
	case e.zone != nil && e.hash == o.hash && e.zone.serial == o.zone.serial:
		e.held = nil
		if e.copied {
			e.zone, e.copied = o.zone, false
		}
		e.checkSerial()
	case o.lost != "":
		e.held = &o.loaded
		e.wrong(fmt.Sprintf("%s: held back, since the zone would lose %s%s", e.source.Path, o.lost, e.standing()),
			"if the file is whole and this is meant: perigee zone accept "+e.origin)
	default:
		e.serve(o.loaded)
	}
}

// serve serves a version.
func (e *entry) serve(r loaded) {
	if e.zone != nil && same(e.zone, r.zone, true) {
		// Comments or layout only: nobody need know.
		if e.base == e.hash {
			e.base = r.hash
		}
		if !e.copied {
			r.zone = e.zone
		}
	} else if e.zone == nil || serialAbove(r.zone.serial, e.serial) || r.hash == e.base {
		e.serial, e.base = r.zone.serial, r.hash
	}
	e.zone, e.hash, e.held, e.copied = r.zone, r.hash, nil, false
	e.checkSerial()
}

// checkSerial remarks on a change without a raised serial until it is cured.
func (e *entry) checkSerial() {
	if e.hash == e.base {
		e.fix = problem{}
		return
	}
	e.wrong(fmt.Sprintf("%s: the zone has changed, but its serial %d is not above %d: secondaries do not fetch the change", e.source.Path, e.zone.serial, e.serial),
		fmt.Sprintf("raise the serial in the SOA to %d or more", e.serial+1))
}

// serialAbove reports whether a is above b in serial number arithmetic
// (RFC 1982 §3.2).
func serialAbove(a, b uint32) bool { return a != b && a-b < 1<<31 }

// bad notes that the last reading gave no zone.
func (e *entry) bad() {
	for _, f := range e.last.findings {
		if f.Warning {
			continue
		}
		where, hint := f.File, f.Hint
		if f.Line > 0 {
			where = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		if e.last.unread && hint == "" {
			hint = "put the file back, or take the zone out of perigee.toml"
			if e.fromGlob {
				hint = "put the file back, or take the zone out: perigee zone accept " + e.origin
			}
		}
		e.wrong(where+": "+f.Text+e.standing(), hint)
		return
	}
}

// standing says what is served meanwhile.
func (e *entry) standing() string {
	switch {
	case e.zone == nil:
		return " (the zone is not served)"
	case e.copied:
		return fmt.Sprintf(" (serial %d is served, from the copy kept in the state folder)", e.zone.serial)
	}
	return fmt.Sprintf(" (serial %d is still served)", e.zone.serial)
}

// wrong notes what is wrong with a zone.
func (e *entry) wrong(text, hint string) { e.fix.set(text, hint) }
