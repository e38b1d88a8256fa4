package rewrite

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Fault is a reference that cannot stay as it is.
type Fault struct {
	File      string
	Line, Col int    // from 1, Col in characters
	Missing   bool   // it leads to nothing
	Text      string // what is wrong
	Hint      string // the cure, or empty

	line       string // what is shown of the source line
	caret, len int    // where in it, in characters
}

// shownBefore and shownAfter bound what is shown of a line around a fault, in
// bytes: lines of generated pages have thousands.
const (
	shownBefore = 60
	shownAfter  = 60
	maxCaret    = 60
)

// fault notes what is wrong with src[from:to].
func (f *file) fault(from, to int, e *Fault) {
	if len(f.out.Faults) == maxFaults {
		f.out.More++
		return
	}
	begin := bytes.LastIndexByte(f.src[:from], '\n') + 1
	e.File, e.Line = f.shown, 1+bytes.Count(f.src[:begin], []byte{'\n'})
	e.Col = 1 + utf8.RuneCount(f.src[begin:from])
	first := max(begin, from-shownBefore)
	for first < from && !utf8.RuneStart(f.src[first]) {
		first++
	}
	last := min(len(f.src), from+shownAfter)
	if i := bytes.IndexByte(f.src[from:last], '\n'); i >= 0 {
		last = from + i
	}
	for last > from && last < len(f.src) && !utf8.RuneStart(f.src[last]) {
		last--
	}
	shown := strings.TrimRight(printable(strings.ReplaceAll(string(f.src[first:last]), "\t", " ")), " \r?")
	e.line, e.caret = shown, utf8.RuneCount(f.src[first:from])
	e.len = min(max(1, utf8.RuneCount(f.src[from:max(from, min(to, last))])), maxCaret)
	f.out.Faults = append(f.out.Faults, e)
}

// Error is one line: file:line:column: text.
func (e *Fault) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", printable(e.File), e.Line, e.Col, printable(e.Text))
}

// Render is Error, the source line with a caret below, and the cure.
func (e *Fault) Render() string {
	var b strings.Builder
	gutter := fmt.Sprintf("%5d | ", e.Line)
	fmt.Fprintf(&b, "%s\n%s%s\n", e.Error(), gutter, e.line)
	fmt.Fprintf(&b, "%s| %s%s\n", strings.Repeat(" ", len(gutter)-2), strings.Repeat(" ", e.caret), strings.Repeat("^", e.len))
	if e.Hint != "" {
		fmt.Fprintf(&b, "hint: %s\n", printable(e.Hint))
	}
	return b.String()
}
