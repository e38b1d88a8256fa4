package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"perigee.example/internal/fakes3"
)

// open returns a bucket over a server that can be broken.
func open(t *testing.T, prefix string) (*Bucket, *fakes3.Server) {
	t.Helper()
	s := fakes3.Start(t, "127.0.0.1")
	b, err := openWith(Config{Name: fakes3.Name, Region: "us-east-1", Endpoint: s.URL, Prefix: prefix, Credentials: keys(t, goodKeys, 0o600)}, nil, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, s
}

const goodKeys = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n"

func keys(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t *testing.T, b *Bucket, key, text string) {
	t.Helper()
	if err := b.Put(t.Context(), key, int64(len(text)), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

func TestObjects(t *testing.T) {
	b, s := open(t, "fleet-a/")
	put(t, b, "blobs/one", "1")
	put(t, b, "blobs/two", "22")
	put(t, b, "blobs/empty", "")
	put(t, b, "other", "x")
	if _, ok := s.Objects(t)["fleet-a/blobs/two"]; !ok {
		t.Fatalf("the prefix is missing: %v", s.Objects(t))
	}
	text, err := b.Read(t.Context(), "blobs/two")
	if err != nil || string(text) != "22" {
		t.Fatalf("%q, %v", text, err)
	}
	o, err := b.Head(t.Context(), "blobs/two")
	if err != nil || o.Size != 2 || o.Written.IsZero() {
		t.Fatalf("%+v, %v", o, err)
	}
	var names []string
	for o, err := range b.List(t.Context(), "blobs/") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Key)
	}
	if got := strings.Join(names, " "); got != "blobs/empty blobs/one blobs/two" {
		t.Errorf("listed %s", got)
	}
	for range 2 { // what is not there is removed already
		if err := b.Delete(t.Context(), "blobs/two"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.Get(t.Context(), "blobs/two"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get of what was removed: %v", err)
	}
	if _, err := b.Head(t.Context(), "blobs/two"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("head of what was removed: %v", err)
	}
	if st := b.Stats(); !st.Lost.IsZero() || st.Calls[[2]string{"put", "ok"}] != 4 || st.Sent != 4 || st.Got != 2 {
		t.Errorf("%+v: an object that is not there is an answer like others", st)
	}
}

// A list of more objects than a page has them all.
func TestLongList(t *testing.T) {
	b, s := open(t, "")
	s.Fill(t, "blobs/", pageObjects+5)
	n := 0
	for _, err := range b.List(t.Context(), "blobs/") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != pageObjects+5 {
		t.Errorf("%d of %d objects", n, pageObjects+5)
	}
}

// A large object goes in parts, from the file, and is there as a whole or not at all.
func TestLargeObject(t *testing.T) {
	b, s := open(t, "")
	text := bytes.Repeat([]byte("0123456789abcdef"), (2*partSize+100)/16)
	f, err := os.Create(filepath.Join(t.TempDir(), "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "large", int64(len(text)), f); err != nil {
		t.Fatal(err)
	}
	r, size, err := b.Get(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || size != int64(len(text)) || !bytes.Equal(got, text) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(text), err)
	}
	if n := s.Calls("PUT"); n < 3 {
		t.Errorf("%d PUTs: it did not go in parts", n)
	}
	broken := &brokenReader{ReadSeeker: bytes.NewReader(text), after: partSize + 10}
	err = b.Put(t.Context(), "broken", int64(len(text)), broken)
	if err == nil || !errors.Is(err, errDisk) {
		t.Errorf("a source that fails: %v", err)
	}
	if _, there := s.Objects(t)["broken"]; there || !b.Stats().Lost.IsZero() {
		t.Error("half of an object is there, or the bucket is blamed for the disk")
	}
}

var errDisk = errors.New("the disk fails")

type brokenReader struct {
	io.ReadSeeker
	after int
}

func (r *brokenReader) Read(p []byte) (int, error) {
	if r.after <= 0 {
		return 0, errDisk
	}
	n, err := r.ReadSeeker.Read(p[:min(len(p), r.after)])
	r.after -= n
	return n, err
}

// Whatever is wrong with a bucket, the error says what, and what to do; and when it
// is well again, so are the calls.
func TestFaults(t *testing.T) {
	b, s := open(t, "")
	put(t, b, "blobs/one", "1")
	for _, c := range []struct {
		fault     fakes3.Fault
		why, hint string
	}{
		{fakes3.Fails, "SlowDown", awayHint},
		{fakes3.Denies, "AccessDenied", "let these credentials get, put, delete and list"},
		{fakes3.Cuts, "EOF", awayHint},
	} {
		s.Break(c.fault)
		_, err := b.Read(t.Context(), "blobs/one")
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Why, c.why) || !strings.Contains(e.Hint, c.hint) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %+v", c.fault, err, e)
		}
		if st := b.Stats(); st.Lost.IsZero() || !strings.Contains(st.Why, c.why) {
			t.Errorf("%s: %+v", c.fault, st)
		}
		s.Break(fakes3.Well)
		if _, err := b.Read(t.Context(), "blobs/one"); err != nil || !b.Stats().Lost.IsZero() {
			t.Errorf("after %s: %v, %+v", c.fault, err, b.Stats())
		}
	}
	b.c.Name = "elsewhere" // words only
	other, err := Open(Config{Name: "no-such-bucket", Region: "us-east-1", Endpoint: s.URL, Credentials: keys(t, goodKeys, 0o600)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Read(t.Context(), "blobs/one"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "NoSuchBucket") {
		t.Errorf("a bucket that is not there: %v", err)
	}
}

// A bucket that does not answer costs a call its time, and no more; and who calls may
// go before.
func TestHangingBucket(t *testing.T) {
	b, s := open(t, "")
	put(t, b, "blobs/one", "1")
	s.Break(fakes3.Hangs)
	b.wait, b.stall = 50*time.Millisecond, 50*time.Millisecond
	for op, f := range map[string]func(context.Context) error{
		"get":  func(ctx context.Context) error { _, err := b.Read(ctx, "blobs/one"); return err },
		"head": func(ctx context.Context) error { _, err := b.Head(ctx, "blobs/one"); return err },
		"put":  func(ctx context.Context) error { return b.Put(ctx, "x", 1, strings.NewReader("x")) },
	} {
		if err := f(t.Context()); err == nil || !strings.Contains(err.Error(), errSlow.Error()) {
			t.Errorf("%s: %v", op, err)
		}
	}
	before := b.Stats().Calls[[2]string{"head", "failed"}]
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Head(gone, "blobs/one"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that went: %v", err)
	}
	if after := b.Stats().Calls[[2]string{"head", "failed"}]; after != before {
		t.Error("the bucket is blamed for a caller that went")
	}
}

// Credentials are a secret: others may not read the file, and no error quotes it.
func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"good", goodKeys, 0o600, ""},
		{"readable by all", goodKeys, 0o644, "others may read it (mode 0644)"},
		{"another section", strings.Replace(goodKeys, "default", "work", 1), 0o600, "no credentials are in it"},
		{"no secret", "[default]\naws_access_key_id = AKIDEXAMPLE\n", 0o600, "no credentials are in it"},
		{"no section", "wJalrXUtnFEMI\n", 0o600, "no credentials are in it"},
		{"a binary", "\x00\x01wJalrXUtnFEMI", 0o600, "no credentials are in it"},
	} {
		err := CheckCredentials(keys(t, c.text, c.mode))
		switch {
		case (err == nil) != (c.want == ""):
			t.Errorf("%s: %v", c.name, err)
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		case err != nil && (strings.Contains(err.Error(), "wJalrXUtnFEMI") || strings.Contains(err.Error(), "AKIDEXAMPLE")):
			t.Errorf("%s: the error quotes the secret: %v", c.name, err)
		}
	}
	if err := CheckCredentials(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A file of credentials that is wrong when it is needed is an error with its cure.
func TestCredentialsGone(t *testing.T) {
	s := fakes3.Start(t, "127.0.0.1")
	b, err := Open(Config{Name: fakes3.Name, Region: "us-east-1", Endpoint: s.URL, Credentials: filepath.Join(t.TempDir(), "none")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var e *Error
	if _, err := b.Head(t.Context(), "x"); !errors.As(err, &e) || !strings.Contains(e.Why, "there are no credentials") || !strings.Contains(e.Hint, "AWS_ACCESS_KEY_ID") {
		t.Errorf("%v", err)
	}
}
