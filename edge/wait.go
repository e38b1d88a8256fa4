package edge

import (
	"errors"
	"time"
)

// fetch gets a response from the origin, its own fetch's or another's.
func (x *exchange) fetch(f found) {
	e, q := x.e, x.q
	ranged := q.has("Range")
	marked := e.store.marked(x.key, x.rec.Time)
	if ranged && marked {
		x.pass(f.why)
		return
	}
	part, exact := x.askPart(f)
	next := verdictJoin
	if marked || q.has("Authorization") {
		next = verdictAlone
	}
	names := e.store.varyOf(x.key)
	if names == nil {
		names = selectingFields(x.site.KeyFields, q.fields())
	}
	defer func() {
		if x.early { // once: pull may have come here again
			x.early = false
			e.stayed()
		}
	}()
	scopes := purgeScopes{site: x.site.Name, resource: x.resource()}
	for try := 1; ; try++ {
		var fl *flight
		leader := true
		key := x.route(flightKey(x.key, names, q.fields()))
		if next == verdictAlone && x.spared && !x.missAllowed() { // it has a fetch of its own after all
			return
		}
		switch {
		case next == verdictAlone || try >= maxTries && next != verdictLate:
			fl = e.solo(x.key, scopes)
		case ranged:
			if fl = e.joinOnly(key); fl != nil {
				leader = false
			} else if part != "" {
				fl, leader = e.joinUnless(key+"\x00"+part, x.key, scopes, func() bool { return x.storedMeanwhile(f) })
			} else {
				fl = e.solo(x.key, scopes)
			}
		default:
			fl, leader = e.joinUnless(key, x.key, scopes, func() bool { return x.storedMeanwhile(f) })
		}
		if fl == nil { // it is a hit, most likely
			x.spareMiss()
			x.pull()
			return
		}
		if leader {
			w := x.newFill(fl, f)
			if ranged {
				w.limit = maxRangeFill
			}
			if part != "" {
				w.rangeField, w.exact = part, exact
			}
			if x.watch == nil {
				fl.interim = make(chan interim, maxInterim)
				go w.run()
			} else {
				x.lead(w)
			}
		} else if try == 1 && f.obj == nil {
			x.spareMiss()
			x.spared = true
		}
		next = x.await(fl, leader, try < maxTries, f)
		switch next {
		case verdictAnswered:
			return
		case verdictVaries:
			names = fl.outcome.obj.sel
		case verdictLate:
			e.overdue(fl)
		}
	}
}

// storedMeanwhile looks once more for who found nothing: it may have looked just
// before the fetch of another stored what it wants, and have come here after that.
func (x *exchange) storedMeanwhile(f found) bool {
	if f.obj != nil || x.lookedAgain {
		return false
	}
	o, _ := x.e.store.get([]byte(x.key), x.q.fields())
	if o == nil {
		return false
	}
	x.e.store.letGo(o)
	x.lookedAgain = true
	return true
}

// resource is the target's (appendResource). It ends the key, if no port comes
// between.
func (x *exchange) resource() string {
	if q := x.q; q.authority != q.host {
		return string(q.appendResource(nil))
	}
	return x.key[len(x.q.scheme())+len("://"):]
}

// lead carries a fetch out that x leads, in this goroutine.
func (x *exchange) lead(w *fill) {
	x.watch.leads(x.e, w.fl)
	defer x.watch.leads(x.e, nil)
	answer := x.w.(*responseWriter)
	w.fl.ctx.values = answer.c.interims()
	answer.leads = true
	defer answer.rejoin()
	w.carryOut(true)
}

// flightVerdict is what becomes of a request that waited for a flight.
type flightVerdict int

const (
	verdictJoin     flightVerdict = iota // it has not waited yet
	verdictAnswered                      // it has been answered
	verdictAlone                         // it must fetch by itself
	verdictVaries                        // it may wait again, with those that agree with it in the outcome's selecting fields: it differs, or that was purged
	verdictLate                          // the flight took too long; it may wait for the next one
)

// await waits for a flight's outcome and answers with it, if it is for this
// request too. boxed says that it must not wait longer than maxCollapseWait.
func (x *exchange) await(fl *flight, leader, boxed bool, f found) flightVerdict {
	var timeout <-chan time.Time
	if !leader && boxed {
		t := time.NewTimer(maxCollapseWait)
		defer t.Stop()
		timeout = t.C
	}
	defer x.e.leave(fl, leader)
	var early *time.Timer
	if !leader && boxed {
		early = x.earlyTimer(fl, f)
	}
	if verdict := x.awaitHead(fl, leader, timeout, early); verdict != verdictJoin {
		return verdict
	}
	o := &fl.outcome
	x.status.fwd, x.status.fwdStatus, x.status.collapsed = f.why, o.status, !leader
	x.rec.Cache = "miss"
	switch {
	case o.err != nil:
		if errors.Is(o.err, errRangeOnly) {
			x.pass(f.why)
			return verdictAnswered
		}
		x.originFailed(o.err)
	case leader && o.resp != nil:
		resp := x.e.claim(fl)
		defer fl.cancel()
		x.status.detail = string(o.why)
		x.tee = x.e.keepFar(fl, resp.ContentLength)
		x.passOn(resp, nil)
	case !leader && (o.resp != nil || o.exclusive):
		x.status.collapsed = false
		return verdictAlone
	case !leader && (x.e.purgedSince(o) || !varyMatches(o.obj.sel, x.q.fields())):
		x.status.collapsed = false
		return verdictVaries
	case !o.obj.answers(x.q):
		if leader && o.body != nil {
			o.body.dismiss()
		}
		x.status = cacheStatus{}
		x.pass(f.why)
	default:
		if !x.serveOutcome(o, leader) {
			return verdictAlone
		}
	}
	return verdictAnswered
}

// awaitHead waits until the outcome of a flight is known; another verdict than
// verdictJoin ends the wait before. The leader's client gets the interim
// responses meanwhile.
func (x *exchange) awaitHead(fl *flight, leader bool, timeout <-chan time.Time, early *time.Timer) flightVerdict {
	var rings <-chan time.Time
	if early != nil {
		defer early.Stop()
		rings = early.C
	}
	var interim chan interim
	if leader {
		interim = fl.interim
	}
	if x.watch != nil && x.ctx.Err() != nil {
		x.abort()
	}
	for ready := fl.ready; ; {
		select {
		case i := <-interim:
			x.inform(i)
			continue
		default:
		}
		if ready == nil {
			return verdictJoin
		}
		select {
		case <-ready:
			ready = nil // and what came before it
		case i := <-interim:
			x.inform(i)
		case <-timeout:
			return verdictLate
		case <-rings:
			if x.goEarly(fl) {
				return verdictAlone
			}
		case <-x.ctx.Done():
			x.abort()
		}
	}
}

// serveOutcome answers with a flight's stored response; false when its start
// is already gone.
func (x *exchange) serveOutcome(o *outcome, leader bool) bool {
	obj := o.obj
	age := obj.currentAge(x.e.now())
	x.status.ttl, x.status.hasTTL = obj.ttl(age), true
	if o.body == nil {
		switch {
		case o.stale:
			x.rec.Cache, x.status.detail = "stale", "origin-failed"
		case o.validated:
			x.rec.Cache = "revalidated"
		}
		x.status.stored = !o.stale && leader
		if o.own == nil && x.packed(obj, age) {
			return true
		}
		x.storedHeader(obj, age)
		x.ownHeader(o, leader)
		x.serve(obj.status, &obj.validators, x.source(obj))
		return true
	}
	f := o.body.follow(leader)
	if f == nil {
		x.status = cacheStatus{}
		return false
	}
	defer f.close()
	x.status.stored = leader
	x.storedHeader(obj, age)
	x.ownHeader(o, leader)
	if obj.part != nil {
		x.serve(obj.status, &obj.validators, x.partsOf(&partsBody{head: obj, g: o.body, f: f}))
	} else {
		x.serve(obj.status, &obj.validators, growingBody{o.body, f})
	}
	return true
}
