package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrors bounds how many mistakes are shown. One wrong line can cause
// several; past twenty nobody reads on before mending the first.
const maxErrors = 20

// maxShown bounds the source line under an error, in columns. Longer lines are
// cut around the caret, so that the caret stands under the word on a terminal.
const maxShown = 100

// Position is a place in the file: Line and Col count from 1, Col and EndCol
// in characters, EndCol just past the word. The zero Position is unknown.
type Position struct {
	File              string
	Line, Col, EndCol int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Error is one mistake.
type Error struct {
	File              string
	Line, Col, EndCol int
	Path              string // in the words of the file ("policy.canary.weights.fra9"); empty for syntax
	Text              string // what is wrong
	Hint              string // the cure, or empty

	line string // the source line
}

// Error is one line: file:line: path: text.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Path != "" {
		b.WriteString(visible(e.Path))
		b.WriteString(": ")
	}
	b.WriteString(visible(e.Text))
	return b.String()
}

// visible writes control characters as they are written in the file, so that a
// name with one in it moves nobody's cursor and begins no line of a log.
func visible(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Render is Error, the source line with a caret under the word, and the hint.
// It ends in a newline.
func (e *Error) Render() string {
	var b strings.Builder
	b.WriteString(e.Error())
	b.WriteByte('\n')
	if e.Line > 0 {
		e.renderLine(&b)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "hint: %s\n", visible(e.Hint))
	}
	return b.String()
}

func (e *Error) renderLine(b *strings.Builder) {
	line := []rune(redact(e.line))
	from := min(max(e.Col-1, 0), len(line))
	to := min(max(e.EndCol-1, from), len(line))
	begin, end := 0, len(line)
	if len(line) > maxShown {
		begin = max(0, min(from-maxShown/3, len(line)-maxShown))
		end = min(len(line), begin+maxShown)
		to = min(to, end)
	}
	shown := make([]rune, 0, maxShown)
	for _, r := range line[begin:end] {
		if r < ' ' || r == utf8.RuneError || r >= 0x7f && r < 0xa0 {
			r = ' ' // a tab or a control byte, which would move the caret or the terminal
		}
		shown = append(shown, r)
	}
	gutter := fmt.Sprintf("%5d | ", e.Line)
	fmt.Fprintf(b, "%s%s\n", gutter, strings.TrimRight(string(shown), " "))
	if from >= len(line) && e.line != string(line) {
		return // what the caret would stand under is not shown
	}
	fmt.Fprintf(b, "%s| %s%s\n", strings.Repeat(" ", len(gutter)-2), strings.Repeat(" ", from-begin), strings.Repeat("^", max(1, to-from)))
}

// secretInLine finds where a source line begins to show a secret: behind a key
// that is called like one, the user part of a URL, the text of a key.
var secretInLine = regexp.MustCompile(`(?i)[\w-]*(?:` + strings.Join(secretWords, "|") + `)[\w-]*["']?\s*=\s*()|://()[^/"'\s]*@|()-----BEGIN `)

// redact cuts a source line before a secret, which has no place on a screen or
// in a log either.
func redact(line string) string {
	m := secretInLine.FindStringSubmatchIndex(line)
	for i := 2; i < len(m); i += 2 {
		if m[i] >= 0 {
			return line[:m[i]] + "…"
		}
	}
	return line
}

// Errors is every mistake of one file in line order, at most maxErrors of
// them. Its Unwrap works as that of errors.Join.
type Errors struct {
	List []*Error
	More int // how many were left out
}

func (l *Errors) Error() string {
	var b strings.Builder
	for i, e := range l.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	if l.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", l.More)
	}
	return b.String()
}

// Unwrap returns the list.
func (l *Errors) Unwrap() []error {
	errs := make([]error, len(l.List))
	for i, e := range l.List {
		errs[i] = e
	}
	return errs
}

// Render returns every *Error in err in the form of its Render, and any other
// error as its own line. It ends in a newline.
func Render(err error) string {
	var list *Errors
	if errors.As(err, &list) {
		var b strings.Builder
		for _, e := range list.List {
			b.WriteString(e.Render())
		}
		if list.More > 0 {
			fmt.Fprintf(&b, "and %d more\n", list.More)
		}
		return b.String()
	}
	var one *Error
	if errors.As(err, &one) {
		return one.Render()
	}
	return err.Error() + "\n"
}

// report sorts mistakes by place and bounds them; nil when there are none.
func report(found []*Error) error {
	if len(found) == 0 {
		return nil
	}
	slices.SortStableFunc(found, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	found = slices.CompactFunc(found, func(a, b *Error) bool {
		return a.Line == b.Line && a.Col == b.Col && a.Path == b.Path && a.Text == b.Text
	})
	list := &Errors{List: found}
	if len(found) > maxErrors {
		list.More = len(found) - maxErrors
		list.List = found[:maxErrors]
	}
	return list
}
