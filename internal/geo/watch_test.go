package geo

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// told is one call of a Store's changed.
type told struct {
	db  *DB
	err error
}

// follower is a Store under test, with what it told.
type follower struct {
	*Store
	t     *testing.T
	dir   string
	calls chan told
}

// place is the name of the followed database of places.
func (f *follower) place() string { return filepath.Join(f.dir, "place.mmdb") }

// watchCopy watches a copy of city.mmdb, and of asn.mmdb beside it.
func watchCopy(t *testing.T) *follower {
	t.Helper()
	f := &follower{t: t, dir: t.TempDir(), calls: make(chan told, 64)}
	write(t, f.place(), read(t, fixture("city.mmdb")))
	write(t, filepath.Join(f.dir, "asn.mmdb"), read(t, fixture("asn.mmdb")))
	f.watch(Files{Place: f.place(), ASN: filepath.Join(f.dir, "asn.mmdb")})
	return f
}

func (f *follower) watch(files Files) {
	f.t.Helper()
	store, err := Watch(files, func(db *DB, err error) { f.calls <- told{db, err} })
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := store.Close(); err != nil {
			f.t.Error(err)
		}
	})
	f.Store = store
}

// wait returns the next call. It takes as long as the file system's events do.
func (f *follower) wait() told {
	f.t.Helper()
	select {
	case call := <-f.calls:
		return call
	case <-time.After(30 * time.Second):
		f.t.Fatal("nothing was told for 30 s")
		panic("unreachable")
	}
}

// waitBad waits for a call that tells of a failure, in these words.
func (f *follower) waitBad(words string) {
	f.t.Helper()
	call := f.wait()
	if call.err == nil || !strings.Contains(call.err.Error(), words) || !strings.Contains(call.err.Error(), "what was read before stays in use") {
		f.t.Fatalf("told %v, expected %q", call.err, words)
	}
	if f.Err() == nil || f.Err().Error() != call.err.Error() {
		f.t.Errorf("Err is %v, told %v", f.Err(), call.err)
	}
	f.in("DE")
}

// waitGood waits until data from which 192.0.2.1 is in country is in use.
func (f *follower) waitGood(country string) {
	f.t.Helper()
	if call := f.wait(); call.err != nil || call.db != f.DB() {
		f.t.Fatalf("told %v", call.err)
	}
	if err := f.Err(); err != nil {
		f.t.Errorf("Err is %v after the cure", err)
	}
	f.in(country)
}

// in walks all of the data in use, and expects 192.0.2.1 in country.
func (f *follower) in(country string) {
	f.t.Helper()
	if loc, _ := f.DB().Lookup(netip.MustParseAddr("192.0.2.1")); loc.Country != country {
		f.t.Errorf("192.0.2.1 is in %q, expected %q", loc.Country, country)
	}
	blocks := 0
	for range f.DB().Within(allIPv4) {
		blocks++
	}
	if blocks == 0 {
		f.t.Error("no blocks")
	}
}

func TestWatchTruncatedInPlace(t *testing.T) {
	f := watchCopy(t)
	if err := os.Truncate(f.place(), 700); err != nil {
		t.Fatal(err)
	}
	f.waitBad("not a whole MaxMind DB file")
	if err := os.Truncate(f.place(), 0); err != nil {
		t.Fatal(err)
	}
	f.waitBad("(0 octets)")
	write(t, f.place(), read(t, fixture("country-new.mmdb")))
	f.waitGood("FR")
}

func TestWatchGarbage(t *testing.T) {
	f := watchCopy(t)
	write(t, f.place(), []byte("<html>quota exceeded</html>"))
	f.waitBad("not a whole MaxMind DB file")
	write(t, f.place(), read(t, fixture("asn.mmdb")))
	f.waitBad(`of kind "GeoLite2-ASN"`)
	write(t, f.place(), read(t, fixture("city.mmdb")))
	f.waitGood("DE")
}

func TestWatchRenameSwap(t *testing.T) {
	f := watchCopy(t)
	f.swap("country-new.mmdb")
	f.waitGood("FR")
	f.swap("city.mmdb")
	f.waitGood("DE")
}

// swap puts a fixture in the place of the database, as geoipupdate does.
func (f *follower) swap(name string) {
	f.t.Helper()
	next := f.place() + ".temporary"
	write(f.t, next, read(f.t, fixture(name)))
	if err := os.Rename(next, f.place()); err != nil {
		f.t.Fatal(err)
	}
}

func TestWatchDeleted(t *testing.T) {
	f := watchCopy(t)
	if err := os.Remove(f.place()); err != nil {
		t.Fatal(err)
	}
	f.waitBad("no such file")
	f.swap("country-new.mmdb")
	f.waitGood("FR")
}

// A ConfigMap is a link to a link to a folder; a new version swaps the middle.
func TestWatchConfigMap(t *testing.T) {
	f := &follower{t: t, dir: t.TempDir(), calls: make(chan told, 64)}
	for version, name := range map[string]string{"..1": "city.mmdb", "..2": "country-new.mmdb"} {
		if err := os.Mkdir(filepath.Join(f.dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(f.dir, version, "place.mmdb"), read(t, fixture(name)))
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(f.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link(filepath.Join("..data", "place.mmdb"), "place.mmdb")
	f.watch(Files{Place: f.place()})
	link("..2", "..data_tmp")
	if err := os.Rename(filepath.Join(f.dir, "..data_tmp"), filepath.Join(f.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	f.waitGood("FR")
}

// The file may be a link into a folder of its own, and be changed there.
func TestWatchLinkTarget(t *testing.T) {
	f := &follower{t: t, dir: t.TempDir(), calls: make(chan told, 64)}
	target := filepath.Join(t.TempDir(), "real.mmdb")
	write(t, target, read(t, fixture("city.mmdb")))
	if err := os.Symlink(target, f.place()); err != nil {
		t.Fatal(err)
	}
	f.watch(Files{Place: f.place()})
	write(t, target, read(t, fixture("country-new.mmdb")))
	f.waitGood("FR")
}

// One file that is unsound does not hold up the other.
func TestWatchFilesApart(t *testing.T) {
	f := watchCopy(t)
	asn := filepath.Join(f.dir, "asn.mmdb")
	write(t, asn, []byte("garbage"))
	f.waitBad("asn.mmdb")
	f.swap("country-new.mmdb")
	if call := f.wait(); call.err != nil {
		t.Fatal(call.err)
	}
	f.in("FR")
	if loc, _ := f.DB().Lookup(netip.MustParseAddr("192.0.2.1")); loc.ASN != 64500 {
		t.Errorf("%+v has lost its AS", loc)
	}
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "asn.mmdb") {
		t.Errorf("Err is %v", err)
	}
	write(t, asn, read(t, fixture("asn.mmdb")))
	f.waitGood("FR")
}

func TestReload(t *testing.T) {
	f := watchCopy(t)
	if err := f.Reload(); err != nil { // unchanged: read all the same
		t.Fatal(err)
	}
	if call := f.wait(); call.err != nil {
		t.Fatal(call.err)
	}
	// A folder that was replaced is watched anew.
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("reload of nothing: %v", err)
	}
	for call := f.wait(); call.err == nil || !strings.Contains(call.err.Error(), "asn.mmdb"); call = f.wait() {
	}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, f.place(), read(t, fixture("city.mmdb")))
	write(t, filepath.Join(f.dir, "asn.mmdb"), read(t, fixture("asn.mmdb")))
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	f.waitGood("DE")
	f.swap("country-new.mmdb")
	for call := f.wait(); call.err != nil || f.DB().Databases()[0].Kind != "GeoLite2-Country"; call = f.wait() {
	}
	f.in("FR")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Reload(); err == nil {
		t.Error("reload after Close: no error")
	}
	f.in("FR") // the data stays usable
}

func TestWatchBuiltinOnly(t *testing.T) {
	f := &follower{t: t, calls: make(chan told, 64)}
	f.watch(Files{})
	if err := f.Reload(); err != nil {
		t.Error(err)
	}
	if f.DB().Databases()[0].File != "" || len(f.calls) != 0 {
		t.Errorf("%v, told %d times", f.DB().Databases(), len(f.calls))
	}
	if _, err := Watch(Files{Place: fixture("wrong-kind.mmdb")}, nil); err == nil {
		t.Error("a wrong file at the start: no error")
	}
}

// Readers never wait and never see half of a swap.
func TestWatchManyReaders(t *testing.T) {
	f := watchCopy(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				loc, _ := f.DB().Lookup(netip.MustParseAddr("192.0.2.1"))
				if loc != in(64500, frankfurt) && loc.Country != "FR" {
					t.Errorf("got %+v", loc)
					return
				}
			}
		})
	}
	for i := range 20 {
		f.swap([]string{"country-new.mmdb", "city.mmdb"}[i%2])
		if err := f.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	readers.Wait()
}

// bubble runs a Store on events that the test sends, in time that it steps.
func bubble(t *testing.T, test func(f *follower, events chan<- fsnotify.Event)) {
	synctest.Test(t, func(t *testing.T) {
		f := &follower{t: t, dir: t.TempDir(), calls: make(chan told, 64)}
		write(t, f.place(), read(t, fixture("city.mmdb")))
		store, err := newStore(Files{Place: f.place()}, func(db *DB, err error) { f.calls <- told{db, err} })
		if err != nil {
			t.Fatal(err)
		}
		f.Store = store
		events := make(chan fsnotify.Event)
		go store.run(events, nil)
		time.Sleep(maxWait) // past the look at the start
		synctest.Wait()
		test(f, events)
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// In a folder where something happens all the time, files are still read.
func TestWatchBusyFolder(t *testing.T) {
	bubble(t, func(f *follower, events chan<- fsnotify.Event) {
		f.swap("country-new.mmdb")
		start := time.Now()
		for len(f.calls) == 0 {
			if time.Since(start) > 2*maxWait {
				f.t.Fatalf("nothing read in %s", time.Since(start))
			}
			events <- fsnotify.Event{Name: "other", Op: fsnotify.Write}
			time.Sleep(quiet / 2)
			synctest.Wait()
		}
		f.waitGood("FR")
	})
}

// While a file is being written nothing is read.
func TestWatchWaitsForQuiet(t *testing.T) {
	bubble(t, func(f *follower, events chan<- fsnotify.Event) {
		whole := read(f.t, fixture("country-new.mmdb"))
		for part := 1; part <= 4; part++ {
			write(f.t, f.place(), whole[:len(whole)*part/4])
			events <- fsnotify.Event{Name: f.place(), Op: fsnotify.Write}
			time.Sleep(quiet / 2)
			synctest.Wait()
			if len(f.calls) != 0 {
				f.t.Fatalf("read after part %d of 4: %v", part, (<-f.calls).err)
			}
		}
		time.Sleep(quiet)
		synctest.Wait()
		f.waitGood("FR")
	})
}

// Without any event the poll finds the change; a failure is told only once.
func TestWatchPolls(t *testing.T) {
	bubble(t, func(f *follower, _ chan<- fsnotify.Event) {
		f.swap("wrong-kind.mmdb")
		time.Sleep(3 * pollEvery)
		synctest.Wait()
		if len(f.calls) != 1 {
			f.t.Fatalf("told %d times", len(f.calls))
		}
		f.waitBad("GeoIP2-Domain")
		f.swap("country-new.mmdb")
		time.Sleep(pollEvery)
		synctest.Wait()
		f.waitGood("FR")
	})
}
