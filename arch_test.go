package perigee_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "perigee.example"

// mayImport says which of our own packages each package may import. A package
// that is not listed fails the test. cmd/perigee may import everything.
var mayImport = map[string][]string{
	"bench/browser":     {},
	"bench/dns":         {},
	"bench/dnssize":     {},
	"policy":            {"internal/siphash"},
	"zones":             {"internal/bigmem", "internal/durable"},
	"dnsserver":         {"policy", "zones", "internal/mmsg", "internal/siphash"},
	"origin":            {"internal/health"},
	"edge":              {"origin", "internal/logqueue"},
	"feed":              {"internal/durable"},
	"internal/config":   {"policy"},
	"internal/bigmem":   {},
	"internal/control":  {"feed", "origin", "internal/durable"},
	"internal/node":     {"feed", "origin", "internal/control", "internal/durable"},
	"internal/durable":  {},
	"internal/handover": {},
	"internal/logqueue": {},
	"internal/metrics":  {},
	"internal/geo":      {"policy"},
	"internal/health":   {},
	"internal/memnet":   {},
	"internal/mmsg":     {},
	"internal/siphash":  {},
	"internal/testsum":  {},
	"internal/txtest":   {},
}

// onlyIn says which packages may import a dependency outside of tests. A
// dependency that is not listed fails the test; docs/dependencies.md has the
// reasons. internal/txtest is for tests.
var onlyIn = map[string][]string{
	"github.com/andybalholm/brotli":        {"origin"},
	"github.com/klauspost/compress":        {"origin"},
	"github.com/miekg/dns":                 {"zones", "internal/txtest"},
	"github.com/fsnotify/fsnotify":         {"zones", "edge", "internal/geo", "cmd/perigee"},
	"github.com/oschwald/geoip2-golang":    {"internal/geo"},
	"github.com/oschwald/maxminddb-golang": {"internal/geo"},
	"github.com/nats-io":                   {"feed"},
	"github.com/pelletier/go-toml":         {"internal/config"},
	"github.com/spf13/cobra":               {"cmd/perigee"},
	"github.com/prometheus/client_golang":  {"internal/metrics"},
	"github.com/schollz/progressbar":       {"cmd/perigee"},
	"golang.org/x/net":                     {"dnsserver", "edge"},
	"golang.org/x/sys":                     {"internal/bigmem", "internal/mmsg", "dnsserver", "cmd/perigee", "internal/node"},
	"golang.org/x/term":                    {"cmd/perigee"},
	"golang.org/x/text":                    {"origin", "internal/control"},
	"golang.org/x/tools/txtar":             {"internal/txtest"},
}

// TestArchitecture walks the tree and fails on an import that the two tables
// do not allow. Test files may import our own packages freely.
func TestArchitecture(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "tools" || name == "testdata" || (strings.HasPrefix(name, ".") && name != ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		seen++
		checkImports(t, filepath.ToSlash(file))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 15 {
		t.Fatalf("looked at %d files only: is this the root of the module?", seen)
	}
}

func checkImports(t *testing.T, file string) {
	pkg := path.Dir(file)
	free := pkg == "cmd/perigee"
	allowed, listed := mayImport[pkg]
	if !listed && !free {
		t.Errorf("%s: package %s is not in mayImport: add it there with what it may import, and to docs/ARCHITECTURE.md", file, pkg)
		return
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if own, ok := strings.CutPrefix(imp, module+"/"); ok {
			if !free && !slices.Contains(allowed, own) {
				t.Errorf("%s: package %s may not import %s", file, pkg, own)
			}
			continue
		}
		first, _, _ := strings.Cut(imp, "/")
		if !strings.Contains(first, ".") {
			continue // the standard library
		}
		if !dependencyAllowed(pkg, imp) {
			t.Errorf("%s: package %s may not import %s: see onlyIn", file, pkg, imp)
		}
	}
}

func dependencyAllowed(pkg, imp string) bool {
	for prefix, pkgs := range onlyIn {
		if (imp == prefix || strings.HasPrefix(imp, prefix+"/")) && slices.Contains(pkgs, pkg) {
			return true
		}
	}
	return false
}
