package zones

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAutoSerial: each change gets a higher serial, whatever the file says, and
// no restart takes one back.
func TestAutoSerial(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	source := Source{Origin: "x.test", Path: path, AutoSerial: true}
	b := newBench(t, dir, state, nil)
	restart := func() {
		b = newBench(t, dir, state, nil, source)
	}
	restart()
	for i, c := range []struct {
		text    string
		restart bool
		want    string
	}{
		{zoneText(7, 1), false, "serial 7 names 3"},
		{zoneText(7, 2), false, "serial 8 names 4"},
		{zoneText(7, 2), true, "serial 8 names 4"},
		{"; a comment\n" + zoneText(7, 2), false, "serial 8 names 4"},
		{zoneText(7, 3), true, "serial 9 names 5"},
		{zoneText(9, 4), false, "serial 10 names 6"},
		{zoneText(2026, 4), false, "serial 2026 names 6"},
		{zoneText(1, 5), false, "serial 2027 names 7"},
		{zoneText(4294967295, 5), false, "serial 2027 names 7"}, // not above 2027 (RFC 1982), and the records are the same
		{zoneText(2147485000, 5), false, "serial 2147485000 names 7"},
		{zoneText(4294967295, 6), false, "serial 4294967295 names 8"},
		{zoneText(4294967295, 7), false, "serial 0 names 9"},
		{zoneText(4294967295, 7), true, "serial 0 names 9"},
	} {
		put(t, path, c.text)
		if c.restart {
			restart()
		}
		b.reload("")
		if got := b.stand(); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
		z := b.s.Zones()[0]
		if rdata, _ := firstRecord(z.SOA().Wire); z.Serial() != uint32(rdata[len(rdata)-20])<<24|uint32(rdata[len(rdata)-19])<<16|uint32(rdata[len(rdata)-18])<<8|uint32(rdata[len(rdata)-17]) {
			t.Errorf("%d: the SOA has another serial", i)
		}
	}
}

// TestSerialCannotBeKept: a version whose serial would be lost with the next
// restart is not served; it is once it can be kept.
func TestSerialCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 1))
	b := newBench(t, dir, state, nil, Source{Origin: "x.test", Path: path, AutoSerial: true})
	b.reload("")
	must(t, os.Remove(filepath.Join(state, "serials")))
	must(t, os.Mkdir(filepath.Join(state, "serials"), 0o700))
	put(t, path, zoneText(1, 2))
	b.reload("the serial of the new version cannot be kept")
	if z := b.s.Zones()[0]; z.Serial() != 1 || z.Len() != 3 {
		t.Errorf("serial %d, %d names", z.Serial(), z.Len())
	}
	must(t, os.Remove(filepath.Join(state, "serials")))
	b.reload("")
	if got := b.stand(); got != "serial 2 names 4" {
		t.Error(got)
	}
	// A list that is not whole takes no serial back.
	put(t, filepath.Join(state, "serials"), serialsHead+"\n12 zz x.test.\n")
	again := newBench(t, dir, state, nil, Source{Origin: "x.test", Path: path, AutoSerial: true})
	again.reload("serials:2: ")
	if got := again.stand(); got[:16] != "serial 2 names 4" {
		t.Errorf("the last good copy is not served: %s", got)
	}
	put(t, filepath.Join(state, "serials"), serialsHead+"\n"+strings.Repeat("x", 1<<17)+"\n")
	again = newBench(t, dir, state, nil, Source{Origin: "x.test", Path: path, AutoSerial: true})
	for range 2 { // what there is of a list is not taken for it the next time
		again.reload("token too long")
	}
}

// TestOnlyWhatChanged: of many zones only the one whose text changed is parsed,
// also when somebody asks for a reload.
func TestOnlyWhatChanged(t *testing.T) {
	const many = 300
	dir := t.TempDir()
	writeMany(t, dir, many, 1, time.Hour)
	b := newBench(t, dir, "", []string{filepath.Join(dir, "*.zone")})
	b.reload("")
	if n := b.s.parsed.Load(); n != many {
		t.Fatalf("%d zones were parsed at first", n)
	}
	before := b.s.Zones()
	put(t, filepath.Join(dir, "z7.test.zone"), zoneText(2, 2))
	b.reload("")
	if n := b.s.parsed.Load(); n != many+1 {
		t.Errorf("%d zones were parsed for one change", n-many)
	}
	changed := 0
	for i, z := range b.s.Zones() {
		if z != before[i] {
			changed++
		}
	}
	if changed != 1 || b.calls != 2 {
		t.Errorf("%d zones are new, Changed was called %d times", changed, b.calls)
	}
}

// TestWatchLooksAtWhatChanged: an event of one file of many has that one looked
// at, and no other.
func TestWatchLooksAtWhatChanged(t *testing.T) {
	dir := t.TempDir()
	writeMany(t, dir, 50, 1, time.Hour)
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 1))
	b := newBench(t, dir, "", []string{filepath.Join(dir, "*.zone")})
	b.reload("")
	x := b.s.files()[path]
	if len(x) != 1 || x[0].origin != "x.test." {
		t.Fatalf("the file is of %d zones", len(x))
	}
	put(t, path, zoneText(2, 2))
	put(t, filepath.Join(dir, "z7.test.zone"), zoneText(2, 2))
	touched := map[*entry]bool{x[0]: true}
	for len(touched) > 0 {
		must(t, b.s.scanOnly(context.Background(), touched))
		for e := range touched {
			e.seen = e.seen.Add(-settle) // it stands still
		}
	}
	if got := b.stand(); got != "serial 2 names 4" {
		t.Error(got)
	}
	for _, z := range b.s.Zones() {
		if z.Origin() == "z7.test." && z.Serial() != 1 {
			t.Error("another zone was looked at")
		}
	}
}
