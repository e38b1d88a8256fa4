package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Limits of a release's rules. Both lists are searched in order at each request
// to a path, so that their number is a cost.
const (
	// MaxHeaderRules and MaxRedirects bound the two lists. Cloudflare Pages takes
	// 100 header rules and 2,100 redirects.
	MaxHeaderRules = 200
	MaxRedirects   = 2_000
	// maxRuleFields bounds the fields of one header rule.
	maxRuleFields = 50
	// maxRuleBytes bounds a pattern, target or field line: what clients and
	// proxies take of a request line or field.
	maxRuleBytes = 2048
	// maxCaptures bounds the placeholders of one pattern.
	maxCaptures = 10
)

// HeaderRule adds response fields to the paths that For matches (see MatchPattern).
type HeaderRule struct {
	For    string   `json:"for"`
	Set    []Field  `json:"set,omitempty"`
	Remove []string `json:"remove,omitempty"` // names of fields that rules before it set
}

// Field is one field line.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Redirect answers the paths that From matches. Status 301, 302, 303, 307 and
// 308 send the client to To; 200 serves the file To of the release in place,
// and 404 the same with that status.
type Redirect struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Status int    `json:"status"`
	Force  bool   `json:"force,omitempty"` // also where the release has a file
}

// Rewrites reports whether the rule serves a file in place.
func (r *Redirect) Rewrites() bool {
	return r.Status == http.StatusOK || r.Status == http.StatusNotFound
}

// RedirectKind selects among a release's redirects.
type RedirectKind uint8

const (
	Forced    RedirectKind = iota // before the release's files
	Unforced                      // send the client elsewhere, where there is no file
	Rewriting                     // serve a file in place, when nothing else answers
)

// Redirect returns the first redirect of a kind that matches a path, which has
// its leading slash and is percent-decoded, or nil.
func (m *Manifest) Redirect(kind RedirectKind, path string, c *Captures) *Redirect {
	if kind == Forced && !m.forced {
		return nil
	}
	for i := range m.Redirects {
		r := &m.Redirects[i]
		if r.Force != (kind == Forced) || kind != Forced && r.Rewrites() != (kind == Rewriting) {
			continue
		}
		if MatchPattern(r.From, path, c) {
			return r
		}
	}
	return nil
}

// Fields returns the fields that the header rules give a path, each name once;
// values of several rules are joined by ", ". It is nil when no rule matches.
func (m *Manifest) Fields(path string) []Field {
	var out []Field
	for i := range m.Headers {
		r := &m.Headers[i]
		if !MatchPattern(r.For, path, nil) {
			continue
		}
		for _, name := range r.Remove {
			out = slices.DeleteFunc(out, func(f Field) bool { return f.Name == name })
		}
		own := len(out)
		for _, f := range r.Set {
			at := slices.IndexFunc(out, func(have Field) bool { return have.Name == f.Name })
			switch {
			case at < 0:
				out = append(out, f)
			case singleField[f.Name] && at < own:
				out[at].Value = f.Value // the later rule is the more special one
			default:
				out[at].Value += ", " + f.Value
			}
		}
	}
	return out
}

// singleField have one value: joining two would make neither.
var singleField = map[string]bool{"Content-Type": true, "X-Frame-Options": true, "X-Content-Type-Options": true, "Referrer-Policy": true, "Access-Control-Allow-Origin": true, "Cache-Control": true}

// Captures are the parts of a path that a pattern's placeholders matched.
type Captures struct {
	n     int
	names [maxCaptures]string
	parts [maxCaptures]string
}

// splat is the name by which a target refers to what a final "*" matched.
const splat = "splat"

// MatchPattern reports whether a pattern matches a path, both with their
// leading slash and percent-decoded. A segment ":name" matches one segment that
// is not empty; a final "*" matches the rest, also an empty one, so that
// "/blog/*" matches "/blog/" and, as "/blog", the folder itself. It allocates
// nothing; c may be nil.
func MatchPattern(pattern, path string, c *Captures) bool {
	if c != nil {
		c.n = 0
	}
	for {
		if strings.HasPrefix(pattern, "/*") && len(pattern) == 2 {
			c.add(splat, strings.TrimPrefix(path, "/"))
			return path == "" || path[0] == '/'
		}
		if pattern == "" || path == "" {
			return pattern == path
		}
		if pattern[0] != '/' || path[0] != '/' {
			return false
		}
		want, have := segment(pattern[1:]), segment(path[1:])
		pattern, path = pattern[1+len(want):], path[1+len(have):]
		switch {
		case strings.HasPrefix(want, ":") && have != "":
			c.add(want[1:], have)
		case strings.HasSuffix(want, "*") && pattern == "": // "/img/logo-*"
			stem := want[:len(want)-1]
			if !strings.HasPrefix(have, stem) {
				return false
			}
			c.add(splat, have[len(stem):]+path)
			return true
		case want != have:
			return false
		}
	}
}

func segment(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}

func (c *Captures) add(name, part string) {
	if c != nil && c.n < maxCaptures {
		c.names[c.n], c.parts[c.n] = name, part
		c.n++
	}
}

// Expand puts what the pattern matched into a target: ":name" and ":splat".
// With escape, for a Location, it is percent-encoded; and what is put in never
// makes another host of a target that is a path.
func (c *Captures) Expand(target string, escape bool) string {
	if c.n == 0 || !strings.Contains(target, ":") {
		return target
	}
	local := target[0] == '/'
	var b strings.Builder
	for i := 0; i < len(target); {
		if target[i] == ':' {
			if name := placeholder(target[i+1:]); name != "" {
				if part, ok := c.part(name); ok {
					if escape {
						part = (&url.URL{Path: "/" + part}).EscapedPath()[1:]
					}
					if local && b.Len() == 1 {
						part = strings.TrimLeft(part, "/") // "//host" would be a host
					}
					b.WriteString(part)
					i += 1 + len(name)
					continue
				}
			}
		}
		if !local || i == 0 || b.Len() != 1 || target[i] != '/' { // after an empty part: "//" again
			b.WriteByte(target[i])
		}
		i++
	}
	return b.String()
}

func (c *Captures) part(name string) (string, bool) {
	for i := range c.n {
		if c.names[i] == name {
			return c.parts[i], true
		}
	}
	return "", false
}

// placeholder is the name that s begins with.
func placeholder(s string) string {
	i := 0
	for i < len(s) && (s[i] == '_' || '0' <= s[i] && s[i] <= '9' || 'a' <= s[i]|0x20 && s[i]|0x20 <= 'z') {
		i++
	}
	return s[:i]
}

// checkPattern says what is wrong with a pattern, or nothing.
func checkPattern(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "must begin with a slash"
	case len(p) > maxRuleBytes:
		return fmt.Sprintf("has %d bytes, the limit is %d", len(p), maxRuleBytes)
	case strings.ContainsFunc(p, unprintable):
		return "has a space or control character"
	}
	if i := strings.IndexByte(p, '*'); i >= 0 && i != len(p)-1 {
		return "has a * that is not its last character"
	}
	n := 0
	for part := range strings.SplitSeq(p, "/") {
		if name, ok := strings.CutPrefix(part, ":"); ok {
			if n++; name == "" || placeholder(name) != name {
				return fmt.Sprintf("has a placeholder %q: letters, digits and _ after the colon", part)
			}
		}
	}
	if n >= maxCaptures {
		return fmt.Sprintf("has %d placeholders, the limit is %d", n, maxCaptures-1)
	}
	return ""
}

func unprintable(r rune) bool { return r <= ' ' || r == 0x7f }

// reservedFields are not for a site to set: the server makes them, or they
// would break the message or the cache.
var reservedFields = map[string]bool{
	"Accept-Ranges": true, "Age": true, "Allow": true, "Alt-Svc": true, "Cache-Status": true, "Connection": true, "Content-Encoding": true,
	"Content-Length": true, "Content-Range": true, "Date": true, "Etag": true, "Keep-Alive": true, "Last-Modified": true, "Location": true,
	"Perigee-Release": true, "Proxy-Authenticate": true, "Proxy-Connection": true, "Server": true, "Set-Cookie": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Vary": true, "Via": true,
}

// checkField says what is wrong with a field that a rule sets, or nothing.
func checkField(f Field) string {
	switch {
	case f.Name == "" || !isToken(f.Name) || len(f.Name) > maxTypeBytes:
		return fmt.Sprintf("%.80q is no field name", f.Name)
	case f.Name != http.CanonicalHeaderKey(f.Name):
		return fmt.Sprintf("field %s is not written as %s", f.Name, http.CanonicalHeaderKey(f.Name))
	case reservedFields[f.Name]:
		return fmt.Sprintf("field %s is the server's to set", f.Name)
	case f.Value == "" || len(f.Value) > maxRuleBytes:
		return fmt.Sprintf("the value of %s has %d bytes: 1 to %d", f.Name, len(f.Value), maxRuleBytes)
	}
	for i := range len(f.Value) {
		if c := f.Value[i]; c < ' ' || c > '~' {
			return fmt.Sprintf("the value of %s has an octet that a field cannot carry", f.Name)
		}
	}
	return ""
}

// check says what is wrong with a header rule, or nothing.
func (r *HeaderRule) check() string {
	if text := checkPattern(r.For); text != "" {
		return fmt.Sprintf("header rule %.80q: %s", r.For, text)
	}
	if n := len(r.Set) + len(r.Remove); n == 0 || n > maxRuleFields {
		return fmt.Sprintf("header rule %.80q: has %d fields: 1 to %d", r.For, n, maxRuleFields)
	}
	for _, f := range r.Set {
		if text := checkField(f); text != "" {
			return fmt.Sprintf("header rule %.80q: %s", r.For, text)
		}
	}
	for _, name := range r.Remove {
		if name == "" || !isToken(name) || name != http.CanonicalHeaderKey(name) {
			return fmt.Sprintf("header rule %.80q: %.80q is no field name", r.For, name)
		}
	}
	return ""
}

// check says what is wrong with a redirect, or nothing.
func (r *Redirect) check() string {
	if text := checkPattern(r.From); text != "" {
		return fmt.Sprintf("redirect from %.80q: %s", r.From, text)
	}
	bad := ""
	switch {
	case r.To == "" || len(r.To) > maxRuleBytes || strings.ContainsFunc(r.To, unprintable):
		bad = "the target is empty, too long, or has a space or control character"
	case r.Rewrites() && !strings.HasPrefix(r.To, "/"):
		bad = fmt.Sprintf("status %d serves a file of the release: the target must begin with a slash", r.Status)
	case r.Rewrites():
	case r.Status != 301 && r.Status != 302 && r.Status != 303 && r.Status != 307 && r.Status != 308:
		bad = fmt.Sprintf("status %d: want 301, 302, 303, 307, 308, 200 or 404", r.Status)
	case strings.HasPrefix(r.To, "//") || !strings.HasPrefix(r.To, "/") && !strings.HasPrefix(r.To, "https://") && !strings.HasPrefix(r.To, "http://"):
		bad = "the target must begin with a slash, https:// or http://"
	}
	if bad != "" {
		return fmt.Sprintf("redirect from %.80q: %s", r.From, bad)
	}
	return ""
}
