// Command testsum reads the JSON of "go test -json" and prints what a person
// wants to know: a line for each package, the whole output of what failed, and
// at the end every skipped test by name with its reason. It exits 1 when a
// test failed or, under CI=true, when one was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// maxLine bounds one JSON line; a test's single line of output may be long.
const maxLine = 16 << 20

// summary is the state over a whole run.
type summary struct {
	output                  map[string]*strings.Builder // by package and test
	passed, failed, skipped int
	skips                   []string
	broken                  []string // packages that failed, built or run
}

func main() {
	s := &summary{output: map[string]*strings.Builder{}}
	if err := s.read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !s.report(os.Stdout, os.Getenv("CI") == "true") {
		os.Exit(1)
	}
}

func (s *summary) read(r io.Reader, w io.Writer) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			fmt.Fprintln(w, in.Text()) // not test2json: a message of the go command
			continue
		}
		s.add(e, w)
	}
	return in.Err()
}

func (s *summary) add(e event, w io.Writer) {
	key := e.Package + e.ImportPath + "\x00" + e.Test
	out := s.output[key]
	if out == nil {
		out = &strings.Builder{}
		s.output[key] = out
	}
	switch e.Action {
	case "output", "build-output":
		out.WriteString(e.Output)
		return
	case "pass", "fail", "skip":
	case "build-fail":
		fmt.Fprint(w, out.String())
		return
	default:
		return
	}
	if e.Test == "" {
		s.endPackage(e, out.String(), w)
	} else {
		s.endTest(e, out.String(), w)
	}
	delete(s.output, key)
}

func (s *summary) endTest(e event, out string, w io.Writer) {
	name := strings.TrimPrefix(e.Package, "perigee.example/") + " " + e.Test
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		fmt.Fprintf(w, "--- failed: %s\n%s", name, out)
	case "skip":
		s.skipped++
		s.skips = append(s.skips, name+": "+skipReason(out))
	}
}

func (s *summary) endPackage(e event, out string, w io.Writer) {
	name := strings.TrimPrefix(e.Package, "perigee.example/")
	switch e.Action {
	case "pass":
		fmt.Fprintf(w, "ok    %-24s %6.1fs\n", name, e.Elapsed)
	case "fail":
		s.broken = append(s.broken, name)
		fmt.Fprintf(w, "FAIL  %-24s %6.1fs\n%s", name, e.Elapsed, out)
	}
}

// skipReason finds the text of t.Skip in a test's output.
func skipReason(out string) string {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, reason, ok := strings.Cut(text, ": "); ok {
				return reason
			}
		}
		return line
	}
	return "no reason given"
}

// report prints the closing lines, and reports whether the run is good.
func (s *summary) report(w io.Writer, ci bool) bool {
	if len(s.skips) > 0 {
		fmt.Fprintln(w, "\nskipped:")
		for _, line := range s.skips {
			fmt.Fprintln(w, "  "+line)
		}
	}
	if len(s.broken) > 0 {
		fmt.Fprintln(w, "\npackages that failed:", strings.Join(s.broken, " "))
	}
	failed := max(s.failed, len(s.broken))
	good := failed == 0 && s.passed > 0
	if ci && s.skipped > 0 {
		fmt.Fprintln(w, "\nunder CI=true a skipped test is a failure: install what it needs (make tools)")
		good = false
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", s.passed, failed, s.skipped)
	return good
}
