package origin

import (
	"fmt"
	"time"

	"perigee.example/internal/health"
)

// Balance is how a Pool chooses among upstreams that are up.
type Balance uint8

// The ways to choose. To add one: a constant and its name here, and a case in
// Pool.pick with a test.
const (
	RoundRobin    Balance = iota // one after the other
	Weighted                     // in proportion to Weights, spread evenly
	LeastLoaded                  // the fewest requests under way for its weight
	Random                       // the less loaded of two drawn at random
	ActivePassive                // the first; the next only when it is down
)

var balanceNames = []string{"round-robin", "weighted", "least-loaded", "random", "active-passive"}

func (b Balance) String() string {
	if int(b) < len(balanceNames) {
		return balanceNames[b]
	}
	return fmt.Sprintf("Balance(%d)", b)
}

// ParseBalance reads a name as in perigee.toml; empty is RoundRobin.
func ParseBalance(name string) (Balance, error) {
	if name == "" {
		return RoundRobin, nil
	}
	for i, have := range balanceNames {
		if name == have {
			return Balance(i), nil
		}
	}
	return 0, fmt.Errorf("balance %q: want one of %q", name, balanceNames)
}

// Limits of the circuit of an upstream.
const (
	// openAfter failures in a row open it: one is chance, three are a pattern.
	openAfter = 3
	// minOpen is how long it is open at first; each failed trial doubles that,
	// up to maxOpen, so that an origin that comes back is found within a minute.
	minOpen = 1 * time.Second
	maxOpen = 60 * time.Second
	// openJitter spreads trials of many edges: up to this share is added.
	openJitter = 0.2
)

// circuit is the passive health of an upstream, and its counters.
type circuit struct {
	inFlight  int
	current   int           // smooth weighted round robin
	failures  int           // in a row
	open      time.Duration // how long it was opened for last; 0: closed
	openUntil time.Time
	trial     bool // one request is trying whether it is back
	lastFail  time.Time
	lastError string

	requests, failed, opened uint64
}

// choose picks the upstream for a try and counts it as under way. retry says
// that the request could be tried elsewhere, so that it may be the trial of an
// upstream whose circuit is open.
func (p *Pool) choose(tried []bool, retry bool) (u *upstream, trial bool) {
	if len(p.ups) == 1 {
		return p.chooseOnly()
	}
	var snap health.Snapshot
	if p.checker != nil {
		snap = p.checker.Snapshot()
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var closed, ready []*upstream // circuit closed; or due for a trial
	var last *upstream            // the least recently failed of all others
	for _, u := range p.ups {
		if tried[u.index] {
			continue
		}
		switch {
		case snap[u.name].State == health.Down:
		case u.open == 0:
			closed = append(closed, u)
			continue
		case !u.trial && !now.Before(u.openUntil):
			ready = append(ready, u)
			continue
		}
		if last == nil || u.lastFail.Before(last.lastFail) {
			last = u
		}
	}
	usable := closed
	if retry || len(closed) == 0 {
		usable = p.merge(closed, ready)
	}
	if len(usable) > 0 {
		u = p.pick(usable)
	} else {
		u = last // never fail without trying
	}
	return u, u.take(now)
}

// chooseOnly is choose where there is no choice.
func (p *Pool) chooseOnly() (u *upstream, trial bool) {
	u = p.ups[0]
	p.mu.Lock()
	defer p.mu.Unlock()
	var now time.Time
	if u.open != 0 {
		now = time.Now()
	}
	return u, u.take(now)
}

// take counts a request as under way, and reports whether it is a trial; Pool.mu is
// held.
func (u *upstream) take(now time.Time) (trial bool) {
	trial = u.open != 0 && !u.trial && !now.Before(u.openUntil)
	u.trial = u.trial || trial
	u.inFlight++
	u.requests++
	return trial
}

// merge joins two lists that are in the order of the upstreams.
func (p *Pool) merge(a, b []*upstream) []*upstream {
	if len(b) == 0 {
		return a
	}
	in := make([]bool, len(p.ups))
	for _, list := range [][]*upstream{a, b} {
		for _, u := range list {
			in[u.index] = true
		}
	}
	var all []*upstream
	for i, u := range p.ups {
		if in[i] {
			all = append(all, u)
		}
	}
	return all
}

// pick chooses among usable upstreams, which are at least one and in order.
func (p *Pool) pick(usable []*upstream) *upstream {
	switch p.c.Balance {
	case Weighted:
		return pickWeighted(usable)
	case LeastLoaded:
		return p.pickLeastLoaded(usable)
	case Random:
		i := p.random.IntN(len(usable))
		if len(usable) == 1 {
			return usable[i]
		}
		j := p.random.IntN(len(usable) - 1)
		if j >= i {
			j++
		}
		if usable[j].inFlight < usable[i].inFlight {
			i = j
		}
		return usable[i]
	case ActivePassive:
		return usable[0]
	}
	u := p.after(usable)
	p.next = u.index + 1
	return u
}

// after returns the first usable upstream from p.next on, going round.
func (p *Pool) after(usable []*upstream) *upstream {
	for _, u := range usable {
		if u.index >= p.next {
			return u
		}
	}
	return usable[0]
}

// pickWeighted is smooth weighted round robin: each gains its weight, the
// highest is chosen and pays the sum. So 5, 1, 1 comes out as a a b a c a a. A
// weight of 0 is chosen only when there is no other.
func pickWeighted(usable []*upstream) *upstream {
	sum := 0
	var best *upstream
	for _, u := range usable {
		if u.weight == 0 {
			continue
		}
		u.current += u.weight
		sum += u.weight
		if best == nil || u.current > best.current {
			best = u
		}
	}
	if best == nil {
		return usable[0]
	}
	best.current -= sum
	return best
}

// pickLeastLoaded compares requests under way for each unit of weight; equals
// take turns.
func (p *Pool) pickLeastLoaded(usable []*upstream) *upstream {
	var best *upstream
	from := p.after(usable).index
	for i := range p.ups {
		u := p.ups[(from+i)%len(p.ups)]
		if u.weight == 0 || !contains(usable, u) {
			continue
		}
		// (inFlight+1)/weight, without division
		if best == nil || (u.inFlight+1)*best.weight < (best.inFlight+1)*u.weight {
			best = u
		}
	}
	if best == nil {
		return usable[0]
	}
	p.next = best.index + 1
	return best
}

func contains(list []*upstream, u *upstream) bool {
	for _, have := range list {
		if have == u {
			return true
		}
	}
	return false
}

// verdict is what a try says of its upstream.
type verdict uint8

const (
	none verdict = iota // the caller left, or did not read to the end
	good
	bad
)

// settle ends a try, with the error if it was bad. A trial that ends without
// verdict leaves the circuit open for the next one to try.
func (p *Pool) settle(u *upstream, v verdict, e *UpstreamError, trial bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.inFlight--
	if trial {
		u.trial = false
	}
	if v == good {
		u.failures = 0
	}
	if v != bad {
		return
	}
	now := time.Now()
	u.failed++
	u.failures++
	u.lastFail, u.lastError = now, fmt.Sprintf("%s: %.300s", e.Phase, e.Err)
	switch {
	case trial:
		u.open = min(2*u.open, maxOpen)
	case u.open == 0 && u.failures >= openAfter:
		u.open = minOpen
		u.opened++
	default: // one failure of few; or one that was sent here for want of better
		return
	}
	u.openUntil = now.Add(u.open + time.Duration(openJitter*p.random.Float64()*float64(u.open)))
}

// answered closes the circuit of an upstream that brought a response's head.
// The failures in a row end only with a response that is whole.
func (p *Pool) answered(u *upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.open != 0 {
		u.trial, u.open, u.failures = false, 0, 0
	}
}

// UpstreamStatus is a picture of one upstream, for status and metrics.
type UpstreamStatus struct {
	Origin   string
	Check    string // active check: "up", "down", "unknown"; empty without one
	Why      string // its last result
	Circuit  string // "closed", "open", or "trial" while one request tries
	InFlight int    // requests under way
	Requests uint64 // tries
	Failed   uint64 // tries that failed, in any phase
	Opened   uint64 // times the circuit opened
	LastFail time.Time
	LastWhy  string
}

// Status returns a picture of every upstream, in order.
func (p *Pool) Status() []UpstreamStatus {
	var snap health.Snapshot
	if p.checker != nil {
		snap = p.checker.Snapshot()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []UpstreamStatus
	for _, u := range p.ups {
		s := UpstreamStatus{Origin: u.name, Circuit: "closed", InFlight: u.inFlight, Requests: u.requests,
			Failed: u.failed, Opened: u.opened, LastFail: u.lastFail, LastWhy: u.lastError}
		if p.checker != nil {
			s.Check, s.Why = snap[u.name].State.String(), snap[u.name].Why
		}
		if u.trial {
			s.Circuit = "trial"
		} else if u.open != 0 {
			s.Circuit = "open"
		}
		list = append(list, s)
	}
	return list
}
