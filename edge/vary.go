package edge

import (
	"net/http"
	"slices"
	"strings"
)

// maxVaryFields bounds the fields one Vary may name. Real ones name three;
// beyond 16 a response is taken for "Vary: *".
const maxVaryFields = 16

// fields gives the fields of one request. combined returns the value of all
// lines of a field, joined by ", " (RFC 9110 §5.3); ok tells absent from
// empty. name is in canonical form.
type fields interface {
	combined(name string) (value string, ok bool)
}

// headerFields is a net/http header as fields.
type headerFields http.Header

func (h headerFields) combined(name string) (string, bool) {
	lines, ok := h[name]
	switch {
	case !ok || len(lines) == 0:
		return "", false
	case len(lines) == 1:
		return lines[0], true
	}
	return strings.Join(lines, ", "), true
}

// selecting is one field that Vary names, as it was in the request whose
// response was stored.
type selecting struct {
	name    string // canonical
	value   string // normalised
	sent    string // as it was
	present bool
}

// varyAny reports a Vary that never matches (RFC 9111 §4.1). One that names
// the client's address is of this kind: the origin gets ours.
func varyAny(lines []string) bool {
	n := 0
	for _, line := range lines {
		for {
			m, rest, ok := nextMember(line)
			if !ok {
				break
			}
			if n++; m == "*" || n > maxVaryFields || strings.EqualFold(m, "X-Forwarded-For") {
				return true
			}
			line = rest
		}
	}
	return false
}

// varyNames returns the field names of Vary and those that a site keys by,
// canonical, sorted, each once. Fields that the origin does not get from
// clients are the same for all of a key.
func varyNames(lines, keyed []string) []string {
	names := slices.Clone(keyed)
	for _, line := range lines {
		for {
			m, rest, ok := nextMember(line)
			if !ok {
				break
			}
			if name := http.CanonicalHeaderKey(m); !isUnkeyed(name) || slices.Contains(keyed, name) {
				names = append(names, name)
			}
			line = rest
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// selectingFields takes down the values of names in a request.
func selectingFields(names []string, f fields) []selecting {
	sel := make([]selecting, 0, len(names))
	for _, name := range names {
		v, ok := f.combined(name)
		sel = append(sel, selecting{name: name, value: normalise(name, v), sent: v, present: ok})
	}
	return sel
}

// varyMatches reports whether a request selects a stored response (RFC 9111
// §4.1): each field is absent in both, or equal once normalised.
func varyMatches(sel []selecting, f fields) bool {
	for i := range sel {
		v, ok := f.combined(sel[i].name)
		if ok != sel[i].present {
			return false
		}
		if ok && v != sel[i].sent && v != sel[i].value && normalise(sel[i].name, v) != sel[i].value {
			return false
		}
	}
	return true
}

// normaliseList removes white space around the members of a list, and empty
// members.
func normaliseList(v string) string {
	if !strings.ContainsAny(v, ", \t") {
		return v
	}
	var b strings.Builder
	for {
		m, rest, ok := nextMember(v)
		if !ok {
			return b.String()
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(m)
		v = rest
	}
}
