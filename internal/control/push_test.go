package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"perigee.example/origin"
)

// page makes a manifest of one page, with its canonical bytes.
func page(t *testing.T, text string) (m *origin.Manifest, b []byte, id, blob origin.Digest) {
	t.Helper()
	blob = origin.DigestOf([]byte(text))
	m = &origin.Manifest{Version: origin.ManifestVersion, Files: map[string]origin.File{
		"index.html": {Digest: blob, Size: int64(len(text)), Type: "text/html; charset=utf-8", Class: origin.Document},
	}}
	b, id, err := m.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return m, b, id, blob
}

// stored lists the sizes of the files in control's blob folder.
func stored(t *testing.T, dir string) (sizes []int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		sizes = append(sizes, info.Size())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// What is not what its digest says is refused, and nothing of it is kept.
func TestWrongUploadsAreRefusedAndNothingIsKept(t *testing.T) {
	f := newFleet(t)
	const text = "<h1>hello</h1>"
	_, manifest, id, blob := page(t, text)
	if code, answer := f.raw(t, "POST", "/v1/sites/www/releases", string(manifest), nil); code != 200 || !strings.Contains(answer, blob.String()) {
		t.Fatalf("manifest: %d %s", code, answer)
	}
	before := len(stored(t, f.dir))
	path := "/v1/sites/www/blobs/" + blob.String()
	digest := func(v ...string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del("Content-Digest")
			for _, v := range v {
				r.Header.Add("Content-Digest", v)
			}
		}
	}
	right := ContentDigest(blob)
	chunked := func(r *http.Request) { r.Header.Set("Content-Digest", right); r.ContentLength = -1 }
	for _, c := range []struct {
		name, path, body string
		edit             func(*http.Request)
		want             int
	}{
		{"other bytes of the same size", path, "<h1>hellO</h1>", digest(right), 422},
		{"shorter", path, "<h1>", digest(right), 422},
		{"longer", path, text + "!", digest(right), 422},
		{"longer, size not announced", path, text + strings.Repeat("!", 1000), chunked, 422},
		{"shorter, size not announced", path, "<h1>", chunked, 422},
		{"no Content-Digest", path, text, nil, 400},
		{"Content-Digest of another", path, text, digest(ContentDigest(id)), 422},
		{"two of them", path, text, digest(right, right), 400},
		{"another algorithm", path, text, digest("md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"), 400},
		{"broken base64", path, text, digest("sha-256=:####:"), 400},
		{"no such blob in the release", "/v1/sites/www/blobs/" + origin.DigestOf([]byte("x")).String(), "x", digest(ContentDigest(origin.DigestOf([]byte("x")))), 404},
		{"another site's release", "/v1/sites/a/blobs/" + blob.String(), text, digest(right), 404},
		{"upper case digest", "/v1/sites/www/blobs/" + strings.ToUpper(blob.String()), text, digest(right), 400},
	} {
		if code, answer := f.raw(t, "PUT", c.path, c.body, c.edit); code != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, code, answer, c.want)
		}
	}
	if n := len(stored(t, f.dir)); n != before {
		t.Fatalf("%d files are kept, %d before", n, before)
	}
	// Not whole, so not sealed, and the answer says what is missing.
	var sealed Sealed
	err := f.client.do(bounded(t), "POST", "/v1/sites/www/releases/"+id.String()+"/seal", nil, &sealed)
	var e *Error
	if !errors.As(err, &e) || e.Status != 409 || len(e.Missing) != 1 || e.Missing[0].Digest != blob {
		t.Fatalf("seal: %v", err)
	}
	if f.head() != 0 {
		t.Fatal("there is an entry on the log")
	}
	for range 2 { // twice is once
		if code, answer := f.raw(t, "PUT", path, text, digest("md5=:1B2M2Y8AsgTpgAmY7PhCfg==: , "+right)); code != 200 {
			t.Fatalf("the right one: %d %s", code, answer)
		}
		if err := f.client.do(bounded(t), "POST", "/v1/sites/www/releases/"+id.String()+"/seal", nil, &sealed); err != nil || sealed.Files != 1 || sealed.Bytes != int64(len(text)) {
			t.Fatalf("seal: %+v, %v", sealed, err)
		}
	}
	if f.head() != 1 {
		t.Fatalf("sealed twice: head %d", f.head())
	}
}

// An upload whose connection breaks in the middle leaves nothing.
func TestBrokenUploadKeepsNothing(t *testing.T) {
	f := newFleet(t)
	text := strings.Repeat("x", 1<<20)
	_, manifest, _, blob := page(t, text)
	if code, _ := f.raw(t, "POST", "/v1/sites/www/releases", string(manifest), nil); code != 200 {
		t.Fatalf("manifest: %d", code)
	}
	before := len(stored(t, f.dir))
	ctx, cancel := context.WithCancel(bounded(t))
	body := &cutBody{r: strings.NewReader(text), at: 1 << 19, cut: cancel}
	req, err := http.NewRequestWithContext(ctx, "PUT", f.client.base+"/v1/sites/www/blobs/"+blob.String(), body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(text))
	req.Header.Set("Content-Digest", ContentDigest(blob))
	var answer origin.Blob
	if err := f.client.send(req, &answer); err == nil {
		t.Fatal("half a file was taken")
	}
	f.restart(t) // waits for the handler, and sweeps
	if n := len(stored(t, f.dir)); n != before {
		t.Fatalf("%d files are kept, %d before", n, before)
	}
}

type cutBody struct {
	r   *strings.Reader
	at  int
	cut func()
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.r.Len() <= b.at {
		b.cut()
		return 0, context.Canceled
	}
	return b.r.Read(p[:min(len(p), 4096)])
}

const killedDirEnv = "PERIGEE_TEST_CONTROL_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDirEnv); dir != "" {
		serveUntilKilled(dir)
	}
	if dir := os.Getenv(killedSnapshotsEnv); dir != "" {
		snapshotUntilKilled(dir)
	}
	if dir := os.Getenv(killedPurgesEnv); dir != "" {
		purgeUntilKilled(dir)
	}
	if dir := os.Getenv(killedCollectEnv); dir != "" {
		collectUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// serveUntilKilled runs a control node in its own process: it pushes files into
// itself through its API and prints each blob, activation and drain that was acknowledged.
func serveUntilKilled(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	srv, err := Open(ctx, Config{Dir: dir, Known: known})
	fail(err)
	for i := 0; ; i++ {
		text := fmt.Sprintf("page %d of %d", i, os.Getpid())
		m := &origin.Manifest{Version: origin.ManifestVersion, Files: map[string]origin.File{
			"index.html": {Digest: origin.DigestOf([]byte(text)), Size: int64(len(text)), Type: "text/html; charset=utf-8", Class: origin.Document},
		}}
		b, id, err := m.Canonical()
		fail(err)
		fail(errors.Join(srv.blobs.Put(id, int64(len(b)), bytes.NewReader(b)), srv.blobs.Put(origin.DigestOf([]byte(text)), int64(len(text)), strings.NewReader(text))))
		e, err := srv.command(ctx, KindRelease, Release{Site: "www", Release: id, Files: 1, Bytes: int64(len(text))}, free)
		fail(err)
		a, err := srv.command(ctx, KindActivate, Activate{Site: "www", Release: id}, free)
		fail(err)
		fmt.Printf("sealed %s %d active %d\n", id, e.Seq, a.Seq)
	}
}

// Killed without warning while it takes releases: every acknowledged one is
// sealed, whole, and the last acknowledged activation (or one after it) stands.
func TestKilledControlNodeKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	for round := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedDirEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, 1<<16)
		chunk := make([]byte, 4096)
		for killed := false; ; {
			n, err := out.Read(chunk)
			buf = append(buf, chunk[:n]...)
			if !killed && bytes.Count(buf, []byte("\n")) > 5+3*round {
				killed = true
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				break
			}
		}
		_ = cmd.Wait() // killed: it cannot end well
		whole := buf[:bytes.LastIndexByte(buf, '\n')+1]
		lines = append(lines, strings.Split(strings.TrimSpace(string(whole)), "\n")...)
	}
	if len(lines) < 10 {
		t.Fatalf("only %d acknowledged: the second process failed", len(lines))
	}
	srv, err := Open(bounded(t), Config{Dir: dir, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if why := srv.feed.Log().EpochWhy(); why != "" {
		t.Fatalf("a new epoch was needed: %s", why)
	}
	var lastActive uint64
	for _, line := range lines {
		var id string
		var sealed, active uint64
		if _, err := fmt.Sscanf(line, "sealed %s %d active %d", &id, &sealed, &active); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		d, err := origin.ParseDigest(id)
		if err != nil {
			t.Fatal(err)
		}
		if srv.state.Sites["www"].find(d) == nil {
			t.Fatalf("release %s was acknowledged and is not sealed", id)
		}
		m, err := srv.manifest(d)
		if err != nil || len(srv.blobs.Missing(m)) != 0 {
			t.Fatalf("release %s is not whole: %v", id, err)
		}
		lastActive = active
	}
	if g := srv.state.Sites["www"].Generation; g < lastActive {
		t.Fatalf("generation %d, but %d was acknowledged", g, lastActive)
	}
}

func TestFullDiskIs507(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("feed: %w on /var/lib/perigee", syscall.ENOSPC), fmt.Errorf("blob: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}),
	} {
		if e := asError(err); e.Status != http.StatusInsufficientStorage || !strings.Contains(e.Message, "disk full") || e.Hint == "" {
			t.Errorf("%v: %d %s (%s)", err, e.Status, e.Message, e.Hint)
		}
	}
}
