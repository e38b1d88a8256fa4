package origin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// The files of a folder that say how it is served, in the form that users of
// Netlify and Cloudflare Pages know. They are read, not published.
const (
	headersFile   = "_headers"
	redirectsFile = "_redirects"
	// maxRuleFileBytes bounds each: far more than the rules of one may fill.
	maxRuleFileBytes = 1 << 20
)

// RuleError is a line of _headers or _redirects that cannot be taken.
type RuleError struct {
	File string
	Line int
	Text string
	Hint string
}

func (e *RuleError) Error() string {
	text := fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// ParseHeaders reads a _headers file: a path pattern at the start of a line,
// and below it, indented, fields as "Name: value"; "! Name" takes away what an
// earlier rule set. "#" begins a comment. Errors are joined *RuleErrors.
func ParseHeaders(text string) ([]HeaderRule, error) {
	p := ruleParser{file: headersFile}
	var rules []HeaderRule
	began := 0 // the line of the last path
	whole := func() {
		if n := len(rules); n > 0 && len(rules[n-1].Set)+len(rules[n-1].Remove) == 0 && len(p.errs) == 0 {
			p.errs = append(p.errs, &RuleError{p.file, began, fmt.Sprintf("%.80q has no fields", rules[n-1].For), "indent them below it"})
		}
	}
	for line := range p.lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == line || strings.HasPrefix(trimmed, "/") && !strings.Contains(trimmed, ":") {
			if text := checkPattern(trimmed); text != "" {
				hint := "a path begins at the start of its line, its fields are indented"
				if strings.Contains(trimmed, "://") {
					hint = "patterns are paths: one release is served the same at each of the site's hosts"
				}
				p.fail(hint, "%.80q: the pattern %s", trimmed, text)
			}
			whole()
			rules, began = append(rules, HeaderRule{For: trimmed}), p.line
			continue
		}
		if len(rules) == 0 {
			p.fail("write the path that the fields are for before them", "%.80q stands before any path", trimmed)
			continue
		}
		p.field(&rules[len(rules)-1], trimmed)
	}
	whole()
	if len(rules) > MaxHeaderRules {
		p.fail("", "%d rules, the limit is %d", len(rules), MaxHeaderRules)
	}
	return rules, errors.Join(p.errs...)
}

// field reads one indented line of _headers.
func (p *ruleParser) field(r *HeaderRule, line string) {
	if name, ok := strings.CutPrefix(line, "!"); ok {
		if name = strings.TrimSpace(name); name == "" || !isToken(name) {
			p.fail("", "%.80q: ! needs a field name", line)
			return
		}
		r.Remove = append(r.Remove, http.CanonicalHeaderKey(name))
		return
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		p.fail("write Name: value", "%.80q is no field", line)
		return
	}
	f := Field{http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)}
	if text := checkField(f); text != "" {
		p.fail("", "%s", text)
		return
	}
	if r.Set = append(r.Set, f); len(r.Set) > maxRuleFields {
		p.fail("", "more than %d fields for one path", maxRuleFields)
	}
}

// ParseRedirects reads a _redirects file: "FROM TO [STATUS]" a line, status 302
// when it is left out, an exclamation mark behind it (301!) for rules that come
// before the release's own files. "#" begins a comment. Conditions by country,
// language or query are refused: policies and origins are for those. Errors are
// joined *RuleErrors.
func ParseRedirects(text string) ([]Redirect, error) {
	p := ruleParser{file: redirectsFile}
	var rules []Redirect
	for line := range p.lines(text) {
		words := strings.Fields(line)
		if i := strings.IndexFunc(line, func(r rune) bool { return r == '#' }); i > 0 && line[i-1] == ' ' {
			words = strings.Fields(line[:i])
		}
		if len(words) < 2 || len(words) > 3 {
			hint := "write FROM TO [STATUS]"
			if len(words) > 3 {
				hint += "; conditions by country, language, role or query are not taken"
			}
			p.fail(hint, "%d words", len(words))
			continue
		}
		r := Redirect{From: words[0], To: words[1], Status: http.StatusFound}
		if len(words) == 3 {
			status, force := strings.CutSuffix(words[2], "!")
			n, err := strconv.Atoi(status)
			if err != nil {
				p.fail("write FROM TO [STATUS]; conditions by country, language, role or query are not taken", "%.40q is no status", words[2])
				continue
			}
			r.Status, r.Force = n, force
		}
		if text := r.check(); text != "" {
			p.fail("", "%s", text)
			continue
		}
		if r.From == r.To && !r.Rewrites() {
			p.fail("", "%.80q leads to itself", r.From)
			continue
		}
		rules = append(rules, r)
	}
	if len(rules) > MaxRedirects {
		p.fail("", "%d redirects, the limit is %d", len(rules), MaxRedirects)
	}
	return rules, errors.Join(p.errs...)
}

// ruleParser counts lines and collects what is wrong with them.
type ruleParser struct {
	file string
	line int
	errs []error
}

// lines yields what is neither empty nor a comment, without trailing space.
func (p *ruleParser) lines(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
			p.line++
			line = strings.TrimRight(line, " \t\r\n")
			if t := strings.TrimLeft(line, " \t"); t == "" || t[0] == '#' {
				continue
			}
			if len(p.errs) >= maxPathErrors || !yield(line) {
				return
			}
		}
	}
}

func (p *ruleParser) fail(hint, format string, args ...any) {
	p.errs = append(p.errs, &RuleError{p.file, p.line, fmt.Sprintf(format, args...), hint})
}

// rules reads the folder's _headers and _redirects into the manifest.
func (f *Folder) rules() error {
	headers, err := f.ruleFile(headersFile)
	if err != nil {
		return err
	}
	redirects, err := f.ruleFile(redirectsFile)
	if err != nil {
		return err
	}
	var err1, err2 error
	f.Manifest.Headers, err1 = ParseHeaders(headers)
	f.Manifest.Redirects, err2 = ParseRedirects(redirects)
	return errors.Join(err1, err2)
}

// ruleFile returns a rule file's text, empty when there is none.
func (f *Folder) ruleFile(name string) (string, error) {
	if _, err := f.root.Lstat(name); err != nil {
		return "", nil
	}
	file, err := openRegular(f.root, name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxRuleFileBytes+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxRuleFileBytes {
		return "", fmt.Errorf("%s: more than %d bytes", name, maxRuleFileBytes)
	}
	return string(b), nil
}
