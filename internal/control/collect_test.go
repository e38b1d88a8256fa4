package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// TestRetention: which releases are due, as a table of a site's life. Times are in
// hours; now is 1000.
func TestRetention(t *testing.T) {
	at := func(h int) time.Time {
		if h == 0 {
			return time.Time{}
		}
		return time.UnixMilli(0).Add(time.Duration(h) * time.Hour)
	}
	release := func(name string, sealed, activated, retired int) SealedRelease {
		return SealedRelease{Release: Release{Site: "www", Release: origin.DigestOf([]byte(name))}, Sealed: at(sealed), Activated: at(activated), Retired: at(retired)}
	}
	st := &SiteState{Active: origin.DigestOf([]byte("now")), Previews: map[string]*Preview{"preview-x": {Active: origin.DigestOf([]byte("shown"))}},
		Releases: []SealedRelease{
			release("never", 1, 0, 0), release("shown", 2, 0, 0), release("first", 3, 3, 500), release("second", 4, 500, 600),
			release("long", 5, 600, 990), release("now", 6, 990, 0), release("pushed", 7, 0, 0), release("waits", 950, 0, 0),
		}}
	for _, c := range []struct {
		retain Retain
		want   string
	}{
		{Retain{}, ""},
		{Retain{Releases: 50, For: 100 * time.Hour}, "never"},
		{Retain{Releases: 2, For: 100 * time.Hour}, "never first"},
		{Retain{Releases: 1, For: 100 * time.Hour}, "never first second"},
		{Retain{Releases: 0, For: 100 * time.Hour}, "never first second"}, // long was active ten hours ago
		{Retain{Releases: 0, For: time.Hour}, "never first second"},       // never less than MinRetain
		{Retain{Releases: 0, For: 450 * time.Hour}, "never first"},
	} {
		got := ""
		for _, r := range st.due(c.retain, at(1000), func(d origin.Digest) bool { return d == origin.DigestOf([]byte("pushed")) }) {
			for _, name := range []string{"never", "shown", "first", "second", "long", "now", "pushed", "waits"} {
				if origin.DigestOf([]byte(name)) == r.Release.Release {
					got += " " + name
				}
			}
		}
		if want := c.want; got != "" && got[1:] != want || got == "" && want != "" {
			t.Errorf("%+v: due are%s, want %s", c.retain, got, want)
		}
	}
}

// site is a fleet's site with a folder to push from, and a clock.
type shelf struct {
	*fleet
	dir   string
	ahead time.Duration
}

func newShelf(t *testing.T, retain Retain) *shelf {
	f := &shelf{fleet: newFleet(t), dir: t.TempDir()}
	f.retain(retain)
	f.now = func() time.Time { return time.Now().Add(f.ahead) }
	return f
}

func (f *shelf) retain(r Retain) {
	k := known
	k.Sites = slices.Clone(known.Sites)
	for i := range k.Sites {
		k.Sites[i].Retain = r
	}
	f.SetKnown(k)
}

func (f *shelf) push(t *testing.T, o PushOptions, files map[string]string) origin.Digest {
	t.Helper()
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	writeSite(t, f.dir, files)
	o.Site, o.Dir = "www", f.dir
	out, err := f.client.Push(bounded(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return out.Release
}

func (f *shelf) has(text string) bool {
	_, ok := f.Server.blobs.Has(origin.DigestOf([]byte(text)))
	return ok
}

// TestCollectWithoutTheLog: no entry can be written, as on a full disk, so nothing is
// forgotten; what nobody needs makes room all the same.
func TestCollectWithoutTheLog(t *testing.T) {
	f := newShelf(t, Retain{For: MinRetain})
	f.push(t, PushOptions{}, map[string]string{"index.html": "one"})
	f.push(t, PushOptions{}, map[string]string{"index.html": "two"})
	if err := f.Server.blobs.Put(origin.DigestOf([]byte("stray")), 5, bytes.NewReader([]byte("stray"))); err != nil {
		t.Fatal(err)
	}
	f.ahead = 2 * MinRetain // one is due
	f.feed.Close()
	if _, err := f.collect(bounded(t)); err == nil {
		t.Error("it is not said that releases could not be forgotten")
	}
	if f.has("stray") || !f.has("one") || !f.has("two") {
		t.Errorf("here are: stray %v, one %v, two %v", f.has("stray"), f.has("one"), f.has("two"))
	}
}

// TestCollect: a release is forgotten by an entry; its blobs stay for a day, but
// for those that another release needs; then it is gone, can be pushed again, and a
// rollback to it is refused with the date. What is forgotten stays so after a restart.
func TestCollect(t *testing.T) {
	f := newShelf(t, Retain{Releases: 1, For: MinRetain})
	old := f.push(t, PushOptions{}, map[string]string{"index.html": "one", "shared.txt": "shared"})
	f.push(t, PushOptions{}, map[string]string{"index.html": "two", "shared.txt": "shared"})
	f.push(t, PushOptions{}, map[string]string{"index.html": "three", "shared.txt": "shared"})
	seq := f.head()

	if out, err := f.client.Forget(bounded(t), "www", nil, false); err != nil || out.Seq != 0 || len(out.Releases) != 0 || f.head() != seq {
		t.Fatalf("a young release: %+v, %v", out, err)
	}
	f.ahead = MinRetain + time.Hour
	if out, err := f.client.Forget(bounded(t), "www", nil, true); err != nil || out.Seq != 0 || len(out.Releases) != 1 || out.Releases[0].Release != old || f.head() != seq {
		t.Fatalf("dry run: %+v, %v", out, err)
	}
	if out, err := f.client.Forget(bounded(t), "www", nil, false); err != nil || out.Seq != seq+1 {
		t.Fatalf("%+v, %v", out, err)
	}
	// The entry's own time is the real one: this is an hour before a day after it.
	f.ahead = forgottenFor - time.Hour
	if swept, err := f.collect(bounded(t)); err != nil || swept.Removed != 0 || !f.has("one") {
		t.Fatalf("%+v, %v; the blob is here: %v", swept, err, f.has("one"))
	}
	_, err := f.client.Activate(bounded(t), "www", "", old, nil)
	wantStatus(t, err, 404, "was forgotten on ")
	f.restart(t)
	f.now = func() time.Time { return time.Now().Add(f.ahead) }
	_, err = f.client.Activate(bounded(t), "www", "", old, nil)
	wantStatus(t, err, 404, "was forgotten on ")
	f.ahead = forgottenFor + time.Minute
	swept, err := f.collect(bounded(t))
	if err != nil || swept.Removed != 2 || f.has("one") || !f.has("two") || !f.has("three") || !f.has("shared") {
		t.Fatalf("%+v, %v: one %v, two %v, three %v, shared %v", swept, err, f.has("one"), f.has("two"), f.has("three"), f.has("shared"))
	}
	if again := f.push(t, PushOptions{}, map[string]string{"index.html": "one", "shared.txt": "shared"}); again != old || !f.has("one") {
		t.Fatalf("pushed again it is %s, want %s", again, old)
	}
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	f.ahead = 100 * blobAge
	if _, err := f.collect(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Server.blobs.Has(f.state.Snapshots[0].Digest); !ok {
		t.Error("the snapshot of the log is gone")
	}
}

// TestForgetByName: what is active somewhere is not forgotten, and a release that
// is pushed again is no longer old.
func TestForgetByName(t *testing.T) {
	f := newShelf(t, Retain{})
	shown := f.push(t, PushOptions{Channel: "preview-x"}, map[string]string{"index.html": "shown"})
	first := f.push(t, PushOptions{}, map[string]string{"index.html": "first"})
	now := f.push(t, PushOptions{}, map[string]string{"index.html": "now"})
	for release, part := range map[origin.Digest]string{shown: "in a preview of site www", now: "is active at site www", origin.DigestOf(nil): "has no release"} {
		if out, err := f.client.Forget(bounded(t), "www", []string{release.String()[:30]}, false); err == nil || !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("%+v, %v, want %q", out, err, part)
		}
	}
	out, err := f.client.Forget(bounded(t), "www", []string{first.String()[7:19]}, false)
	if err != nil || out.Seq != f.head() || len(out.Releases) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	if _, _, err := f.client.Rollback(bounded(t), "www", ""); err == nil {
		t.Error("rolled back to a release that is forgotten")
	}
	// Sealed long ago and pushed again without being activated: it is due no more.
	f.retain(Retain{For: MinRetain})
	stays := f.push(t, PushOptions{KeepInactive: true}, map[string]string{"index.html": "stays"})
	f.ahead = renewAfter + time.Minute
	seq := f.head()
	if again := f.push(t, PushOptions{KeepInactive: true}, map[string]string{"index.html": "stays"}); again != stays || f.head() != seq+1 {
		t.Errorf("sealed again: head %d, want %d", f.head(), seq+1)
	}
}

// TestCollectNeedsEveryManifest: when it is not known what a release needs, nothing is removed.
func TestCollectNeedsEveryManifest(t *testing.T) {
	f := newShelf(t, Retain{For: MinRetain})
	f.push(t, PushOptions{KeepInactive: true}, map[string]string{"index.html": "gone soon"})
	lost := f.push(t, PushOptions{}, map[string]string{"index.html": "kept"})
	if err := os.Remove(filepath.Join(f.fleet.dir, "blobs", lost.String()[7:9], lost.String()[7:])); err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{MinRetain + time.Hour, 2 * MinRetain} {
		f.ahead = ahead
		if swept, err := f.collect(bounded(t)); !errors.Is(err, fs.ErrNotExist) || swept.Removed != 0 || !f.has("gone soon") {
			t.Errorf("%+v, %v", swept, err)
		}
	}
}

// tick is how far the time of a file that was written may be behind the clock.
const tick = 20 * time.Millisecond

// TestCollectAmongDeploys: deploys, rollbacks and collections at the same time, at
// a control node whose clock runs so fast that everything not in use is always old.
// No release that is activated ever lacks a blob, and no deploy fails.
func TestCollectAmongDeploys(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := newFleet(t)
	f.SetKnown(knownKeepsLittle())
	stop := make(chan struct{})
	var others sync.WaitGroup
	ctx := bounded(t)
	removed := 0
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// The file system's clock may be a tick behind.
			swept, err := f.collectAt(ctx, time.Now().Add(2*MinRetain), time.Now().Add(-tick))
			removed += swept.Removed
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	var pushes sync.WaitGroup
	for n := range 3 {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		pushes.Go(func() { deployAndCheck(t, ctx, f, r, n) })
	}
	pushes.Wait()
	close(stop)
	others.Wait()
	if removed == 0 {
		t.Error("nothing was ever removed: this tests nothing")
	}
}

// deployAndCheck pushes folders whose files are drawn from a few, so that releases
// come again and share blobs, and looks after each activation whether all is there.
func deployAndCheck(t *testing.T, ctx context.Context, f *fleet, r *rand.Rand, n int) {
	for range 5 {
		dir, err := os.MkdirTemp("", "deploy")
		if err != nil {
			t.Error(err)
			return
		}
		files := map[string]string{"index.html": fmt.Sprint("page ", r.IntN(4)), "who.txt": fmt.Sprint("deployer ", n)}
		for i := range 3 {
			files[fmt.Sprint(i, ".txt")] = fmt.Sprint("text ", r.IntN(6))
		}
		for name, text := range files {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		out, pushErr := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
		var e *Error
		if errors.As(pushErr, &e) && e.Status == 409 && e.Missing == nil {
			pushErr = nil // others were activated one after the other
		}
		if err = errors.Join(err, pushErr, os.RemoveAll(dir)); err != nil {
			t.Error(err)
			return
		}
		checkWhole(t, f, out.Release)
		f.pushedLongAgo(openKey{"www", out.Release})
		release, _, err := f.client.Rollback(ctx, "www", "")
		switch code := statusOf(err); {
		case err == nil:
			checkWhole(t, f, release)
		case code != 404 && code != 409 && code != 0: // forgotten, or another one was faster
			t.Error(err)
		}
	}
}

// pushedLongAgo has the control node no longer remember a push.
func (f *fleet) pushedLongAgo(k openKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, k)
	f.openOrder = slices.DeleteFunc(f.openOrder, func(o openKey) bool { return o == k })
}

// checkWhole fails when a release that may be activated lacks a blob.
func checkWhole(t *testing.T, f *fleet, release origin.Digest) {
	m, err := f.manifest(release)
	if err == nil {
		for _, b := range m.Blobs() {
			if size, ok := f.Server.blobs.Has(b.Digest); !ok || size != b.Size {
				err = errors.Join(err, fmt.Errorf("blob %s is gone", b.Digest))
			}
		}
	}
	f.mu.Lock()
	st := f.state.Sites["www"]
	kept := st.find(release) != nil
	f.mu.Unlock()
	if kept && err != nil {
		t.Errorf("release %s may be activated: %v", release, err)
	}
}

// TestForgetIsFolded: the same entries make the same state, whatever it was checked against.
func TestForgetIsFolded(t *testing.T) {
	a, b := origin.DigestOf([]byte("a")), origin.DigestOf([]byte("b"))
	s := State{}
	for i, command := range []any{&Release{Site: "www", Release: a}, &Release{Site: "www", Release: b}, &Activate{Site: "www", Release: a},
		&Forget{Site: "www", Releases: []origin.Digest{a, b, origin.DigestOf(nil)}}} {
		e, err := entryAt(uint64(i+1), command)
		if err == nil {
			err = s.Apply(e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st := s.Sites["www"]
	if st.find(a) == nil || st.find(b) != nil || st.forgotten(b) == nil || st.forgotten(b).Seq != 4 || len(st.Forgotten) != 1 {
		t.Errorf("%+v", st)
	}
	e, err := entryAt(5, &Release{Site: "www", Release: b})
	if err = errors.Join(err, s.Apply(e)); err != nil || st.find(b) == nil || st.forgotten(b) != nil {
		t.Errorf("pushed again: %+v, %v", st, err)
	}
	if !slices.Contains(slices.Collect(maps.Keys(s.Sites)), "www") {
		t.Error("the site is gone")
	}
}

func entryAt(seq uint64, command any) (feed.Entry, error) {
	e := feed.Entry{Seq: seq, At: int64(seq) * 1000}
	switch command.(type) {
	case *Release:
		e.Kind = KindRelease
	case *Activate:
		e.Kind = KindActivate
	case *Forget:
		e.Kind = KindForget
	}
	b, err := json.Marshal(command)
	e.Body = b
	return e, err
}

// TestGatheredIsYoung: what is here already of a release that is sealed again is
// spared by a collection that found it needed by nobody.
func TestGatheredIsYoung(t *testing.T) {
	f := newFleet(t)
	_, id := writeRelease(t, f)
	release, err := origin.ParseDigest(id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.manifest(release)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, b := range m.Blobs() {
		name := b.Digest.String()[7:]
		if err := os.Chtimes(filepath.Join(f.c.Dir, "blobs", name[:2], name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.gatherRelease(bounded(t), release); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Server.blobs.Sweep(func(origin.Digest) bool { return false }, time.Now().Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if missing := f.Server.blobs.Missing(m); len(missing) > 0 {
		t.Errorf("removed: %v", missing)
	}
}

// TestReleasePushedAgainIsNoOldOne: of more releases than are remembered the oldest goes,
// and one that was pushed again a moment ago is none of those.
func TestReleasePushedAgainIsNoOldOne(t *testing.T) {
	var s State
	seq := uint64(0)
	digest := func(i int) origin.Digest { return origin.DigestOf([]byte(fmt.Sprint(i))) }
	seal := func(i int) {
		seq++
		s.apply(feed.Entry{Kind: KindRelease, Seq: seq, At: int64(seq)}, &Release{Site: "www", Release: digest(i)})
	}
	for i := range maxReleases {
		seal(i)
	}
	seal(0)
	seal(maxReleases)
	st := s.Sites["www"]
	if r := st.find(digest(0)); r == nil || r.Seq != maxReleases+1 || st.find(digest(1)) != nil || len(st.Releases) != maxReleases {
		t.Errorf("the one pushed again: %+v; of %d the oldest is there: %v", r, len(st.Releases), st.find(digest(1)) != nil)
	}
}
