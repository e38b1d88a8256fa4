package main

// The output rules, for every command:
//
//   - results go to stdout, the rest to stderr as "perigee: …", lower case, no
//     full stop;
//   - an error is "perigee: error: what: cause"; a line "perigee: hint: cure"
//     follows when there is one; a mistake in a file shows the line and a caret;
//   - --json prints one JSON value to stdout, on every command that reads;
//   - exit 0 done, 1 failed, 2 used wrongly;
//   - help ends in an example (help.go);
//   - progress is shown only when stderr is a terminal.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"perigee.example/internal/config"
)

// usageError is a command used wrongly: exit 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// hintError adds a cure to an error.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

func withHint(err error, hint string) error { return &hintError{err, hint} }

// renderer is an error that shows itself over several lines, with a caret.
type renderer interface {
	error
	Render() string
}

// printError shows an error and every cure that it carries; of several errors
// joined, each.
func printError(w io.Writer, err error) {
	switch e := err.(type) {
	case *config.Errors:
		for _, one := range e.List {
			printError(w, one)
		}
		if e.More > 0 {
			printLines(w, fmt.Sprintf("error: and %s", plural(e.More, "mistake more", "mistakes more")))
		}
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			printError(w, one)
		}
	case *hintError:
		printError(w, e.err)
		printLines(w, "hint: "+e.hint)
	case *usageError:
		printError(w, e.err)
		printLines(w, "hint: --help shows how it is used")
	case *remoteError:
		printLines(w, e.lines)
	default:
		var r renderer
		var h *hintError
		switch {
		case errors.As(err, &r):
			printLines(w, "error: "+r.Render())
		case errors.As(err, &h): // with words before it
			printLines(w, "error: "+err.Error())
			printLines(w, "hint: "+h.hint)
		default:
			printLines(w, "error: "+err.Error())
		}
	}
}

// printLines prints text with "perigee: " before each line.
func printLines(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "perigee: %s\n", strings.TrimRight(line, "\n"))
	}
}

// errorLines is what printError shows of an error, for another process to
// print.
func errorLines(err error) string {
	var b strings.Builder
	printError(&b, err)
	var lines strings.Builder
	for line := range strings.Lines(b.String()) {
		lines.WriteString(strings.TrimPrefix(line, "perigee: "))
	}
	return lines.String()
}

// remoteError is an error that another process told, as that would show it.
type remoteError struct{ text, lines string }

func (e *remoteError) Error() string { return e.text }

// say prints a remark to stderr.
func say(c *cobra.Command, format string, args ...any) {
	fmt.Fprintf(c.ErrOrStderr(), "perigee: "+format+"\n", args...)
}

// printJSON prints v to stdout, indented.
func printJSON(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// terminal reports whether w is a terminal, so that progress may be drawn.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// argsNamed checks that there are from least to len(names) arguments, and
// names the missing one.
func argsNamed(least int, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least {
			return usagef("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// plural is "1 file" or "3 files"; the plural is given where an s does not make it.
func plural(n int, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// size is a number of bytes for people, in powers of 1024.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n), -1
	for v >= unit && i < 4 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[i])
}
