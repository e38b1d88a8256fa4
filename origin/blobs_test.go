package origin

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func openBlobs(t *testing.T) (*Blobs, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "blobs")
	b, err := OpenBlobs(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, dir
}

func put(t *testing.T, b *Blobs, content string) Digest {
	t.Helper()
	d := DigestOf([]byte(content))
	if err := b.Put(d, int64(len(content)), strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return d
}

// wantFiles checks that exactly these blobs, and no temporary file, are below dir.
func wantFiles(t *testing.T, dir string, want ...Digest) {
	t.Helper()
	names := map[string]bool{}
	for _, d := range want {
		names[filepath.FromSlash(blobName(d))] = true
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if !names[rel] {
			t.Errorf("there is a file %s", rel)
		}
		delete(names, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range names {
		t.Errorf("there is no file %s", name)
	}
}

func TestBlobsPutAndOpen(t *testing.T) {
	b, dir := openBlobs(t)
	d := put(t, b, "hello")
	empty := put(t, b, "")
	put(t, b, "hello") // again
	wantFiles(t, dir, d, empty)
	if size, ok := b.Has(d); !ok || size != 5 {
		t.Errorf("Has = %d, %v", size, ok)
	}
	f, err := b.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content, err := io.ReadAll(f); err != nil || string(content) != "hello" {
		t.Errorf("read %q, %v", content, err)
	}
	absent := DigestOf([]byte("absent"))
	if _, err := b.Open(absent); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of an absent blob: %v", err)
	}
	if _, ok := b.Has(absent); ok {
		t.Error("Has an absent blob")
	}
}

// Whatever is not of the digest and size leaves no file under any name.
func TestBlobsMismatch(t *testing.T) {
	b, dir := openBlobs(t)
	d := DigestOf([]byte("hello"))
	for name, test := range map[string]struct {
		size     int64
		r        io.Reader
		mismatch bool
	}{
		"other content": {5, strings.NewReader("HELLO"), true},
		"short":         {5, strings.NewReader("hell"), true},
		"long":          {5, strings.NewReader("hello!"), true},
		"endless":       {5, endless{}, true},
		"wrong size":    {4, strings.NewReader("hello"), true},
		"read error":    {5, io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(errors.New("cut off"))), false},
		"negative size": {-1, strings.NewReader("hello"), false},
	} {
		err := b.Put(d, test.size, test.r)
		var mismatch *MismatchError
		if err == nil || errors.As(err, &mismatch) != test.mismatch {
			t.Errorf("%s: %v", name, err)
		}
		wantFiles(t, dir)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestBlobsSweepsTemporaryFilesAtOpen(t *testing.T) {
	b, dir := openBlobs(t)
	d := put(t, b, "hello")
	b.Close()
	if err := os.WriteFile(filepath.Join(dir, tempDir, "HALF"), []byte("hel"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBlobs(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	wantFiles(t, dir, d)
}

func TestBlobsVerify(t *testing.T) {
	b, dir := openBlobs(t)
	good, rotten := put(t, b, "good"), put(t, b, "rotten")
	if err := os.WriteFile(filepath.Join(dir, blobName(rotten)), []byte("rottem"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(good); err != nil {
		t.Error(err)
	}
	var mismatch *MismatchError
	if err := b.Verify(rotten); !errors.As(err, &mismatch) {
		t.Errorf("rotten blob: %v", err)
	}
	if _, ok := b.Has(rotten); ok {
		t.Error("a rotten blob is still there")
	}
	if err := b.Verify(rotten); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent blob: %v", err)
	}
	put(t, b, "rotten")
	if err := b.Verify(rotten); err != nil {
		t.Errorf("healed blob: %v", err)
	}
}

func TestBlobsMissing(t *testing.T) {
	b, dir := openBlobs(t)
	m := manifestOf("a", "aa", "b", "bb", "c", "cc", "d", "cc")
	a := put(t, b, "aa")
	torn := put(t, b, "bb")
	if err := os.Truncate(filepath.Join(dir, blobName(torn)), 1); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-100 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, blobName(a)), old, old); err != nil {
		t.Fatal(err)
	}
	got := map[Digest]int64{}
	for _, blob := range b.Missing(m) {
		got[blob.Digest] = blob.Size
	}
	if len(got) != 2 || got[torn] != 2 || got[DigestOf([]byte("cc"))] != 2 {
		t.Errorf("missing: %v", got)
	}
	// To be called stored is to be young again.
	swept, err := b.Sweep(func(Digest) bool { return false }, time.Now().Add(-24*time.Hour))
	if err != nil || swept.Removed != 0 || swept.Kept != 2 {
		t.Errorf("swept %+v, %v", swept, err)
	}
}

func TestBlobsSweep(t *testing.T) {
	b, dir := openBlobs(t)
	used, unused, young := put(t, b, "used"), put(t, b, "unused"), put(t, b, "young")
	old := time.Now().Add(-48 * time.Hour)
	for _, d := range []Digest{used, unused} {
		if err := os.Chtimes(filepath.Join(dir, blobName(d)), old, old); err != nil {
			t.Fatal(err)
		}
	}
	swept, err := b.Sweep(func(d Digest) bool { return d == used }, time.Now().Add(-24*time.Hour))
	if err != nil || swept != (Swept{Kept: 2, Removed: 1, Bytes: 6}) {
		t.Errorf("swept %+v, %v", swept, err)
	}
	wantFiles(t, dir, used, young)
}

// A blob folder cannot be led out of by links planted in it.
func TestBlobsConfined(t *testing.T) {
	b, dir := openBlobs(t)
	outside := t.TempDir()
	content := []byte("secret")
	d := DigestOf(content)
	if err := os.WriteFile(filepath.Join(outside, "f"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, blobName(d))
	if err := os.Symlink(filepath.Join(outside, "f"), name); err != nil {
		t.Fatal(err)
	}
	if f, err := b.Open(d); err == nil {
		f.Close()
		t.Error("a link out of the folder was followed")
	}
	if err := b.Put(d, int64(len(content)), bytes.NewReader(content)); err != nil {
		t.Errorf("Put over a link: %v", err)
	}
	if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() {
		t.Errorf("after Put: %v, %v", st.Mode(), err)
	}
}
