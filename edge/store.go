package edge

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"perigee.example/internal/arena"
	"perigee.example/internal/evict"
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
	// maxPieces bounds the responses that make way for one record when there is
	// room, but in smaller pieces: beyond, what was to be stored is not.
	maxPieces = 64
	// maxVariants bounds the stored responses of one key; the least recently
	// stored leaves. "Vary: User-Agent" has no end.
	maxVariants = 32
	// maxMarks bounds the keys remembered as not shareable.
	maxMarks = 1 << 16
	// markFor is how long a key is remembered as not shareable: its requests
	// then do not wait for each other.
	markFor = 10 * time.Second
)

// stored is one stored response, as the general path has it: a copy of its own
// of a record, or one that is to become a record. It never changes once it is
// stored. What a hit has is a view of a record (record.go).
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
	aheadAge    time.Duration // from when on it is refreshed if it is hot; 0: never

	far      *seglog.Object // not nil: the body is there, and not in memory
	fromDisk bool           // it is on disk already

	at ref // where it is stored, or was
}

// store keeps responses in memory, within a budget. It is safe for concurrent
// use. Records and bodies are in the arena, and the index that finds them has no
// pointers. Who gets a response from the store holds its body, and lets go of
// it (hold.go). internal/evict says what leaves when room is wanted.
type store struct {
	arena *arena.Arena
	boot  boot
	seed  uint64 // of when hot responses are refreshed

	mu     sync.RWMutex
	tier   *disk // nil: there is none
	index  index
	queues *evict.Queues
	bytes  int64 // of all that is stored
	budget int64
	// configured is the budget without memory pressure.
	configured int64
	shares     map[string]share     // by site
	idle       []uint32             // groups that no site has any more
	turn       uint32               // the group that an eviction of last resort looked at last
	marks      map[string]time.Time // key: not shareable until then
	filling    int64                // bytes of responses under way
	look       stored               // a view of the record that same looks at
	other      instant              // asOf of the one that it found

	evictions uint64 // responses that made way
}

// The groups of responses of sites without a share, as evict has them.
const (
	pages = iota
	filmSlices
)

func newStore(budget int64, policy evict.Policy, now time.Time) (*store, error) {
	if budget <= 0 {
		budget = DefaultMemoryBytes
	}
	a, err := arena.New(budget)
	if err != nil {
		return nil, fmt.Errorf("edge: no memory for the store: %w", err)
	}
	s := &store{arena: a, index: newIndex(), queues: evict.New(policy), marks: map[string]time.Time{}, budget: budget, configured: budget,
		boot: boot{id: randomSeed(), base: now}, seed: randomSeed()}
	s.queues.Group(budget)     // pages
	s.queues.Group(budget / 2) // filmSlices
	return s, nil
}

// letGo ends the caller's hold of responses that get or variants returned.
func (s *store) letGo(list ...*stored) {
	for _, o := range list {
		s.arena.Release(o.body)
	}
}

// get returns the variant of key that a request selects: of several the one
// with the most recent Date (RFC 9111 §4.1). other is true when there are
// only variants that it does not select. The caller lets go of it.
func (s *store) get(key []byte, f fields) (found *stored, other bool) {
	meta, body, at, other := s.lookUp(key, f)
	if meta == 0 {
		return nil, other
	}
	defer s.arena.Release(meta)
	found, err := readRecord(s.recordOf(meta), &s.boot)
	if err != nil {
		s.arena.Release(body)
		s.forget(at)
		return nil, false
	}
	found.body, found.at = body, at
	return found, false
}

// hit is get for who only looks: into becomes a view of the record, which the
// caller lets go of (meta), beside the body, when it has looked.
func (s *store) hit(key []byte, f fields, into *stored) (meta arena.Extent, other bool) {
	meta, body, at, other := s.lookUp(key, f)
	if meta == 0 {
		return 0, other
	}
	r := s.recordOf(meta)
	if err := into.view(r, textOf(r), &s.boot); err != nil {
		s.arena.Release(meta)
		s.arena.Release(body)
		s.forget(at)
		return 0, false
	}
	into.body, into.at = body, at
	return meta, false
}

// recordOf is the record in an extent, which the caller holds.
func (s *store) recordOf(meta arena.Extent) []byte {
	p, _ := s.arena.Read(meta.First())
	return p[:binary.LittleEndian.Uint32(p[recLength:])]
}

// lookUp finds a variant, notes the use, and holds record and body for the caller.
func (s *store) lookUp(key []byte, f fields) (meta, body arena.Extent, at ref, other bool) {
	if s.queues.Moves() {
		s.mu.Lock()
		defer s.mu.Unlock()
	} else {
		s.mu.RLock()
		defer s.mu.RUnlock()
	}
	hash := s.index.hash(key)
	var best *slot
	var record []byte
	for id := s.index.first(hash); id != 0; {
		v := s.index.at(id)
		if v.hash == hash {
			if r := v.record(s.arena); string(recordKey(r)) == string(key) {
				other = true
				if recordSelects(r, f) && (best == nil || laterDate(r, record)) {
					best, record, at = v, r, ref{id, v.gen}
				}
			}
		}
		id = v.next
	}
	if best == nil {
		return 0, 0, ref{}, other
	}
	if s.queues.Moves() {
		s.queues.Use(at.id)
	} else {
		s.queues.Touch(at.id)
	}
	if n := best.uses.Load(); n&usesMask < aheadUses {
		if best.uses.Add(1)&usesMask == 1 {
			s.tier.proved(key)
		}
	}
	s.arena.Retain(best.meta)
	s.arena.Retain(best.body)
	return best.meta, best.body, at, false
}

// live is the slot that a ref names, or nil when that has left; mu is held.
func (s *store) live(at ref) *slot {
	if at.id == 0 {
		return nil
	}
	if v := s.index.at(at.id); v.gen == at.gen {
		return v
	}
	return nil
}

// forget drops what a ref names, if it is still there.
func (s *store) forget(at ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live(at) != nil {
		s.drop(at.id)
	}
}

// variants returns the stored responses of key, newest last. The caller lets go
// of all of them.
func (s *store) variants(key string) []*stored {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*stored
	s.each(key, func(id uint32, v *slot) {
		if o, err := readRecord(v.record(s.arena), &s.boot); err == nil {
			s.arena.Retain(v.body)
			o.body, o.at = v.body, ref{id, v.gen}
			list = append(list, o)
		}
	})
	slices.Reverse(list)
	return list
}

// each calls f for the slots of key, the newest first; mu is held. f may drop its slot.
func (s *store) each(key string, f func(id uint32, v *slot)) {
	k := []byte(key)
	hash := s.index.hash(k)
	for id := s.index.first(hash); id != 0; {
		v := s.index.at(id)
		next := v.next
		if v.is(s.arena, hash, k) {
			f(id, v)
		}
		id = next
	}
}

// varyOf returns the field names that responses to key vary by, as far as known.
func (s *store) varyOf(key string) (sel []selecting) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	first := true
	s.each(key, func(_ uint32, v *slot) {
		if first {
			if o, err := readRecord(v.record(s.arena), &s.boot); err == nil {
				sel = o.sel
			}
		}
		first = false
	})
	return sel
}

// put stores a response in place of the one with the same selecting fields.
// It reports whether it did: whether there was room, and the one there is not
// from after a purge that o is from before. It forgets that key was not
// shareable. The caller holds the body, and goes on to; the store is one more.
func (s *store) put(o *stored) bool { return s.putFor(o, nil) }

// replace puts next in the place of old, unless old has left the store since.
func (s *store) replace(old, next *stored) bool { return s.putFor(next, old) }

// putFor is put, or with old replace: whether old is still there is asked in the
// same moment, so that nobody who takes it out comes between.
func (s *store) putFor(o, old *stored) bool {
	if !o.isSlice() && !o.cc.noCache {
		// A failing origin is not asked more often for that.
		if from := aheadAge(o.lifetime, s.aheadDraw(o)); o.correctedInitialAge < from && o.status < 500 {
			o.aheadAge = from
		}
	}
	room := recordRoom.Get().(*[]byte)
	defer recordRoom.Put(room)
	record := appendRecord((*room)[:0], o, &s.boot)
	if cap(record) <= maxRoom {
		*room = record
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old != nil && s.live(old.at) == nil {
		return false
	}
	delete(s.marks, o.key)
	cost := arena.Footprint(o.size) + arena.Footprint(int64(len(record))) + slotBytes
	sh := s.shareOf(o)
	if cost > min(sh.budget, s.budget-s.filling) {
		return false
	}
	var standing evict.Standing
	if old, oldest, n := s.same(o); old != 0 {
		if o.fromDisk {
			return false // what memory has is what was on disk, or newer
		}
		if s.other.after(o.asOf) && s.other.local >= o.asOf.local { // numbers may have begun anew: see Revalidate
			return false // a purge lies between: o was asked for before it, v after
		}
		standing = s.queues.Standing(old)
		s.drop(old)
	} else if n >= maxVariants {
		s.drop(oldest)
	}
	s.makeRoom(sh, cost)
	meta, mem, ok := s.piece(sh.group, len(record))
	if !ok {
		return false
	}
	copy(mem, record)
	s.arena.Retain(o.body)
	hash := s.index.hash([]byte(o.key))
	id := s.index.insert(hash)
	v := s.index.at(id)
	v.meta, v.body, v.length = meta, o.body, uint32(len(record))
	s.queues.Add(id, sh.group, cost, hash)
	s.queues.Set(id, standing)
	s.bytes += cost
	o.at = ref{id, v.gen}
	s.tier.took(o)
	return true
}

// recordRoom is room for records in the making, of maxRoom octets at most.
var recordRoom = sync.Pool{New: func() any { return new([]byte) }}

const maxRoom = 64 << 10

// setTier gives the store a second tier, which hears of what is used and new.
func (s *store) setTier(d *disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tier = d
}

// same finds the variant with o's selecting fields, and looks at it (view);
// oldest is the first stored of all n variants of the key. mu is held.
func (s *store) same(o *stored) (id, oldest uint32, n int) {
	s.each(o.key, func(at uint32, v *slot) {
		n, oldest = n+1, at
		if r := v.record(s.arena); id == 0 && s.look.viewSelecting(r, textOf(r)) == nil && s.look.viewFixed(r, &s.boot) == nil && sameSelecting(s.look.sel, o.sel) {
			id, s.other = at, s.look.asOf
		}
	})
	return id, oldest, n
}

// piece takes memory for a record of n octets. What is free may lie in smaller
// pieces: then some responses more make way. mu is held.
func (s *store) piece(group uint32, n int) (arena.Extent, []byte, bool) {
	for range maxPieces {
		if e, mem, ok := s.arena.Piece(n); ok {
			return e, mem, true
		}
		if !s.evictOne(group) {
			break
		}
	}
	return s.arena.Piece(n)
}

// isSlice tells a slice from the response whose octets it has.
func (o *stored) isSlice() bool { return o.part != nil && o.status == http.StatusPartialContent }

// drop takes a response out; mu is held.
func (s *store) drop(id uint32) {
	v := s.index.at(id)
	s.bytes -= s.queues.Size(id)
	s.queues.Remove(id)
	meta, body := v.meta, v.body
	s.index.remove(id)
	s.arena.Release(meta)
	s.arena.Release(body)
}

// discard forgets one response, if it is still there.
func (s *store) discard(o *stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live(o.at) != nil {
		s.drop(o.at.id)
	}
	s.tier.dropped(o)
}

// remove forgets every variant of key.
func (s *store) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(key, func(id uint32, _ *slot) { s.drop(id) })
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
	s.mu.RLock()
	defer s.mu.RUnlock()
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
	s.evict(pages, n)
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
