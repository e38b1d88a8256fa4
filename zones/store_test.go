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
const patience = 20 * time.Second

// await waits until the store has told of a state that begins like this.
func (b *bench) await(want string) {
	b.t.Helper()
	deadline := time.After(patience)
	for !strings.HasPrefix(b.stand(), want) {
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
			if got, want := b.history(), []string{"serial 1 names 102", "serial 2 names 122"}; !slices.Equal(got, want) {
				t.Errorf("seen were %q, want %q", got, want)
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
	b := newBench(t, dir, "", nil, Source{"x.test", path})
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

// TestEmptyFile: truncated to nothing is an error, not an empty zone.
func TestEmptyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 3))
	b := newBench(t, dir, "", nil, Source{"x.test", path})
	b.reload("")
	put(t, path, "")
	b.reload("x.test.zone: no SOA at x.test. (serial 1 is still served)")
	if got := b.stand(); !strings.HasPrefix(got, "serial 1 names 5 problem") {
		t.Error(got)
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
	b := newBench(t, dir, "", nil, Source{"x.test", filepath.Join(current, "x.test.zone")})
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

// TestBadFile is F22: the zone keeps its last good version, the others go on,
// and the problem stands, with its time, until it is cured.
func TestBadFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "x.test.zone"), filepath.Join(dir, "y.test.zone")
	put(t, path, zoneText(1, 10))
	put(t, other, zoneText(1, 10))
	b := newBench(t, dir, "", []string{filepath.Join(dir, "*.zone")})
	b.reload("")
	put(t, path, zoneText(2, 10)+"bad A 192.0.2.x\n")
	put(t, other, zoneText(2, 10))
	b.reload("zone x.test.: " + path + ":15: bad A A: \"192.0.2.x\" (serial 1 is still served)")
	if z := b.s.Zones(); z[0].Serial() != 1 || z[1].Serial() != 2 {
		t.Errorf("serials %d and %d, want 1 and 2", z[0].Serial(), z[1].Serial())
	}
	since := b.s.Status()[0].Since
	b.reload("192.0.2.x")
	if st := b.s.Status()[0]; !st.Since.Equal(since) || since.IsZero() || st.Hint == "" {
		t.Errorf("%+v", st)
	}
	put(t, path, zoneText(2, 11))
	b.reload("")
	if got := b.stand(); got != "serial 2 names 13" {
		t.Error(got)
	}
}

// TestAccept: what is accepted is one version, not a zone for ever.
func TestAccept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 200))
	b := newBench(t, dir, "", nil, Source{"x.test", path})
	b.reload("")
	put(t, path, zoneText(2, 163)) // 37 of 202 names
	b.reload("")
	put(t, path, zoneText(3, 100)) // 63 of 165
	b.reload("63 of its 165 names")
	must(t, b.s.Accept("x.test"))
	if got := b.stand(); got != "serial 3 names 102" {
		t.Error(got)
	}
	b.reload("")
	put(t, path, zoneText(4, 50))
	b.reload("50 of its 102 names")
	if err := b.s.Accept("nowhere.test"); err == nil {
		t.Error("a zone that is not there was accepted")
	}
	put(t, path, zoneText(5, 99)) // the cut was a mistake, and is mended
	b.reload("")
	if got := b.stand(); got != "serial 5 names 101" {
		t.Error(got)
	}
}

// TestSerialNotRaised: served, and reported until cured.
func TestSerialNotRaised(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	b := newBench(t, dir, "", nil, Source{"x.test", path})
	for _, c := range []struct {
		text, err, want string
	}{
		{zoneText(4294967290, 5), "", "serial 4294967290 names 7"},
		{"; a comment\n" + zoneText(4294967290, 5), "", "serial 4294967290 names 7"},
		{zoneText(4294967290, 6), "its serial 4294967290 is not above 4294967290", "serial 4294967290 names 8 problem"},
		{zoneText(4294967289, 7), "its serial 4294967289 is not above 4294967290", "serial 4294967289 names 9 problem"},
		{zoneText(3, 7), "", "serial 3 names 9"}, // RFC 1982: 3 comes after 4294967290
		{zoneText(2, 7), "its serial 2 is not above 3", "serial 2 names 9 problem"},
		{zoneText(3, 7), "", "serial 3 names 9"}, // taken back
	} {
		put(t, path, c.text)
		b.reload(c.err)
		if got := b.stand(); !strings.HasPrefix(got, c.want) || c.err == "" && got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// TestRestart: the last good version survives a restart with a file that is
// bad, cut off, or gone.
func TestRestart(t *testing.T) {
	for _, c := range []struct{ name, text, err, want string }{
		{"same", zoneText(7, 100), "", "serial 7 names 102"},
		{"newer", zoneText(8, 101), "", "serial 8 names 103"},
		{"serial not raised", zoneText(7, 101), "not above 7", "serial 7 names 103 problem"},
		{"bad", "x", "x.test.zone:1: ", "serial 7 names 102 saved problem"},
		{"cut off", zoneText(8, 30), "70 of its 102 names", "serial 7 names 102 held saved problem"},
		{"gone", "", "no such file", "serial 7 names 102 saved problem"},
	} {
		dir, state := t.TempDir(), t.TempDir()
		path := filepath.Join(dir, "x.test.zone")
		globs := []string{filepath.Join(dir, "*.zone")}
		put(t, path, zoneText(7, 100))
		first := newBench(t, dir, state, globs)
		first.reload("")
		before := dump(first.s.Zones()[0])
		if c.text == "" {
			must(t, os.Remove(path))
		} else {
			put(t, path, c.text)
		}
		b := newBench(t, dir, state, globs)
		b.reload(c.err)
		got := b.stand()
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if strings.Contains(got, "saved") && dump(b.s.Zones()[0]) != before {
			t.Errorf("%s: the copy differs from what was kept", c.name)
		}
		if strings.Contains(got, "held") {
			must(t, b.s.Accept("x.test"))
			again := newBench(t, dir, state, globs)
			again.reload("")
			if got := again.stand(); got != "serial 8 names 32" {
				t.Errorf("after accept and a restart: %s", got)
			}
		}
		if c.name == "gone" {
			must(t, b.s.Accept("x.test"))
			again := newBench(t, dir, state, globs)
			again.reload("")
			if got := again.stand(); got != "none" {
				t.Errorf("after it was taken out, and a restart: %s", got)
			}
		}
	}
}

// TestManyZones is F26: many zones changed at once are one change.
func TestManyZones(t *testing.T) {
	const many = 2000
	dir, state := t.TempDir(), t.TempDir()
	write := func(serial int, age time.Duration) {
		t.Helper()
		when := time.Now().Add(-age)
		for i := range many {
			path := filepath.Join(dir, fmt.Sprintf("z%d.test.zone", i))
			put(t, path, zoneText(serial, 2))
			must(t, os.Chtimes(path, when, when))
		}
	}
	write(1, time.Hour)
	put(t, filepath.Join(dir, "x.test.zone"), "not a zone")
	b := newBench(t, dir, state, []string{filepath.Join(dir, "*.zone")})
	b.reload("x.test.zone:1: ")
	if n := len(b.s.Zones()); n != many || b.calls != 1 {
		t.Fatalf("%d zones after %d calls", n, b.calls)
	}
	write(2, time.Minute)
	b.reload("x.test.zone:1: ")
	if b.calls != 2 {
		t.Errorf("%d calls", b.calls)
	}
	for _, z := range b.s.Zones() {
		if z.Serial() != 2 {
			t.Fatalf("%s has serial %d", z.Origin(), z.Serial())
		}
	}
	// Copies are kept some at a time, so that nothing waits long for the disk.
	for rounds := 0; b.s.backlog() > 0; rounds++ {
		if rounds > many/saveRound {
			t.Fatalf("%d copies are not kept after %d rounds", b.s.backlog(), rounds)
		}
		must(t, b.s.scan(context.Background(), false))
	}
	copies, err := filepath.Glob(filepath.Join(state, "zones", "*"))
	if err != nil || len(copies) != many {
		t.Errorf("%d copies are kept, %v", len(copies), err)
	}
}

// TestConfigure: only the configuration takes zones out.
func TestConfigure(t *testing.T) {
	dir := t.TempDir()
	x, y := filepath.Join(dir, "x.test.zone"), filepath.Join(dir, "y.test.zone")
	put(t, x, zoneText(1, 1))
	put(t, y, zoneText(1, 1))
	put(t, filepath.Join(dir, "a..b.zone"), "")
	glob := filepath.Join(dir, "*.zone")
	b := newBench(t, dir, "", []string{glob})
	b.reload("a..b.zone: name \"a..b\" has an empty label")
	if n := len(b.s.Zones()); n != 2 {
		t.Fatalf("%d zones", n)
	}
	must(t, os.Remove(filepath.Join(dir, "a..b.zone")))
	must(t, b.s.Configure([]Source{{"X.test", x}}, nil))
	b.reload("")
	if z := b.s.Zones(); len(z) != 1 || z[0].Origin() != "x.test." {
		t.Errorf("%v", z)
	}
	must(t, b.s.Configure([]Source{{"x.test", filepath.Join(dir, "elsewhere")}}, []string{glob}))
	b.reload("ignored, since the zone is read from " + filepath.Join(dir, "elsewhere"))
	if z := b.s.Zones(); len(z) != 2 {
		t.Errorf("%d zones, want x.test's last good one and y.test", len(z))
	}
	for _, bad := range [][]Source{{{"x.test", x}, {"X.TEST.", y}}, {{"x..test", x}}} {
		if err := b.s.Configure(bad, nil); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := b.s.Configure(nil, []string{"[]"}); err == nil {
		t.Error("a bad pattern is taken")
	}
}
