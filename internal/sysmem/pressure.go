package sysmem

import "time"

const (
	// lowShare is the part of the memory below which what is left is too little:
	// the kernel then begins to take pages of programs, and soon ends one.
	lowShare = 20
	// maxLow bounds that on large machines.
	maxLow = 1 << 30
	// stepShare is the part of a cache's budget that it gives up, or gets back,
	// at a time.
	stepShare = 8
	// calm is how long there must be enough before a cache gets more.
	calm = 30 * time.Second
	// minCache is what a cache keeps in any case.
	minCache = 4 << 20
)

// Pressure decides how much of its budget a cache may use, by what the system
// has left: a step less each time that there is too little, a step more when
// there has been enough for a while.
type Pressure struct {
	budget, now int64
	since       time.Time // since when there is enough; zero: there is not
}

// NewPressure is for a cache with a budget in octets.
func NewPressure(budget int64) *Pressure { return &Pressure{budget: budget, now: budget} }

// Next says what the cache may use from now on.
func (p *Pressure) Next(m Memory, at time.Time) int64 {
	low := min(m.Total/lowShare, maxLow)
	switch {
	case m.Total == 0:
	case m.Available < low:
		p.since = time.Time{}
		p.now = max(p.now-max(p.budget/stepShare, low-m.Available), min(minCache, p.budget))
	case m.Available < 2*low:
		p.since = time.Time{}
	case p.since.IsZero():
		p.since = at
	case at.Sub(p.since) >= calm && p.now < p.budget:
		p.since = at
		p.now = min(p.now+p.budget/stepShare, p.budget)
	}
	return p.now
}
