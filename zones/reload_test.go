package zones

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

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
	b := newBench(t, dir, "", nil, Source{Origin: "x.test", Path: path})
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
	b := newBench(t, dir, "", nil, Source{Origin: "x.test", Path: path})
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
	many := 2000
	if os.Getenv("PERIGEE_BIG") != "" {
		many = 10_000
	}
	dir := t.TempDir()
	writeMany(t, dir, many, 1, time.Hour)
	put(t, filepath.Join(dir, "x.test.zone"), "not a zone")
	b := newBench(t, dir, "", []string{filepath.Join(dir, "*.zone")})
	b.reload("x.test.zone:1: ")
	if n := len(b.s.Zones()); n != many || b.calls != 1 {
		t.Fatalf("%d zones after %d calls", n, b.calls)
	}
	writeMany(t, dir, many, 2, time.Minute)
	b.reload("x.test.zone:1: ")
	if b.calls != 2 {
		t.Errorf("%d calls", b.calls)
	}
	if n := b.s.readers(); n > max(1, runtime.GOMAXPROCS(0)/2) {
		t.Errorf("%d zones are read at a time, which leaves too little for answers", n)
	}
	for _, z := range b.s.Zones() {
		if z.Serial() != 2 {
			t.Fatalf("%s has serial %d", z.Origin(), z.Serial())
		}
	}
}

// writeMany writes n small zones, as if age ago.
func writeMany(t *testing.T, dir string, n, serial int, age time.Duration) {
	t.Helper()
	when := time.Now().Add(-age)
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("z%d.test.zone", i))
		put(t, path, zoneText(serial, 2))
		must(t, os.Chtimes(path, when, when))
	}
}

// TestCopiesTakeTurns: copies are kept some at a time, so that nothing waits
// long for the disk.
func TestCopiesTakeTurns(t *testing.T) {
	const many = saveRound + 10
	dir, state := t.TempDir(), t.TempDir()
	writeMany(t, dir, many, 1, time.Hour)
	b := newBench(t, dir, state, []string{filepath.Join(dir, "*.zone")})
	b.reload("")
	if got := b.s.backlog(); got != 10 {
		t.Errorf("%d copies are yet to be kept, want 10", got)
	}
	must(t, b.s.scan(context.Background(), false, saveRound))
	copies, err := filepath.Glob(filepath.Join(state, "zones", "*"))
	if err != nil || len(copies) != many || b.s.backlog() != 0 {
		t.Errorf("%d copies are kept, %v", len(copies), err)
	}
}

// TestCopiesCannotBeKept: it is reported, and the zones are served.
func TestCopiesCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	path, state := filepath.Join(dir, "x.test.zone"), filepath.Join(dir, "state")
	put(t, path, zoneText(1, 1))
	put(t, state, "a file where the folder should be")
	b := newBench(t, dir, state, nil, Source{Origin: "x.test", Path: path})
	b.reload("not a directory")
	b.reload("the last good copies of zones cannot be kept")
	if got := b.stand(); got != "serial 1 names 3" {
		t.Error(got)
	}
	must(t, os.Remove(state))
	b.reload("")
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
	must(t, b.s.Configure([]Source{{Origin: "X.test", Path: x}}, nil))
	b.reload("")
	if z := b.s.Zones(); len(z) != 1 || z[0].Origin() != "x.test." {
		t.Errorf("%v", z)
	}
	must(t, b.s.Configure([]Source{{Origin: "x.test", Path: filepath.Join(dir, "elsewhere")}}, []string{glob}))
	b.reload("ignored, since the zone is read from " + filepath.Join(dir, "elsewhere"))
	if z := b.s.Zones(); len(z) != 2 {
		t.Errorf("%d zones, want x.test's last good one and y.test", len(z))
	}
	for _, bad := range [][]Source{{{Origin: "x.test", Path: x}, {Origin: "X.TEST.", Path: y}}, {{Origin: "x..test", Path: x}}, {{Origin: "x.test", Path: x, AutoSerial: true}}} {
		if err := b.s.Configure(bad, nil); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := b.s.Configure(nil, []string{"[]"}); err == nil {
		t.Error("a bad pattern is taken")
	}
}

// TestComesBack: a zone that the configuration takes out and in again starts
// anew.
func TestComesBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(9, 100))
	b := newBench(t, dir, filepath.Join(dir, "state"), nil, Source{Origin: "x.test", Path: path})
	b.reload("")
	must(t, b.s.Configure(nil, nil))
	b.reload("")
	put(t, path, zoneText(1, 3))
	must(t, b.s.Configure([]Source{{Origin: "x.test", Path: path}}, nil))
	b.reload("")
	if got := b.stand(); got != "serial 1 names 5" {
		t.Error(got)
	}
}

// TestReaders: whoever reads while zones are swapped sees whole versions only.
func TestReaders(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(100, 100))
	b := newBench(t, dir, "", nil, Source{Origin: "x.test", Path: path})
	b.reload("")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				z := b.s.Zones()[0]
				n := 0
				for range z.Names() {
					n++
				}
				// Each version has as many hosts as its serial says.
				if n != int(z.Serial())+2 || n != z.Len() {
					t.Errorf("serial %d with %d names", z.Serial(), n)
					return
				}
			}
		})
	}
	for i := 101; i < 140; i++ {
		put(t, path+".tmp", zoneText(i, i))
		when := time.Now().Add(-time.Minute)
		must(t, os.Chtimes(path+".tmp", when, when))
		must(t, os.Rename(path+".tmp", path))
		b.reload("")
	}
	close(stop)
	wg.Wait()
	if n := len(b.history()); n != 40 {
		t.Errorf("%d versions were served, want 40", n)
	}
}

// TestTimesInTheFuture: a file from tomorrow is not read for ever.
func TestTimesInTheFuture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.test.zone")
	put(t, path, zoneText(1, 1))
	tomorrow := time.Now().Add(24 * time.Hour)
	must(t, os.Chtimes(path, tomorrow, tomorrow))
	e := &entry{origin: "x.test.", source: Source{Origin: "x.test.", Path: path}}
	now := time.Now()
	for i, want := range []bool{true, true, false} {
		at := now.Add(time.Duration(i) * 2 * coarseTick)
		if got := e.due(at, false, i > 0); got != want {
			t.Errorf("reading %d: due %v", i, got)
		}
		e.apply(&outcome{loaded: load(path, Options{Origin: e.origin}), start: at})
	}
}

// TestWriteWithoutATrace: a write that leaves size and times as they were, as
// on a file system with coarse times, is found all the same.
func TestWriteWithoutATrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.test.zone")
	put(t, path, zoneText(1, 1))
	whole := time.Now().Truncate(time.Second)
	must(t, os.Chtimes(path, whole, whole))
	e := &entry{origin: "x.test.", source: Source{Origin: "x.test.", Path: path}}
	e.apply(&outcome{loaded: load(path, Options{Origin: e.origin}), start: whole.Add(time.Second)})
	put(t, path, zoneText(2, 1))
	must(t, os.Chtimes(path, whole, whole))
	if e.due(whole.Add(2*time.Second), false, true) {
		t.Error("read again at once")
	}
	if !e.due(whole.Add(4*time.Second), false, true) {
		t.Error("not read again")
	}
	// With fine times the file was old enough when it was read.
	fine := whole.Add(time.Millisecond)
	must(t, os.Chtimes(path, fine, fine))
	e.apply(&outcome{loaded: load(path, Options{Origin: e.origin}), start: whole.Add(time.Second)})
	if e.due(whole.Add(time.Hour), false, true) {
		t.Error("read again without reason")
	}
}
