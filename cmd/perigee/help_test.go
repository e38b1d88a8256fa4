package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelpEndsInAnExample: so it does for every command, and each command line
// in an example has a command, flags and a number of arguments that there are.
func TestHelpEndsInAnExample(t *testing.T) {
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		seen++
		path := c.CommandPath()
		var out bytes.Buffer
		args := append(strings.Fields(path)[1:], "--help")
		if code := run(args, strings.NewReader(""), &out, &out); code != 0 {
			t.Errorf("%s --help: exit %d\n%s", path, code, out.String())
		}
		if want := "\n\nExamples:\n" + c.Example + "\n"; c.Example == "" || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%s --help does not end in an example:\n%s", path, out.String())
		}
		if !exampleLines(t, path, c.Example) {
			t.Errorf("%s: no line of its examples calls it", path)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	if seen < 25 {
		t.Errorf("only %d commands", seen)
	}
}

// exampleLines tries to read each call of perigee in an example, and says
// whether one is of the command with that path or below it.
func exampleLines(t *testing.T, path, example string) (calls bool) {
	for _, line := range strings.Split(example, "\n") {
		for _, part := range strings.Split(line, "&&") {
			words, _, _ := strings.Cut(strings.TrimSpace(part), " > ")
			rest, ok := strings.CutPrefix(words, "perigee ")
			if !ok {
				continue
			}
			c, args, err := newRoot().Find(strings.Fields(rest))
			if err == nil {
				err = c.ParseFlags(args)
			}
			if err == nil {
				err = c.ValidateArgs(c.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: example %q: %v", path, words, err)
				continue
			}
			calls = calls || c.CommandPath() == path || strings.HasPrefix(c.CommandPath(), path+" ")
		}
	}
	return calls
}

// TestNoSecretsOnTheCommandLine: every process of the machine can read it, so
// no flag takes a secret: those that need one name a file.
func TestNoSecretsOnTheCommandLine(t *testing.T) {
	seen, secret := 0, regexp.MustCompile(`--([a-z-]*(?:token|secret|password|key|credential)[a-z-]*) (\w*)`)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, m := range secret.FindAllStringSubmatch(c.LocalFlags().FlagUsages(), -1) {
			seen++
			if !strings.HasSuffix(m[1], "-file") || m[2] != "file" {
				t.Errorf("%s --%s %s takes a secret, or sounds as if it did", c.CommandPath(), m[1], m[2])
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	if seen == 0 {
		t.Error("no flag is about a secret: login has one")
	}
}
