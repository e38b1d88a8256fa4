package dnsserver

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"perigee.example/internal/siphash"
)

// RateLimit bounds the replies by UDP to one network, so that forged queries
// turn this server into no weapon against who sits there. The zero value is no
// limit.
//
// Networks are a /24 or a /56. Each has a rate for answers, one for empty
// answers (no such name, no data, referrals) and one for errors, whatever the
// names are: a flood for random names is one flood. Who may pass is a valid
// cookie, an exempt network, and TCP.
type RateLimit struct {
	Rate int // replies a second, of each class; up to one second's worth at once; 0 is no limit
	// Slip lets one in so many of the replies over the rate out, small: TC or
	// BADCOOKIE, so that a resolver behind the address gets through. 0 is none.
	Slip   int
	Exempt []netip.Prefix
}

// Verdict is what the rate limit did with a reply.
type Verdict uint8

// The verdicts.
const (
	Passed  Verdict = iota
	Dropped         // over the rate: nothing was sent
	Slipped         // over the rate: a small reply was sent in place of the answer
)

const (
	limitBits4 = 24 // what is routed at the least, and so what a flood can aim at
	limitBits6 = 56 // a customer's share

	// limitSets × limitWays buckets of 16 octets make 1 MiB: 65,536 networks
	// and classes that are near their rate at once. The least used one of a set
	// makes way, so a flood from everywhere pushes out only those like it.
	limitSets = 1 << 14
	limitWays = 4

	limitBurst = time.Second
)

// classes of replies that are counted apart.
const (
	classAnswer byte = iota
	classEmpty
	classError
)

// limiter is the table of one RateLimit. Its size is fixed.
type limiter struct {
	RateLimit
	key  [16]byte
	cost time.Duration // of one reply
	sets []limitSet
}

type limitSet struct {
	mu   sync.Mutex
	ways [limitWays]bucket
}

// bucket counts by the time at which it will be empty again: each reply puts it
// off by its cost, and it may not be further off than limitBurst.
type bucket struct {
	tag   uint32 // of network and class; 0 is unused
	over  uint32 // replies over the rate, for Slip
	empty time.Duration
}

// newLimiter makes the table, or nil when there is no limit.
func newLimiter(c RateLimit, key [16]byte) *limiter {
	if c.Rate <= 0 {
		return nil
	}
	c.Exempt = slices.Clone(c.Exempt)
	return &limiter{RateLimit: c, key: key, cost: max(time.Second/time.Duration(c.Rate), 1), sets: make([]limitSet, limitSets)}
}

// judge counts one reply to a resolver. A nil limiter passes everything.
func (l *limiter) judge(to netip.Addr, class byte, now time.Duration) Verdict {
	if l == nil {
		return Passed
	}
	to = to.Unmap().WithZone("")
	for _, p := range l.Exempt {
		if p.Contains(to) {
			return Passed
		}
	}
	h := l.hash(to, class)
	set := &l.sets[h%limitSets]
	set.mu.Lock() // nothing below can panic
	verdict := l.add(set.bucket(uint32(h>>32)|1), now)
	set.mu.Unlock()
	return verdict
}

// add counts one reply in a bucket.
func (l *limiter) add(b *bucket, now time.Duration) Verdict {
	// Much further off than it can be, it is of a clock that has been set back;
	// a little further, of another goroutine that read its clock later.
	if b.empty < now || b.empty > now+2*limitBurst {
		b.empty = now
	}
	if b.empty+l.cost <= now+limitBurst {
		b.empty += l.cost
		return Passed
	}
	b.over++
	if l.Slip > 0 && b.over%uint32(l.Slip) == 0 {
		return Slipped
	}
	return Dropped
}

// hash is that of what is counted as one: class, family and prefix.
func (l *limiter) hash(to netip.Addr, class byte) uint64 {
	if to.Is4() {
		a := to.As4()
		return siphash.Word(l.key, uint64(class)|4<<8|uint64(a[0])<<16|uint64(a[1])<<24|uint64(a[2])<<32, 2+limitBits4/8)
	}
	a := to.As16()
	b := [2 + limitBits6/8]byte{class, 6}
	copy(b[2:], a[:])
	return siphash.Sum64(l.key, b[:])
}

// bucket finds the bucket of tag, or gives it that of the set that has been
// empty for longest or will be soonest.
func (s *limitSet) bucket(tag uint32) *bucket {
	least := &s.ways[0]
	for i := range s.ways {
		b := &s.ways[i]
		if b.tag == tag {
			return b
		}
		if b.empty < least.empty {
			least = b
		}
	}
	*least = bucket{tag: tag}
	return least
}

// class is the class of a reply.
func (o *Outcome) class() byte {
	switch {
	case o.Rcode != rcodeNoError && o.Rcode != rcodeNXDomain:
		return classError
	case o.Answers > 0 || o.TC:
		return classAnswer
	}
	return classEmpty
}

// SetRateLimit swaps the limit and forgets what was counted; the zero value,
// and the time before the first call, is no limit.
func (s *Server) SetRateLimit(c RateLimit) { s.limit.Store(newLimiter(c, s.config.Seed)) }

// limit holds a reply by UDP back when there are too many: it returns what is to
// be sent, which may be nothing.
func (a *asker) limit(room, reply, packet []byte) []byte {
	if len(reply) == 0 || a.out.ValidCookie {
		return reply
	}
	class := a.out.class()
	verdict := a.s.limit.Load().judge(a.c.From.Addr(), class, a.c.Now)
	switch {
	case verdict == Dropped:
		a.out.Action = Drop
		reply = nil
	case verdict == Slipped && class != classError: // an error is small already
		a.c.Limited = true
		reply = a.reply(room, packet)
	}
	a.out.Limit = verdict
	return reply
}
