package edge

import (
	"net/http"
	"slices"
	"strings"
)

const (
	// maxTags bounds the tags of one response that are kept: a page that lists
	// 200 products has 200. Each costs a probe of the purge table.
	maxTags = 256
	// maxTagBytes bounds one tag, as CDNs in use do.
	maxTagBytes = 1024
	// maxTagsBytes bounds the tags of one response together.
	maxTagsBytes = 16 << 10
)

// tagFields carry tags from the origin: to us, and to nobody else. What they
// say tells a stranger how a site is built.
var tagFields = []string{"Surrogate-Key", "Cache-Tag", "Cache-Groups"}

// tagsOf are the tag fields of h, or nil.
func tagsOf(h http.Header) http.Header {
	if !hasTags(h) {
		return nil
	}
	tags := http.Header{}
	for _, name := range tagFields {
		if lines, ok := h[name]; ok {
			tags[name] = lines
		}
	}
	return tags
}

func hasTags(h http.Header) bool {
	for _, name := range tagFields {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// tagged returns scopes with the tags of a response's header: the words of
// Surrogate-Key, the members of Cache-Tag and the strings of Cache-Groups (RFC
// 9875 §2). An empty tag is none. Of a response with too many, or with one too
// long, the first are kept, and any purge by tag covers it: it must not
// outlive the purge of a tag that we did not keep.
func (s purgeScopes) tagged(h http.Header, t *target) purgeScopes {
	s.tags, s.groups, s.origin, s.anyTag = nil, nil, "", false
	total := 0
	add := func(tag string) bool {
		switch {
		case tag == "":
			return true
		case len(tag) > maxTagBytes || len(s.tags) == maxTags || total+len(tag) > maxTagsBytes:
			s.anyTag = true
			return false
		}
		s.tags = append(s.tags, tag)
		total += len(tag)
		return true
	}
	for _, line := range h["Surrogate-Key"] {
		for tag := range strings.FieldsSeq(line) {
			add(tag)
		}
	}
	for _, line := range h["Cache-Tag"] {
		for tag := range strings.SplitSeq(line, ",") {
			add(trimOWS(tag))
		}
	}
	for _, group := range groupsOf(h["Cache-Groups"]) {
		if add(group) && group != "" {
			s.groups, s.origin = append(s.groups, group), t.origin()
		}
	}
	slices.Sort(s.tags)
	s.tags = slices.Compact(s.tags)
	return s
}

// groupsOf reads a List of Strings (RFC 9651 §3.1, §3.3.3), as Cache-Groups
// and Cache-Group-Invalidation are. Parameters are passed over. A field that
// is malformed, or holds anything but strings, counts as absent.
func groupsOf(lines []string) []string {
	rest := strings.Trim(strings.Join(lines, ","), " \t")
	var groups []string
	for rest != "" {
		group, after, ok := cutString(rest)
		if !ok {
			return nil
		}
		if after, ok = skipParameters(after); !ok {
			return nil
		}
		groups = append(groups, group)
		after = strings.TrimLeft(after, " \t")
		if after == "" {
			return groups
		}
		if after[0] != ',' {
			return nil
		}
		if rest = strings.TrimLeft(after[1:], " \t"); rest == "" {
			return nil // a trailing comma
		}
	}
	return groups
}

// cutString reads a String of RFC 9651 §3.3.3 off s.
func cutString(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
			c = s[i]
		case c < ' ' || c >= 0x7f:
			return "", "", false
		}
		b.WriteByte(c)
	}
	return "", "", false
}

// skipParameters passes over ";key" and ";key=value", whatever the value is.
func skipParameters(s string) (rest string, ok bool) {
	for {
		if s == "" || s[0] != ';' {
			return s, true
		}
		s = strings.TrimLeft(s[1:], " ")
		n := 0
		for n < len(s) && s[n] != ';' && s[n] != ',' && s[n] != '=' && s[n] != ' ' && s[n] != '\t' {
			n++
		}
		if n == 0 || s[0] != '*' && (s[0] < 'a' || s[0] > 'z') {
			return "", false
		}
		if s = s[n:]; s == "" || s[0] != '=' {
			continue
		}
		if s = s[1:]; s != "" && s[0] == '"' {
			if _, s, ok = cutString(s); !ok {
				return "", false
			}
			continue
		}
		n = strings.IndexAny(s, ";, \t")
		if n < 0 {
			n = len(s)
		}
		if n == 0 {
			return "", false
		}
		s = s[n:]
	}
}
