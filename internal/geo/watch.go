package geo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How fast a Store follows its files.
const (
	// quiet is how long a folder must be still before its files are read, so
	// that a copy in progress is not read at every write.
	quiet = 200 * time.Millisecond
	// maxWait is the longest that a folder which is never still delays this.
	maxWait = time.Second
	// pollEvery is how often the files are looked at without any event: where
	// the file system sends none, or the folder itself was replaced.
	pollEvery = 30 * time.Second
)

// Store holds the DB of a set of files and follows them as they change. A file
// that is gone, truncated or unsound never replaces what is in use: the old
// data stays, and Err says why until the file is cured. Each file is followed
// by itself, so an unsound one does not hold up the other.
type Store struct {
	changed func(*DB, error)
	current atomic.Pointer[DB]
	failure atomic.Pointer[error] // why a file is not in use; nil: all are
	place   slot                  // the slots belong to the goroutine of run
	asn     slot
	watcher *fsnotify.Watcher // nil if there is no file to follow
	reload  chan chan error
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when run has ended
	closing sync.Once
}

// slot is one of the files of a Store.
type slot struct {
	name string // "" is none
	want role
	use  *database
	seen fs.FileInfo // the file when it was last read; nil: it could not be
	err  error       // why the file as it was last seen is not in use
}

// Watch opens the files as Open does, then follows them until Close. When a
// file has changed, changed is called with the new DB and nil, or, if the file
// cannot be used, with the DB that stays in use and the reason; the same
// reason is told only once. The calls come one at a time from the Store's own
// goroutine; changed must not call Reload or Close. It may be nil. That new
// data came from one file does not mean that the other is sound: ask Err.
func Watch(f Files, changed func(*DB, error)) (*Store, error) {
	s, err := newStore(f, changed)
	if err != nil {
		return nil, err
	}
	var events chan fsnotify.Event
	var failures chan error
	if f.Place != "" || f.ASN != "" {
		if s.watcher, err = fsnotify.NewWatcher(); err != nil {
			return nil, fmt.Errorf("geo: cannot watch files: %w", err)
		}
		events, failures = s.watcher.Events, s.watcher.Errors
		s.follow()
	}
	go s.run(events, failures)
	return s, nil
}

// newStore opens the files. Nothing runs yet.
func newStore(f Files, changed func(*DB, error)) (*Store, error) {
	if changed == nil {
		changed = func(*DB, error) {}
	}
	s := &Store{
		changed: changed,
		place:   slot{name: f.Place, want: forPlace},
		asn:     slot{name: f.ASN, want: forASN},
		reload:  make(chan chan error),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	for _, sl := range []*slot{&s.place, &s.asn} {
		sl.seen, _ = os.Stat(sl.name)
	}
	db, err := Open(f)
	if err != nil {
		return nil, err
	}
	s.place.use, s.asn.use = db.place, db.asn
	s.current.Store(db)
	return s, nil
}

// DB returns the data in use. Keep it for as long as a computation must see
// the same data; ask again for the next.
func (s *Store) DB() *DB { return s.current.Load() }

// Err says which file is not in use and why, for status; nil means that the
// files are in use as they are.
func (s *Store) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Reload reads all files now, changed or not, and returns what Err then says.
func (s *Store) Reload() error {
	done := make(chan error, 1)
	select {
	case s.reload <- done:
		return <-done
	case <-s.stop:
		return errors.New("geo: the files are not followed any more")
	}
}

// Close ends the watch and waits until changed is not running. The data stays
// usable.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.stop)
		<-s.stopped
		if s.watcher != nil {
			err = s.watcher.Close()
		}
	})
	return err
}

// run waits for events and looks at the files once the folders are quiet. What
// an event says does not matter: there are too many ways of replacing a file.
func (s *Store) run(events <-chan fsnotify.Event, failures <-chan error) {
	defer close(s.stopped)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var settled <-chan time.Time // nil: nothing has happened
	var latest time.Time         // when the files are read even if there is no quiet
	happened := func() {
		if settled == nil {
			latest = time.Now().Add(maxWait)
		}
		settled = time.After(min(quiet, time.Until(latest)))
	}
	happened() // a file may have changed between Open and the watch
	for {
		select {
		case <-s.stop:
			return
		case <-events:
			happened()
		case <-failures: // events were lost
			happened()
		case <-settled:
			settled = nil
			s.follow()
			s.check(false)
		case <-poll.C:
			s.follow()
			s.check(false)
		case done := <-s.reload:
			s.follow()
			s.check(true)
			done <- s.Err()
		}
	}
}

// follow watches the folders of the files, and of what they link to. A folder
// that was replaced is watched anew; one that cannot be watched is left to the
// poll, and if its file cannot be read either, check says so.
func (s *Store) follow() {
	if s.watcher == nil {
		return
	}
	for _, sl := range []*slot{&s.place, &s.asn} {
		if sl.name == "" {
			continue
		}
		_ = s.watcher.Add(filepath.Dir(sl.name))
		if target, err := filepath.EvalSymlinks(sl.name); err == nil {
			_ = s.watcher.Add(filepath.Dir(target))
		}
	}
}

// check reads the files that have changed, or with force all of them, and
// swaps in what is sound.
func (s *Store) check(force bool) {
	placeNew, asnNew := s.place.load(force), s.asn.load(force)
	if placeNew || asnNew {
		s.current.Store(&DB{place: s.place.use, asn: s.asn.use})
	}
	before, after := s.Err(), errors.Join(s.place.err, s.asn.err)
	if after == nil {
		s.failure.Store(nil)
	} else {
		s.failure.Store(&after)
	}
	if placeNew || asnNew {
		s.changed(s.DB(), nil)
	}
	if after != nil && (before == nil || before.Error() != after.Error()) {
		s.changed(s.DB(), after)
	}
}

// load reads the file if it has changed, or with force, and says whether new
// data is in use.
func (sl *slot) load(force bool) bool {
	if sl.name == "" {
		return false
	}
	now, err := os.Stat(sl.name)
	if err == nil && !force && sameFile(now, sl.seen) {
		return false
	}
	sl.seen = now // nil if there is none
	d, err := openFile(sl.name, sl.want)
	var unread *fs.PathError
	if errors.As(err, &unread) {
		sl.seen = nil // so that it is tried again, whatever the file looks like
	}
	if err != nil {
		sl.err = fmt.Errorf("%w; what was read before stays in use: %s", err, sl.use.about)
		return false
	}
	sl.use, sl.err = d, nil
	return true
}

// sameFile says whether nothing was done to a file between two looks at it.
func sameFile(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime())
}
