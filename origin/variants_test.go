package origin

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// RFC 9110 §12.5.3.
func TestVariantFor(t *testing.T) {
	f := File{Size: 100, Variants: []Variant{{Coding: "br"}, {Coding: "zstd"}, {Coding: "gzip"}}}
	for accept, want := range map[string]string{
		"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "GZIP": "gzip", "gzip, deflate, br, zstd": "br", "gzip, zstd": "zstd",
		"gzip;q=1.0, br;q=0.5": "gzip", "br;q=0": "", "*": "br", "br;q=0, *": "zstd", "*;q=0": "", "gzip;q=0.5, identity;q=0.9": "",
		"gzip;q=0.001": "gzip", "gzip;q=2": "", "gzip;q=0.1234": "", "gzip;level=9": "", ";;": "", "br junk": "", "deflate": "", " br ;q=1": "br",
		"br , gzip": "br", ",,br": "br",
	} {
		got := ""
		if v := f.Variant(accept); v != nil {
			got = v.Coding
		}
		if got != want {
			t.Errorf("Accept-Encoding %q: %q, want %q", accept, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { f.Variant("gzip, deflate, br, zstd") }); n != 0 {
		t.Errorf("choosing allocates %v times", n)
	}
}

// A variant depends on the content alone, not on what was compressed before it:
// else each push of a large site would send some again.
func TestVariantsHaveNoMemory(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < hugeSize {
		b.WriteString([]string{"<p>", "some ", "words ", "of a page\n", "</p>", "href=", string(rune('a' + rnd.IntN(26)))}[rnd.IntN(7)])
	}
	whole := []byte(b.String())
	for _, coding := range Codings {
		used, err := newEncoders()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{hugeSize, 150_000, 1000} {
			fresh, err := newEncoders()
			if err != nil {
				t.Fatal(err)
			}
			want, err1 := fresh.encode(coding, whole[:n])
			got, err2 := used.encode(coding, whole[:n])
			if err1 != nil || err2 != nil || !bytes.Equal(want, got) {
				t.Errorf("%s of %d bytes: %d bytes, and %d behind others (%v, %v)", coding, n, len(want), len(got), err1, err2)
			}
		}
	}
}

// Every variant of a folder decodes to the file, is smaller, and is the same
// the next time, so that a release keeps its id.
func TestFolderVariants(t *testing.T) {
	text := strings.Repeat("some words of a page, again and again; ", 100)
	dir := tree(t, "page.html", text, "tiny.css", "a{}", "noise.bin", text, "picture.png", text)
	first, err := ManifestOf(t.Context(), dir, FolderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, id, _ := first.Manifest.Canonical()
	second, err := ManifestOf(t.Context(), dir, FolderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, again, _ := second.Manifest.Canonical(); again != id {
		t.Error("the same folder made two releases")
	}
	made := second.made
	second.Close()
	if _, err := os.Stat(made); made == "" || !os.IsNotExist(err) {
		t.Error("the temporary folder stayed")
	}
	for name, want := range map[string]int{"page.html": 3, "tiny.css": 0, "noise.bin": 0, "picture.png": 0} {
		if got := len(first.Manifest.Files[name].Variants); got != want {
			t.Errorf("%s has %d variants, want %d", name, got, want)
		}
	}
	for _, v := range first.Manifest.Files["page.html"].Variants {
		f, err := first.Open(v.Digest)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil || int64(len(b)) != v.Size || DigestOf(b) != v.Digest || len(b) >= len(text) {
			t.Errorf("%s: %d bytes, %v", v.Coding, len(b), err)
		}
		if got := decoded(t, v.Coding, b); got != text {
			t.Errorf("%s decodes to %d bytes of something else", v.Coding, len(got))
		}
		if !first.Made(v.Digest) || first.Path(v.Digest) != "page.html ("+v.Coding+")" {
			t.Errorf("%s: made %v, path %q", v.Coding, first.Made(v.Digest), first.Path(v.Digest))
		}
	}
}

func decoded(t *testing.T, coding string, b []byte) string {
	t.Helper()
	var r io.Reader
	var err error
	switch coding {
	case "br":
		r = brotli.NewReader(bytes.NewReader(b))
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(b))
	case "zstd":
		r, err = zstd.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// An encoder that is used again gives what a new one gives: else the release of
// a folder would depend on which file came before which.
func TestEncodersRememberNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("a page of some words that come again and again <p> </p> <div class=item> and others")
	var contents [][]byte
	for i := range 60 {
		var b []byte
		for size := 512 << rng.IntN(9); len(b) < size; {
			if i%7 == 0 {
				b = append(b, byte(rng.Uint32()))
			} else {
				b = append(append(b, words[rng.IntN(len(words))]...), ' ')
			}
		}
		contents = append(contents, b)
	}
	used, err := newEncoders()
	if err != nil {
		t.Fatal(err)
	}
	for _, coding := range Codings {
		for _, i := range rng.Perm(len(contents)) {
			first, err := used.encode(coding, contents[i])
			if err != nil {
				t.Fatal(err)
			}
			if i%5 == 0 { // new ones are slow to make
				fresh, err := newEncoders()
				if err != nil {
					t.Fatal(err)
				}
				if b, err := fresh.encode(coding, contents[i]); err != nil || !bytes.Equal(b, first) {
					t.Fatalf("%s of content %d: %d bytes, from a new encoder %d, %v", coding, i, len(first), len(b), err)
				}
			}
			if got := decoded(t, coding, first); got != string(contents[i]) {
				t.Fatalf("%s of content %d decodes to something else", coding, i)
			}
		}
	}
}
