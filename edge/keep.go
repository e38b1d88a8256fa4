package edge

import (
	"net/http"
	"net/url"
	"time"

	"perigee.example/internal/arena"
)

// keeper stores a response that passes through to one client, once it has
// come whole.
type keeper struct {
	e      *Edge
	obj    *stored
	watch  *flight // since before the request was sent on; its own invalidations do not count
	build  arena.Builder
	free   []byte // of the last block
	room   int64  // reserved
	length int64  // as declared, or -1
	over   bool   // it is too large
}

// posted prepares to keep the response to a POST as what a GET of the same URI
// would bring, if it says that it is that: by a Content-Location that names the
// target, and an explicit lifetime (RFC 9110 §9.3.3). Else nil.
func (x *exchange) posted(resp *http.Response, watch *flight, asOf instant, asked, came time.Time) *keeper {
	q := x.q
	location := resp.Header["Content-Location"]
	if q.method != http.MethodPost || resp.StatusCode != http.StatusOK || len(location) != 1 || q.has("Authorization") || q.cc.noStore {
		return nil
	}
	ref, err := url.Parse(location[0])
	if err != nil {
		return nil
	}
	t, err := parseTarget(q.url().ResolveReference(ref).String(), "", q.tls)
	if err != nil || t.key() != x.key {
		return nil
	}
	h := received(resp.Header)
	if _, ok := h["Date"]; !ok {
		h["Date"] = []string{came.UTC().Format(http.TimeFormat)}
	}
	obj := newStored(x.site, resp.StatusCode, h, asked, came)
	obj.key, obj.asOf = x.key, asOf
	obj.scopes = purgeScopes{site: x.site.Name, resource: string(q.appendResource(nil))}.tagged(resp.Header, &q.target)
	obj.tags = tagsOf(resp.Header)
	obj.withhold()
	_, explicit := freshnessLifetime(obj.status, &obj.cc, obj.targeted, h, obj.date)
	if !explicit || storable(x.site, obj.status, obj.header, &obj.cc, false, explicit) != "" || deceptive(q.path, obj) {
		return nil
	}
	obj.sel = selectingFields(varyNames(h["Vary"], x.site.KeyFields), q.fields())
	return &keeper{e: x.e, obj: obj, watch: watch, build: x.e.store.arena.Build(), length: resp.ContentLength}
}

// add takes down what goes to the client. It does nothing on nil.
func (k *keeper) add(p []byte) {
	if k == nil || k.over {
		return
	}
	for len(p) > 0 {
		if len(k.free) == 0 {
			n := int64(max(len(p), firstChunkBytes))
			if k.obj.size+n > k.e.store.maxObject(k.obj.scopes.site) || !k.e.store.reserve(n) {
				k.over = true
				return
			}
			k.room += n
			if k.free = k.build.Next(int(n)); k.free == nil {
				k.over = true
				return
			}
		}
		n := copy(k.free, p)
		k.free, p = k.free[n:], p[n:]
		k.obj.size += int64(n)
	}
}

// end lets go of the room, and stores the response if whole says that it is
// all there. What was invalidated or purged meanwhile is not stored.
func (k *keeper) end(whole bool) {
	if k == nil {
		return
	}
	k.e.store.release(k.room)
	defer k.build.Drop()
	hard, _ := k.e.purges.check(&k.obj.scopes, k.obj.asOf)
	if !whole || k.over || hard || k.length >= 0 && k.length != k.obj.size {
		return
	}
	k.obj.body = k.build.Finish(k.obj.size)
	k.obj.pack()
	k.e.unlessDoomed(k.watch, func() { k.e.store.put(k.obj) })
}
