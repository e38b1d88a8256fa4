package arena

// warm brings a slab into use that has not been touched ahead; mu is held.
func (a *Arena) warm() bool {
	s, ok := a.nextCold()
	if ok {
		a.link(s*slabUnits, maxOrder)
	}
	return ok
}

// nextCold takes a slab that has no memory yet; mu is held. It is the caller's
// until it links it.
func (a *Arena) nextCold() (uint32, bool) {
	n := len(a.cold)
	if n == 0 || len(a.slabs)-n >= a.ceiling {
		return 0, false
	}
	s := a.cold[n-1]
	a.cold = a.cold[:n-1]
	p := &a.slabs[s]
	if p.meta == nil {
		p.meta = new(slabMeta)
	}
	if a.region == nil {
		p.mem = make([]byte, SlabBytes)
	}
	return s, true
}

// touchAhead starts the goroutine that touches slabs, if free ones are getting
// few; mu is held.
func (a *Arena) touchAhead() {
	if a.touching || a.region == nil || !a.wantsMore() {
		return
	}
	a.touching = true
	go a.touch()
}

// wantsMore reports whether fewer slabs are free than should be touched ahead;
// mu is held.
func (a *Arena) wantsMore() bool {
	warm := len(a.slabs) - len(a.cold)
	return len(a.cold) > 0 && warm < a.ceiling && a.whole < min(max(1, (warm-a.whole)/aheadShare), maxAhead)
}

// touch gives slabs memory until enough are free.
func (a *Arena) touch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.wantsMore() {
		s, ok := a.nextCold()
		if !ok {
			break
		}
		a.mu.Unlock()
		mem := a.slabs[s].mem
		for at := 0; at < len(mem); at += pageSize {
			mem[at] = 0
		}
		a.mu.Lock()
		a.link(s*slabUnits, maxOrder)
	}
	a.touching = false
}

// SetCeiling bounds the memory that is taken from the system, to n octets; the
// whole arena when n is negative. What is above it already stays until GiveBack.
func (a *Arena) SetCeiling(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ceiling = len(a.slabs)
	if n >= 0 {
		a.ceiling = int(min(n/SlabBytes, int64(len(a.slabs))))
	}
}

// GiveBack returns the memory of free slabs to the system, n octets at most,
// and says how many it were.
func (a *Arena) GiveBack(n int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var given int64
	for given+SlabBytes <= n && a.free[maxOrder] != 0 {
		unit := a.free[maxOrder] - 1
		a.unlink(unit, maxOrder)
		s := unit / slabUnits
		if a.region != nil {
			a.region.GiveBack(int(s)*SlabBytes, SlabBytes)
		} else {
			a.slabs[s].mem = nil
		}
		a.cold = append(a.cold, s)
		given += SlabBytes
	}
	return given
}

// Fullness calls f for each slab that has memory with the octets of its blocks
// that extents have: who wants whole slabs free empties those with the least.
func (a *Arena) Fullness(f func(slab int, used int64)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	cold := make([]bool, len(a.slabs))
	for _, s := range a.cold {
		cold[s] = true
	}
	for i := range a.slabs {
		if m := a.slabs[i].meta; m != nil && !cold[i] {
			f(i, int64(m.used)*Unit)
		}
	}
}

// Slab is the slab that a block is in.
func (b Block) Slab() int { return int(uint32(b)-1) / slabUnits }
