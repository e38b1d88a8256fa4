package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// store is a blob folder and releases over it, as an edge has them.
type store struct {
	t     *testing.T
	dir   string
	blobs *Blobs
	rel   *Releases
}

func openStore(t *testing.T) *store {
	s := &store{t: t, dir: t.TempDir()}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *store) open() {
	s.t.Helper()
	var err error
	if s.blobs, err = OpenBlobs(filepath.Join(s.dir, "blobs")); err != nil {
		s.t.Fatal(err)
	}
	if s.rel, err = OpenReleases(filepath.Join(s.dir, "releases"), s.blobs); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) close() {
	s.rel.Close()
	s.blobs.Close()
}

func (s *store) reopen() {
	s.close()
	s.open()
}

// push stores a release of path, content pairs and returns its id.
func (s *store) push(pairs ...string) Digest {
	s.t.Helper()
	for i := 1; i < len(pairs); i += 2 {
		put(s.t, s.blobs, pairs[i])
	}
	manifest, id, err := manifestOf(pairs...).Canonical()
	if err != nil {
		s.t.Fatal(err)
	}
	put(s.t, s.blobs, string(manifest))
	return id
}

var epoch = time.UnixMilli(1_800_000_000_000)

func (s *store) activate(site string, release Digest, generation uint64, at time.Time) {
	s.t.Helper()
	if err := s.rel.Activate(site, release, generation, at); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) wantActive(site string, release Digest, generation uint64) {
	s.t.Helper()
	got := s.rel.Site(site)
	if got == nil || got.Active != release || got.Generation != generation {
		s.t.Errorf("site %s: %+v, want release %s at generation %d", site, got, release, generation)
	}
}

func TestActivateSurvivesReopen(t *testing.T) {
	s := openStore(t)
	one := s.push("index.html", "1")
	two := s.push("index.html", "2")
	if s.rel.Site("www") != nil {
		t.Error("a site before its first release")
	}
	s.activate("www", one, 1, epoch)
	s.activate("www", two, 2, epoch)
	s.activate("shop", one, 9, epoch)
	check := func() {
		t.Helper()
		s.wantActive("www", two, 2)
		s.wantActive("shop", one, 9)
		if g := s.rel.Site("www").Grace; len(g) != 1 || g[0].Release != one || !g[0].Until.Equal(epoch.Add(GraceTime)) {
			t.Errorf("grace: %+v", g)
		}
		if got := s.rel.Sites(); !slices.Equal(got, []string{"shop", "www"}) {
			t.Errorf("sites: %v", got)
		}
		if d := s.rel.Damage(); d != nil {
			t.Errorf("damage: %v", d)
		}
	}
	check()
	s.reopen()
	check()
}

func TestGenerationOnlyRises(t *testing.T) {
	s := openStore(t)
	one, two := s.push("a", "1"), s.push("a", "2")
	s.activate("www", one, 5, epoch)
	for _, test := range []struct {
		release    Digest
		generation uint64
	}{{two, 4}, {two, 5}, {one, 4}, {two, 0}} {
		var g *GenerationError
		if err := s.rel.Activate("www", test.release, test.generation, epoch); !errors.As(err, &g) || g.Have != 5 || g.Active != one {
			t.Errorf("generation %d: %v", test.generation, err)
		}
		s.wantActive("www", one, 5)
	}
	before := s.rel.Site("www")
	s.activate("www", one, 5, epoch.Add(time.Hour)) // idempotent
	if s.rel.Site("www") != before {
		t.Error("the same activation again changed the picture")
	}
	s.activate("www", two, 6, epoch)
	s.activate("www", one, 7, epoch) // rollback
	s.wantActive("www", one, 7)
	if g := s.rel.Site("www").Grace; len(g) != 1 || g[0].Release != two {
		t.Errorf("grace after a rollback: %+v", g)
	}
	s.activate("www", one, 8, epoch)
	if g := s.rel.Site("www").Grace; len(g) != 1 || g[0].Release != two {
		t.Errorf("grace after the same release at a higher generation: %+v", g)
	}
}

func TestActivateNeedsEveryBlob(t *testing.T) {
	s := openStore(t)
	one := s.push("a", "1")
	s.activate("www", one, 1, epoch)
	m := manifestOf("a", "1", "b", "not here", "c", "nor here")
	content, two, err := m.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	var missing *MissingError
	if err := s.rel.Activate("www", two, 2, epoch); !errors.As(err, &missing) || len(missing.Blobs) != 1 || missing.Blobs[0].Digest != two {
		t.Errorf("without manifest: %v", err)
	}
	put(t, s.blobs, string(content))
	if err := s.rel.Activate("www", two, 2, epoch); !errors.As(err, &missing) || len(missing.Blobs) != 2 || missing.Blobs[0].Size <= 0 {
		t.Errorf("without blobs: %v", err)
	}
	s.wantActive("www", one, 1)
	s.reopen()
	s.wantActive("www", one, 1)
	put(t, s.blobs, "not here")
	put(t, s.blobs, "nor here")
	s.activate("www", two, 2, epoch)
	s.wantActive("www", two, 2)
}

func TestActivateRefuses(t *testing.T) {
	s := openStore(t)
	one := s.push("a", "1")
	for _, site := range []string{"", "../x", "a/b", ".x", "-x", "WWW", "a b", "a\x00", strings.Repeat("a", maxSiteName+1)} {
		if err := s.rel.Activate(site, one, 1, epoch); err == nil {
			t.Errorf("site %.40q was accepted", site)
		}
	}
	notManifest := put(t, s.blobs, "{}")
	if err := s.rel.Activate("www", notManifest, 1, epoch); err == nil {
		t.Error("a blob that is no manifest was activated")
	}
	if len(s.rel.Sites()) != 0 {
		t.Errorf("sites: %v", s.rel.Sites())
	}
	if s.rel.SetKeep("www", -1) == nil || s.rel.SetKeep("www", MaxKeep+1) == nil {
		t.Error("SetKeep outside its bounds was accepted")
	}
}

func TestKeep(t *testing.T) {
	s := openStore(t)
	if err := s.rel.SetKeep("few", 2); err != nil {
		t.Fatal(err)
	}
	var ids []Digest
	for i := range 8 {
		id := s.push("a", fmt.Sprint(i))
		ids = append(ids, id)
		s.activate("www", id, uint64(i+1), epoch)
		s.activate("few", id, uint64(i+1), epoch)
	}
	for site, want := range map[string]int{"www": DefaultKeep, "few": 2} {
		g := s.rel.Site(site).Grace
		if len(g) != want {
			t.Fatalf("%s keeps %d, want %d", site, len(g), want)
		}
		for i := range g {
			if g[i].Release != ids[6-i] {
				t.Errorf("%s: grace %d is not the %d-th release", site, i, 7-i)
			}
		}
	}
}

func TestResolve(t *testing.T) {
	s := openStore(t)
	const hashed1, hashed2 = "app-1a2b3c4d.js", "app-5e6f7a8b.js"
	one := s.push("index.html", "1", hashed1, "one", "style.css", "x")
	two := s.push("index.html", "2", hashed2, "two")
	s.activate("www", one, 1, epoch)
	s.activate("www", two, 2, epoch)
	site := s.rel.Site("www")
	end := epoch.Add(GraceTime)
	for _, test := range []struct {
		path string
		at   time.Time
		want Digest
	}{
		{"index.html", epoch, two}, {hashed2, epoch, two},
		{hashed1, epoch, one}, {hashed1, end.Add(-1), one}, {hashed1, end, Digest{}},
		{"style.css", epoch, Digest{}}, {"nothing", epoch, Digest{}},
	} {
		f, release, ok := site.Resolve(test.path, test.at)
		if release != test.want || ok != !test.want.IsZero() || (ok && f.Size == 0) {
			t.Errorf("%s at %s: %v from %s", test.path, test.at.Sub(epoch), ok, release)
		}
	}
	if site.Named(two, end) == nil || site.Named(one, epoch) == nil || site.Named(one, end) != nil || site.Named(Digest{1}, epoch) != nil {
		t.Error("Named is wrong")
	}
	if n := testing.AllocsPerRun(100, func() { s.rel.Site("www").Resolve(hashed1, epoch) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// At start without control, what works is served and the rest is reported;
// storing the blob and activating again heals.
func TestDamage(t *testing.T) {
	s := openStore(t)
	one := s.push("index.html", "one", "a", "aaa")
	two := s.push("index.html", "two", "a", "aaa")
	s.activate("www", one, 1, epoch)
	s.activate("www", two, 2, epoch)
	s.activate("other", two, 1, epoch)
	path := func(d Digest) string { return filepath.Join(s.dir, "blobs", blobName(d)) }
	remove := func(d Digest) {
		t.Helper()
		if err := os.Remove(path(d)); err != nil {
			t.Fatal(err)
		}
		s.reopen()
	}

	aaa := DigestOf([]byte("aaa"))
	remove(aaa)
	s.wantActive("www", two, 2)
	if d := s.rel.Damage(); len(d) != 2 || d[1] != (Damage{"www", two, aaa, "missing"}) {
		t.Errorf("damage: %+v", d)
	}
	put(t, s.blobs, "aaa")
	s.activate("www", two, 2, epoch)
	s.activate("other", two, 1, epoch)
	if d := s.rel.Damage(); d != nil {
		t.Errorf("damage after healing: %+v", d)
	}

	manifest, err := os.ReadFile(path(two))
	if err != nil {
		t.Fatal(err)
	}
	remove(two)
	s.wantActive("www", one, 2) // the newest that can be read
	if s.rel.Site("other") != nil {
		t.Error("a site without any manifest is served")
	}
	if d := s.rel.Damage(); len(d) != 2 || d[0].Blob != two || d[1].Blob != two {
		t.Errorf("damage: %+v", d)
	}
	if _, err := s.rel.Sweep(time.Now().Add(time.Hour)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a sweep without the manifest: %v", err)
	}
	if _, err := s.rel.Verify(t.Context()); err != nil || len(s.rel.Damage()) != 2 {
		t.Errorf("Verify forgot the damage: %v, %+v", err, s.rel.Damage())
	}
	put(t, s.blobs, string(manifest))
	s.activate("www", two, 2, epoch)
	s.activate("other", two, 1, epoch)
	s.wantActive("www", two, 2)
	s.wantActive("other", two, 1)
	if d := s.rel.Damage(); d != nil {
		t.Errorf("damage after healing: %+v", d)
	}
}

func TestVerifyFindsRot(t *testing.T) {
	s := openStore(t)
	one := s.push("index.html", "one", "a", "aaa")
	s.activate("www", one, 1, epoch)
	if d, err := s.rel.Verify(t.Context()); err != nil || d != nil {
		t.Errorf("whole: %v, %v", d, err)
	}
	aaa := DigestOf([]byte("aaa"))
	if err := os.WriteFile(filepath.Join(s.dir, "blobs", blobName(aaa)), []byte("aab"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := s.rel.Verify(t.Context())
	if err != nil || len(d) != 1 || d[0].Blob != aaa || len(s.rel.Damage()) != 1 {
		t.Errorf("rotten: %+v, %v", d, err)
	}
	s.wantActive("www", one, 1)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.rel.Verify(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// F8: a rotten site file is told, and its site waits for the next activation;
// the others are served.
func TestRottenPointer(t *testing.T) {
	s := openStore(t)
	one := s.push("a", "1")
	s.activate("www", one, 7, epoch)
	s.activate("shop", one, 7, epoch)
	name := filepath.Join(s.dir, "releases", "www"+pointerExt)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, bad := range [][]byte{good[:i], append(append(bytes.Clone(good[:i]), good[i]^0x10), good[i+1:]...)} {
			if _, err := parsePointer(bad, "www"); err == nil {
				t.Fatalf("accepted %q", bad)
			}
		}
	}
	if err := os.WriteFile(name, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	s.wantActive("shop", one, 7)
	if s.rel.Site("www") != nil || len(s.rel.Damage()) != 1 {
		t.Errorf("rotten site: %+v, damage %+v", s.rel.Site("www"), s.rel.Damage())
	}
	if _, err := s.rel.Sweep(time.Now().Add(time.Hour)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a sweep with a rotten site file: %v", err)
	}
	s.activate("www", one, 7, epoch)
	s.reopen()
	s.wantActive("www", one, 7)
	if d := s.rel.Damage(); d != nil {
		t.Errorf("damage after healing: %+v", d)
	}
}

func TestPointerGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/pointer-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePointer(golden, "www")
	if err != nil {
		t.Fatal(err)
	}
	one, two := DigestOf([]byte("1")), DigestOf([]byte("2"))
	if p.Active != two || p.Generation != 2 || p.At != epoch.UnixMilli() || len(p.Grace) != 1 || p.Grace[0].Release != one {
		t.Errorf("%+v", p)
	}
	s := openStore(t)
	if err := (pointer{}).flip("www", one, 1, epoch, 5).flip("www", two, 2, epoch, 5).write(s.rel.disk); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(s.dir, "releases", "www.json")); err != nil || !bytes.Equal(got, golden) {
		t.Errorf("written: %s (%v)\nwant: %s", got, err, golden)
	}
}

func FuzzParsePointer(f *testing.F) {
	golden, err := os.ReadFile("testdata/pointer-v1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Fuzz(func(t *testing.T, b []byte) {
		line, _, _ := bytes.Cut(b, []byte("\n"))
		for _, content := range [][]byte{b, fmt.Appendf(nil, "%s\n%s\n", line, DigestOf(line))} {
			if p, err := parsePointer(content, "www"); err == nil && (p.Site != "www" || p.Active.IsZero() || len(p.Grace) > MaxKeep) {
				t.Errorf("accepted %q", content)
			}
		}
	})
}

func TestReleasesSweep(t *testing.T) {
	s := openStore(t)
	if err := s.rel.SetKeep("www", 1); err != nil {
		t.Fatal(err)
	}
	one := s.push("a", "1", "same", "same")
	two := s.push("a", "2", "same", "same")
	three := s.push("a", "3")
	for i, id := range []Digest{one, two, three} {
		s.activate("www", id, uint64(i+1), epoch)
	}
	pending := s.push("a", "pending")
	swept, err := s.rel.Sweep(time.Now().Add(-time.Hour))
	if err != nil || swept.Removed != 0 {
		t.Errorf("everything is young: %+v, %v", swept, err)
	}
	swept, err = s.rel.Sweep(time.Now().Add(time.Hour))
	if err != nil || swept.Removed != 4 { // "1", release one, "pending", release pending
		t.Errorf("%+v, %v", swept, err)
	}
	for content, want := range map[string]bool{"1": false, "2": true, "3": true, "same": true, "pending": false} {
		if _, ok := s.blobs.Has(DigestOf([]byte(content))); ok != want {
			t.Errorf("blob %q there: %v, want %v", content, ok, want)
		}
	}
	if _, ok := s.blobs.Has(pending); ok {
		t.Error("a release that no site refers to was kept")
	}
	s.reopen()
	s.wantActive("www", three, 3)
	if d := s.rel.Damage(); d != nil {
		t.Errorf("damage: %+v", d)
	}
}

// Numbers of another log may be lower; what is active stays until one is activated.
func TestRestartedGenerations(t *testing.T) {
	s := openStore(t)
	one, two := s.push("a", "1"), s.push("a", "2")
	s.activate("www", one, 9, epoch)
	for range 2 {
		if err := s.rel.Restart("www"); err != nil {
			t.Fatal(err)
		}
		s.wantActive("www", one, 0)
		s.reopen()
		s.wantActive("www", one, 0)
	}
	s.activate("www", two, 3, epoch)
	s.reopen()
	s.wantActive("www", two, 3)
	if err := s.rel.Restart("none"); err != nil {
		t.Error(err)
	}
}
