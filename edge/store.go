package edge

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"perigee.example/internal/arena"
	"perigee.example/internal/seglog"
)

const (
	// DefaultMemoryBytes is the store's budget when Config gives none.
	DefaultMemoryBytes = 256 << 20
	// objectShare is the part of the budget that one response may take: an
	// eighth, so that one large file cannot empty the store.
	objectShare = 8
	// fillingShare is the part of the budget that responses under way may take
	// before they are no longer kept.
	fillingShare = 2
	// objectOverhead is charged for each response beside its body and header:
	// maps, list links and slices.
	objectOverhead = 1 << 10
	// tagOverhead is charged for each tag beside its octets: a string's header.
	tagOverhead = 16
	// maxVariants bounds the stored responses of one key; the least recently
	// stored leaves. "Vary: User-Agent" has no end.
	maxVariants = 32
	// maxMarks bounds the keys remembered as not shareable.
	maxMarks = 1 << 16
	// markFor is how long a key is remembered as not shareable: its requests
	// then do not wait for each other.
	markFor = 10 * time.Second
)

// stored is one stored response. It never changes once it is in the store.
type stored struct {
	ages
	validators
	key      string // primary key
	scopes   purgeScopes
	sel      []selecting
	status   int
	header   http.Header // end-to-end fields, without Content-Length and Age
	cc       cacheControl
	lifetime time.Duration
	// hasLifetime says that lifetime was given, or made by heuristic.
	hasLifetime bool
	targeted    bool        // by a field of RFC 9213
	asOf        instant     // purges applied here when its fetch started, or at its shield
	tags        http.Header // fields of the origin that peers get and clients do not, or nil
	body        arena.Extent
	size        int64 // of the body
	part        *part // not nil: body is this part of the representation
	head        []byte
	head304     []byte

	far      *seglog.Object // not nil: the body is there, and not in memory
	fromDisk bool           // it is on disk already

	prev, next *stored // of the use order; store.mu
	gone       bool    // no longer in the store; store.mu

	aheadAge time.Duration // from when on it is refreshed if it is hot; 0: never
	uses     int           // since it was stored; store.mu
	ahead    aheadState    // of this life
}

// cost is what a response takes of the budget.
func (s *stored) cost() int64 {
	n := arena.Footprint(s.size) + int64(len(s.key)+2*len(s.head)+len(s.head304)) + objectOverhead
	for _, tag := range s.scopes.tags {
		n += tagOverhead + int64(len(tag))
	}
	return n
}

// store keeps responses in memory, within a budget, the least recently used
// leaving first. It is safe for concurrent use. Bodies are in the arena; who
// gets a response from the store holds its body, and lets go of it (hold.go).
type store struct {
	arena   *arena.Arena
	mu      sync.Mutex
	tier    *disk                // nil: there is none
	keys    map[string][]*stored // newest last
	ring    stored               // ring.next is the most recently used
	slices  stored               // the ring of slices
	bytes   int64                // of both
	sliced  int64                // of slices
	budget  int64
	marks   map[string]time.Time // key: not shareable until then
	filling int64                // bytes of responses under way
	door    *doorkeeper
	turned  uint64 // not kept, for the doorkeeper knew them not
	seed    uint64 // of when hot responses are refreshed

	objects   int    // stored responses
	evictions uint64 // responses that made way
}

func newStore(budget int64) (*store, error) {
	if budget <= 0 {
		budget = DefaultMemoryBytes
	}
	a, err := arena.New(budget)
	if err != nil {
		return nil, fmt.Errorf("edge: no memory for the store: %w", err)
	}
	s := &store{arena: a, keys: map[string][]*stored{}, marks: map[string]time.Time{}, budget: budget, door: newDoorkeeper(), seed: randomSeed()}
	s.ring.prev, s.ring.next = &s.ring, &s.ring
	s.slices.prev, s.slices.next = &s.slices, &s.slices
	return s, nil
}

// letGo ends the caller's hold of responses that get or variants returned.
func (s *store) letGo(list ...*stored) {
	for _, o := range list {
		s.arena.Release(o.body)
	}
}

func (s *store) maxObject() int64 { return s.budget / objectShare }

// get returns the variant of key that a request selects: of several the one
// with the most recent Date (RFC 9111 §4.1). other is true when there are
// only variants that it does not select. The caller lets go of it.
func (s *store) get(key []byte, f fields) (found *stored, other bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	variants := s.keys[string(key)]
	for _, v := range variants {
		if varyMatches(v.sel, f) && (found == nil || !v.date.Before(found.date)) {
			found = v
		}
	}
	if found == nil {
		return nil, len(variants) > 0
	}
	found.unlink()
	s.link(found)
	if found.uses++; found.uses == 1 {
		s.tier.proved(key)
	}
	s.arena.Retain(found.body)
	return found, false
}

// variants returns the stored responses of key, newest last. The list does not
// change. The caller lets go of all of them.
func (s *store) variants(key string) []*stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.keys[key] {
		s.arena.Retain(o.body)
	}
	return s.keys[key]
}

// varyOf returns the field names that responses to key vary by, as far as known.
func (s *store) varyOf(key string) []selecting {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.keys[key]; len(v) > 0 {
		return v[len(v)-1].sel
	}
	return nil
}

// put stores a response in place of the one with the same selecting fields.
// It reports whether it did: whether there was room, and the one there is not
// from after a purge that o is from before. It forgets that key was not
// shareable. The caller holds the body, and goes on to; the store is one more.
func (s *store) put(o *stored) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.marks, o.key)
	if o.cost() > s.budget-s.filling {
		return false
	}
	if s.bytes+s.filling+o.cost() > s.budget && len(s.keys[o.key]) == 0 && strings.Contains(o.key, "?") && !s.door.again(o.key) {
		s.turned++
		return false
	}
	for _, v := range s.keys[o.key] {
		if !sameSelecting(v.sel, o.sel) {
			continue
		}
		if v.asOf.after(o.asOf) && v.asOf.local >= o.asOf.local { // numbers may have begun anew: see Revalidate
			return false // a purge lies between: o was asked for before it, v after
		}
		s.drop(v)
		break
	}
	if v := s.keys[o.key]; len(v) >= maxVariants {
		s.drop(v[0])
	}
	s.makeRoom(o)
	if !o.isSlice() && !o.cc.noCache {
		// A failing origin is not asked more often for that.
		if from := aheadAge(o.lifetime, s.aheadDraw(o)); o.correctedInitialAge < from && o.status < 500 {
			o.aheadAge = from
		}
	}
	s.arena.Retain(o.body)
	s.keys[o.key] = append(s.keys[o.key], o)
	s.bytes += o.cost()
	s.objects++
	if o.isSlice() {
		s.sliced += o.cost()
	}
	s.link(o)
	s.tier.took(o)
	return true
}

// setTier gives the store a second tier, which hears of what is used and new.
func (s *store) setTier(d *disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tier = d
}

// isSlice tells a slice from the response whose octets it has.
func (o *stored) isSlice() bool { return o.part != nil && o.status == http.StatusPartialContent }

// makeRoom lets what was used least recently go, until there is room for o.
// Slices have half of the budget at most, so that one film does not drive out a
// thousand pages; and they go first when they have more than that. mu is held.
func (s *store) makeRoom(o *stored) {
	half := s.budget / 2
	for o.isSlice() && s.sliced+o.cost() > half && s.sliced > 0 {
		s.evictions++
		s.drop(s.slices.prev)
	}
	s.evict(o.cost())
}

// evict lets responses go until there is room for n octets; mu is held.
func (s *store) evict(n int64) {
	for s.bytes > 0 && s.bytes+s.filling+n > s.budget {
		s.evictions++
		if s.slices.prev != &s.slices && (s.bytes-s.sliced <= s.budget/2 || s.ring.prev == &s.ring) {
			s.drop(s.slices.prev)
		} else {
			s.drop(s.ring.prev)
		}
	}
}

// replace puts next in the place of old, unless old has left the store since.
func (s *store) replace(old, next *stored) bool {
	s.mu.Lock()
	gone := old.gone
	s.mu.Unlock()
	return !gone && s.put(next)
}

// discard forgets one response, if it is still there.
func (s *store) discard(o *stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !o.gone {
		s.drop(o)
	}
	s.tier.dropped(o)
}

// remove forgets every variant of key.
func (s *store) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.keys[key]) > 0 {
		s.drop(s.keys[key][0])
	}
}

// drop takes o out; mu is held.
func (s *store) drop(o *stored) {
	old := s.keys[o.key]
	rest := make([]*stored, 0, len(old))
	for _, v := range old {
		if v != o {
			rest = append(rest, v)
		}
	}
	if len(rest) == 0 {
		delete(s.keys, o.key)
	} else {
		s.keys[o.key] = rest
	}
	s.bytes -= o.cost()
	s.objects--
	if o.isSlice() {
		s.sliced -= o.cost()
	}
	o.unlink()
	o.gone = true
	s.arena.Release(o.body)
}

func (s *store) link(o *stored) {
	ring := &s.ring
	if o.isSlice() {
		ring = &s.slices
	}
	o.prev, o.next = ring, ring.next
	o.prev.next, o.next.prev = o, o
}

func (o *stored) unlink() {
	o.prev.next, o.next.prev = o.next, o.prev
	o.prev, o.next = nil, nil
}

// mark remembers that responses to key are not shareable.
func (s *store) mark(key string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, until := range s.marks {
		if len(s.marks) < maxMarks && now.Before(until) {
			break // map order is random: each mark looks at one or two others
		}
		delete(s.marks, k)
	}
	s.marks[key] = now.Add(markFor)
}

// marked reports whether key was lately found not shareable.
func (s *store) marked(key string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.marks[key]
	return ok && now.Before(until)
}

// reserve takes n bytes for a response under way, and makes room for them;
// false means that responses under way take all they may.
func (s *store) reserve(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filling+n > s.budget/fillingShare {
		return false
	}
	s.evict(n)
	s.filling += n
	return true
}

func (s *store) release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling -= n
}

func sameSelecting(a, b []selecting) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].name != b[i].name || a[i].present != b[i].present || a[i].value != b[i].value {
			return false
		}
	}
	return true
}
