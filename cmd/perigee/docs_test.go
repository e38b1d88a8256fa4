package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"perigee.example/internal/config"
	"perigee.example/internal/txtest"
	"perigee.example/origin"
	"perigee.example/zones"
)

// The documents' fenced blocks are examples, and these tests run all of them.
// CONTRIBUTING.md says how to write one; in short:
//
//	toml     is read by internal/config; a fragment is completed by docsFrame
//	headers, redirects  are read as the rule files of a pushed folder
//	zone     is read by zones; a fragment gets an SOA and an NS
//	json     is JSON
//	ini      is a systemd unit; systemd-analyze looks at it where there is one
//	nats     is a configuration of nats-server; feed.TestOperatorsCluster runs three of it
//	console  runs: see docs_session_test.go
//	(none)   is a drawing, not an example
//
// A toml or zone block whose first line is a comment with a path, such as
// "# perigee.toml" or "; zones/example.com.zone", is also written there, below
// the folder in which the document's commands run at that point.

// docsRoot is the root of the module, seen from this package.
const docsRoot = "../.."

// block is one fenced block of a document.
type block struct {
	lang  string
	line  int // of its first line, in the document
	lines []string
}

func (b *block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// document is one Markdown file.
type document struct {
	path   string // relative to docsRoot
	text   string
	blocks []block
}

// documents reads everything that a reader of the project is shown.
func documents(t *testing.T) []*document {
	t.Helper()
	var docs []*document
	for _, glob := range []string{"*.md", "docs/*.md", "examples/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(docsRoot, glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			text, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(docsRoot, p)
			if err != nil {
				t.Fatal(err)
			}
			d := &document{path: rel, text: string(text)}
			if d.blocks, err = parseBlocks(d.text); err != nil {
				t.Fatalf("%s: %v", rel, err)
			}
			docs = append(docs, d)
		}
	}
	for _, must := range []string{"README.md", "docs/operating.md", "examples/single/README.md"} {
		if !slices.ContainsFunc(docs, func(d *document) bool { return d.path == must }) {
			t.Fatalf("%s is not among the documents: is %s the root of the module?", must, docsRoot)
		}
	}
	return docs
}

// parseBlocks finds the fenced blocks. A fence stands at the margin.
func parseBlocks(text string) ([]block, error) {
	var blocks []block
	var open *block
	for i, line := range strings.Split(text, "\n") {
		lang, fence := strings.CutPrefix(line, "```")
		switch {
		case !fence && open == nil:
			if strings.HasPrefix(strings.TrimLeft(line, " "), "```") {
				return nil, fmt.Errorf("line %d: a fence that is indented would not be run: put it at the margin", i+1)
			}
		case !fence:
			open.lines = append(open.lines, line)
		case open == nil:
			open = &block{lang: strings.TrimSpace(lang), line: i + 2}
		case lang != "":
			return nil, fmt.Errorf("line %d: a fence opens inside the block that began in line %d", i+1, open.line)
		default:
			blocks = append(blocks, *open)
			open = nil
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block is not closed", open.line)
	}
	return blocks, nil
}

// TestDocsExamples runs every fenced block of every document, in its order.
func TestDocsExamples(all *testing.T) {
	all.Parallel()
	bin := sync.OnceValue(func() string { return buildPerigee(all) })
	seen := map[string]int{}
	for _, d := range documents(all) {
		if len(d.blocks) == 0 {
			continue
		}
		for _, b := range d.blocks {
			seen[b.lang]++
		}
		all.Run(strings.ReplaceAll(d.path, "/", "_"), func(t *testing.T) {
			t.Parallel()
			s := &docSession{t: t, doc: d}
			if slices.ContainsFunc(d.blocks, func(b block) bool { return b.lang == "console" }) {
				txtest.Need(t, "bash", "dig", "curl")
				s.bin = bin() // one for all of them
			}
			for i := range d.blocks {
				b := &d.blocks[i]
				if !s.block(b) {
					return // what follows builds on it
				}
			}
		})
	}
	if seen["toml"] == 0 || seen["zone"] == 0 || seen["console"] == 0 {
		all.Errorf("the documents have %v: that cannot be all of the examples", seen)
	}
}

// buildPerigee builds the program that the examples call.
func buildPerigee(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "perigee-docs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "perigee"), ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// block runs one block and reports whether it is as it says.
func (s *docSession) block(b *block) bool {
	s.t.Helper()
	switch b.lang {
	case "", "nats":
		return true
	case "toml":
		return s.save(b, "# ") && s.good(b, checkTOML(b.text()))
	case "zone":
		return s.save(b, "; ") && s.good(b, checkZone(b.text()))
	case "headers":
		_, err := origin.ParseHeaders(b.text())
		return s.good(b, err)
	case "redirects":
		_, err := origin.ParseRedirects(b.text())
		return s.good(b, err)
	case "json":
		return s.good(b, checkJSON(b.text()))
	case "ini":
		return s.good(b, checkUnit(s.t, b.text()))
	case "console":
		return s.console(b)
	}
	s.t.Errorf("%s:%d: nothing runs blocks of the language %q", s.doc.path, b.line, b.lang)
	return false
}

func (s *docSession) good(b *block, err error) bool {
	s.t.Helper()
	if err != nil {
		s.t.Errorf("%s:%d: %v", s.doc.path, b.line, err)
	}
	return err == nil
}

// blockPath is the path that the first line of a block names, if it does.
var blockPath = regexp.MustCompile(`^[a-z0-9.-]+(/[a-z0-9.-]+)*\.(toml|zone)$`)

// save writes a block to the path that its first line names.
func (s *docSession) save(b *block, comment string) bool {
	path, ok := strings.CutPrefix(b.lines[0], comment)
	if !ok || !blockPath.MatchString(path) {
		return true
	}
	text := b.text()
	if strings.HasSuffix(path, ".toml") {
		text = s.localise(text)
	}
	return s.write(b, path, text)
}

// docsFrame completes a fragment of perigee.toml: each of its tables is added
// unless the fragment, or something before it, defines it already.
const docsFrame = `version = 1
[dns]
zone_files = ["zones/*.zone"]
[edge.fra1]
location  = [50.11, 8.68]
addresses = ["192.0.2.10", "2001:db8:1::10"]
listen    = ["0.0.0.0:80"]
[edge.iad1]
location  = [39.04, -77.49]
addresses = ["198.51.100.10", "2001:db8:2::10"]
listen    = ["0.0.0.0:80"]
[edge.sin1]
location  = [1.35, 103.82]
addresses = ["203.0.113.10", "2001:db8:3::10"]
listen    = ["0.0.0.0:80"]
[policy.nearest]
by    = "latency"
among = ["fra1", "iad1", "sin1"]
[policy.home-first]
by    = "failover"
order = ["fra1", "iad1", "sin1"]
[site.www]
hosts = ["www.example.com"]
push  = true
[site.shop]
hosts   = ["shop.example.com"]
origins = ["https://origin.example.net"]
`

var (
	tomlTable   = regexp.MustCompile(`(?m)^\[([^\[\]]+)\][ \t]*(#.*)?$`)
	tomlVersion = regexp.MustCompile(`(?m)^version\s*=`)
)

// checkTOML reads a perigee.toml, or a fragment of one completed by docsFrame.
func checkTOML(text string) error {
	if !tomlVersion.MatchString(text) {
		text = completeTOML(text)
	}
	if _, err := config.Parse("perigee.toml", []byte(text), "."); err != nil {
		return fmt.Errorf("%s\nof:\n%s", config.Render(err), text)
	}
	return nil
}

func completeTOML(fragment string) string {
	has := map[string]bool{}
	for _, m := range tomlTable.FindAllStringSubmatch(fragment, -1) {
		has[m[1]] = true
	}
	out := "version = 1\n" + fragment
	tables := tomlTable.FindAllStringSubmatchIndex(docsFrame, -1)
	for i, m := range tables {
		end := len(docsFrame)
		if i+1 < len(tables) {
			end = tables[i+1][0]
		}
		if !has[docsFrame[m[2]:m[3]]] {
			out += docsFrame[m[0]:end]
		}
	}
	return out
}

var zoneSOA = regexp.MustCompile(`(?i)\sSOA\s`)

// checkZone reads a master file of example.com, or of the zone that its
// $ORIGIN names; a fragment gets an SOA and an NS.
func checkZone(text string) error {
	origin := "example.com"
	if m := regexp.MustCompile(`(?m)^\$ORIGIN\s+(\S+?)\.?\s*$`).FindStringSubmatch(text); m != nil {
		origin = m[1]
	}
	if !zoneSOA.MatchString(text) {
		text = "$TTL 300\n@ IN SOA ns.example.net. hostmaster.example.net. 1 7200 900 1209600 300\n  IN NS ns.example.net.\n" + text
	}
	z, findings := zones.Parse(origin+".zone", []byte(text), zones.Options{Origin: origin})
	if z == nil {
		return fmt.Errorf("%v\nof:\n%s", findings, text)
	}
	return nil
}

func checkJSON(text string) error {
	d := json.NewDecoder(strings.NewReader(text))
	n := 0
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("there is no JSON in it")
	}
	return nil
}

var unitLine = regexp.MustCompile(`^(\[[A-Z][a-z]+\]|[A-Z][A-Za-z]+=.*|[#;].*|)$`)

// checkUnit looks at a systemd unit: at its form, and with systemd's own eyes
// where they are.
func checkUnit(t *testing.T, text string) error {
	for i, line := range strings.Split(text, "\n") {
		if !unitLine.MatchString(line) {
			return fmt.Errorf("line %d is none of a unit: %q", i+1, line)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return nil
	}
	// It wants programs and users that exist.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text = strings.ReplaceAll(text, "/usr/local/bin/perigee", self)
	path := filepath.Join(t.TempDir(), "perigee.service")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte(filepath.Base(path))) {
		return nil // it has nothing against this unit
	}
	return fmt.Errorf("systemd-analyze verify: %s", out)
}
