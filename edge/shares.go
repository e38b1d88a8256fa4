package edge

import (
	"cmp"
	"slices"

	"perigee.example/internal/arena"
)

// share is the part of the store that a site has to itself: what it stores
// beyond that takes the place of its own, and what others store takes the place
// of none of it while there is anything of the sites without a share.
type share struct {
	group  uint32
	budget int64
}

// setShares gives sites their shares, in octets by name; a site that is not
// named has none, and shares what is left with the others. What a site without
// a share any more had in it goes.
func (s *store) setShares(budgets map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, sh := range s.shares {
		if _, ok := budgets[name]; !ok {
			for s.evictFrom(sh.group) {
			}
			s.idle = append(s.idle, sh.group)
			delete(s.shares, name)
		}
	}
	for name, budget := range budgets {
		sh, ok := s.shares[name]
		switch n := len(s.idle); {
		case ok:
		case n > 0:
			sh.group, s.idle = s.idle[n-1], s.idle[:n-1]
		default:
			sh.group = s.queues.Group(budget)
		}
		sh.budget = budget
		s.queues.SetBudget(sh.group, budget)
		for s.queues.Bytes(sh.group) > budget && s.evictFrom(sh.group) {
		}
		if s.shares == nil {
			s.shares = make(map[string]share, len(budgets))
		}
		s.shares[name] = sh
	}
}

// shareOf is the group of o and what it may take.
func (s *store) shareOf(o *stored) share {
	if sh, ok := s.shares[o.scopes.site]; ok {
		return sh
	}
	if o.isSlice() {
		return share{filmSlices, s.budget / 2}
	}
	return share{pages, s.budget}
}

// makeRoom lets responses go until there is room for n octets in a share, which
// they fit. Slices have half of the budget at most, so that one film does not
// drive out a thousand pages; and they go first when they have more than that. mu
// is held.
func (s *store) makeRoom(sh share, n int64) {
	for s.queues.Bytes(sh.group)+n > sh.budget && s.evictFrom(sh.group) {
	}
	s.evict(sh.group, n)
}

// evict lets responses go until there is room for n octets; mu is held.
func (s *store) evict(group uint32, n int64) {
	for s.bytes+s.filling+n > s.budget && s.evictOne(group) {
	}
}

// evictOne lets one response go, for one of a group: of the sites without a
// share while they have any, then of the group itself, then of any, in turn.
// False is that there is none. mu is held.
func (s *store) evictOne(group uint32) bool {
	films, rest := s.queues.Bytes(filmSlices), s.queues.Bytes(pages)
	switch {
	case films > 0 && rest <= s.budget/2:
		return s.evictFrom(filmSlices)
	case rest > 0:
		return s.evictFrom(pages)
	case s.evictFrom(group):
		return true
	}
	for range s.queues.Groups() {
		s.turn = (s.turn + 1) % uint32(s.queues.Groups())
		if s.evictFrom(s.turn) {
			return true
		}
	}
	return false
}

func (s *store) evictFrom(group uint32) bool {
	id, ok := s.queues.Victim(group)
	if ok {
		s.evictions++
		s.drop(id)
	}
	return ok
}

// maxObject bounds one response of a site: so that one large file does not
// empty the store, or the site's share.
func (s *store) maxObject(site string) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	most := s.budget / objectShare
	if sh, ok := s.shares[site]; ok {
		most = min(most, sh.budget/2)
	}
	return most
}

// setMemory bounds what the store takes of the system's memory, to n octets of
// its budget: responses in the emptiest slabs leave, and whole slabs go back. Used
// under memory pressure, and to undo that.
func (s *store) setMemory(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(max(n, arena.SlabBytes), s.configured)
	s.budget = n
	s.queues.SetBudget(pages, n)
	s.queues.SetBudget(filmSlices, n/2)
	s.evict(pages, 0)
	if n == s.configured {
		s.arena.SetCeiling(-1)
		return
	}
	s.arena.SetCeiling(n)
	excess := s.arena.Stats().Touched - n
	if excess -= s.arena.GiveBack(excess + arena.SlabBytes - 1); excess <= 0 {
		return
	}
	s.empty(int((excess + arena.SlabBytes - 1) / arena.SlabBytes))
	s.arena.GiveBack(excess + arena.SlabBytes - 1)
}

// empty lets go of all that lies in the n slabs that hold least; what somebody
// still reads stays till then. mu is held.
func (s *store) empty(n int) {
	type slab struct {
		number int
		used   int64
	}
	var list []slab
	s.arena.Fullness(func(number int, used int64) { list = append(list, slab{number, used}) })
	slices.SortFunc(list, func(a, b slab) int { return cmp.Compare(a.used, b.used) })
	going := map[int]bool{}
	for _, l := range list[:min(n, len(list))] {
		going[l.number] = true
	}
	lies := func(e arena.Extent) bool {
		for at := e.First(); at != 0; {
			if going[at.Slab()] {
				return true
			}
			_, at = s.arena.Read(at)
		}
		return false
	}
	for id := uint32(1); id <= s.index.last; id++ {
		if v := s.index.at(id); v.meta != 0 && (lies(v.meta) || lies(v.body)) {
			s.evictions++
			s.drop(id)
		}
	}
}
