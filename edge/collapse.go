package edge

import (
	"net/http"
	"sync"
	"time"

	"perigee.example/internal/arena"
)

// maxCollapseWait is how long a request waits for the head of another's fetch
// before it tries another, maxTries in all; the last is bounded by the origin's
// own timeouts. It is longer than most origins think, and short enough that one
// hung fetch does not hold up everybody for an origin's whole timeout.
const maxCollapseWait = 5 * time.Second

// flight is one fetch that several requests may wait for. Its leader started
// it; it is carried out in a goroutine of its own, so that the leader's client
// may leave. What it brought is known when ready is closed.
type flight struct {
	key     string // in flights.m; "" for a solo fetch
	primary string // cache key
	scopes  purgeScopes
	asOf    instant
	behind  bool // who leads it does not wait for it
	began   time.Time
	joined  time.Time // by who came last
	ready   chan struct{}
	interim chan interim // for the leader's client; nil: nobody listens
	ctx     flightContext

	held []arena.Extent // for those who wait, who lets go of them is told in hold.go

	// Under flights.mu:
	early   earliness
	doomed  bool // the URI was invalidated: what it brings is not stored
	waiting int  // requests that want the outcome
	claimed bool // the leader has taken outcome.resp over
	left    bool // the leader has left, before it was done
	done    bool
	ended   bool // its work is over: nobody joins any more
	over    bool // it holds nothing any more
	outcome outcome
}

// outcome of a flight. Exactly one of obj, resp and err is set.
type outcome struct {
	obj       *stored     // shareable, or the stale response that stands in
	own       http.Header // fields of obj for the leader's client alone
	body      *growing    // obj's body when it is still coming
	exclusive bool        // obj may be used by the leader alone: it must be validated each time
	stale     bool        // obj stands in for a failed origin
	validated bool        // obj was confirmed by a 304
	resp      *http.Response
	far       *stored // what resp is on disk, if it is kept there
	err       error
	status    int // the origin's, 0 for none
	why       refusal
}

// flights are the fetches under way, by cache key and selecting fields.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight // those that may be joined
	// all of them, till they have ended and nobody waits for them: an invalidation
	// is for each, also for those that nobody joins, for those that others have taken
	// the place of, and for those whose leader keeps what they brought.
	all map[*flight]struct{}
	// early are the fetches of those who did not wait for another's; vain counts
	// by site how often in a row that was for nothing (early.go).
	early int
	vain  map[string]int
}

// flightKey is the key and the values of the fields that responses to it are
// known to vary by, each with its length, so that no value can pose as two.
func flightKey(primary string, names []selecting, f fields) string {
	if len(names) == 0 {
		return primary
	}
	b := []byte(primary)
	for i := range names {
		v, ok := f.combined(names[i].name)
		v = normalise(names[i].name, v)
		b = append(b, 0)
		if ok {
			b = append(b, byte(len(v)>>16), byte(len(v)>>8), byte(len(v)))
			b = append(b, v...)
		} else {
			b = append(b, 0xff)
		}
	}
	return string(b)
}

// join returns the flight for key to wait for, or makes it, which makes the
// caller its leader. A flight that began before a purge is left alone.
func (e *Edge) join(key, primary string, scopes purgeScopes) (fl *flight, leader bool) {
	return e.joinUnless(key, primary, scopes, func() bool { return false })
}

// joinUnless is join for who looked in the store before, and found nothing: when
// there is no flight by now, have looks once more, since there may have been one
// that stored what it brought. It is nil if that was found. have is called with
// flights.mu held, which a flight stores under.
func (e *Edge) joinUnless(key, primary string, scopes purgeScopes, have func() bool) (fl *flight, leader bool) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if fl = e.flights.m[key]; fl != nil {
		if !e.outdated(fl) {
			fl.waiting++
			fl.joined = e.now()
			return fl, false
		}
	} else if have() {
		return nil, false
	}
	fl = e.newFlight(key, primary, scopes)
	e.flights.m[key] = fl
	return fl, true
}

// outdated reports that nobody is to join fl any more: a purge has come since it
// began, by tag too, once the response's tags are known, or its body was cut short.
// flights.mu is held.
func (e *Edge) outdated(fl *flight) bool {
	if g := fl.outcome.body; g != nil && g.cutShort() {
		return true
	}
	scopes := &fl.scopes
	if fl.outcome.obj != nil {
		scopes = &fl.outcome.obj.scopes
	}
	hard, soft := e.purges.check(scopes, fl.asOf)
	return hard || soft
}

// purgedSince reports that a purge has come since o was fetched: who waited for
// it may have asked after that purge, and it proves only now, by its tags, that
// it is covered. What stands in for a failed origin may be stale.
func (e *Edge) purgedSince(o *outcome) bool {
	hard, soft := e.purges.check(&o.obj.scopes, o.obj.asOf)
	return hard || soft && !o.stale
}

// joinOnly returns the flight for key to wait for, or nil.
func (e *Edge) joinOnly(key string) *flight {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	fl := e.flights.m[key]
	if fl == nil || e.outdated(fl) {
		return nil
	}
	fl.waiting++
	fl.joined = e.now()
	return fl
}

// watch is a flight that nobody joins: it is doomed when the URI is invalidated.
// The caller ends it with unwatch.
func (e *Edge) watch(primary string) *flight { return e.solo(primary, purgeScopes{}) }

// solo makes a flight that nobody joins.
func (e *Edge) solo(primary string, scopes purgeScopes) *flight {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	return e.newFlight("", primary, scopes)
}

// unwatch ends a watch, and reports whether the URI was invalidated meanwhile.
func (e *Edge) unwatch(fl *flight) bool {
	fl.cancel()
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	delete(e.flights.all, fl)
	return fl.doomed
}

// newFlight makes a flight; flights.mu is held. ended or unwatch is its end.
func (e *Edge) newFlight(key, primary string, scopes purgeScopes) *flight {
	fl := &flight{key: key, primary: primary, scopes: scopes, asOf: e.asOf(), began: e.now(), ready: make(chan struct{}), waiting: 1}
	if e.ctx.Err() != nil {
		fl.cancel()
	}
	e.flights.all[fl] = struct{}{}
	return fl
}

func (fl *flight) cancel() { fl.ctx.cancel() }

// endFlights ends all flights; e.ctx has ended.
func (e *Edge) endFlights() {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	for fl := range e.flights.all {
		fl.cancel()
	}
}

// leave says that a request no longer wants the outcome. The last one to
// leave before there is any ends the fetch.
func (e *Edge) leave(fl *flight, leader bool) {
	e.flights.mu.Lock()
	if leader && fl.left {
		e.flights.mu.Unlock()
		return
	}
	fl.waiting--
	abandoned := fl.waiting == 0 && !fl.done
	resp := fl.outcome.resp
	if !leader || fl.claimed {
		resp = nil
	}
	fl.claimed = fl.claimed || leader
	if leader && fl.outcome.body != nil {
		fl.outcome.body.dismiss()
	}
	if abandoned && e.flights.m[fl.key] == fl {
		delete(e.flights.m, fl.key)
	}
	e.letGoOf(fl)
	e.flights.mu.Unlock()
	if resp != nil {
		resp.Body.Close()
	}
	if abandoned || resp != nil {
		fl.cancel()
	}
}

// leaveEarly is leave for a leader that carries the fetch out itself, by another
// goroutine: it does nothing once the outcome is known, which the leader sees.
func (e *Edge) leaveEarly(fl *flight) {
	e.flights.mu.Lock()
	leaves := !fl.done && !fl.left
	if !leaves {
		e.flights.mu.Unlock()
		return
	}
	fl.left, fl.claimed = true, true
	fl.waiting--
	abandoned := fl.waiting == 0
	if abandoned && e.flights.m[fl.key] == fl {
		delete(e.flights.m, fl.key)
	}
	e.flights.mu.Unlock()
	if abandoned {
		fl.cancel()
	}
}

// claim takes a response that is the leader's alone. The caller closes its body.
func (e *Edge) claim(fl *flight) *http.Response {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	fl.claimed = true
	return fl.outcome.resp
}

// settle makes the outcome known.
func (e *Edge) settle(fl *flight, o outcome) {
	e.flights.mu.Lock()
	fl.outcome, fl.done = o, true
	e.flights.learn(fl, &o)
	if o.body != nil && !fl.claimed && !fl.behind {
		o.body.expect()
	}
	orphan := o.resp != nil && fl.claimed
	if o.body == nil && e.flights.m[fl.key] == fl {
		delete(e.flights.m, fl.key) // nothing is coming that one could follow
	}
	e.flights.mu.Unlock()
	close(fl.ready)
	if orphan {
		o.resp.Body.Close()
		fl.cancel()
	}
}

// overdue says that a request has waited for fl as long as it may. The next one
// then starts another fetch, for all who waited: a hung fetch holds nobody up,
// and a hung origin gets one more request for a key at a time, not one for
// each of a thousand that waited.
func (e *Edge) overdue(fl *flight) { e.forget(fl) }

func (e *Edge) forget(fl *flight) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if e.flights.m[fl.key] == fl {
		delete(e.flights.m, fl.key)
	}
}

func (e *Edge) isDoomed(fl *flight) bool {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	return fl.doomed
}

// unlessDoomed calls store unless what fl brings was invalidated, and lets no
// invalidation come between: one that comes then finds it stored, and takes it out.
func (e *Edge) unlessDoomed(fl *flight, store func()) (done bool) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if !fl.doomed {
		store()
	}
	return !fl.doomed
}

// invalidate forgets all responses to a URI after an unsafe request to it
// (RFC 9111 §4.4), those under way included, but for what by brings: the response
// to that very request.
func (e *Edge) invalidate(primary string, by *flight) {
	e.disk.Load().remove(primary, func() {
		e.doom(primary, by)
		e.store.remove(primary)
	})
}

// doom says that what fetches of a URI bring is not to be stored.
func (e *Edge) doom(primary string, by *flight) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	for fl := range e.flights.all {
		if fl.primary != primary || fl == by {
			continue
		}
		fl.doomed = true
		if e.flights.m[fl.key] == fl {
			delete(e.flights.m, fl.key)
		}
	}
}
