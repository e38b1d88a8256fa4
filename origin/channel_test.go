package origin

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChannelNames(t *testing.T) {
	for name, want := range map[string]bool{
		"prod": true, "preview-x": true, "preview-1": true, "preview-pull-17": true, "preview-" + strings.Repeat("a", 55): true,
		"": false, "x": false, "staging": false, "preview": false, "preview-": false, "preview--x": false, "preview-x-": false,
		"preview-X": false, "preview-a.b": false, "preview-a/b": false, "preview-a@b": false, "preview-ä": false, "preview-" + strings.Repeat("a", 56): false,
	} {
		if got := CheckChannel(name) == nil; got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	for _, place := range []string{"www@prod", "www@", "@preview-x", "www@preview-x@preview-y", "www@preview-x/../y"} {
		if checkPlace(place) == nil {
			t.Errorf("%q is a place", place)
		}
	}
}

// A preview has its own release, generation and grace, through restarts; its
// end changes nothing else, and a late end of an older one nothing at all.
func TestPreviewIsAPlaceOfItsOwn(t *testing.T) {
	s := openStore(t)
	one, two := s.push("index.html", "1"), s.push("index.html", "2")
	place := Place("www", "preview-x")
	s.activate("www", one, 1, epoch)
	s.activate(place, two, 2, epoch)
	s.activate(place, one, 3, epoch)
	s.activate(place, two, 4, epoch)
	check := func() {
		t.Helper()
		s.wantActive("www", one, 1)
		s.wantActive(place, two, 4)
		if got := s.rel.Channel("www", "preview-x"); got != s.rel.Site(place) || s.rel.Channel("www", Prod) != s.rel.Site("www") {
			t.Errorf("channel: %+v", got)
		}
		if g := s.rel.Site(place).Grace; len(g) != previewKeep || g[0].Release != one {
			t.Errorf("grace: %+v", g)
		}
	}
	check()
	s.reopen()
	check()
	if err := s.rel.Remove(place, 3); err != nil { // before it was made again
		t.Fatal(err)
	}
	check()
	if err := s.rel.Remove("www", 9); err == nil {
		t.Error("the site itself was removed")
	}
	for range 2 { // the second time there is nothing
		if err := s.rel.Remove(place, 5); err != nil {
			t.Fatal(err)
		}
		if got := s.rel.Sites(); !slices.Equal(got, []string{"www"}) {
			t.Fatalf("places: %v", got)
		}
		s.reopen()
	}
	s.wantActive("www", one, 1)
	// What only the preview had goes with the next sweep, and nothing else.
	swept, err := s.rel.Sweep(time.Now().Add(time.Hour))
	if err != nil || swept.Removed != 2 {
		t.Fatalf("swept %+v, %v", swept, err)
	}
	if damage, err := s.rel.Verify(t.Context()); err != nil || damage != nil {
		t.Fatalf("after the sweep: %v, %v", damage, err)
	}
}
