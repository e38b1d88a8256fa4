package zones

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// gather is how long after the first event files are looked at: a save is
	// some events in a row.
	gather = settle / 2
	// pollEvery is how often files are looked at without any event. Network
	// file systems have none.
	pollEvery = time.Second
	// pollShare bounds what looking costs: it takes no more than one part in
	// so many of the time, however many zones there are.
	pollShare = 50
	// collectAbove is how much memory of old images, which is outside of the
	// heap that paces the garbage collector, or of what reading many zones has
	// left, is worth a collection. A round later whoever read them has let go.
	collectAbove = 8 << 20
	// eventShare is the same for a folder in which something else happens all
	// the time.
	eventShare = 10
)

// Watch reloads what changes until ctx ends, whose error it returns. It watches
// folders, not files, since editors and ConfigMaps replace files and links, and
// looks at the files' times now and then besides. Call Reload first.
func (s *Store) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		w = &fsnotify.Watcher{} // its nil channels never give anything
	} else {
		defer w.Close()
	}
	s.watching(err)
	watched := map[string]fs.FileInfo{}
	var dirs map[string]bool
	var known map[string][]*entry // by file, as of the last look at all of them
	touched := map[*entry]bool{}  // whose files have events, while all is well known
	all := true                   // look at all files in the next round
	var nextAll time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	wakes := time.Now() // when timer fires
	soon := gather
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, ok := <-w.Events:
			if !ok {
				return errors.New("zones: the watcher was closed")
			}
			path := filepath.Clean(ev.Name) // those of "." come as ./name
			wait := gather
			if of := known[path]; of != nil && !all {
				for _, e := range of {
					touched[e] = true
				}
			} else if _, named := dirs[path]; named || dirs[filepath.Dir(path)] {
				all, wait = true, soon
			} else {
				continue
			}
			if at := time.Now().Add(wait); at.Before(wakes) {
				wakes = at
				timer.Reset(wait)
			}
			continue
		case <-w.Errors: // lost events, by and large: look
			all = true
		case <-timer.C:
		}
		if s.garbage.Load() > collectAbove {
			s.garbage.Store(0)
			debug.FreeOSMemory() // old images go with it, and nothing else may ask for a collection in minutes
		}
		start := time.Now()
		if all = all || !start.Before(nextAll); all {
			if err == nil {
				dirs = s.folders()
				s.watching(follow(w, watched, dirs))
			}
			looked := time.Since(start)
			// What went wrong is in Status.
			_ = s.scan(ctx, false, saveRound)
			looked += s.looked
			soon = max(gather, eventShare*looked)
			nextAll = time.Now().Add(max(pollEvery, pollShare*looked))
			known = s.files()
			all = false
			clear(touched)
		} else {
			_ = s.scanOnly(ctx, touched)
		}
		wait := time.Until(nextAll)
		if s.backlog() > 0 {
			all = true
		}
		if s.unsettled(touched) || all {
			wait = settle
		}
		wakes = time.Now().Add(wait)
		timer.Reset(wait)
	}
}

// files are the zones by the files that they depend on.
func (s *Store) files() map[string][]*entry {
	s.reload.Lock()
	defer s.reload.Unlock()
	files := make(map[string][]*entry, len(s.entries))
	for _, e := range s.entries {
		for _, f := range e.last.files {
			path := filepath.Clean(f.path)
			files[path] = append(files[path], e)
		}
	}
	return files
}

// watching notes whether folders can be watched.
func (s *Store) watching(err error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	text := ""
	if err != nil {
		text = "changes of zone files are seen by polling only: " + err.Error()
	}
	s.mu.Lock()
	changed := s.watch.set(text, "on Linux raise fs.inotify.max_user_watches and max_user_instances")
	s.mu.Unlock()
	if changed {
		s.tell()
	}
}

// folders lists where a change may show: the folders of all files and of what
// they link to, which are true, and those in which a folder or link on the way
// may be swapped, where only the names that are in the list too count.
func (s *Store) folders() map[string]bool {
	s.reload.Lock()
	defer s.reload.Unlock()
	dirs := map[string]bool{}
	for _, e := range s.entries {
		for _, f := range e.last.files {
			addFolder(dirs, filepath.Dir(f.path))
			if info, err := os.Lstat(f.path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
				if to, err := filepath.EvalSymlinks(f.path); err == nil {
					addFolder(dirs, filepath.Dir(to))
				}
			}
		}
	}
	for _, g := range s.globs {
		found, _ := filepath.Glob(filepath.Dir(g)) // Configure has checked the pattern
		for _, dir := range found {
			addFolder(dirs, dir)
		}
	}
	return dirs
}

// addFolder adds dir, its parent, and each link above it with its parent.
func addFolder(dirs map[string]bool, dir string) {
	if dirs[dir] {
		return
	}
	dirs[dir] = true
	also := func(d string) { // not one of the files' folders, unless it is that already
		if _, ok := dirs[d]; !ok {
			dirs[d] = false
		}
	}
	parent := filepath.Dir(dir)
	also(parent) // dir itself may go and come back
	for at := dir; at != parent; at, parent = parent, filepath.Dir(parent) {
		if info, err := os.Lstat(at); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			also(at)
			also(parent)
		}
	}
}

// follow makes w watch exactly dirs. A path that leads to another folder than
// before is watched anew.
func follow(w *fsnotify.Watcher, watched map[string]fs.FileInfo, dirs map[string]bool) error {
	for dir, old := range watched {
		if info, err := os.Stat(dir); !dirs[dir] || err != nil || !os.SameFile(old, info) {
			// It is gone already when the folder is.
			_ = w.Remove(dir)
			delete(watched, dir)
		}
	}
	var errs []error
	for dir := range dirs {
		if watched[dir] != nil {
			continue
		}
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the poll sees it come
		}
		if err == nil {
			err = w.Add(dir)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		watched[dir] = info
	}
	return errors.Join(errs...)
}
