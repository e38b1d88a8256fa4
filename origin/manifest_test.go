package origin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

func file(content, name string) File {
	return File{Digest: DigestOf([]byte(content)), Size: int64(len(content)), Type: TypeOf(name), Class: Classify(name)}
}

// manifestOf makes a manifest of path, content pairs.
func manifestOf(pairs ...string) *Manifest {
	m := &Manifest{Version: ManifestVersion, Files: map[string]File{}}
	for i := 0; i < len(pairs); i += 2 {
		m.Files[pairs[i]] = file(pairs[i+1], pairs[i])
	}
	return m
}

// The golden file pins version 1 of the canonical form: its digest is a
// release id that users have seen.
func TestCanonicalGolden(t *testing.T) {
	m := manifestOf("index.html", "<p>hi\n", "a/app-1a2b3c4d.js", "1", "a/logo.svg", "<svg/>", "zażółć/<&>\u2028.txt", "x", "empty", "")
	got, id, err := m.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/manifest-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(golden) {
		t.Errorf("canonical form:\n%s\nwant:\n%s", got, golden)
	}
	if want := "sha256-4548f2bc2df72323682ea873b43d39732e8ad02d4b6804d48816e58691506032"; id.String() != want {
		t.Errorf("release id %s, want %s", id, want)
	}
	again, err := ParseManifest(golden)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Files) != len(m.Files) || !reflect.DeepEqual(again.Files["index.html"], m.Files["index.html"]) {
		t.Errorf("parsed: %+v", again)
	}
}

func TestCanonicalRefusesPaths(t *testing.T) {
	for _, path := range []string{
		"", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/..", "..\\a", "a\\b",
		"a\x00b", "a\nb", "a\x7fb", "a\u0085b", "\xff", "a/\xc3",
		"a./b", "a /b", "a.", "a ", "a...",
		"C:/a", "c:a", "cafe\u0301", "%2e%2e/a", "a/%2E", "a%2fb", "a%5Cb", "a%00", "a%0ab",
		strings.Repeat("a", MaxPathBytes+1),
	} {
		_, _, err := manifestOf(path, "x").Canonical()
		var pathErr *PathError
		if !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Errorf("%.60q: error %v, want one that names it", path, err)
		}
	}
	for _, path := range []string{
		"a", "a/b/c", ".well-known/x", "...a", "100%.html", "a b", "caf\u00e9", "%41", "ab:c", "日本/語.html",
		strings.Repeat("a", MaxPathBytes),
	} {
		if _, _, err := manifestOf(path, "x").Canonical(); err != nil {
			t.Errorf("%.60q: %v", path, err)
		}
	}
}

func TestCanonicalRefusesTwins(t *testing.T) {
	for _, twins := range [][2]string{
		{"README", "readme"}, {"a/b", "A/b"}, {"stra\u00dfe", "STRASSE"}, {"caf\u00e9", "CAF\u00c9"},
		{"\u212bngstrom", "\u00e5ngstrom"}, {"\ufb01le", "file"},
	} {
		if _, _, err := manifestOf(twins[0], "x", twins[1], "x").Canonical(); err == nil {
			t.Errorf("%q and %q were accepted", twins[0], twins[1])
		}
	}
}

// Only case and form make twins, not mere likeness.
func TestNoTwins(t *testing.T) {
	if _, _, err := manifestOf("m\u00b2", "x", "m2", "x", "a/b", "y", "ab", "z").Canonical(); err != nil {
		t.Error(err)
	}
}

func TestCanonicalRefusesFiles(t *testing.T) {
	good := file("x", "a.txt")
	for name, change := range map[string]func(f *File){
		"size":         func(f *File) { f.Size = -1 },
		"no digest":    func(f *File) { f.Digest = Digest{} },
		"class":        func(f *File) { f.Class = "forever" },
		"no type":      func(f *File) { f.Type = "" },
		"type":         func(f *File) { f.Type = "text" },
		"type newline": func(f *File) { f.Type = "text/plain\r\nSet-Cookie: a=b" },
		"type length":  func(f *File) { f.Type = "text/" + strings.Repeat("x", maxTypeBytes) },
	} {
		f := good
		change(&f)
		m := &Manifest{Version: ManifestVersion, Files: map[string]File{"a.txt": f}}
		if _, _, err := m.Canonical(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	other := good
	other.Size++
	m := &Manifest{Version: ManifestVersion, Files: map[string]File{"a.txt": good, "b.txt": other}}
	if _, _, err := m.Canonical(); err == nil {
		t.Error("one digest with two sizes was accepted")
	}
	big := &Manifest{Version: ManifestVersion, Files: map[string]File{}}
	for i := range MaxFiles + 1 {
		big.Files[fmt.Sprint(i)] = good
	}
	if _, _, err := big.Canonical(); err == nil {
		t.Error("MaxFiles+1 files were accepted")
	}
	delete(big.Files, "0")
	if err := big.check(); err != nil {
		t.Errorf("MaxFiles files: %v", err)
	}
}

func TestParseManifestIsStrict(t *testing.T) {
	good, _, err := manifestOf("a.txt", "x", "b.txt", "y").Canonical()
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	for name, bad := range map[string]string{
		"empty":           "",
		"no newline":      strings.TrimSuffix(text, "\n"),
		"space":           strings.Replace(text, ":", ": ", 1),
		"unknown field":   strings.Replace(text, `"version":1`, `"version":1,"x":2`, 1),
		"version":         strings.Replace(text, `"version":1`, `"version":2`, 1),
		"case of a key":   strings.Replace(text, `"size"`, `"Size"`, 1),
		"float":           strings.Replace(text, `"size":1`, `"size":1.0`, 1),
		"escaped path":    strings.Replace(text, `"a.txt"`, `"\u0061.txt"`, 1),
		"twice":           strings.Replace(text, `"files":{`, `"files":{`+text[strings.Index(text, `"a.txt"`):strings.Index(text, `"b.txt"`)], 1),
		"digest case":     strings.Replace(text, `"sha256-`, `"SHA256-`, 1),
		"order":           strings.Replace(strings.Replace(strings.Replace(text, "a.txt", "TMP", 1), "b.txt", "a.txt", 1), "TMP", "b.txt", 1),
		"rest":            text + "{}",
		"null files":      `{"version":1,"files":null}` + "\n",
		"invalid UTF-8":   strings.Replace(text, "a.txt", "a\xff.txt", 1),
		"not an object":   "[]\n",
		"a path escaping": strings.Replace(text, "a.txt", "../a", 1),
	} {
		if bad == text {
			t.Errorf("%s: the test changes nothing", name)
		}
		if _, err := ParseManifest([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestManifestBlobs(t *testing.T) {
	m := manifestOf("a", "same", "b", "same", "c", "other", "d", "")
	blobs := m.Blobs()
	if len(blobs) != 3 {
		t.Fatalf("%d blobs, want 3", len(blobs))
	}
	for i := 1; i < len(blobs); i++ {
		if blobs[i-1].Digest.String() >= blobs[i].Digest.String() {
			t.Error("not sorted")
		}
	}
}

func TestDigest(t *testing.T) {
	d := DigestOf([]byte("perigee"))
	text := d.String()
	got, err := ParseDigest(text)
	if err != nil || got != d {
		t.Errorf("ParseDigest(%q) = %v, %v", text, got, err)
	}
	for _, bad := range []string{"", "sha256-", text[1:], text + "0", text[:len(text)-1], strings.ToUpper(text), "sha256:" + text[7:], text[:70] + "g"} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(DigestOf(nil).String())
	f.Add("sha256-ABCDEF")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && d.String() != s {
			t.Errorf("%q came back as %q", s, d)
		}
	})
}

// wholeJSON is a manifest as encoding/json writes it at once.
func wholeJSON(t *testing.T, m *Manifest) string {
	t.Helper()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCanonicalIsJSON: what is written file by file is what encoding/json makes of the
// whole, with every part of a manifest there or not.
func TestCanonicalIsJSON(t *testing.T) {
	if f, v := reflect.TypeFor[File]().NumField(), reflect.TypeFor[Variant]().NumField(); f != 5 || v != 3 {
		t.Errorf("File has %d fields and Variant %d: appendFile has to write them all", f, v)
	}
	long := manifestOf("index.html", "<p>", "a\"&<>\u2028.txt", "x", "é/日.js", "y")
	f := long.Files["index.html"]
	f.Variants = []Variant{{Coding: "br", Digest: DigestOf([]byte("br")), Size: 2}, {Coding: "gzip", Digest: DigestOf([]byte("gzip")), Size: 1}}
	f.Size = 3000
	long.Files["index.html"] = f
	headers := []HeaderRule{{For: "/*", Set: []Field{{"X-A", "<&>"}}}, {For: "/a", Remove: []string{"X-A"}}}
	redirects := []Redirect{{From: "/a", To: "/b?x=1&y=2", Status: 301, Force: true}}
	for i, m := range []*Manifest{
		manifestOf(), manifestOf("a", ""), long,
		{Version: ManifestVersion, Files: map[string]File{}, Headers: headers},
		{Version: ManifestVersion, Files: long.Files, Redirects: redirects},
		{Version: ManifestVersion, Files: long.Files, Headers: headers, Redirects: redirects},
	} {
		got, _, err := m.Canonical()
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if want := wholeJSON(t, m); string(got) != want {
			t.Errorf("%d:\n%s\nwant\n%s", i, got, want)
		}
		if _, err := ParseManifest(got); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if _, err := ParseManifest(append(got, ' ')); err == nil {
			t.Errorf("%d: taken with a space behind it", i)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, m := range []*Manifest{manifestOf(), manifestOf("a.txt", "x"), manifestOf("a/b.html", "x", "é/日.js", "y")} {
		b, _, err := m.Canonical()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version":1,"files":{"../x":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		again, id, err := m.Canonical()
		if err != nil || string(again) != string(b) || id != DigestOf(b) {
			t.Errorf("%q came back as %q (%v)", b, again, err)
		}
		if want := wholeJSON(t, m); want != string(b) {
			t.Errorf("%q is not %q", b, want)
		}
		for path := range m.Files {
			if path == "" || path[0] == '/' || strings.Contains("/"+path+"/", "/../") || strings.ContainsAny(path, "\\\x00\r\n") {
				t.Errorf("path %q passed", path)
			}
		}
	})
}
