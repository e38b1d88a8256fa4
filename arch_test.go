package perigee_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
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
	"bench/dns":         {"bench/pinned"},
	"bench/dnssize":     {},
	"bench/http":        {"bench/pinned"},
	"bench/pinned":      {},
	"bench/purge":       {"feed", "internal/control"},
	"policy":            {"internal/bigmem", "internal/siphash"},
	"zones":             {"internal/bigmem", "internal/durable"},
	"dnsserver":         {"policy", "zones", "internal/mmsg", "internal/siphash"},
	"origin":            {"internal/health", "internal/rewrite"},
	"edge":              {"origin", "internal/arena", "internal/evict", "internal/logqueue", "internal/seglog"},
	"feed":              {"internal/durable"},
	"internal/config":   {"policy"},
	"internal/arena":    {"internal/bigmem"},
	"internal/bucket":   {},
	"internal/bigmem":   {},
	"internal/control":  {"feed", "origin", "internal/bucket", "internal/durable"},
	"internal/node":     {"feed", "origin", "internal/control", "internal/durable"},
	"internal/durable":  {},
	"internal/evict":    {},
	"internal/fakes3":   {},
	"internal/fleet":    {},
	"internal/handover": {},
	"internal/logqueue": {},
	"internal/metrics":  {},
	"internal/geo":      {"policy"},
	"internal/health":   {},
	"internal/memnet":   {},
	"internal/mmsg":     {"internal/bigmem"},
	"internal/rewrite":  {},
	"internal/seglog":   {"internal/durable"},
	"internal/siphash":  {},
	"internal/sysmem":   {},
	"internal/testsum":  {},
	"internal/txtest":   {},
}

// onlyIn says which packages may import a dependency outside of tests. A
// dependency that is not listed fails the test; docs/dependencies.md has the
// reasons. internal/txtest is for tests.
var onlyIn = map[string][]string{
	"github.com/andybalholm/brotli":        {"origin"},
	"github.com/klauspost/compress":        {"origin"},
	"github.com/aws":                       {"internal/bucket"},
	"gocloud.dev":                          {"internal/bucket"},
	"github.com/johannesboyne/gofakes3":    {"internal/fakes3"},
	"github.com/miekg/dns":                 {"zones", "internal/txtest"},
	"github.com/fsnotify/fsnotify":         {"zones", "edge", "internal/geo"},
	"github.com/oschwald/geoip2-golang":    {"internal/geo"},
	"github.com/oschwald/maxminddb-golang": {"internal/geo"},
	"github.com/nats-io":                   {"feed"},
	"github.com/pelletier/go-toml":         {"internal/config"},
	"github.com/spf13/cobra":               {"cmd/perigee"},
	"github.com/prometheus/client_golang":  {"internal/metrics"},
	"github.com/schollz/progressbar":       {"cmd/perigee"},
	"golang.org/x/sys":                     {"internal/bigmem", "internal/mmsg", "dnsserver"},
	"golang.org/x/term":                    {"cmd/perigee"},
	"golang.org/x/text":                    {"origin"},
	"golang.org/x/tools/txtar":             {"internal/txtest"},
}

// TestArchitecture walks the tree and fails on an import that the two tables
// do not allow. Test files may import our own packages freely.
func TestArchitecture(t *testing.T) {
	seen := 0
	used := map[[2]string]bool{}
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
		checkImports(t, filepath.ToSlash(file), used)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dep, pkgs := range onlyIn {
		for _, pkg := range pkgs {
			if !used[[2]string{dep, pkg}] {
				t.Errorf("onlyIn lets %s import %s, which it does not: take it out there, and in docs/dependencies.md", pkg, dep)
			}
		}
	}
	if seen < 15 {
		t.Fatalf("looked at %d files only: is this the root of the module?", seen)
	}
}

// checkImports notes in used what a package imports of onlyIn.
func checkImports(t *testing.T, file string, used map[[2]string]bool) {
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
		if !dependencyAllowed(pkg, imp, used) {
			t.Errorf("%s: package %s may not import %s: see onlyIn", file, pkg, imp)
		}
	}
}

func dependencyAllowed(pkg, imp string, used map[[2]string]bool) bool {
	for prefix, pkgs := range onlyIn {
		if (imp == prefix || strings.HasPrefix(imp, prefix+"/")) && slices.Contains(pkgs, pkg) {
			used[[2]string{prefix, pkg}] = true
			return true
		}
	}
	return false
}

// TestDependencies: each module that go.mod requires directly has its reason in
// docs/dependencies.md.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, line := range strings.Split(string(mod), "\n") {
		words := strings.Fields(line)
		if !strings.HasPrefix(line, "\t") || len(words) != 2 { // "// indirect" makes four
			continue
		}
		direct++
		if !strings.Contains(string(reasons), words[0]) {
			t.Errorf("docs/dependencies.md does not say why go.mod requires %s", words[0])
		}
	}
	if direct < 10 {
		t.Errorf("only %d modules found in go.mod", direct)
	}
}
