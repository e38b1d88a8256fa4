package edge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
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
	window := aheadWindow(lifetime)
	return lifetime - window + time.Duration(draw%uint64(window/2))
}

func aheadWindow(lifetime time.Duration) time.Duration { return min(lifetime/aheadShare, maxAhead) }

// earlyAge is the age from which a response that was not refreshed ahead is
// validated before use, though it is fresh: from the second half of its window,
// by the same draw. A cache may validate whenever it likes (RFC 9111 §4.3), and
// what came in one moment does not expire in one moment.
func (o *stored) earlyAge() time.Duration { return o.aheadAge + aheadWindow(o.lifetime)/2 }

// due reports whether o, which is fresh, is used so much that it is to be
// refreshed before it expires, and nobody does that already; or whether, for want
// of that, it is to be validated early.
func (s *store) due(o *stored, age time.Duration) (ahead, early bool) {
	if o.aheadAge == 0 || age < o.aheadAge {
		return false, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.live(o.at)
	if v == nil { // it has left, or is a disk's
		return false, age >= o.earlyAge()
	}
	return v.uses.Load()&usesMask >= aheadUses && v.ahead() == aheadNot, v.ahead() != aheadBegun && age >= o.earlyAge()
}

// aheadState says whether a response has been refreshed ahead.
type aheadState uint8

const (
	aheadNot    aheadState = iota
	aheadBegun             // if that fails, it lives to its end
	aheadDenied            // by the rate
)

// claimAhead gives the caller the refreshing of o, once for each life, if the
// rate allows it.
func (s *store) claimAhead(o *stored, rate *aheadLimit, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.live(o.at)
	if v == nil || v.ahead() != aheadNot {
		return false
	}
	state := aheadDenied
	if rate.take(now) {
		state = aheadBegun
	}
	v.uses.Or(uint32(state) << aheadShift)
	return state == aheadBegun
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

// goesEarly reports whether a fresh response is to be validated before it is used.
// A request that forbids or does not allow to keep what comes gets it as it is.
func (x *exchange) goesEarly(f found) bool {
	return f.early && x.q.method == http.MethodGet && !x.q.cc.onlyIfCached && !x.q.cc.noStore && !x.q.has("Authorization")
}

// refreshAhead starts the refreshing of a response that is still fresh, so that
// no client of a hot one ever waits for it.
func (x *exchange) refreshAhead(f found) {
	if x.q.has("Authorization") || x.q.cc.noStore || !x.e.store.claimAhead(f.obj, &x.e.ahead, x.e.now()) {
		return
	}
	x.revalidateBehind(f)
}

// aheadDraw is the draw for one life of a response: other for each key and each
// life, and at each edge, which has a seed of its own.
func (s *store) aheadDraw(o *stored) uint64 {
	var room [256]byte
	b := binary.BigEndian.AppendUint64(room[:0], s.seed)
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
