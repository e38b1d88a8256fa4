package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// wantGrace fails unless these are the releases that are kept beside the active one.
func (r *rig) wantGrace(want ...origin.Digest) {
	r.t.Helper()
	var got []origin.Digest
	for _, g := range r.releases.Site("www").Grace {
		got = append(got, g.Release)
	}
	if !slices.Equal(got, want) {
		r.t.Fatalf("kept: %v, want %v", got, want)
	}
}

// A forgotten release is kept no longer, through restarts too; one that was pushed
// again is.
func TestForgottenReleasesAreDropped(t *testing.T) {
	r := newRig(t)
	one, _ := r.release("one")
	two, _ := r.release("two")
	three, _ := r.release("three")
	r.start()
	for i, d := range []origin.Digest{one, two, three} {
		r.append(control.KindActivate, control.Activate{Site: "www", Release: d})
		r.settled(uint64(i + 1))
	}
	r.wantGrace(two, one)
	r.append(control.KindForget, control.Forget{Site: "www", Releases: []origin.Digest{one}})
	r.append(control.KindForget, control.Forget{Site: "other", Releases: []origin.Digest{two}})
	r.settled(5)
	r.wantGrace(two)
	r.append(control.KindRelease, control.Release{Site: "www", Release: one})
	r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	r.append(control.KindActivate, control.Activate{Site: "www", Release: two})
	r.settled(8)
	r.wantGrace(one, three)
	r.stop()
	r.start()
	r.settled(8)
	r.wantGrace(one, three)
}

// What is still active here when it is forgotten, since the next one is not whole
// yet, is dropped when the next one takes its place.
func TestForgottenWhileStillActive(t *testing.T) {
	r := newRig(t)
	one, _ := r.release("one")
	two, _ := r.release("two")
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	r.settled(1)
	r.append(control.KindForget, control.Forget{Site: "www", Releases: []origin.Digest{one}})
	r.settled(2)
	r.wantPlace("www", one)
	r.append(control.KindActivate, control.Activate{Site: "www", Release: two})
	r.settled(3)
	r.wantGrace()
	r.stop()
}

// A crash between the entry and the removal is made good at the start.
func TestForgottenBeforeACrash(t *testing.T) {
	r := newRig(t)
	one, _ := r.release("one")
	two, _ := r.release("two")
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	r.settled(1)
	r.append(control.KindActivate, control.Activate{Site: "www", Release: two})
	r.settled(2)
	file := filepath.Join(r.dir, "edge", "releases", "www.json")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r.append(control.KindForget, control.Forget{Site: "www", Releases: []origin.Digest{one}})
	r.settled(3)
	r.stop()
	if err := os.WriteFile(file, before, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.settled(3)
	r.wantGrace()
}

// The journal remembers what was forgotten last, in one record of a site.
func TestForgottenInTheJournal(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	digest := func(s string) origin.Digest { return origin.DigestOf([]byte(s)) }
	mustAppend(t, j, 1, control.KindForget, control.Forget{Site: "www", Releases: []origin.Digest{digest("a"), digest("b")}})
	mustAppend(t, j, 2, control.KindForget, control.Forget{Site: "www", Releases: []origin.Digest{digest("c")}})
	mustAppend(t, j, 3, control.KindRelease, control.Release{Site: "www", Release: digest("a")})
	var many []origin.Digest
	for i := range control.MaxForgotten {
		many = append(many, digest(string(rune('A'+i))))
	}
	mustAppend(t, j, 4, control.KindForget, control.Forget{Site: "blog", Releases: many})
	mustAppend(t, j, 5, control.KindForget, control.Forget{Site: "blog", Releases: []origin.Digest{digest("newest")}})
	if err := j.rewrite(); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	j, cut := mustOpen(t, dir)
	if cut != "" || liveSeqs(j) != "2 5" {
		t.Fatalf("cut %q, entries that still matter: %s", cut, liveSeqs(j))
	}
	www := j.live.records["forgotten www"].command.(*control.Forget).Releases
	blog := j.live.records["forgotten blog"].command.(*control.Forget).Releases
	if !slices.Equal(www, []origin.Digest{digest("c"), digest("b")}) || len(blog) != control.MaxForgotten || blog[0] != digest("newest") {
		t.Errorf("www %v, blog %d", www, len(blog))
	}
}

// A node that begins with a snapshot of the log knows what was forgotten before it.
func TestForgottenInASnapshot(t *testing.T) {
	one, two := origin.DigestOf([]byte("one")), origin.DigestOf([]byte("two"))
	l, err := liveOf(&control.Snapshot{At: feed.Position{Epoch: 1, Seq: 9, Chain: strings.Repeat("0", 64)}, State: control.State{Sites: map[string]*control.SiteState{
		"www": {Forgotten: []control.ForgottenRelease{{Release: one, Seq: 3}, {Release: two, Seq: 7}}},
	}}}, all)
	if err != nil {
		t.Fatal(err)
	}
	r := l.records["forgotten www"]
	c, ok := r.command.(*control.Forget)
	if !ok || r.entry.Seq != 7 || !slices.Equal(c.Releases, []origin.Digest{two, one}) {
		t.Errorf("%+v", r)
	}
}
