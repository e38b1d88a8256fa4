package zones

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/internal/txtest"
)

// shippedZones are all *.zone files of the repository but those that are bad
// on purpose.
func shippedZones(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "bad" || d.Name() == "fuzz" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".zone") {
			return nil
		}
		// What "perigee init" fills in is a zone only then; its own test checks it.
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), "{{") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 4 {
		t.Fatalf("found only %v", files)
	}
	return files
}

func originOf(path string) string { return strings.TrimSuffix(filepath.Base(path), ".zone") }

// run runs a program in a folder and fails the test with its output.
func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// TestShippedZones: every zone file that we ship loads without a remark, and
// other name servers take it, and read the same records from it.
func TestShippedZones(t *testing.T) {
	for _, file := range shippedZones(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			z, findings := Load(file, Options{Origin: originOf(file)})
			if z == nil || len(findings) > 0 {
				t.Fatalf("findings: %s", show(findings))
			}
			txtest.Need(t, "named-checkzone", "named-compilezone", "nsd-checkzone")
			dir, base := filepath.Split(file)
			run(t, dir, "named-checkzone", "-i", "local", originOf(file), base)
			flat := filepath.Join(t.TempDir(), "flat.zone")
			run(t, dir, "named-compilezone", "-i", "local", "-o", flat, originOf(file), base)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// nsd 4.6 does not know $GENERATE: it gets what named made of it.
			if strings.Contains(string(text), "$GENERATE") {
				run(t, dir, "nsd-checkzone", originOf(file), flat)
			} else {
				run(t, dir, "nsd-checkzone", originOf(file), base)
			}
			again, findings := Load(flat, Options{Origin: originOf(file)})
			if again == nil {
				t.Fatalf("what named-compilezone wrote: %s", show(findings))
			}
			if got, want := dump(z), dump(again); got != want {
				t.Errorf("we read\n%s\nnamed reads\n%s", got, want)
			}
		})
	}
}

// dump is a whole zone as text, for comparing.
func dump(z *Zone) string {
	var b strings.Builder
	for name, n := range z.Names() {
		for _, s := range z.RRsets(n, nil) {
			fmt.Fprintf(&b, "%s %s %d %d %x\n", FormatName(name), typeName(s.Type), s.Count, s.TTL, s.Wire)
		}
	}
	return b.String()
}

// TestBadZones: each file in testdata/zones/bad has a companion that says what
// is found in it, a line for each: the line number, with the file before it
// when it is another, and the start of the finding.
func TestBadZones(t *testing.T) {
	files, err := filepath.Glob("../testdata/zones/bad/*.zone")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		z, findings := Load(file, Options{Origin: originOf(file)})
		if z != nil {
			t.Errorf("%s loads", file)
		}
		got := ""
		for _, f := range findings {
			if f.File != file {
				got += filepath.Base(f.File) + ":"
			}
			got += show([]Finding{f})
		}
		want, err := os.ReadFile(strings.TrimSuffix(file, ".zone") + ".want")
		if err != nil {
			t.Error(err)
			continue
		}
		for line := range strings.Lines(string(want)) {
			if !strings.Contains(got, strings.TrimSuffix(line, "\n")) {
				t.Errorf("%s:\n got %s\nwant %s", file, got, line)
			}
		}
	}
}

// TestIncludeStaysInside: nothing that a zone file says reads a file outside
// of its folder.
func TestIncludeStaysInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(outside, "secret A 192.0.2.1\n")
	write(filepath.Join(dir, "inner.inc"), "inner A 192.0.2.1\n")
	write(filepath.Join(dir, "loop.inc"), "$INCLUDE loop.inc\n")
	for link, target := range map[string]string{"out.inc": outside, "in.inc": "inner.inc"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	rel, err := filepath.Rel(dir, outside)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{"$INCLUDE inner.inc", true},
		{"$INCLUDE in.inc", true},
		{"$INCLUDE " + outside, false},
		{"$INCLUDE " + rel, false},
		{"$INCLUDE out.inc", false},
		{"$INCLUDE loop.inc", false},
		{"$GENERATE 1-1 $$INCLUDE " + outside, false},
		{"$GENERATE 1-1 $$include " + outside, false},
		{"$GENERATE 1-1 \\$INCLUDE " + outside, false},
		{"$GENERATE 1-1 a TXT \"\n$INCLUDE " + outside + "\n\"", false},
	} {
		path := filepath.Join(dir, "x.zone")
		write(path, lintBase+c.text+"\n")
		z, findings := Load(path, Options{Origin: "example.test"})
		if (z != nil) != c.ok {
			t.Errorf("%q: loads %v: %s", c.text, z != nil, show(findings))
		}
		if z == nil {
			continue
		}
		if _, ok := z.Find(wireName(t, "secret.example.test")); ok {
			t.Errorf("%q reads a file outside of the folder", c.text)
		}
	}
}
