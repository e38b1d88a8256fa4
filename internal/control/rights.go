package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Rights is what a token may do. The zero value may do nothing.
type Rights struct {
	// Can are the words CanPush to CanAdmin, and "purge:HOST/PATH/": purges of
	// URLs and prefixes below it alone.
	Can []string `json:"can"`
	// Sites are those that push and purge are for: none of their names is a pattern.
	Sites []string `json:"sites,omitempty"`
}

// The words of Rights.Can.
const (
	CanPush  = "push"  // releases of Sites: push, activate, roll back, list
	CanPurge = "purge" // Sites: URLs, prefixes, tags, all
	CanDrain = "drain" // any edge: drain, undrain, force
	CanRead  = "read"  // status, receipts, releases of every site
	CanAdmin = "admin" // all of it, nodes and tokens included

	// maxRights bounds Rights.Can, and maxRightSites Rights.Sites: more is an admin.
	maxRights     = 32
	maxRightSites = 100
)

// normal returns the rights in the form in which they are kept, or what is
// wrong with them. Whether the sites exist is not asked here.
func (r Rights) normal() (Rights, error) {
	out := Rights{}
	perSite := false
	for _, word := range r.Can {
		switch prefix, below := strings.CutPrefix(word, CanPurge+":"); {
		case below:
			place, err := purgePlace(prefix)
			if err != nil {
				return out, err
			}
			word, perSite = CanPurge+":"+place, true
		case word == CanPush || word == CanPurge:
			perSite = true
		case word != CanDrain && word != CanRead && word != CanAdmin:
			return out, fmt.Errorf("%.100q is no right: %s, %s, %s:https://HOST/PATH/, %s, %s, %s", word, CanPush, CanPurge, CanPurge, CanDrain, CanRead, CanAdmin)
		}
		if !slices.Contains(out.Can, word) {
			out.Can = append(out.Can, word)
		}
	}
	for _, site := range r.Sites {
		if err := checkName("site", site); err != nil {
			return out, err
		}
		if !slices.Contains(out.Sites, site) {
			out.Sites = append(out.Sites, site)
		}
	}
	switch {
	case len(out.Can) == 0:
		return out, errors.New("no right is named")
	case len(out.Can) > maxRights || len(out.Sites) > maxRightSites:
		return out, fmt.Errorf("%d rights on %d sites, more than %d on %d", len(out.Can), len(out.Sites), maxRights, maxRightSites)
	case slices.Contains(out.Can, CanAdmin) && (len(out.Can) > 1 || len(out.Sites) > 0):
		return out, errors.New("admin holds for everything: name no other right and no site beside it")
	case perSite && len(out.Sites) == 0:
		return out, errors.New("push and purge are rights on sites: name one")
	case !perSite && len(out.Sites) > 0:
		return out, errors.New("drain, read and admin hold for the whole fleet: name no site")
	}
	return out, nil
}

func (r *Rights) can(word string) bool {
	return slices.Contains(r.Can, word) || slices.Contains(r.Can, CanAdmin)
}

// on reports a right on one site, whose name must be the same byte for byte.
func (r *Rights) on(word, site string) bool {
	return slices.Contains(r.Can, CanAdmin) || slices.Contains(r.Can, word) && slices.Contains(r.Sites, site)
}

// purges reports whether the rights cover a purge that is settled: of a site of
// theirs, and, when they are for a place alone, of a URL or prefix there.
func (r *Rights) purges(p *Purge) bool {
	if r.on(CanPurge, p.Site) {
		return true
	}
	given := p.URL + p.Prefix // one of them is empty
	if given == "" || !slices.Contains(r.Sites, p.Site) {
		return false
	}
	place := place(given)
	for _, word := range r.Can {
		below, ok := strings.CutPrefix(word, CanPurge+":")
		// A place ends in "/", so that /a/ holds neither /ab nor the host a.test
		// that of aa.test; "/a" itself is below "/a/" as in a purge of a prefix.
		if ok && (strings.HasPrefix(place, below) || place+"/" == below) {
			return true
		}
	}
	return false
}

// purgesAny reports whether there is any purge that the rights cover.
func (r *Rights) purgesAny() bool {
	return r.can(CanPurge) || slices.ContainsFunc(r.Can, func(w string) bool { return strings.HasPrefix(w, CanPurge+":") })
}

// purgePlace reads the place of a purge right: a prefix, with or without scheme.
func purgePlace(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	normal, _, err := NormalPrefix(s)
	if err != nil {
		return "", err
	}
	return place(normal), nil
}

// place is host and path of a URL in normal form: a purge is of every scheme
// and port (docs/caching.md), and a prefix of every query.
func place(normal string) string {
	_, rest, _ := strings.Cut(normal, "://")
	rest, _, _ = strings.Cut(rest, "?")
	i := strings.IndexByte(rest, '/')
	if host, _, err := net.SplitHostPort(rest[:i]); err == nil {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return host + rest[i:]
	}
	return rest
}

// need is the right that a call needs.
type need int

const (
	// needAdmin is the zero value: a call that says nothing is the administrator's.
	needAdmin need = iota
	needToken      // any token's that is valid
	needRead
	needDrain
	needPush     // on the site in the path
	needReleases // needPush, or needRead
	needPurge    // the call itself asks again, when it knows what the purge covers
)

// allowed reports whether the rights are enough to begin the call.
func (r *Rights) allowed(n need, req *http.Request) bool {
	site := req.PathValue("site")
	switch n {
	case needToken:
		return true
	case needRead:
		return r.can(CanRead)
	case needDrain:
		return r.can(CanDrain)
	case needPush:
		return r.on(CanPush, site)
	case needReleases:
		return r.can(CanRead) || r.on(CanPush, site)
	case needPurge:
		return r.purgesAny()
	case needAdmin:
	}
	return r.can(CanAdmin)
}

// word is what the need is called in a refusal.
func (n need) word() string {
	switch n {
	case needRead:
		return CanRead
	case needDrain:
		return CanDrain
	case needPush, needReleases:
		return CanPush
	case needPurge:
		return CanPurge
	case needAdmin, needToken:
	}
	return CanAdmin
}

// actor is who makes a call.
type actor struct {
	name   string // of the token, or "socket"
	rights Rights
}

// callerKey is the context key of the *actor.
type callerKey struct{}

func withCaller(r *http.Request, c *actor) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

// callerOf is who makes the call: nobody, with no right, before that is known.
func callerOf(r *http.Request) *actor {
	if c, ok := r.Context().Value(callerKey{}).(*actor); ok {
		return c
	}
	return &actor{}
}

// forbidden is the refusal of a call whose token is valid and does not reach so
// far (RFC 6750 §3.1). It says nothing about what exists.
func forbidden(w http.ResponseWriter, r *http.Request, n need) error {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="perigee", error="insufficient_scope", scope=%q`, n.word()))
	return refuse(http.StatusForbidden, "an administrator can make another one with `perigee token add`", "token %s has no right to this (%s)", callerOf(r).name, n.word())
}
