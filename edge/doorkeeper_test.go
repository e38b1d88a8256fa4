package edge

import (
	"fmt"
	"testing"
)

// TestMadeUpQueriesDriveNothingOut: in a full store a URL with a query is kept
// at its second fetch, so that a flood of queries that come once leaves what is
// used; what has room, or no query, is kept at once.
func TestMadeUpQueriesDriveNothingOut(t *testing.T) {
	page := put(testStore(t, 1<<30), "http://s.test/p", 1000).cost()
	const pages = 100
	s := testStore(t, pages*(page+10))
	for i := range pages {
		put(s, fmt.Sprintf("http://s.test/%d", i), 1000)
	}
	kept := func() (n int) {
		for i := range pages {
			if has(s, fmt.Sprintf("http://s.test/%d", i)) {
				n++
			}
		}
		return n
	}
	if n := kept(); n != pages {
		t.Fatalf("%d pages before", n)
	}
	const flood = 10_000
	for i := range flood {
		put(s, fmt.Sprintf("http://s.test/0?%d", i), 1000)
		if i%50 == 0 {
			kept() // they are in use
		}
	}
	// Some strangers pass for known, and a page or two leaves for them.
	if n := kept(); n < pages*3/4 {
		t.Errorf("%d of %d pages are left after %d queries that came once", n, pages, flood)
	}
	turned := s.turned
	if turned < flood*3/4 {
		t.Errorf("%d of %d turned away", turned, flood)
	}
	put(s, "http://s.test/0?again", 1000)
	put(s, "http://s.test/0?again", 1000)
	if !has(s, "http://s.test/0?again") {
		t.Error("what was fetched twice is not kept")
	}
	put(s, "http://s.test/new", 1000)
	if !has(s, "http://s.test/new") {
		t.Error("what has no query is not kept at once")
	}
	roomy := testStore(t, 1<<30)
	put(roomy, "http://s.test/0?1", 1000)
	if !has(roomy, "http://s.test/0?1") {
		t.Error("with room it is not kept at once")
	}
}

// TestDoorkeeper forgets, so that old URLs do not all look known.
func TestDoorkeeper(t *testing.T) {
	d := newDoorkeeper()
	if d.again("a") || !d.again("a") {
		t.Error("the first time is not told from the second")
	}
	strangers := 0
	for i := range 10 * doorTurn {
		if d.again(fmt.Sprint(i)) {
			strangers++
		}
	}
	if strangers > 10*doorTurn/3 {
		t.Errorf("%d of %d strangers passed for known", strangers, 10*doorTurn)
	}
	if d.n > doorTurn {
		t.Errorf("%d set", d.n)
	}
}
