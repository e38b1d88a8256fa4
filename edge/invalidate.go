package edge

import (
	"net/http"
	"net/url"
)

// invalidated forgets what an unsafe request has changed: its target, and what
// Location and Content-Location name on the same origin (RFC 9111 §4.4). by, if it
// is not nil, is the watch of the request itself.
func (x *exchange) invalidated(h http.Header, by *flight) {
	x.e.invalidate(x.key, by)
	base := x.q.url()
	for _, name := range []string{"Location", "Content-Location"} {
		ref, err := url.Parse(h.Get(name))
		if h.Get(name) == "" || err != nil {
			continue
		}
		u := base.ResolveReference(ref)
		u.Fragment = ""
		t, err := parseTarget(u.String(), "", x.q.tls)
		if err == nil && t.authority == x.q.authority {
			t.query = x.site.Query.apply(t.query)
			x.e.invalidate(t.key(), by)
		}
	}
	for i, group := range groupsOf(h["Cache-Group-Invalidation"]) { // RFC 9875 §3
		if i < maxTags && group != "" && len(group) <= maxTagBytes {
			x.e.purgeScope(scope{scopeGroup, x.q.origin(), group}, &Purge{Site: x.site.Name})
		}
	}
}
