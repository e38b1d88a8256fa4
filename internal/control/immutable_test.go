package control

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"perigee.example/origin"
)

// A path that browsers keep for a year is not given other bytes: the push says
// which, before anything is sent.
func TestImmutablePathKeepsItsBytes(t *testing.T) {
	f := newFleet(t)
	ctx, dir := t.Context(), t.TempDir()
	const app, style = "app-3f9a1c77.js", "css/style-0a1b2c3d.css"
	push := func(channel string) (Pushed, error) {
		return f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, Channel: channel})
	}
	writeSite(t, dir, map[string]string{"index.html": "one", app: "one", style: "one", "plain.js": "one"})
	first, err := push("")
	if err != nil {
		t.Fatal(err)
	}
	head := f.head()
	writeSite(t, dir, map[string]string{"index.html": "two", app: "two", style: "two", "plain.js": "two"})
	_, err = push("")
	wantStatus(t, err, 409, app+", "+style+" (2 in all)")
	_, err = f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, DryRun: true})
	wantStatus(t, err, 409, app)
	if f.head() != head {
		t.Fatal("a refused push is on the log")
	}

	// Gone for a release, it still may not come back with other bytes: pages that
	// are open have the old.
	for _, name := range []string{app, style} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	second, err := push("")
	if err != nil {
		t.Fatal(err)
	}
	writeSite(t, dir, map[string]string{app: "two"})
	_, err = push("")
	wantStatus(t, err, 409, app+" (1 in all)")

	// A preview has another name, and its own bytes; to promote it is another matter.
	if _, err := push("preview-x"); err != nil {
		t.Fatal(err)
	}
	_, _, err = f.client.Promote(ctx, "www", "preview-x")
	wantStatus(t, err, 409, app)

	// A rollback is never refused.
	if _, err := f.client.Activate(ctx, "www", "", first.Release, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.Activate(ctx, "www", "", second.Release, nil); err != nil {
		t.Fatal(err)
	}

	// The operator's rule says that it is not immutable; or nobody has it any more.
	k := known
	k.Sites = append([]KnownSite(nil), known.Sites...)
	k.Sites[0].Expiry = []origin.ExpiryRule{{Glob: "app-*", CacheControl: "no-cache"}}
	f.SetKnown(k)
	if _, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	f.SetKnown(known)
	f.Server.now = func() time.Time { return time.Now().Add(origin.GraceTime + time.Hour) }
	if _, err := push(""); err != nil {
		t.Fatal(err)
	}
}

// _headers of the release that is served decide what is immutable, too.
func TestHeaderRulesMakePathsImmutable(t *testing.T) {
	manifest := func(content string, rules ...origin.HeaderRule) *origin.Manifest {
		m := &origin.Manifest{Version: origin.ManifestVersion, Files: map[string]origin.File{}, Headers: rules}
		for i, class := range []string{origin.Immutable, origin.Document, origin.Asset} {
			m.Files[fmt.Sprintf("f%d", i)] = origin.File{Digest: origin.DigestOf([]byte(content)), Size: 1, Class: class}
		}
		return m
	}
	set := func(path, value string) origin.HeaderRule {
		return origin.HeaderRule{For: path, Set: []origin.Field{{Name: "Cache-Control", Value: value}}}
	}
	for _, c := range []struct {
		name  string
		now   *origin.Manifest
		rules []origin.ExpiryRule
		want  int
	}{
		{"by class", manifest("a"), nil, 1}, {"all by a rule of the release", manifest("a", set("/*", "Immutable, max-age=5")), nil, 3},
		{"none by a rule of the release", manifest("a", set("/f0", "no-cache")), nil, 0}, {"none by a rule of the site", manifest("a"), []origin.ExpiryRule{{Glob: "*", CacheControl: "max-age=5"}}, 0},
		{"the release's rule is the later", manifest("a", set("/f2", "immutable")), []origin.ExpiryRule{{Glob: "*", CacheControl: "max-age=5"}}, 1},
		{"the same bytes", manifest("b"), nil, 0}, {"a directive that begins so", manifest("a", set("/f0", "immutable-ish")), nil, 0},
	} {
		if paths, n := origin.Unchangeable(c.now, manifest("b"), c.rules, 10); n != c.want || len(paths) != n {
			t.Errorf("%s: %d %v, want %d", c.name, n, paths, c.want)
		}
	}
}
