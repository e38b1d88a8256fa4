package perigee_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestNothingToGuess: there is no ID, port or token of ours that could be guessed
// (CVE-2019-19794: IDs from math/rand). No code of the programs imports that, nor,
// but to spread work in time, upstreams and hash tables, math/rand/v2; and none sends a
// DNS query: what we look up goes through the system's resolver. Of miekg/dns only
// the parts that read and write zones are used.
func TestNothingToGuess(t *testing.T) {
	senders := []string{"Client", "Conn", "Exchange", "ExchangeContext", "ExchangeConn", "Id", "Server", "Transfer", "Dial", "DialTimeout", "ListenAndServe", "ActivateAndServe"}
	spread := []string{"zones", "internal/health", "internal/node", "origin", "cmd/perigee"}
	files := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" || name == "bench") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "internal/txtest") {
			return nil
		}
		files++
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			return err
		}
		library := ""
		for _, imp := range f.Imports {
			switch name, _ := strconv.Unquote(imp.Path.Value); name {
			case "math/rand", "math/rand/v2":
				if name == "math/rand/v2" && slices.Contains(spread, filepath.ToSlash(filepath.Dir(file))) {
					continue
				}
				t.Errorf("%s imports %s: take crypto/rand, or a draw as an argument", set.Position(imp.Pos()), name)
			case "github.com/miekg/dns":
				library = "dns"
				if imp.Name != nil {
					library = imp.Name.Name
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && library != "" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == library && slices.Contains(senders, sel.Sel.Name) {
					t.Errorf("%s: %s.%s sends queries: its IDs and ports would need a test of their own", set.Position(sel.Pos()), library, sel.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("%d files seen: this test looks in the wrong place", files)
	}
}
