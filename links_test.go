package perigee_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noAnchor = regexp.MustCompile(`[^\w\- ]`)
	// ourFile is a file of the tree as the documents name it, with its folder.
	ourFile = regexp.MustCompile("`((?:cmd|dnsserver|edge|origin|policy|zones|internal|bench|tools|scripts|testdata)/[a-z_/-]+(?:\\.[a-z]+)?)`")
)

// TestLinks: what the documents link to is there, headings too, and so is each
// file that they name.
func TestLinks(t *testing.T) {
	files := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, glob := range []string{"docs/*.md", "examples/*/README.md"} {
		more, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	links := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			path, anchor, _ := strings.Cut(m[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), filepath.FromSlash(path))
			}
			if !hasHeading(target, anchor) {
				t.Errorf("%s: %s leads nowhere", file, m[1])
			}
		}
		for _, m := range ourFile.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.FromSlash(m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", file, m[1])
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links found", links)
	}
}

// hasHeading says whether a file is there, and has the heading that anchor
// names, in the spelling of web pages.
func hasHeading(file, anchor string) bool {
	text, err := os.ReadFile(file)
	if err != nil || anchor == "" {
		_, err := os.Stat(file)
		return err == nil
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		spelled := noAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), "")
		if strings.ReplaceAll(spelled, " ", "-") == anchor {
			return true
		}
	}
	return false
}
