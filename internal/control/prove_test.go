package control

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"perigee.example/origin"
)

// http-checklist 72: a site is told that a blob is here only when it has sent it
// itself. Neither by asking nor by sealing does it learn, or get served, what another site has.
func TestOneSiteDoesNotLearnWhatAnotherHas(t *testing.T) {
	f := newFleet(t)
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "secret draft", "a.txt": "a"})
	first, err := f.client.Push(bounded(t), PushOptions{Site: "www", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	asked, err := f.client.Push(bounded(t), PushOptions{Site: "a", Dir: dir, DryRun: true})
	if err != nil || asked.Release != first.Release || len(asked.Missing) != 2 {
		t.Fatalf("site a is told that %d are missing, %v", len(asked.Missing), err)
	}
	err = f.client.do(bounded(t), http.MethodPost, sitePath("a", "/releases/"+first.Release.String()+"/seal"), nil, &Sealed{})
	wantStatus(t, err, 409, "2 blobs of release")
	sent, err := f.client.Push(bounded(t), PushOptions{Site: "a", Dir: dir})
	if err != nil || sent.Sent != 2 {
		t.Fatalf("%+v, %v", sent, err)
	}
	if again, err := f.client.Push(bounded(t), PushOptions{Site: "a", Dir: dir, DryRun: true}); err != nil || len(again.Missing) != 0 {
		t.Errorf("what it has sent is asked for again: %+v, %v", again.Missing, err)
	}
}

// What a site has sent is known after a restart, before it is sealed; once it is
// sealed, or was sent long ago, the file is gone.
func TestWhatASiteHasSentIsRemembered(t *testing.T) {
	f := newFleet(t)
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one", "b.txt": "two"})
	push := func(o PushOptions) Pushed {
		t.Helper()
		o.Site, o.Dir = "www", dir
		out, err := f.client.Push(bounded(t), o)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	push(PushOptions{DryRun: true})
	code, body := f.raw(t, "PUT", "/v1/sites/www/blobs/"+origin.DigestOf([]byte("one")).String(), "one", func(r *http.Request) {
		r.Header.Set("Content-Type", origin.DefaultType)
		r.Header.Set("Content-Digest", ContentDigest(origin.DigestOf([]byte("one"))))
	})
	if code != 200 {
		t.Fatal(code, body)
	}
	f.restart(t)
	if out := push(PushOptions{DryRun: true}); len(out.Missing) != 1 || out.Missing[0].Digest != origin.DigestOf([]byte("two")) {
		t.Errorf("missing %v", out.Missing)
	}
	push(PushOptions{})
	file := filepath.Join(f.dir, provedDir, "www")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	if _, err := f.collect(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file of what is sealed: %v", err)
	}
	if out := push(PushOptions{DryRun: true}); len(out.Missing) != 0 {
		t.Errorf("missing %v", out.Missing)
	}
}

// TestWhatWasSentGetsOld: what is left of a file is as old as it was, or it would stay for
// ever among collections, each of which takes something out of it.
func TestWhatWasSentGetsOld(t *testing.T) {
	one, two := origin.Blob{Digest: origin.DigestOf([]byte("one"))}, origin.Blob{Digest: origin.DigestOf([]byte("two"))}
	dir := t.TempDir()
	p := &proofs{dir: dir, of: map[string]map[origin.Digest]struct{}{}}
	if err := p.add("www", one, two); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "www"), time.Time{}, old); err != nil {
		t.Fatal(err)
	}
	for _, held := range []origin.Digest{one.Digest, {}} { // one is sealed; then nothing more is
		if err := p.compact("www", old.Add(-time.Hour), func(d origin.Digest) bool { return d == held }); err != nil || p.has("www", one.Digest) || !p.has("www", two.Digest) {
			t.Fatalf("one %v, two %v: %v", p.has("www", one.Digest), p.has("www", two.Digest), err)
		}
	}
	if err := p.compact("www", old.Add(time.Hour), func(origin.Digest) bool { return false }); err != nil || p.has("www", two.Digest) {
		t.Errorf("what was sent two hours ago stays: %v", err)
	}
}

// TestProvedFormat: a file of the first version is read, one of another version or
// with half a digest at its end costs no more than that, and what is old goes.
func TestProvedFormat(t *testing.T) {
	one, two := origin.Blob{Digest: origin.DigestOf([]byte("one"))}, origin.Blob{Digest: origin.DigestOf([]byte("two"))}
	want := slices.Concat([]byte("PGPROVE\x01"), one.Digest[:], two.Digest[:])
	dir := t.TempDir()
	fresh := func() *proofs { return &proofs{dir: dir, of: map[string]map[origin.Digest]struct{}{}} }
	p := fresh()
	for _, b := range []origin.Blob{one, two, one} {
		if err := p.add("www", b); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "www")
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, want) {
		t.Fatalf("%q, %v", b, err)
	}
	if err := os.WriteFile(file, want[:len(want)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if p = fresh(); !p.has("www", one.Digest) || p.has("www", two.Digest) || p.has("a", one.Digest) {
		t.Error("half a digest at the end")
	}
	if err := p.add("www", two); err != nil || !fresh().has("www", two.Digest) {
		t.Errorf("after half a digest: %v", err)
	}
	if err := p.compact("www", time.Now().Add(time.Hour), func(origin.Digest) bool { return false }); err != nil || p.has("www", one.Digest) {
		t.Errorf("what is old stays: %v", err)
	}
	if err := os.WriteFile(file, append([]byte("PGPROVE\x02"), want[8:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if p = fresh(); p.has("www", one.Digest) {
		t.Error("a newer version is read")
	}
}
