package edge

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"time"

	"perigee.example/origin"
)

// maxRangeFill bounds what a request for a range may make us fetch: a larger
// body, or one of unknown length, is asked for by that range alone. One octet
// then never costs the origin more than this (RFC 9110 §17.15).
const maxRangeFill = 1 << 20

// fill is the work of a flight.
type fill struct {
	e       *Edge
	fl      *flight
	site    *Site
	target  target
	header  http.Header // to send; ours
	fields  fields      // of the request, for Vary
	auth    bool
	old     *stored   // to validate; nil when nothing is stored
	offered []*stored // variants that the origin may choose, when there is no old
	onError bool      // old may stand in for a failed origin
	cutOff  bool      // old may stand in for an origin that is not there
	limit   int64     // the largest body to fetch, or -1
	// rangeField is the Range to ask for, "" for the whole; exact says that it
	// is what the client asked for.
	rangeField string
	exact      bool
	shield     *Peer   // to fetch through; nil: from the origin
	asOf       instant // of the response
	here       bool    // by the goroutine of who leads
}

// newFill prepares the leader's fetch. The client's conditions and range stay
// here (RFC 9111 §4.3.1: the validation is our own).
func (x *exchange) newFill(fl *flight, f found) *fill {
	e, site, q := x.e, x.site, x.q
	h := e.forwarded(site, q)
	for _, name := range conditional {
		delete(h, name)
	}
	delete(h, "Range")
	delete(h, "Pragma")
	delete(h, "Cache-Control")
	w := &fill{e: e, fl: fl, site: site, target: q.target, header: h, fields: q.fields(),
		auth: q.has("Authorization"), old: f.obj, onError: f.onError, cutOff: f.cutOff, limit: -1, shield: x.via()}
	if f.obj != nil && f.use == useNone {
		w.old = nil
	}
	if w.old != nil && w.old.part != nil { // another representation then comes in slices too
		v, _ := q.fields().combined("Range")
		var ok bool
		if w.rangeField, w.exact, ok = firstRange(v); !ok {
			w.rangeField = rangeField(0, sliceBytes)
		}
	}
	if f.obj == nil && f.why == "vary-miss" && !w.auth {
		w.offered = e.offered(fl, site, w.fields)
	}
	fl.hold(e.store.arena, w.old)
	return w
}

// run carries the flight out: it settles it, and stores what may be stored.
func (w *fill) run() {
	w.fl.ctx.values = withInterim(context.Background(), func(i interim) {
		select {
		case w.fl.interim <- i:
		default:
		}
	})
	w.carryOut(false)
}

// carryOut is run. With here, it is the goroutine of who leads: it gets the interim
// responses by the values of the flight's context, and does not wait for a body that
// has not come, since it is to follow that.
func (w *fill) carryOut(here bool) {
	w.here = here
	defer w.survive()
	over := true
	defer func() {
		if over {
			w.e.ended(w.fl)
		}
	}()
	o := w.fetch(&w.fl.ctx, w.old)
	b := &bodyFill{fill: w, obj: o.obj, body: o.body, resp: o.resp}
	if o.body != nil {
		o.resp = nil
	}
	w.e.settle(w.fl, o)
	if o.body == nil {
		if o.resp == nil {
			w.fl.cancel()
		}
		return
	}
	over = false
	if !here {
		b.run()
		return
	}
	go b.run()
}

// bodyFill is the second part of a fill, which has a body to read.
type bodyFill struct {
	*fill
	obj      *stored
	body     *growing
	resp     *http.Response
	reserved int64 // octets of the store
}

func (b *bodyFill) run() {
	defer b.survive()
	defer b.e.ended(b.fl)
	defer b.fl.cancel()
	b.keep()
}

// keep reads the body, for all who follow it, and stores it.
func (b *bodyFill) keep() {
	defer func() {
		b.e.store.release(b.reserved)
		b.body.letGoOf()
		b.resp.Body.Close()
	}()
	err := b.body.fill(&b.fl.ctx, b.resp.Body, b.room)
	if err != nil {
		b.e.log.Warn("response cut short", "url", b.e.shown(&b.target), "why", err)
		return
	}
	b.e.store.release(b.reserved) // it is counted as stored from now on
	b.reserved = 0
	b.commit(b.obj, b.body)
}

// room reserves n octets more of the store, if the body is still to be kept.
func (b *bodyFill) room(n int64) bool {
	if b.body.size+n > b.e.store.maxObject(b.site.Name) || !b.e.store.reserve(n) {
		return false
	}
	b.reserved += n
	return true
}

// commit stores a response whose body has come whole.
func (w *fill) commit(obj *stored, g *growing) {
	body, size, ok := g.whole()
	if !ok || w.e.isDoomed(w.fl) {
		return
	}
	c := *obj
	if c.asOf = w.e.asOfStored(obj.asOf); w.purged(&c) {
		return
	}
	c.body, c.size = body, size
	c.pack()
	w.e.unlessDoomed(w.fl, func() { w.e.store.put(&c) })
}

// fetch asks the origin once and says what became of it. When the outcome has
// a body, resp is set too: its body is to be read into it.
func (w *fill) fetch(ctx context.Context, old *stored) outcome {
	h := w.header
	if old != nil || w.rangeField != "" {
		h = h.Clone()
	}
	if w.rangeField != "" {
		h["Range"] = []string{w.rangeField}
	}
	if old != nil {
		if old.etag != "" {
			h["If-None-Match"] = []string{old.etag}
		}
		if lm := old.header["Last-Modified"]; len(lm) == 1 {
			h["If-Modified-Since"] = lm
		}
	}
	if old == nil && len(w.offered) > 0 {
		h = h.Clone()
		h["If-None-Match"] = []string{offeredTags(w.offered)}
	}
	asked := w.e.now()
	resp, asOf, err := w.send(ctx, h)
	w.asOf = asOf
	came := w.e.now()
	if err != nil {
		if w.standsIn(old) || old != nil && w.cutOff && notReached(err) && !w.purged(old) {
			return outcome{obj: old, stale: true}
		}
		return outcome{err: err}
	}
	switch {
	case resp.StatusCode == http.StatusNotModified:
		resp.Body.Close()
		if old == nil {
			if len(w.offered) == 0 {
				return outcome{err: errStray304}
			}
			old = chosen(w.offered, resp.Header)
			w.offered = nil
		}
		return w.confirmed(ctx, old, resp, asked, came)
	case failures[resp.StatusCode] && w.standsIn(old):
		resp.Body.Close()
		return outcome{obj: old, stale: true, status: resp.StatusCode}
	}
	return w.classify(resp, asked, came, old)
}

func (w *fill) request(ctx context.Context, h http.Header) *http.Request {
	return (&http.Request{Method: http.MethodGet, URL: w.target.url(), Host: w.target.authority, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
}

// standsIn reports whether old may be served in place of a failed origin: not
// when it has been purged since the fetch began.
func (w *fill) standsIn(old *stored) bool {
	return old != nil && w.onError && !w.purged(old)
}

// notReached reports an error by which we are disconnected (RFC 9111 §4.2.4):
// not one byte came back. What came and could not be read is another failure.
func notReached(err error) bool {
	e, ok := errors.AsType[*origin.UpstreamError](err)
	return ok && !e.Answered
}

// fallBack answers a request that was passed on, and failed by err or by the
// origin's status, with what is stored, if that may stand in.
func (x *exchange) fallBack(err error, status int) bool {
	f := x.fallback
	failed := err != nil || failures[status]
	if f.obj == nil || !(f.onError && failed || f.cutOff && err != nil && notReached(err)) {
		return false
	}
	if hard, _ := x.e.purges.check(&f.obj.scopes, f.obj.asOf); hard {
		return false
	}
	x.status.detail, x.status.fwdStatus = "origin-failed", status
	x.answerStored(f.obj, f.obj.currentAge(x.e.now()), "stale")
	return true
}

// purged reports a hard purge since o was fetched.
func (w *fill) purged(o *stored) bool {
	hard, _ := w.e.purges.check(&o.scopes, o.asOf)
	return hard
}

// failures are what stale-if-error is for (RFC 5861 §4).
var failures = map[int]bool{500: true, 502: true, 503: true, 504: true}

// confirmed makes a new stored response of an old one and a 304.
func (w *fill) confirmed(ctx context.Context, old *stored, resp *http.Response, asked, came time.Time) outcome {
	if old == nil || !old.confirms(resp.Header) || w.purged(old) {
		// Not of the response that we validated (RFC 9111 §4.3.4): it tells us
		// nothing. Nor may it revive one that was purged meanwhile.
		return w.fetch(ctx, nil)
	}
	w.freshenOthers(old, resp, asked, came)
	next, own := w.e.freshened(w.site, &w.target, old, resp, asked, came)
	next.asOf = w.asOf
	next.sel = selectingFields(varyNames(next.header["Vary"], w.site.KeyFields), w.fields)
	o := outcome{obj: next, own: own, validated: true, status: http.StatusNotModified, exclusive: !next.shareable(came)}
	switch {
	case storable(w.site, next.status, next.header, &next.cc, w.auth, next.hasLifetime) != "":
		o.exclusive = true
		w.e.store.discard(old)
	case !w.purged(next):
		w.e.unlessDoomed(w.fl, func() { w.e.store.replace(old, next) })
	}
	return o
}

// classify decides what a full response is.
func (w *fill) classify(resp *http.Response, asked, came time.Time, old *stored) outcome {
	h := resp.Header
	if w.rangeField == "" {
		h = receivedHere(h)
	} else {
		h = received(h)
	}
	if _, ok := h["Date"]; !ok {
		h["Date"] = []string{came.UTC().Format(http.TimeFormat)} // RFC 9110 §6.6.1
	}
	status, p, sound := w.representation(resp, h)
	obj := newStored(w.site, status, h, asked, came)
	if p != nil {
		obj.part, obj.size = p, resp.ContentLength // as it will be
	}
	obj.key, obj.scopes, obj.asOf = w.fl.primary, w.fl.scopes.tagged(resp.Header, &w.target), w.asOf
	obj.tags = tagsOf(resp.Header)
	own := obj.withhold()
	why := storable(w.site, obj.status, obj.header, &obj.cc, w.auth, obj.hasLifetime)
	if why == "" && hidesDirectives(resp.Header) {
		why = "no-store"
	}
	obj.sel = selectingFields(varyNames(h["Vary"], w.site.KeyFields), w.fields)
	var far *stored
	switch {
	case why != "":
	case deceptive(w.target.path, obj):
		why = "deception"
	case !sound:
		if o, ok := w.keepEnd(resp, obj); ok {
			return o
		}
		why = "partial"
	case w.sliceable(obj, resp.ContentLength):
		resp.Body.Close()
		obj.part = &part{total: resp.ContentLength}
		return w.headOnly(obj, own, came)
	case w.limit >= 0 && p == nil && (resp.ContentLength < 0 || resp.ContentLength > w.limit):
		if !w.exact {
			resp.Body.Close()
			return outcome{err: errRangeOnly, why: "large"}
		}
		why = "large" // the origin knows no ranges: this is its answer
	case resp.ContentLength > w.e.store.maxObject(w.site.Name):
		why = "large"
		if w.rangeField == "" && w.e.disk.Load().takesFar(resp.ContentLength) {
			far = obj
		}
	}
	if why != "" {
		w.e.store.mark(w.fl.primary, came)
		if old != nil && resp.StatusCode < 500 {
			w.e.store.discard(old) // it has been superseded
		}
		if w.rangeField != "" && !w.exact {
			resp.Body.Close() // it answers another request than the client's
			return outcome{err: errRangeOnly, why: why}
		}
		return outcome{resp: resp, why: why, far: far, status: resp.StatusCode}
	}
	o := outcome{obj: obj, own: own, status: resp.StatusCode, exclusive: !obj.shareable(came)}
	if o.exclusive {
		w.e.store.mark(w.fl.primary, came)
	}
	if w.here && p == nil && atHand(resp) && w.keepWhole(obj, resp) {
		return o
	}
	o.body, o.resp = newGrowing(resp.ContentLength, w.e.store.arena), resp
	o.body.resp = resp
	return o
}

// representation is the status of the response that resp is, or is a part of,
// and that part. h loses what describes the part. sound is false when resp is
// no answer to what was asked.
func (w *fill) representation(resp *http.Response, h http.Header) (status int, p *part, sound bool) {
	switch {
	case w.rangeField == "":
		return resp.StatusCode, nil, true
	case resp.StatusCode == http.StatusPartialContent:
		p, sound = w.classifyPart(resp)
		delete(h, "Content-Range")
		return http.StatusOK, p, sound
	}
	return resp.StatusCode, nil, resp.StatusCode != http.StatusRequestedRangeNotSatisfiable
}

// headOnly stores a response whose body is to be fetched in slices.
func (w *fill) headOnly(obj *stored, own http.Header, now time.Time) outcome {
	o := outcome{obj: obj, own: own, status: obj.status, exclusive: !obj.shareable(now)}
	if !w.purged(obj) {
		obj.pack()
		w.e.unlessDoomed(w.fl, func() { w.e.store.put(obj) })
	}
	return o
}

// newStored makes a response of a cleaned header. Age leaves it: it is
// computed anew at each use.
func newStored(site *Site, status int, h http.Header, asked, came time.Time) *stored {
	o := &stored{status: status, header: h}
	date, ok := singleDate(h["Date"], came)
	o.ages = initialAge(parseAge(h["Age"]), date, asked, came)
	if !ok {
		date = came
	}
	delete(h, "Age")
	o.cc, o.targeted = responseDirectives(h)
	o.validators.date = date
	if tags := h["Etag"]; len(tags) == 1 {
		if _, rest, ok := nextETag(tags[0]); ok && rest == "" || unquotedTag(tags[0]) {
			o.etag = tags[0]
		}
	}
	o.lastModified, _ = singleDate(h["Last-Modified"], came)
	_, modified := h["Last-Modified"]
	o.unmodified = !modified
	o.lifetime, o.hasLifetime = freshnessLifetime(status, &o.cc, o.targeted, h, date)
	if !o.hasLifetime && site.Heuristic {
		o.lifetime = heuristicLifetime(status, &o.cc, o.lastModified, date)
		o.hasLifetime = o.lifetime > 0
	}
	return o
}

// withhold takes the fields that must not be stored out of the header (RFC
// 9111 §5.2.2.4, §5.2.2.7) and returns them: they are for the one client whose
// request brought them.
func (o *stored) withhold() http.Header {
	if len(o.cc.withheld) == 0 {
		return nil
	}
	own := http.Header{}
	o.header = maps.Clone(o.header)
	for _, name := range o.cc.withheld {
		if lines, ok := o.header[name]; ok {
			own[name] = lines
			delete(o.header, name)
		}
	}
	return own
}

// shareable reports whether requests that waited may use o without asking
// the origin again.
func (o *stored) shareable(now time.Time) bool {
	return !o.cc.noCache && o.currentAge(now) < o.lifetime
}
