package txtest

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected output of txtar conversations")

// Updating reports whether expected output is to be rewritten (go test -update).
func Updating() bool { return *update }

// conversation is the name of the archive's file that holds the commands.
const conversation = "conversation"

// Session is one run of what a conversation talks to.
type Session interface {
	// Do runs one command, without its "> ", and returns what is to be shown.
	// An error is shown as a line "error: …" and is expected like any output.
	Do(cmd string) (string, error)
}

// Run plays every conversation that glob matches, each as a subtest with a
// Session of its own. It fails when glob matches nothing. A Session that is an
// io.Closer is closed at the end.
//
// A conversation is a txtar archive. The comment at its top says what it
// shows; its first line names the clause. Then come the files that open is
// given, and last the file "conversation":
//
//	RFC 4592 §2.2.2: a name that exists only because of names below it is NODATA.
//	-- example.zone --
//	…
//	-- conversation --
//	# A remark, kept as it is.
//	> b.example.test A
//	status: NOERROR flags: qr aa rd
//	…
//
// A line that starts with "> " is a command, and lines that start with ">> "
// right below continue it. What follows, up to the next remark or command, is
// the expected output; blank lines around it do not count. An output line that
// begins with #, >, \ or "-- " is written with a \ before it.
//
// A comment line "# fails: reason" marks a known failure: the test then
// demands that the conversation differs, so that a cure is noticed. With
// -update the expected output is rewritten, except of known failures.
func Run(t *testing.T, glob string, open func(t testing.TB, files map[string][]byte) Session) {
	t.Helper()
	paths, err := filepath.Glob(glob)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no conversation matches %s", glob)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			runFile(t, path, open)
		})
	}
}

func runFile(t *testing.T, path string, open func(t testing.TB, files map[string][]byte) Session) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseScript(text)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	session := open(t, maps.Clone(s.files))
	if c, ok := session.(io.Closer); ok {
		defer c.Close()
	}
	got, diff := s.play(session)
	switch {
	case s.fails != "" && diff == "":
		t.Errorf("%s: was known to fail (%s) and no longer does: remove its \"# fails:\" line", path, s.fails)
	case s.fails != "":
		t.Logf("%s: known failure: %s\n%s", path, s.fails, diff)
	case *update && string(got) != string(text):
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	case !*update && diff != "":
		t.Errorf("%s: differs (go test -update rewrites it):\n%s", path, diff)
	}
}

// script is a parsed conversation.
type script struct {
	archive *txtar.Archive
	files   map[string][]byte
	fails   string
	talk    int // index of the conversation in archive.Files
	steps   []step
	tail    []string // remarks after the last output
}

// step is one command with the remarks before it and the output expected.
type step struct {
	remarks []string
	command string
	want    string
}

func parseScript(text []byte) (*script, error) {
	a := txtar.Parse(text)
	s := &script{archive: a, files: map[string][]byte{}, talk: -1}
	first, _, _ := strings.Cut(string(a.Comment), "\n")
	if strings.TrimSpace(first) == "" {
		return nil, fmt.Errorf("the first line must name the clause that this shows")
	}
	for line := range strings.Lines(string(a.Comment)) {
		if reason, ok := strings.CutPrefix(line, "# fails:"); ok {
			if s.fails = strings.TrimSpace(reason); s.fails == "" {
				return nil, fmt.Errorf("\"# fails:\" needs a reason")
			}
		}
	}
	for i, f := range a.Files {
		switch {
		case f.Name == conversation && s.talk < 0:
			s.talk = i
		case f.Name == conversation || s.files[f.Name] != nil:
			return nil, fmt.Errorf("two files called %s", f.Name)
		default:
			s.files[f.Name] = f.Data
		}
	}
	if s.talk < 0 {
		return nil, fmt.Errorf("no file called %s", conversation)
	}
	return s, s.parseTalk(string(a.Files[s.talk].Data))
}

func (s *script) parseTalk(text string) error {
	var remarks, output []string
	flush := func() {
		if len(s.steps) > 0 {
			s.steps[len(s.steps)-1].want = trimBlank(output)
		}
		output = nil
	}
	inCommand := false
	for i, line := range strings.Split(text, "\n") {
		if cmd, ok := strings.CutPrefix(line, "> "); ok {
			flush()
			s.steps = append(s.steps, step{remarks: remarks, command: cmd})
			remarks, inCommand = nil, true
			continue
		}
		if more, ok := strings.CutPrefix(line, ">>"); ok && inCommand {
			last := &s.steps[len(s.steps)-1]
			last.command += "\n" + strings.TrimPrefix(more, " ")
			continue
		}
		inCommand = false
		switch {
		case strings.HasPrefix(line, "#"):
			remarks = append(remarks, line)
		case strings.TrimRight(line, " \t\r") == "":
			output = append(output, "")
		case len(remarks) > 0 || len(s.steps) == 0:
			return fmt.Errorf("%s:%d: %q is neither a remark nor a command: output follows its command", conversation, i+1, line)
		default:
			output = append(output, strings.TrimPrefix(line, `\`))
		}
	}
	flush()
	s.tail = remarks
	if len(s.steps) == 0 {
		return fmt.Errorf("%s has no command: a line that starts with \"> \"", conversation)
	}
	return nil
}

// play runs the commands. It returns the archive with the output that came,
// and what differs, or "".
func (s *script) play(session Session) (rewritten []byte, diff string) {
	var talk, differs strings.Builder
	for i, st := range s.steps {
		out, err := session.Do(st.command)
		if err != nil {
			out += "\nerror: " + err.Error()
		}
		got := trimBlank(strings.Split(out, "\n"))
		if got != st.want {
			fmt.Fprintf(&differs, "> %s\n--- want\n%s\n--- got\n%s\n", st.command, st.want, got)
		}
		if i > 0 {
			talk.WriteString("\n")
		}
		for _, r := range st.remarks {
			talk.WriteString(r + "\n")
		}
		talk.WriteString("> " + strings.ReplaceAll(st.command, "\n", "\n>> ") + "\n")
		talk.WriteString(escape(got))
	}
	for i, r := range s.tail {
		if i == 0 {
			talk.WriteString("\n")
		}
		talk.WriteString(r + "\n")
	}
	a := *s.archive
	a.Files = append([]txtar.File(nil), a.Files...)
	a.Files[s.talk].Data = []byte(talk.String())
	return txtar.Format(&a), differs.String()
}

// trimBlank joins lines without trailing space and without the blank lines at
// both ends.
func trimBlank(lines []string) string {
	trimmed := make([]string, len(lines))
	for i, l := range lines {
		trimmed[i] = strings.TrimRight(l, " \t\r")
	}
	return strings.Trim(strings.Join(trimmed, "\n"), "\n")
}

// escape writes output so that parseTalk reads it back.
func escape(out string) string {
	if out == "" {
		return ""
	}
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		if l != "" && strings.ContainsRune(`#>\`, rune(l[0])) || strings.HasPrefix(l, "-- ") {
			lines[i] = `\` + l
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
