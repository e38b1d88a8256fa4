package edge

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxOffered bounds the entity tags of one validation. Real sites keep two or
// three variants of a page.
const maxOffered = 8

// freshened is a stored response whose header is brought up to date by a
// response that describes the same content: a 304, or a 200 to HEAD. own are
// the fields that must not be stored.
func (e *Edge) freshened(site *Site, t *target, old *stored, resp *http.Response, asked, came time.Time) (next *stored, own http.Header) {
	fresh := received(resp.Header)
	if _, ok := fresh["Date"]; !ok {
		fresh["Date"] = []string{came.UTC().Format(http.TimeFormat)} // RFC 9110 §6.6.1
	}
	next = newStored(site, old.status, updatedHeader(old.header, fresh), asked, came)
	next.key, next.scopes, next.sel = old.key, old.scopes, old.sel
	if hasTags(resp.Header) {
		next.scopes = next.scopes.tagged(resp.Header, t)
		next.tags = tagsOf(resp.Header)
	} else {
		next.tags = old.tags
	}
	next.asOf, next.body, next.size, next.part = old.asOf, old.body, old.size, old.part
	own = next.withhold()
	next.pack()
	return next, own
}

// headed updates what is stored by a 200 to HEAD (RFC 9111 §4.3.5): where
// validators and length agree, the header; what does not agree is forgotten. It
// returns the one that answers the request, or nil. watch began before the request
// was sent on: what was invalidated since, nothing of before it updates.
func (x *exchange) headed(resp *http.Response, watch *flight, asked, came time.Time) (answer *stored) {
	q, e := x.q, x.e
	if resp.StatusCode != http.StatusOK || q.has("Authorization") || q.cc.noStore {
		return nil
	}
	variants := e.store.variants(x.key)
	for _, old := range variants {
		x.hold(old.body) // and so what shares it
	}
	for _, old := range variants {
		hard, _ := e.purges.check(&old.scopes, old.asOf)
		if hard || old.scopes.site != x.site.Name || !varyMatches(old.sel, q.fields()) {
			continue
		}
		next, _ := e.freshened(x.site, &q.target, old, resp, asked, came)
		if !old.describedBy(resp) || storable(x.site, next.status, next.header, &next.cc, false, next.hasLifetime) != "" {
			e.store.discard(old)
			continue
		}
		// The purges that it falls under stay those of its body: a HEAD without
		// validators does not prove that the body is new.
		e.unlessDoomed(watch, func() {
			if e.store.replace(old, next) {
				answer = next
			}
		})
	}
	return answer
}

// describedBy reports whether a response to HEAD may be about o: what it has
// of validators and length is the same.
func (o *stored) describedBy(resp *http.Response) bool {
	for _, name := range []string{"Etag", "Last-Modified"} {
		lines := resp.Header[name]
		if len(lines) > 0 && !equalLines(lines, o.header[name]) {
			return false
		}
	}
	size := o.size
	if o.part != nil {
		size = o.part.total
	}
	lines := resp.Header["Content-Length"]
	return o.status == http.StatusOK && (len(lines) == 0 || lines[0] == strconv.FormatInt(size, 10))
}

func equalLines(a, b []string) bool {
	return len(a) == 1 && len(b) == 1 && a[0] == b[0]
}

// offered are stored variants that a request does not select, but that the
// origin may choose for it all the same: their strong entity tags go with the
// fetch (RFC 9111 §4.1, §4.3.1). A coding that the client did not ask for is
// not offered: origins that tag two codings alike are too many.
//
// fl holds them.
func (e *Edge) offered(fl *flight, site *Site, f fields) []*stored {
	var list []*stored
	accepted, _ := f.combined("Accept-Encoding")
	variants := e.store.variants(fl.primary)
	defer e.store.letGo(variants...)
	for i := len(variants) - 1; i >= 0 && len(list) < maxOffered; i-- {
		o := variants[i]
		hard, _ := e.purges.check(&o.scopes, o.asOf)
		coding, coded := headerFields(o.header).combined("Content-Encoding")
		if hard || o.scopes.site != site.Name || o.status != http.StatusOK || o.part != nil || !strings.HasPrefix(o.etag, `"`) ||
			coded && !strings.Contains(accepted, coding) {
			continue
		}
		fl.hold(e.store.arena, o)
		list = append(list, o)
	}
	return list
}

// offeredTags is the If-None-Match of a fetch that offers variants.
func offeredTags(list []*stored) string {
	tags := make([]string, 0, len(list))
	for _, o := range list {
		if !slices.Contains(tags, o.etag) {
			tags = append(tags, o.etag)
		}
	}
	return strings.Join(tags, ", ")
}

// chosen is the offered variant that a 304 means: the one with its tag, or the
// only one when it has none.
func chosen(list []*stored, h http.Header) *stored {
	tags := h["Etag"]
	if len(tags) == 0 && !strings.Contains(offeredTags(list), ",") {
		return list[0]
	}
	for _, o := range list {
		if len(tags) == 1 && strongMatch(tags[0], o.etag) {
			return o
		}
	}
	return nil
}

// freshenOthers brings all other stored responses up to date that share the
// strong validator of a 304 (RFC 9111 §4.3.4): variants with the same content.
func (w *fill) freshenOthers(old *stored, resp *http.Response, asked, came time.Time) {
	tags := resp.Header["Etag"]
	if len(tags) != 1 {
		return
	}
	variants := w.e.store.variants(old.key)
	defer w.e.store.letGo(variants...)
	for _, o := range variants {
		if o.at == old.at || !strongMatch(tags[0], o.etag) || w.purged(o) || o.scopes.site != w.site.Name {
			continue
		}
		next, _ := w.e.freshened(w.site, &w.target, o, resp, asked, came)
		next.asOf = w.asOf
		if storable(w.site, next.status, next.header, &next.cc, false, next.hasLifetime) == "" && !w.purged(next) {
			w.e.unlessDoomed(w.fl, func() { w.e.store.replace(o, next) })
		}
	}
}
