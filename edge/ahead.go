package edge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

const (
	// aheadUses is how often a response must have been used, in its present
	// life, to be refreshed before it expires: what nobody asks for may go stale.
	aheadUses = 3
	// aheadLifetime is the shortest lifetime that is worth it: below, a response
	// would be refreshed about as often as it is asked for.
	aheadLifetime = 10 * time.Second
	// aheadShare is the part of a lifetime, counted from its end, in which a
	// response is refreshed, and maxAhead bounds that.
	aheadShare = 10
	maxAhead   = time.Minute
	// aheadRate bounds the refreshes of an edge, in a second and at once: they
	// come beside what clients wait for.
	aheadRate = 20
)

// aheadAge is the age from which a response with such a lifetime is refreshed
// when it is asked for; 0 is never. draw is uniform over all uint64: what was
// stored in one moment does not come due in one moment.
func aheadAge(lifetime time.Duration, draw uint64) time.Duration {
	if lifetime < aheadLifetime {
		return 0
	}
	window := min(lifetime/aheadShare, maxAhead)
	half := uint64(window / 2)
	return lifetime - window + time.Duration(draw%half)
}

// due reports whether o, which is fresh, is used so much that it is to be
// refreshed before it expires, and nobody does that already.
func (s *store) due(o *stored, age time.Duration) bool {
	if o.aheadAge == 0 || age < o.aheadAge {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return o.uses >= aheadUses && !o.ahead
}

// claimAhead gives the caller the refreshing of o. It is given once for each
// life: what cannot be refreshed expires.
func (s *store) claimAhead(o *stored) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	claimed := !o.ahead
	o.ahead = true
	return claimed
}

// aheadLimit is a token bucket of aheadRate a second.
type aheadLimit struct {
	mu   sync.Mutex
	left float64
	at   time.Time // zero: full
}

func (l *aheadLimit) take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() {
		l.left = aheadRate
	} else {
		l.left = min(aheadRate, l.left+now.Sub(l.at).Seconds()*aheadRate)
	}
	l.at = now
	if l.left < 1 {
		return false
	}
	l.left--
	return true
}

// refreshAhead starts the refreshing of a response that is still fresh, so that
// no client of a hot one ever waits for it.
func (x *exchange) refreshAhead(f found) {
	if x.q.has("Authorization") || x.q.cc.noStore || !x.e.store.claimAhead(f.obj) || !x.e.ahead.take(x.e.now()) {
		return
	}
	x.revalidateBehind(f)
}

// aheadDraw is the draw for one life of a response: other for each key and each
// life, and at each edge, which has a seed of its own.
func (s *store) aheadDraw(o *stored) uint64 {
	b := binary.BigEndian.AppendUint64(nil, s.seed)
	b = binary.BigEndian.AppendUint64(b, uint64(o.responseTime.UnixNano()))
	sum := sha256.Sum256(append(b, o.key...))
	return binary.BigEndian.Uint64(sum[:8])
}

// randomSeed is one that nobody knows.
func randomSeed() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
