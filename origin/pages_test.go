package origin

import (
	"bytes"
	"fmt"
	"testing"
)

// bigManifest is a manifest of n files, of which edit has changed some.
func bigManifest(t *testing.T, n int, edit func(m *Manifest)) []byte {
	t.Helper()
	m := &Manifest{Version: ManifestVersion, Files: map[string]File{}}
	for i := range n {
		name := fmt.Sprintf("docs/part-%d/page \"},\" %d.html", i%97, i)
		m.Files[name] = File{Digest: DigestOf([]byte(name)), Size: 10, Type: "text/html; charset=utf-8", Class: Document}
	}
	if edit != nil {
		edit(m)
	}
	b, _, err := m.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The pages of a manifest are its bytes; and when few files change, few pages do.
func TestPagesAreTheManifest(t *testing.T) {
	before := bigManifest(t, 20_000, nil)
	pages := Pages(before)
	if got := bytes.Join(pages, nil); !bytes.Equal(got, before) {
		t.Fatal("the pages are not the manifest")
	}
	if len(pages) < 50 || len(pages) > 500 {
		t.Errorf("%d pages", len(pages))
	}
	have := map[Digest]bool{}
	for _, p := range pages {
		if len(p) == 0 || len(p) > MaxPageBytes {
			t.Errorf("a page of %d bytes", len(p))
		}
		have[DigestOf(p)] = true
	}
	after := bigManifest(t, 20_000, func(m *Manifest) {
		file := m.Files["docs/part-0/page \"},\" 0.html"]
		file.Size++
		file.Digest = DigestOf([]byte("changed"))
		m.Files["docs/part-0/page \"},\" 0.html"] = file
		m.Files["docs/part-50/a new one.html"] = file
		delete(m.Files, "docs/part-96/page \"},\" 96.html")
	})
	fresh := 0
	for _, p := range Pages(after) {
		if !have[DigestOf(p)] {
			fresh++
		}
	}
	if fresh < 1 || fresh > 6 {
		t.Errorf("%d of %d pages are new after three changes", fresh, len(Pages(after)))
	}
}

// Any bytes are cut into pages that are these bytes, none longer than allowed
// but where one file alone is.
func FuzzPages(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":{"a":{"digest":""},"b":{}}}`))
	f.Add([]byte(`},"`))
	f.Add(bytes.Repeat([]byte(`},"x`), 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := bytes.Join(Pages(b), nil); !bytes.Equal(got, b) {
			t.Fatalf("%q became %q", b, got)
		}
	})
}
