package origin

import (
	"fmt"
	"runtime"
	"testing"
)

// TestManifestMemory: reading and writing a manifest allocates a few times its size, not
// copy after copy of it: the longest has 64 MiB, and a control node reads it for each push.
func TestManifestMemory(t *testing.T) {
	m := &Manifest{Version: ManifestVersion, Files: map[string]File{}}
	for i := range 5000 {
		f := File{Digest: DigestOf(fmt.Append(nil, i)), Size: 5000, Type: "text/html; charset=utf-8", Class: Document}
		for _, coding := range Codings {
			f.Variants = append(f.Variants, Variant{coding, DigestOf(fmt.Append(nil, coding, i)), 1000})
		}
		m.Files[fmt.Sprintf("docs/part-%03d/page-%05d.html", i/200, i)] = f
	}
	var canonical []byte
	for _, c := range []struct {
		what string
		do   func() error
		most float64
	}{
		{"written", func() (err error) { canonical, _, err = m.Canonical(); return err }, 4},
		{"read", func() error { _, err := ParseManifest(canonical); return err }, 5},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.do()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if times := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(canonical)); times > c.most {
			t.Errorf("a manifest of %d KiB is %s with %.1f times as much memory, want %.1f at most", len(canonical)>>10, c.what, times, c.most)
		} else {
			t.Logf("%s: %.2f times", c.what, times)
		}
	}
}
