package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"perigee.example/internal/bucket"
	"perigee.example/internal/fakes3"
	"perigee.example/origin"
)

// bucketAt is the configuration of a test's bucket.
func bucketAt(t *testing.T, s *fakes3.Server) *bucket.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &bucket.Config{Name: fakes3.Name, Region: "us-east-1", Endpoint: s.URL, Prefix: "p/", Credentials: path}
}

// bucketShelf is a shelf whose blobs are in a bucket.
type bucketShelf struct {
	*shelf
	s3 *fakes3.Server
}

func newBucketShelf(t *testing.T) *bucketShelf {
	t.Helper()
	s3 := fakes3.Start(t, "127.0.0.1")
	f := &bucketShelf{&shelf{fleet: &fleet{dir: t.TempDir(), bucket: bucketAt(t, s3)}, dir: t.TempDir()}, s3}
	f.start(t)
	f.clock()
	return f
}

func (f *bucketShelf) clock() {
	f.now = func() time.Time { return time.Now().Add(f.ahead) }
}

// there reports whether the bucket has a blob of this text.
func (f *bucketShelf) there(t *testing.T, text string) bool {
	t.Helper()
	_, ok := f.s3.Objects(t)["p/"+keyOf(origin.DigestOf([]byte(text)))]
	return ok
}

// read is a node's reading of a blob.
func (f *bucketShelf) read(t *testing.T, text string) (string, error) {
	t.Helper()
	r, _, err := f.FetchBlob(bounded(t), origin.DigestOf([]byte(text)))
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// Blobs are in the bucket, once, and not in the folder, but for the manifest, which is in both. What
// is there is not sent again, and nobody is asked about it.
func TestBucketHoldsBlobs(t *testing.T) {
	f := newBucketShelf(t)
	large := strings.Repeat("large ", 1_500_000) // in parts, on both ways
	files := map[string]string{"index.html": "one", "large.bin": large, "empty.txt": ""}
	release := f.push(t, PushOptions{}, files)
	for _, text := range []string{"one", large, ""} {
		if !f.there(t, text) || f.has(text) {
			t.Errorf("%.10q: in the bucket %v, in the folder %v", text, f.there(t, text), f.has(text))
		}
		if got, err := f.read(t, text); err != nil || got != text {
			t.Errorf("%.10q: read %d bytes, %v", text, len(got), err)
		}
	}
	if _, ok := f.Server.blobs.Has(release); !ok || f.s3.Objects(t)["p/"+keyOf(release)] == 0 {
		t.Error("the manifest is not in both")
	}
	puts, heads := f.s3.Calls("PUT"), f.s3.Calls("HEAD")
	files["index.html"] = "two"
	f.push(t, PushOptions{}, files)
	if n := f.s3.Calls("PUT") - puts; n != 2 { // the page and the manifest
		t.Errorf("%d objects were sent for one changed file", n)
	}
	if f.s3.Calls("HEAD") != heads {
		t.Errorf("%d questions about blobs of sealed releases", f.s3.Calls("HEAD")-heads)
	}
	f.restart(t)
	f.clock()
	if again := f.push(t, PushOptions{}, files); again == release || f.s3.Calls("PUT")-puts != 2+1 { // the manifest is sent again
		t.Errorf("after a restart %d objects were sent for nothing", f.s3.Calls("PUT")-puts-2)
	}
	st := f.Status()
	if st.Bucket == nil || st.Bucket.LostSince != nil || st.Bucket.Where != "s3://perigee-blobs/p/ at "+f.s3.URL {
		t.Errorf("status: %+v", st.Bucket)
	}
}

// While the bucket is away uploads are refused with the cause, and what needs none goes on: a
// rollback, a restart. When it is back, so are they.
func TestBucketAway(t *testing.T) {
	f := newBucketShelf(t)
	first := f.push(t, PushOptions{}, map[string]string{"index.html": "one"})
	f.push(t, PushOptions{}, map[string]string{"index.html": "two"})
	for _, fault := range []fakes3.Fault{fakes3.Denies} {
		f.s3.Break(fault)
		status, body := f.raw(t, http.MethodPost, "/v1/sites/www/releases", string(f.manifest1(t, "three")), nil)
		if status != http.StatusServiceUnavailable || !strings.Contains(body, "bucket perigee-blobs: ") || !strings.Contains(body, `"hint"`) {
			t.Errorf("%s: a push got %d %s", fault, status, body)
		}
		if strings.Contains(body, "wJalr") || strings.Contains(body, "AKID") {
			t.Errorf("%s: the answer tells the credentials: %s", fault, body)
		}
		var away *bucket.Error
		if _, err := f.read(t, "one"); !errors.As(err, &away) {
			t.Errorf("%s: a node got %v", fault, err)
		}
		if st := f.Status().Bucket; st.LostSince == nil || st.Why == "" {
			t.Errorf("%s: status %+v", fault, st)
		}
	}
	if id, _, err := f.client.Rollback(bounded(t), "www", ""); err != nil || id != first {
		t.Errorf("a rollback: %s, %v", id, err)
	}
	f.restart(t)
	f.clock()
	if f.Status().Sites["www"].Active != first {
		t.Error("a restart without the bucket")
	}
	f.s3.Break(fakes3.Well)
	time.Sleep(claimPause)
	f.push(t, PushOptions{}, map[string]string{"index.html": "three"})
	if got, err := f.read(t, "three"); err != nil || got != "three" || f.Status().Bucket.LostSince != nil {
		t.Errorf("after all: %q, %v, %+v", got, err, f.Status().Bucket)
	}
}

// manifest1 is a manifest of one page.
func (f *bucketShelf) manifest1(t *testing.T, text string) []byte {
	t.Helper()
	m := &origin.Manifest{Version: 1, Files: map[string]origin.File{"index.html": {Digest: origin.DigestOf([]byte(text)), Size: int64(len(text)), Type: "text/html", Class: string(origin.Document)}}}
	b, _, err := m.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A bucket that gives other bytes than it was given is found out before the last of them has left;
// the next push sends what it should have, and that is in its place.
func TestBucketLies(t *testing.T) {
	f := newBucketShelf(t)
	large := strings.Repeat("large ", 100_000)
	files := map[string]string{"index.html": "one", "large.bin": large}
	f.push(t, PushOptions{}, files)
	for _, fault := range []fakes3.Fault{fakes3.Lies, fakes3.Shrinks} {
		f.s3.Break(fault)
		for _, text := range []string{"one", large} {
			got, err := f.read(t, text)
			var mismatch *origin.MismatchError
			if !errors.As(err, &mismatch) || len(got) >= len(text)-1 {
				t.Errorf("%s: %d of %d bytes of %.10q, and %v", fault, len(got), len(text), text, err)
			}
		}
	}
	if st := f.Status().Bucket; st.Missing != 2 {
		t.Errorf("status: %+v, want 2 missing", st)
	}
	f.s3.Break(fakes3.Well)
	puts := f.s3.Calls("PUT")
	f.push(t, PushOptions{}, files)
	if f.s3.Calls("PUT")-puts < 2 || f.Status().Bucket.Missing != 0 {
		t.Errorf("the next push sent %d objects; status %+v", f.s3.Calls("PUT")-puts, f.Status().Bucket)
	}
	if got, err := f.read(t, large); err != nil || got != large {
		t.Errorf("after it: %d bytes, %v", len(got), err)
	}
}

// Two fleets cannot take one place in a bucket: each would remove what the other has.
func TestBucketOfAnotherFleet(t *testing.T) {
	f := newBucketShelf(t)
	f.push(t, PushOptions{}, map[string]string{"index.html": "one"})
	other := &bucketShelf{&shelf{fleet: &fleet{dir: t.TempDir(), bucket: f.bucket}, dir: t.TempDir()}, f.s3}
	other.start(t)
	writeSite(t, other.shelf.dir, map[string]string{"index.html": "theirs"})
	_, err := other.client.Push(bounded(t), PushOptions{Site: "www", Dir: other.shelf.dir})
	wantStatus(t, err, http.StatusServiceUnavailable, "another fleet's")
	if st := other.Status().Bucket; st.LostSince == nil || !strings.Contains(st.Why, "another fleet's") {
		t.Errorf("status: %+v", st)
	}
	if _, err := other.collectAt(bounded(t), time.Now(), time.Now().Add(1000*time.Hour)); err == nil || !f.there(t, "one") {
		t.Errorf("its collection: %v", err)
	}
}

// verified gives nothing of a wrong blob but its beginning, whatever the sizes are.
func TestVerified(t *testing.T) {
	for _, size := range []int{0, 1, verifiedPiece - 1, verifiedPiece, verifiedPiece + 1, 2 * verifiedPiece, 3*verifiedPiece + 7} {
		text := bytes.Repeat([]byte{'x'}, size)
		want := origin.Blob{Digest: origin.DigestOf(text), Size: int64(size)}
		bad := 0
		read := func(b []byte) (string, error) {
			got, err := io.ReadAll(newVerified(io.NopCloser(bytes.NewReader(b)), want, func(err error) {
				if err != nil {
					bad++
				}
			}))
			return string(got), err
		}
		if got, err := read(text); err != nil || got != string(text) || bad != 0 {
			t.Errorf("%d bytes: %d came, %v", size, len(got), err)
		}
		wrong := map[string][]byte{"longer": append(bytes.Clone(text), 'x')}
		if size > 0 {
			wrong["shorter"], wrong["other"] = text[1:], append(bytes.Clone(text[1:]), 'y')
		}
		for name, b := range wrong {
			bad = 0
			got, err := read(b)
			var mismatch *origin.MismatchError
			if !errors.As(err, &mismatch) || bad != 1 || len(got) > 0 && len(got) > len(b)-verifiedPiece {
				t.Errorf("%s than %d bytes: %d came, %v, told %d times", name, size, len(got), err, bad)
			}
		}
	}
	cut := io.NopCloser(io.MultiReader(strings.NewReader("x"), errReader{}))
	if _, err := io.ReadAll(newVerified(cut, origin.Blob{Size: 5}, func(error) { t.Error("a broken connection is taken for a lie") })); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a connection that breaks: %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, fs.ErrClosed }

// A control node that lost its disk but for its keys and log gets the manifests from the bucket; one
// that had its blobs in the folder brings them there.
func TestBucketTakesOver(t *testing.T) {
	s3 := fakes3.Start(t, "127.0.0.1")
	f := &bucketShelf{newShelf(t, Retain{}), s3}
	release := f.push(t, PushOptions{}, map[string]string{"index.html": "one", "a.txt": "a"})
	f.bucket = bucketAt(t, s3)
	f.restart(t)
	f.clock()
	if got, err := f.read(t, "one"); err != nil || got != "one" {
		t.Fatalf("before it is in the bucket: %q, %v", got, err)
	}
	if _, err := f.collect(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if n := f.Status().Bucket.Missing; n != 3 {
		t.Errorf("%d blobs are missing there, want 3", n)
	}
	if err := f.fillBucket(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "a"} {
		if !f.there(t, text) || f.has(text) {
			t.Errorf("%q: in the bucket %v, in the folder %v", text, f.there(t, text), f.has(text))
		}
	}
	if st := f.Status().Bucket; st.Missing != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	f.Close()
	if err := os.RemoveAll(filepath.Join(f.fleet.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	f.clock()
	for ctx := bounded(t); ; {
		if _, ok := f.Server.blobs.Has(release); ok {
			break
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatal("the manifest does not come back")
		}
	}
	if got, err := f.read(t, "a"); err != nil || got != "a" {
		t.Errorf("%q, %v", got, err)
	}
}

// A backup of a control node whose blobs are in a bucket has them, and can be restored without it.
func TestBackupFromBucket(t *testing.T) {
	f := newBucketShelf(t)
	f.push(t, PushOptions{}, map[string]string{"index.html": "one", "a.txt": "a"})
	var saved bytes.Buffer
	if err := f.Backup(bounded(t), &saved, true); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "control")
	head, err := Restore(bounded(t), dir, bytes.NewReader(saved.Bytes()), false)
	if err != nil || head.Blobs != 3 {
		t.Fatalf("%+v, %v", head, err)
	}
	f.s3.Break(fakes3.Lies)
	if err := f.Backup(bounded(t), io.Discard, true); err == nil {
		t.Error("a backup has the lies of the bucket")
	}
	for _, text := range []string{"one", "a"} {
		d := origin.DigestOf([]byte(text))
		if b, err := os.ReadFile(filepath.Join(dir, "blobs", fmt.Sprintf("%x", d[:1]), fmt.Sprintf("%x", d[:]))); err != nil || string(b) != text {
			t.Errorf("%q: %q, %v", text, b, err)
		}
	}
}
