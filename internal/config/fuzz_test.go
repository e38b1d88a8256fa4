package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// FuzzParse: Parse never panics, every mistake stands on a line and in columns
// of the file, renders, and comes in line order; what is accepted can be
// located again. The seeds are the template and every conversation.
func FuzzParse(f *testing.F) {
	template, err := os.ReadFile("template.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(template)
	f.Add(exampleLine.ReplaceAll(template, []byte("$1")))
	paths, err := filepath.Glob("../../testdata/config/*.txtar")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no conversations: %v", err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if strings.HasSuffix(file.Name, ".toml") {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("perigee.toml", text, "/etc/perigee")
		if err == nil {
			if len(c.Policy.Endpoints) != len(c.Edges)+len(c.Endpoints) {
				t.Errorf("%d endpoints of %d edges and %d endpoints", len(c.Policy.Endpoints), len(c.Edges), len(c.Endpoints))
			}
			for _, p := range c.Policy.Policies {
				if at := c.Locate("policy." + p.Name); at.Line < 1 || at.Col < 1 {
					t.Errorf("policy %q is at %+v", p.Name, at)
				}
			}
			return
		}
		var list *Errors
		if !errors.As(err, &list) || len(list.List) == 0 || len(list.List) > maxErrors {
			t.Fatalf("%T: %v", err, err)
		}
		lines := strings.Split(string(text), "\n")
		last := 0
		for _, e := range list.List {
			if e.Line < max(1, last) || e.Line > len(lines) {
				t.Errorf("line %d after %d, of %d: %v", e.Line, last, len(lines), e)
				continue
			}
			last = e.Line
			if width := len([]rune(lines[e.Line-1])); e.Col < 1 || e.Col > width+1 || e.EndCol <= e.Col || e.EndCol > width+2 {
				t.Errorf("columns %d to %d of %d: %v", e.Col, e.EndCol, width, e)
			}
			if e.Text == "" || strings.ContainsAny(e.Render(), "\x00\x1b\r\t") {
				t.Errorf("%q", e.Render())
			}
		}
	})
}

// FuzzLocate: any path has a place within the file.
func FuzzLocate(f *testing.F) {
	text := []byte(fleetText + "[zone.\"example.com\"]\nfile = \"a\"\nsteer = { \"*.x\" = \"fra1\" }\n")
	c, err := Parse("perigee.toml", text, ".")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"", ".", "edge.fra1", `zone."example.com".steer."*.x"`, `"`, `edge."fra1`, "edge..fra1", "edge.fra1.addresses.192.0.2.10"} {
		f.Add(path)
	}
	lines := strings.Count(string(text), "\n")
	f.Fuzz(func(t *testing.T, path string) {
		if at := c.Locate(path); at.Line < 1 || at.Line > lines || at.Col < 1 || at.EndCol <= at.Col {
			t.Errorf("%q is at %+v", path, at)
		}
		if e := c.ErrorAt(path, "x", ""); strings.Count(e.Render(), "\n") < 2 {
			t.Errorf("%q", e.Render())
		}
		splitPath(path)
	})
}
