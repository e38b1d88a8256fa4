package edge

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
