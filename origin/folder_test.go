package origin

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tree makes a folder of path, content pairs.
func tree(t *testing.T, pairs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(pairs); i += 2 {
		name := filepath.Join(dir, filepath.FromSlash(pairs[i]))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(pairs[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestManifestOf(t *testing.T) {
	dir := tree(t, "index.html", "<p>", "a/b/c.js", "js", "a/same.js", "js", ".well-known/security.txt", "sec",
		".git/config", "x", ".DS_Store", "x", "a/.env", "secret", "a/.well-known/x", "x", "cafe\u0301.txt", "nfd")
	if err := os.Symlink("b/c.js", filepath.Join(dir, "a", "link.js")); err != nil {
		t.Fatal(err)
	}
	var last FolderProgress
	calls := 0
	f, err := ManifestOf(t.Context(), dir, FolderOptions{Progress: func(p FolderProgress) { last, calls = p, calls+1 }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := slices.Sorted(maps.Keys(f.Manifest.Files))
	want := []string{".well-known/security.txt", "a/b/c.js", "a/link.js", "a/same.js", "caf\u00e9.txt", "index.html"}
	if !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
	if got := f.Manifest.Files["index.html"]; !reflect.DeepEqual(got, file("<p>", "index.html")) {
		t.Errorf("index.html: %+v", got)
	}
	var skipped []string
	for _, s := range f.Skipped {
		if s.Why == "" {
			t.Errorf("%s skipped without a reason", s.Path)
		}
		skipped = append(skipped, s.Path)
	}
	if want := []string{".DS_Store", ".git", "a/.env", "a/.well-known"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
	if calls != 6 || last != (FolderProgress{Stage: StageHash, TotalFiles: 6, Files: 6, Bytes: 15, TotalBytes: 15}) {
		t.Errorf("%d calls of progress, the last %+v", calls, last)
	}
	b, _ := openBlobs(t)
	for _, blob := range f.Manifest.Blobs() {
		r, err := f.Open(blob.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(blob.Digest, blob.Size, r); err != nil {
			t.Errorf("%s: %v", f.Path(blob.Digest), err)
		}
		r.Close()
	}
	if missing := b.Missing(f.Manifest); missing != nil {
		t.Errorf("missing %v", missing)
	}
	if _, err := f.Open(Digest{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of a blob that is not in the folder: %v", err)
	}
}

func TestManifestOfRefuses(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"link out":       func(dir string) error { return os.Symlink("/etc/passwd", dir+"/bad") },
		"link up":        func(dir string) error { return os.Symlink("../..", dir+"/bad") },
		"link to folder": func(dir string) error { return os.Symlink("sub", dir+"/bad") },
		"dangling link":  func(dir string) error { return os.Symlink("nothing", dir+"/bad") },
		"link loop":      func(dir string) error { return os.Symlink("bad", dir+"/bad") },
		"pipe":           func(dir string) error { return syscall.Mkfifo(dir+"/bad", 0o600) },
		"backslash":      func(dir string) error { return os.WriteFile(dir+"/bad\\x", nil, 0o600) },
		"not UTF-8":      func(dir string) error { return os.WriteFile(dir+"/bad\xff", nil, 0o600) },
		"newline":        func(dir string) error { return os.WriteFile(dir+"/bad\n", nil, 0o600) },
		"twice encoded":  func(dir string) error { return os.WriteFile(dir+"/bad%2f", nil, 0o600) },
		"case twins": func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/bad", nil, 0o600), os.WriteFile(dir+"/BAD", nil, 0o600))
		},
		"form twins": func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/bade\u0301", nil, 0o600), os.WriteFile(dir+"/bad\u00e9", nil, 0o600))
		},
	} {
		dir := tree(t, "good.txt", "x", "sub/good.txt", "x")
		if err := spoil(dir); err != nil {
			t.Errorf("%s: cannot be made here: %v", name, err)
			continue
		}
		f, err := ManifestOf(t.Context(), dir, FolderOptions{})
		if err == nil {
			f.Close()
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(strings.ToLower(err.Error()), "bad") {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
	if f, err := ManifestOf(t.Context(), t.TempDir(), FolderOptions{}); err == nil {
		f.Close()
		t.Error("an empty folder was accepted")
	}
	if f, err := ManifestOf(t.Context(), filepath.Join(t.TempDir(), "absent"), FolderOptions{}); err == nil {
		f.Close()
		t.Error("an absent folder was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f, err := ManifestOf(ctx, tree(t, "a", "x"), FolderOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", f, err)
	}
}

// A file that is swapped for a link while the folder is pushed yields what one
// of the two names says, or an error, never what lies outside.
func TestFolderSwap(t *testing.T) {
	dir := tree(t, "a.txt", "inside", "b.txt", "x")
	outside := filepath.Join(tree(t, "secret", "outside"), "secret")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Symlink(outside, dir+"/.l")
			_ = os.Rename(dir+"/.l", dir+"/a.txt")
			_ = os.WriteFile(dir+"/.f", []byte("inside"), 0o644)
			_ = os.Rename(dir+"/.f", dir+"/a.txt")
		}
	}()
	seen, secret := 0, DigestOf([]byte("outside"))
	// The other goroutine may be off its processor for thousands of tries, with
	// the link in place: count what was read, not what was tried.
	for tries := 0; seen < 100 && tries < 300_000; tries++ {
		f, err := ManifestOf(t.Context(), dir, FolderOptions{})
		if err != nil {
			continue
		}
		seen++
		if f.Manifest.Files["a.txt"].Digest == secret {
			t.Error("the content of a file outside was taken")
		}
		if r, err := f.Open(f.Manifest.Files["a.txt"].Digest); err == nil {
			if b, _ := io.ReadAll(r); string(b) == "outside" {
				t.Error("a file outside was opened")
			}
			r.Close()
		}
		f.Close()
	}
	close(stop)
	<-done
	if seen == 0 {
		t.Error("the folder could never be read")
	}
}
