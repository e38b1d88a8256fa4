package edge

import "time"

// Nothing tells before its head that a response may not be shared. So that a
// few who ask at once for a page of their own do not take twice its time, they go on by
// themselves when the head takes long, if nothing is known of the key: a
// thousand do not, nor those who ask again for what was stored, nor anybody on
// a site where that has lately been in vain.
const (
	// earlyWait is how old a fetch is then: more than most heads take, and
	// little beside those that take long enough to matter.
	earlyWait = 100 * time.Millisecond
	// earlyQuiet is how long nobody may have joined then: while some come, more
	// will, and a thousand who come within a second are not a few.
	earlyQuiet = 50 * time.Millisecond
	// maxGoEarly bounds those who wait for one fetch and go: what a page that
	// takes long and proves shareable costs the origin beside the one.
	maxGoEarly = 32
	// maxEarlyAtOnce bounds the fetches of all who went, at one time: an
	// origin that is slow because it has too much to do gets little more.
	maxEarlyAtOnce = 64
	// earlyTrust is how often in a row a site's waiters may go in vain; one
	// response that may not be shared gives them all of it back.
	earlyTrust = 4
)

// earliness is what was decided of those who wait for a flight.
type earliness int8

const (
	earlyUndecided earliness = iota
	earlyGo
	earlyStay
)

// mayGo decides, once for all who wait for fl, whether they go on by themselves,
// and takes one of the places for that. stayed gives it back.
func (e *Edge) mayGo(fl *flight) bool {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	now := e.now()
	if fl.early == earlyUndecided && now.Sub(fl.began) >= earlyWait {
		fl.early = earlyStay
		if n := fl.waiting - 1; n <= maxGoEarly && now.Sub(fl.joined) >= earlyQuiet && e.flights.early+n <= maxEarlyAtOnce && e.flights.vain[fl.scopes.site] < earlyTrust {
			fl.early = earlyGo
		}
	}
	if fl.early != earlyGo || fl.done || e.flights.early == maxEarlyAtOnce {
		return false
	}
	e.flights.early++
	return true
}

func (e *Edge) stayed() {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	e.flights.early--
}

// learn takes from a flight's outcome whether its waiters went in vain.
// flights.mu is held.
func (fs *flights) learn(fl *flight, o *outcome) {
	site := fl.scopes.site
	switch {
	case o.err != nil || o.stale:
	case o.resp != nil || o.exclusive:
		delete(fs.vain, site)
	case fl.early == earlyGo:
		if fs.vain == nil {
			fs.vain = map[string]int{}
		}
		fs.vain[site]++ // as many keys as sites of the configuration
	}
}

// earlyTimer rings when who waits for fl may ask whether to go; nil is never.
func (x *exchange) earlyTimer(fl *flight, f found) *time.Timer {
	left := earlyWait - x.e.now().Sub(fl.began)
	if f.obj != nil || f.why != "uri-miss" || f.known || left <= 0 {
		return nil
	}
	return time.NewTimer(left)
}

// goEarly reports whether the exchange goes on by itself. Its client pays for
// that fetch, which waiting had spared it; if it cannot, it waits.
func (x *exchange) goEarly(fl *flight) bool {
	if !x.e.mayGo(fl) {
		return false
	}
	if x.spared && !x.peer && !x.e.clients.miss(x.q.client, x.e.now()) {
		x.e.stayed()
		return false
	}
	x.early, x.spared = true, false
	return true
}
