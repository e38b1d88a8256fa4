package arena

import "os"

// lends: blocks of pageSize can be given other pages only where that is a page.
var lends = os.Getpagesize() == pageSize

// Lend reports whether octets of e may be given to the kernel by reference, and
// sees to it that their pages are not used again when they are let go. The caller
// owns e; once the kernel has them it may release. An extent cannot be lent that
// has a part smaller than a page, or whose memory is Go's; nor any where pages are
// larger than ours.
func (a *Arena) Lend(e Extent) bool {
	if e == 0 || a.region == nil || !lends {
		return false
	}
	m, i := a.at(uint32(e) - 1)
	word, bit := &m.lent[i/32], uint32(1)<<(i%32)
	if word.Load()&bit != 0 {
		return true
	}
	for at := uint32(e); at != 0; {
		b, j := a.at(at - 1)
		if b.kind[j]&orderSet < pageOrder {
			return false
		}
		at = b.next[j]
	}
	word.Or(bit)
	return true
}

// wasLent reports whether an extent was lent, and forgets it; mu is held.
func (a *Arena) wasLent(e Extent) bool {
	m, i := a.at(uint32(e) - 1)
	word, bit := &m.lent[i/32], uint32(1)<<(i%32)
	return word.Load()&bit != 0 && word.And(^bit)&bit != 0
}

// renewLater has a goroutine renew an extent that has no owner any more: it may
// take milliseconds, and who releases holds locks; mu is held.
func (a *Arena) renewLater(e Extent) {
	a.returned = append(a.returned, e)
	if a.renewing {
		return
	}
	a.renewing = true
	go func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for a.renewOne() {
		}
		a.renewing = false
	}()
}

// renewOne gives one extent that was lent other pages, touches them, and frees its
// blocks. It reports whether there was one; mu is held, but not meanwhile.
func (a *Arena) renewOne() bool {
	n := len(a.returned)
	if n == 0 {
		return false
	}
	e := a.returned[n-1]
	a.returned = a.returned[:n-1]
	a.mu.Unlock()
	for at := e.First(); at != 0; {
		unit := int(at) - 1
		var mem []byte
		mem, at = a.Read(at)
		a.region.GiveBack(unit*Unit, len(mem))
		for i := 0; i < len(mem); i += pageSize {
			mem[i] = 0
		}
	}
	a.mu.Lock()
	a.freeChain(uint32(e) - 1)
	return true
}
