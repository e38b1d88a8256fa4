package control

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Purge makes stored responses of a site unusable: those of one URL with all
// its variants, of a path and all below it, of a tag, or all of them. Soft ones
// stay usable while they are revalidated.
type Purge struct {
	Site   string `json:"site"`
	URL    string `json:"url,omitempty"`    // in the form of NormalURL
	Prefix string `json:"prefix,omitempty"` // in the form of NormalPrefix
	Tag    string `json:"tag,omitempty"`
	All    bool   `json:"all,omitempty"`
	Soft   bool   `json:"soft,omitempty"`
}

const (
	// maxURLBytes bounds a purged URL; edges refuse longer targets anyway.
	maxURLBytes = 8 << 10
	// maxPrefixSegments bounds a purged prefix: edges look for no longer ones.
	maxPrefixSegments = 32
	// maxTagBytes bounds a purged tag: edges keep no longer ones.
	maxTagBytes = 1024
	// purgeBurst is how many times a second's purges of one caller may come at
	// once: with the default, all pages of a large site, and a tenth of the scopes
	// that edges remember one by one.
	purgeBurst = 100
)

// String says what p covers, for people.
func (p *Purge) String() string {
	switch {
	case p.URL != "":
		return p.URL
	case p.Prefix != "":
		return p.Prefix + " and all below it"
	case p.Tag != "":
		return fmt.Sprintf("tag %q of site %s", p.Tag, p.Site)
	}
	return "all of site " + p.Site
}

// check refuses a purge that no control node writes.
func (p *Purge) check() error {
	n := 0
	for _, given := range []bool{p.URL != "", p.Prefix != "", p.Tag != "", p.All} {
		if given {
			n++
		}
	}
	if n != 1 {
		return errors.New("a purge names exactly one of a url, a prefix, a tag and all")
	}
	if p.Tag != "" {
		return checkTag(p.Tag)
	}
	given, normal := cmp.Or(p.URL, p.Prefix), NormalURL
	if p.Prefix != "" {
		normal = NormalPrefix
	}
	if given == "" || p.Prefix == "" && plainURL(given) {
		return nil
	}
	u, _, err := normal(given)
	if err == nil && u != given {
		err = fmt.Errorf("url %.200q is not in normal form", given)
	}
	return err
}

// checkTag refuses what no response can carry as a tag.
func checkTag(tag string) error {
	if len(tag) > maxTagBytes || !utf8.ValidString(tag) || strings.TrimSpace(tag) != tag ||
		strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("tag %.200q: at most %d bytes, no control characters, no space around it", tag, maxTagBytes)
	}
	return nil
}

// NormalURL returns the form of a URL that edges compare, and its host: scheme
// http or https and host in lower case, no default port, a path that starts
// with "/", the query as it is, no fragment. Path and query are otherwise left
// as written: they are the cache key's bytes. What an edge answers to nobody
// (dot segments, a NUL, a host that is no name) is an error.
func NormalURL(s string) (normal, host string, err error) {
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("url %.200q: %s", s, why)
	}
	if len(s) > maxURLBytes {
		return bad(fmt.Sprintf("%d bytes, more than %d", len(s), maxURLBytes))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return bad("spaces and control characters must be percent-encoded")
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("it cannot be parsed")
	}
	scheme := strings.ToLower(u.Scheme)
	if scheme != "http" && scheme != "https" {
		return bad("it must begin with http:// or https://")
	}
	if u.User != nil || u.Hostname() == "" || u.Opaque != "" {
		return bad("it must name a host, and no user")
	}
	host = strings.ToLower(u.Hostname())
	if !isHost(host) {
		return bad("the host is no name (international ones are written xn--…) and no address")
	}
	shown := host
	if strings.Contains(host, ":") {
		shown = "[" + host + "]"
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 || p[0] == '0' {
			return bad("the port is malformed")
		}
		if !(scheme == "http" && p == "80") && !(scheme == "https" && p == "443") {
			shown = net.JoinHostPort(host, p)
		}
	}
	path := pathOf(s)
	if why := refusedPath(path); why != "" {
		return bad(why)
	}
	normal = scheme + "://" + shown + path
	if u.RawQuery != "" || u.ForceQuery {
		normal += "?" + escape(u.RawQuery, "")
	}
	if len(normal) > maxURLBytes {
		return bad(fmt.Sprintf("more than %d bytes when percent-encoded", maxURLBytes))
	}
	return normal, host, nil
}

// NormalPrefix is NormalURL for a purge of a path and all below it. It has no
// query, and ends at a segment: "/a" is "/a/", and covers "/a" and not "/ab".
func NormalPrefix(s string) (normal, host string, err error) {
	normal, host, err = NormalURL(s)
	if err != nil {
		return "", "", err
	}
	if strings.Contains(normal, "?") {
		return "", "", fmt.Errorf("prefix %.200q has a query: leave it out, every query is covered", s)
	}
	_, rest, _ := strings.Cut(normal, "://")
	if strings.Count(strings.TrimSuffix(rest, "/"), "/") > maxPrefixSegments {
		return "", "", fmt.Errorf("prefix %.200q has more than %d segments", s, maxPrefixSegments)
	}
	if !strings.HasSuffix(normal, "/") {
		normal += "/"
	}
	return normal, host, nil
}

// isHost reports a host that an edge may have: a name in ASCII, or an address.
func isHost(s string) bool {
	if strings.Contains(s, ":") {
		return net.ParseIP(s) != nil
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return len(s) <= 253
}

// refusedPath says why an edge answers no request with that path, or "".
func refusedPath(path string) string {
	plain, err := url.PathUnescape(path)
	if err != nil {
		return "the path has a broken % escape"
	}
	if strings.Contains(plain, "\x00") {
		return "the path has an encoded NUL"
	}
	if !strings.Contains(plain, ".") {
		return ""
	}
	segments := strings.FieldsFunc(plain, func(r rune) bool { return r == '/' || r == '\\' || r == ';' })
	if slices.Contains(segments, ".") || slices.Contains(segments, "..") {
		return "the path has a dot segment"
	}
	return ""
}

// pathOf returns the path of a URL that has a host, as written but for what no
// path can hold. url.URL's EscapedPath would write all of it anew as soon as one
// byte is such: "!" as "%21" and "%2F" as "/", which is another key.
func pathOf(s string) string {
	_, rest, _ := strings.Cut(s, "://")
	rest, _, _ = strings.Cut(rest, "#")
	rest, _, _ = strings.Cut(rest, "?")
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return "/"
	}
	return escape(rest[i:], "\"<>\\^`{|}")
}

// escape percent-encodes what a URI cannot hold, and the bytes in also, as
// clients do.
func escape(s, also string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || strings.ContainsRune(also, r) }) {
		return s // as most are, and nodes look at a thousand in one entry
	}
	var b strings.Builder
	for i := range len(s) {
		if s[i] < 0x80 && strings.IndexByte(also, s[i]) < 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// Purged answers a purge: what it covers, in the form that edges compare. Seq
// is 0 for a dry run.
type Purged struct {
	Seq uint64 `json:"seq,omitempty"`
	Purge
}

// purge answers /v1/purge.
func (s *Server) purge(w http.ResponseWriter, r *http.Request) (any, error) {
	var req struct {
		Purge
		DryRun bool `json:"dry_run"`
	}
	if err := readJSON(w, r, &req); err != nil {
		return nil, err
	}
	p := req.Purge
	if err := s.settleFor(w, r, &p); err != nil {
		return nil, err
	}
	if req.DryRun {
		return Purged{Purge: p}, nil
	}
	if err := s.mayPurge(w, r, 1); err != nil {
		return nil, err
	}
	seqs, err := s.gather.submit([]Purge{p})
	if err != nil {
		return nil, err
	}
	return Purged{Seq: seqs[0], Purge: p}, nil
}

// settleFor is settle for a caller, who must have a right to the purge. To who
// has none, what is another's and what is not there answer the same.
func (s *Server) settleFor(w http.ResponseWriter, r *http.Request, p *Purge) error {
	err := s.settle(p)
	remark(r, "%s", p.String())
	c := callerOf(r)
	if err == nil && !c.rights.purges(p) || err != nil && asError(err).Status != http.StatusBadRequest && !c.rights.can(CanAdmin) {
		return forbidden(w, r, needPurge)
	}
	return err
}

// settle checks a purge against what exists, and gives it its site and normal
// form. A URL or prefix is of the site that has exactly its host.
func (s *Server) settle(p *Purge) error {
	given, normal := &p.URL, NormalURL
	if p.Prefix != "" {
		given, normal = &p.Prefix, NormalPrefix
	}
	if *given != "" {
		form, host, err := normal(*given)
		if err != nil {
			return refuse(http.StatusBadRequest, "", "%v", err)
		}
		site, err := s.siteOf(host)
		if err != nil {
			return err
		}
		if p.Site != "" && p.Site != site {
			return refuse(http.StatusConflict, "", "%s belongs to site %s, not %.100s", form, site, p.Site)
		}
		p.Site, *given = site, form
	}
	if err := p.check(); err != nil {
		return refuse(http.StatusBadRequest, "send one of url, prefix, site and tag, site and all", "%v", err)
	}
	_, err := s.site(p.Site)
	return err
}
