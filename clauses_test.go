package perigee_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	conversationName = regexp.MustCompile("`((?:dns|steer|http|cli|config)/[^`]+\\.txtar)`")
	testName         = regexp.MustCompile("`([a-z][a-z0-9/]*)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)`")
)

// TestClauses holds docs/rfcs.md against the tree: every row names a test that
// is there, or says that it is open.
func TestClauses(t *testing.T) {
	text, err := os.ReadFile("docs/rfcs.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for i, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) < 4 || strings.HasPrefix(line, "| #") || strings.HasPrefix(line, "| ---") {
			continue
		}
		rows++
		last := cells[len(cells)-1]
		named := conversationName.FindAllStringSubmatch(last, -1)
		for _, m := range named {
			if _, err := os.Stat(filepath.Join("testdata", filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("docs/rfcs.md:%d: there is no conversation %s", i+1, m[1])
			}
		}
		tests := testName.FindAllStringSubmatch(last, -1)
		for _, m := range tests {
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("docs/rfcs.md:%d: there is no test %s.%s", i+1, m[1], m[2])
			}
		}
		if len(named)+len(tests) == 0 && !strings.Contains(last, "*open*") {
			t.Errorf("docs/rfcs.md:%d: no test is named, and it is not *open*", i+1)
		}
	}
	if rows == 0 {
		t.Error("docs/rfcs.md has no rows")
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
