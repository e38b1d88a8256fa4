package txtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parrot says what it is told, and more for some commands.
type parrot struct{ closed *bool }

func (p parrot) Do(cmd string) (string, error) {
	switch cmd {
	case "fail":
		return "before", errors.New("broken")
	case "odd":
		return "# heading\n> quote\n\\ slash\n\nplain\n", nil
	case "none":
		return "", nil
	}
	return cmd + "\n", nil
}

func (p parrot) Close() error { *p.closed = true; return nil }

const good = `RFC 0 §1: a parrot.
-- file.zone --
data
-- conversation --
# A remark.
> one
one

> two
>> lines
two
lines

# Two remarks
# before a command.
> fail
before
error: broken

> odd
\# heading
\> quote
\\ slash

plain

> none

# The end.
`

func TestPlay(t *testing.T) {
	s, err := parseScript([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if string(s.files["file.zone"]) != "data\n" || len(s.files) != 1 {
		t.Errorf("files: %q", s.files)
	}
	got, diff := s.play(parrot{})
	if diff != "" {
		t.Errorf("differs:\n%s", diff)
	}
	if string(got) != good {
		t.Errorf("rewritten as\n%s", got)
	}
}

func TestPlayDiffers(t *testing.T) {
	s, err := parseScript([]byte(strings.Replace(good, "\none\n", "\nother\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	got, diff := s.play(parrot{})
	if want := "> one\n--- want\nother\n--- got\none\n"; diff != want {
		t.Errorf("diff %q, want %q", diff, want)
	}
	if string(got) != good {
		t.Errorf("rewritten as\n%s", got)
	}
}

func TestParseScriptRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "first line",
		"Clause.\n-- file --\n": "no file called conversation",
		"Clause.\n-- conversation --\n# nothing\n":               "has no command",
		"Clause.\n-- conversation --\nx\n> y\n":                  "follows its command",
		"Clause.\n-- conversation --\n> y\n# a remark\nz\n":      "follows its command",
		"Clause.\n# fails:\n-- conversation --\n> y\n":           "needs a reason",
		"Clause.\n-- conversation --\n-- conversation --\n> y\n": "two files",
	} {
		if _, err := parseScript([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("good.txtar", good)
	known := strings.Replace(good, "parrot.\n", "parrot.\n# fails: it cannot say other\n", 1)
	write("known.txtar", strings.Replace(known, "\none\n", "\nother\n", 1))
	opened, closed := 0, false
	Run(t, filepath.Join(dir, "*.txtar"), func(_ testing.TB, files map[string][]byte) Session {
		opened++
		if string(files["file.zone"]) != "data\n" {
			t.Errorf("files: %q", files)
		}
		return parrot{&closed}
	})
	if opened != 2 || !closed {
		t.Errorf("opened %d sessions, closed %v", opened, closed)
	}
}

func FuzzParseScript(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("Clause.\n-- conversation --\n> y\n>> z\n\\#\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseScript(text)
		if err != nil {
			return
		}
		// What -update writes is stable: it plays without a difference.
		once, _ := s.play(parrot{})
		again, err := parseScript(once)
		if err != nil {
			t.Fatalf("rewritten does not parse: %v\n%s", err, once)
		}
		twice, diff := again.play(parrot{})
		if diff != "" || string(twice) != string(once) {
			t.Fatalf("rewriting is not stable: %s\n%q\n%q", diff, once, twice)
		}
	})
}
