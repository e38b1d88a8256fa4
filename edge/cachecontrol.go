package edge

import (
	"net/http"
	"strings"
	"time"
)

// maxDeltaSeconds is what a delta-seconds that does not fit is taken for
// (RFC 9111 §1.2.2): 2³¹ seconds, 68 years.
const maxDeltaSeconds = 1 << 31

// maxWithheld bounds the fields that no-cache="…" and private="…" may name.
// Real ones name one; beyond, the directive counts as unqualified.
const maxWithheld = 16

// cacheControl is what a Cache-Control field says, of a response or a request.
// A lifetime that was not given is noDelta; one that cannot be read is 0,
// since a recipient is encouraged to take such a response for stale
// (RFC 9111 §4.2.1).
type cacheControl struct {
	noStore, noCache, private, public            bool
	mustRevalidate, proxyRevalidate              bool
	mustUnderstand, immutable, onlyIfCached      bool
	maxAge, sMaxAge                              time.Duration
	staleWhileRevalidate, staleIfError, maxStale time.Duration
	// withheld are the fields that no-cache="…" and private="…" name: they are
	// not stored, the rest is (RFC 9111 §5.2.2.4, §5.2.2.7).
	withheld []string
}

// noDelta marks a directive that was not given.
const noDelta time.Duration = -1

// parseCacheControl reads the combined value of all Cache-Control lines (RFC
// 9111 §5.2). Names are compared without case; an argument may be a token or
// a quoted string in both directions; of a directive that is repeated, the
// first counts. no-cache and private with field names withhold those fields;
// with an argument that is no list of field names they are taken for the
// unqualified form, which is wider, so always safe.
func parseCacheControl(v string) cacheControl {
	cc := noDirectives()
	for v != "" {
		var name, arg string
		var hasArg bool
		name, arg, hasArg, v = nextDirective(v)
		cc.set(name, arg, hasArg)
	}
	return cc
}

func noDirectives() cacheControl {
	return cacheControl{maxAge: noDelta, sMaxAge: noDelta, staleWhileRevalidate: noDelta, staleIfError: noDelta, maxStale: noDelta}
}

func (cc *cacheControl) set(name, arg string, hasArg bool) {
	switch {
	case strings.EqualFold(name, "no-store"):
		cc.noStore = true
	case strings.EqualFold(name, "no-cache"):
		cc.noCache = !cc.withhold(arg, hasArg) || cc.noCache
	case strings.EqualFold(name, "private"):
		cc.private = !cc.withhold(arg, hasArg) || cc.private
	case strings.EqualFold(name, "public"):
		cc.public = true
	case strings.EqualFold(name, "must-revalidate"):
		cc.mustRevalidate = true
	case strings.EqualFold(name, "proxy-revalidate"):
		cc.proxyRevalidate = true
	case strings.EqualFold(name, "must-understand"):
		cc.mustUnderstand = true
	case strings.EqualFold(name, "immutable"):
		cc.immutable = true
	case strings.EqualFold(name, "only-if-cached"):
		cc.onlyIfCached = true
	case strings.EqualFold(name, "max-age"):
		setDelta(&cc.maxAge, arg)
	case strings.EqualFold(name, "s-maxage"):
		setDelta(&cc.sMaxAge, arg)
	case strings.EqualFold(name, "stale-while-revalidate"):
		setDelta(&cc.staleWhileRevalidate, arg)
	case strings.EqualFold(name, "stale-if-error"):
		setDelta(&cc.staleIfError, arg)
	case strings.EqualFold(name, "max-stale"):
		if !hasArg {
			arg = "2147483648" // any staleness
		}
		setDelta(&cc.maxStale, arg)
	}
}

// withhold takes down the field names of a qualified directive; false when it
// is not qualified.
func (cc *cacheControl) withhold(arg string, hasArg bool) bool {
	if !hasArg {
		return false
	}
	var names []string
	for {
		m, rest, ok := nextMember(arg)
		if !ok {
			break
		}
		if !isToken(m) || len(cc.withheld)+len(names) >= maxWithheld {
			return false
		}
		names = append(names, http.CanonicalHeaderKey(m))
		arg = rest
	}
	cc.withheld = append(cc.withheld, names...)
	return len(names) > 0
}

func setDelta(d *time.Duration, arg string) {
	if *d != noDelta {
		return
	}
	secs, ok := parseDelta(arg)
	if !ok {
		secs = 0
	}
	*d = time.Duration(secs) * time.Second
}

// parseDelta reads delta-seconds (RFC 9111 §1.2.2): digits only. What is too
// large becomes maxDeltaSeconds.
func parseDelta(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n < maxDeltaSeconds {
			n = n*10 + int64(c-'0')
		}
	}
	return min(n, maxDeltaSeconds), true
}

// nextDirective cuts the first member off a list of directives. The rest is
// always shorter than v. An unterminated quoted string runs to the end.
func nextDirective(v string) (name, arg string, hasArg bool, rest string) {
	i := 0
	for i < len(v) && v[i] != ',' && v[i] != '=' {
		i++
	}
	name = trimOWS(v[:i])
	if i == len(v) || v[i] == ',' {
		return name, "", false, after(v, i)
	}
	spaced := i > 0 && (v[i-1] == ' ' || v[i-1] == '\t')
	i++ // "="
	if i < len(v) && v[i] == '"' {
		arg, n := unquote(v[i:])
		i += n
		for i < len(v) && v[i] != ',' {
			i++
		}
		if spaced {
			arg = " " + arg
		}
		return name, arg, true, after(v, i)
	}
	j := i
	for j < len(v) && v[j] != ',' {
		j++
	}
	// Space at "=" is no part of the grammar; the argument keeps it, so that a
	// number with it is refused.
	if spaced {
		return name, " " + v[i:j], true, after(v, j)
	}
	return name, strings.TrimRight(v[i:j], " \t"), true, after(v, j)
}

func after(v string, i int) string {
	if i >= len(v) {
		return ""
	}
	return v[i+1:]
}

// unquote reads the quoted string that s starts with (RFC 9110 §5.6.4), and
// returns its value and how many octets it takes.
func unquote(s string) (string, int) {
	plain := true
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			plain = false
			i++
		case '"':
			if plain {
				return s[1:i], i + 1
			}
			return unescape(s[1:i]), i + 1
		}
	}
	return unescape(s[1:]), len(s)
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// trimOWS removes optional white space (RFC 9110 §5.6.3) at both ends.
func trimOWS(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// nextMember cuts the first non-empty member off a comma-separated list
// whose members hold no quoted strings. ok is false at the end.
func nextMember(v string) (member, rest string, ok bool) {
	for v != "" {
		member, rest, _ = strings.Cut(v, ",")
		if member = trimOWS(member); member != "" {
			return member, rest, true
		}
		v = rest
	}
	return "", "", false
}
