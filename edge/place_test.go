package edge

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A raw copy of an old log is put back, and its numbers are given out again. A shield
// that has not read it yet has seen higher ones, and must not answer from its store
// an edge that has: what it holds was purged since.
func TestShieldOnAnotherLog(t *testing.T) {
	tiered(t, []string{"a", "b", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		a, b, shield := f.edges["a"], f.edges["b"], f.edges["shield"]
		for _, e := range f.edges {
			for seq := range uint64(46) {
				e.SetApplied(seq, fmt.Sprint("old", seq))
			}
		}
		for _, path := range []string{"/x", "/soft", "/y"} {
			f.ask(1, path) // b's fetch fills the shield, as of 45
		}
		a.Revalidate()
		a.SetApplied(40, "old40")
		a.Purge(Purge{Seq: 41, Log: "new41", URL: "http://shop.test/x"})
		a.Purge(Purge{Seq: 41, Log: "new41", URL: "http://shop.test/soft", Soft: true})
		for i, want := range []string{"4", "4"} {
			if _, body := f.ask(0, "/x"); body != want {
				t.Errorf("request %d after the purge: %q, want %q", i, body, want)
			}
		}
		if _, body := f.ask(0, "/soft"); body != "5" {
			t.Errorf("after the soft purge: %q", body)
		}
		// What both have read, the shield answers from its store.
		b.Revalidate()
		b.SetApplied(40, "old40")
		if _, body := f.ask(1, "/y"); body != "3" {
			t.Errorf("at a place that is on both logs: %q", body)
		}
		shield.Revalidate()
		shield.Purge(Purge{Seq: 41, Log: "new41", URL: "http://shop.test/x"})
		f.ask(0, "/z")
		b.Purge(Purge{Seq: 41, Log: "new41", URL: "http://shop.test/x"})
		if _, body := f.ask(1, "/z"); body != "6" {
			t.Errorf("when the shield has read the new log: %q", body)
		}
	})
}

// What a shield holds from the time of the old numbers is as of nothing that a child
// knows: it stands in while the origin is down, and no child takes it for fresh.
func TestShieldTellsNoNumbersOfAnotherLog(t *testing.T) {
	tiered(t, []string{"a", "b", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		down := false
		f.answer = func(w http.ResponseWriter, _ *http.Request) {
			if down {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Cache-Control", "max-age=600, stale-if-error=600")
			fmt.Fprint(w, f.hits.Load())
		}
		for _, e := range f.edges {
			e.SetApplied(45, "old45")
		}
		f.ask(1, "/x")
		down = true
		for _, e := range []*Edge{f.edges["a"], f.edges["shield"]} {
			e.Revalidate()
			e.Purge(Purge{Seq: 41, Log: "new41", URL: "http://shop.test/x", Soft: true})
		}
		if resp, body := f.ask(0, "/x"); resp.StatusCode != 200 || body != "1" {
			t.Errorf("while the origin is down: %d %q", resp.StatusCode, body)
		}
		if o := f.stored("a", "/x"); o != nil && o.asOf.seq != 0 {
			t.Errorf("the child stores it as of %d", o.asOf.seq)
		}
		down = false
		time.Sleep(time.Minute)
		if _, body := f.ask(0, "/x"); body == "1" {
			t.Error("when the origin is back: what was purged")
		}
	})
}

// A field that names no log, as versions before this wrote, is not believed; nor is
// one that is none.
func TestAppliedField(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.SetApplied(7, "l7")
	for _, c := range []struct {
		lines []string
		same  bool
	}{
		{[]string{"7 l7"}, true},
		{[]string{"0"}, true}, // nothing is applied there
		{[]string{"7"}, false},
		{[]string{"7 "}, false},
		{[]string{"7 l8"}, false},
		{[]string{"6 l7"}, false},
		{[]string{"7 l7 l7"}, false},
		{[]string{"7 l7", "7 l7"}, false},
		{[]string{"x l7"}, false},
		{[]string{"7 " + strings.Repeat("l", maxLogBytes+1)}, false},
		{nil, false},
	} {
		seq, log, ok := parseApplied(c.lines)
		if same := ok && e.sameLog(seq, log); same != c.same {
			t.Errorf("%q: %v", c.lines, same)
		}
	}
	h := http.Header{}
	if e.tellApplied(h, instant{seq: 7}); h.Get(appliedField) != "7 l7" {
		t.Errorf("%v", h)
	}
	if e.tellApplied(h, instant{seq: 6}); h.Get(appliedField) != "6" {
		t.Errorf("a place that is not known: %v", h)
	}
}

// Places are found by their number, the newest maxPlaces of them.
func TestPlaces(t *testing.T) {
	var p places
	name := func(seq int) string { return fmt.Sprint("l", seq) }
	for i := range maxPlaces + 100 {
		seq := 3 * (i + 1)
		p.add(uint64(seq), name(seq))
		p.add(uint64(seq-1), "late") // one that went by is not named any more
		p.add(uint64(seq+1), "")
	}
	for i := range maxPlaces + 100 {
		seq, want := 3*(i+1), ""
		if i >= 100 {
			want = name(seq)
		}
		if got := p.at(uint64(seq)); got != want {
			t.Fatalf("seq %d: %q, want %q", seq, got, want)
		}
		if got := p.at(uint64(seq + 1)); got != "" {
			t.Fatalf("seq %d: %q", seq+1, got)
		}
	}
	if len(p.ring) != maxPlaces {
		t.Errorf("%d places", len(p.ring))
	}
	if p.forget(); p.at(3*maxPlaces) != "" {
		t.Error("it is still known")
	}
}
