package zones

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// zoneText is a zone of n hosts, besides the apex and ns1.
func zoneText(serial, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "$TTL 300\n@ SOA ns1 h %d 3600 900 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\n", serial)
	for i := range n {
		fmt.Fprintf(&b, "h%d A 192.0.2.2\n", i)
	}
	return b.String()
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bench is a store with what it told.
type bench struct {
	t     testing.TB
	s     *Store
	dir   string
	bell  chan struct{}
	mu    sync.Mutex
	tells []string // what x.test was at each call of Changed, without repetitions
	calls int
}

func newBench(t testing.TB, dir, state string, globs []string, sources ...Source) *bench {
	t.Helper()
	b := &bench{t: t, dir: dir, bell: make(chan struct{}, 1)}
	s, err := NewStore(StoreConfig{Zones: sources, Globs: globs, State: state, Changed: b.tell})
	must(t, err)
	b.s = s
	return b
}

func (b *bench) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if now := b.stand(); len(b.tells) == 0 || b.tells[len(b.tells)-1] != now {
		b.tells = append(b.tells, now)
	}
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

// stand is how x.test stands, in brief.
func (b *bench) stand() string {
	for _, st := range b.s.Status() {
		if st.Origin != "x.test." {
			continue
		}
		out := fmt.Sprintf("serial %d names %d", st.Serial, st.Names)
		if st.Held {
			out += " held"
		}
		if st.Saved {
			out += " saved"
		}
		if st.Problem != "" {
			out += " problem: " + st.Problem
		}
		return out
	}
	return "none"
}

func (b *bench) history() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.tells)
}

// patience is how long a test waits for what should take half a second.
const patience = time.Minute

// await waits until x.test stands like this; of a problem the beginning will do.
func (b *bench) await(want string) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		if now := b.stand(); now == want || strings.Contains(want, " problem") && strings.HasPrefix(now, want) {
			return
		}
		select {
		case <-b.bell:
		case <-deadline:
			b.t.Fatalf("x.test does not become %q; it was %q", want, b.history())
		}
	}
}

// watch starts Watch, which ends with the test.
func (b *bench) watch() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.s.Watch(ctx); err != context.Canceled {
			b.t.Errorf("Watch: %v", err)
		}
	}()
	b.t.Cleanup(func() { stop(); <-done })
}

func (b *bench) reload(wantError string) {
	b.t.Helper()
	err := b.s.Reload(context.Background())
	if wantError == "" && err != nil || wantError != "" && (err == nil || !strings.Contains(err.Error(), wantError)) {
		b.t.Fatalf("Reload: %v, want %q", err, wantError)
	}
}

// TestSaveStyles is F24: however a file is saved, the change is seen, read
// once, and never in part.
func TestSaveStyles(t *testing.T) {
	v2 := zoneText(2, 120)
	for name, save := range map[string]func(t *testing.T, path string){
		"in place": func(t *testing.T, path string) { put(t, path, v2) },
		"two halves": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			half := strings.Index(v2, "h60 ")
			_, err = f.WriteString(v2[:half])
			must(t, err)
			must(t, f.Sync())
			_, err = f.WriteString(v2[half:])
			must(t, err)
			must(t, f.Close())
		},
		"vim": func(t *testing.T, path string) {
			put(t, filepath.Join(filepath.Dir(path), "4913"), "")
			must(t, os.Remove(filepath.Join(filepath.Dir(path), "4913")))
			must(t, os.Rename(path, path+"~"))
			put(t, path, v2)
			must(t, os.Remove(path+"~"))
		},
		"sed -i": func(t *testing.T, path string) {
			tmp := filepath.Join(filepath.Dir(path), "sedXYZ")
			put(t, tmp, v2)
			must(t, os.Rename(tmp, path))
		},
		"old times kept": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			put(t, path+".tmp", v2)
			must(t, os.Chtimes(path+".tmp", info.ModTime(), info.ModTime()))
			must(t, os.Rename(path+".tmp", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "x.test.zone")
			put(t, path, zoneText(1, 100))
			b := newBench(t, dir, "", []string{filepath.Join(dir, "*")})
			b.reload("")
			b.watch()
			save(t, path)
			b.await("serial 2 names 122")
			seen := b.history()
			if n := len(seen); seen[n-1] != "serial 2 names 122" {
				t.Errorf("seen were %q", seen)
			}
			// A machine that stops for longer than settle in the middle of a save
			// may see a file gone or cut off, but never serves anything of it.
			for _, s := range seen[:len(seen)-1] {
				if !strings.HasPrefix(s, "serial 1 names 102") {
					t.Errorf("seen were %q", seen)
				}
			}
			if n := len(b.s.Zones()); n != 1 {
				t.Errorf("%d zones", n)
			}
		})
	}
}

// TestSettle: a change is read when it has stood for settle, by a clock that
// the test holds.
func TestSettle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.test.zone")
	put(t, path, zoneText(1, 1))
	now := time.Now()
	e := &entry{read: now.Add(-time.Hour), last: loaded{files: []seenFile{statFile(path)}}}
	check := func(after time.Duration, want bool) {
		t.Helper()
		if got := e.due(now.Add(after), false, true); got != want {
			t.Errorf("after %v: due %v", after, got)
		}
	}
	check(0, false)
	put(t, path, "first half")
	check(0, false)
	check(settle-1, false)
	put(t, path, "first half and second half")
	check(settle, false)
	check(2*settle-1, false)
	check(2*settle, true)
	e.last.files, e.next = []seenFile{statFile(path)}, nil
	check(3*settle, false)
	must(t, os.Remove(path))
	check(4*settle, false)
	check(5*settle, true)
}

// TestHalfFile is F23: half a file that ends at a line's end is whole by its
// syntax, and is held back until the rest comes.
func TestHalfFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 100))
	b := newBench(t, dir, "", nil, Source{Origin: "x.test", Path: path})
	b.reload("")
	b.watch()
	v2 := zoneText(2, 100)
	put(t, path, v2[:strings.Index(v2, "h50 ")])
	b.await("serial 1 names 102 held problem: " + path + ": held back, since the zone would lose 50 of its 102 names (h50.x.test., h51.x.test., h52.x.test., …) (serial 1 is still served)")
	put(t, path, v2)
	b.await("serial 2 names 102")
	if n := len(b.history()); n != 3 {
		t.Errorf("seen were %q", b.history())
	}
}

// TestGarbage: truncated to nothing, or overwritten by what is no zone at all,
// is an error, not an empty zone.
func TestGarbage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 3))
	b := newBench(t, dir, "", nil, Source{Origin: "x.test", Path: path})
	b.reload("")
	for text, want := range map[string]string{
		"":                                 "x.test.zone: no SOA at x.test. (serial 1 is still served)",
		"; only a comment\n":               "x.test.zone: no SOA at x.test. (serial 1 is still served)",
		strings.Repeat("\x00", 4096):       "x.test.zone",
		"\x7fELF\x02\x01\x01\x00 \xff\xfe": "x.test.zone:1: ",
		"<html>\n<body>404</body>\n":       "x.test.zone:",
	} {
		put(t, path, text)
		b.reload(want)
		if got := b.stand(); !strings.HasPrefix(got, "serial 1 names 5 problem") {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// TestConfigMap is F24 as Kubernetes does it: files are links into ..data, and
// ..data is a link that is swapped.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	link := func(to, name string) {
		t.Helper()
		must(t, os.Symlink(to, filepath.Join(dir, "tmp")))
		must(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, name)))
	}
	for i, v := range []string{"..v1", "..v2"} {
		must(t, os.Mkdir(filepath.Join(dir, v), 0o755))
		put(t, filepath.Join(dir, v, "x.test.zone"), zoneText(i+1, 30)+"$INCLUDE part.inc\n")
		put(t, filepath.Join(dir, v, "part.inc"), fmt.Sprintf("part TXT v%d\n", i+1))
	}
	link("..v1", "..data")
	link("..data/x.test.zone", "x.test.zone")
	link("..data/part.inc", "part.inc")
	b := newBench(t, dir, "", []string{filepath.Join(dir, "*.zone")})
	b.reload("")
	b.watch()
	link("..v2", "..data")
	must(t, os.RemoveAll(filepath.Join(dir, "..v1")))
	b.await("serial 2 names 33")
	if got, want := b.history(), []string{"serial 1 names 33", "serial 2 names 33"}; !slices.Equal(got, want) {
		t.Errorf("seen were %q, want %q", got, want)
	}
	// A change of what is included alone is a change too, here without a serial.
	must(t, os.Mkdir(filepath.Join(dir, "..v3"), 0o755))
	put(t, filepath.Join(dir, "..v3", "x.test.zone"), zoneText(2, 30)+"$INCLUDE part.inc\n")
	put(t, filepath.Join(dir, "..v3", "part.inc"), "part TXT v3\n")
	link("..v3", "..data")
	b.await("serial 2 names 33 problem: " + filepath.Join(dir, "x.test.zone") + ": the zone has changed, but its serial 2 is not above 2")
}

// TestLinkSwap: the zone file is reached through a link to a folder.
func TestLinkSwap(t *testing.T) {
	dir := t.TempDir()
	for i, v := range []string{"v1", "v2"} {
		must(t, os.Mkdir(filepath.Join(dir, v), 0o755))
		put(t, filepath.Join(dir, v, "x.test.zone"), zoneText(i+1, 30))
	}
	current := filepath.Join(dir, "current")
	must(t, os.Symlink("v1", current))
	b := newBench(t, dir, "", nil, Source{Origin: "x.test", Path: filepath.Join(current, "x.test.zone")})
	b.reload("")
	b.watch()
	must(t, os.Symlink("v2", current+".new"))
	must(t, os.Rename(current+".new", current))
	b.await("serial 2 names 32")
}

// TestGone is F25: a file that is deleted, or a folder that is unmounted,
// leaves its zone served, until it comes back.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "zones")
	must(t, os.Mkdir(folder, 0o755))
	path := filepath.Join(folder, "x.test.zone")
	put(t, path, zoneText(1, 10))
	b := newBench(t, dir, "", []string{filepath.Join(folder, "*.zone")})
	b.reload("")
	b.watch()
	must(t, os.Remove(path))
	b.await("serial 1 names 12 problem: " + path + ": cannot read the file: no such file or directory (serial 1 is still served)")
	put(t, path, zoneText(2, 10))
	b.await("serial 2 names 12")
	must(t, os.Rename(folder, folder+".away"))
	b.await("serial 2 names 12 problem: " + path + ": cannot read the file")
	must(t, os.Rename(folder+".away", folder))
	b.await("serial 2 names 12")
	put(t, path, zoneText(3, 10))
	b.await("serial 3 names 12")
	// Somebody says that the zone is meant to go.
	if err := b.s.Accept("x.test"); err == nil || !strings.Contains(err.Error(), "nothing to accept") {
		t.Errorf("Accept of a sound zone: %v", err)
	}
	must(t, os.Remove(path))
	b.await("serial 3 names 12 problem")
	must(t, b.s.Accept("X.test."))
	b.await("none")
	if n := len(b.s.Zones()); n != 0 {
		t.Errorf("%d zones", n)
	}
}

// TestRelativePaths: folders that are named from the working folder are watched
// by events too, not only by the poll.
func TestRelativePaths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, os.Mkdir("zones", 0o755))
	put(t, "x.test.zone", zoneText(1, 1))
	put(t, "zones/y.test.zone", zoneText(1, 1))
	b := newBench(t, dir, "", []string{"*.zone", "zones/*.zone"})
	b.reload("")
	dirs := b.s.folders()
	if !dirs["."] || !dirs["zones"] {
		t.Errorf("watched are %v", dirs)
	}
	b.watch()
	put(t, "x.test.zone", zoneText(2, 1))
	b.await("serial 2 names 3")
}
