package edge

import (
	"fmt"
	"testing"
)

// TestMadeUpQueriesDriveNothingOut: a flood of queries that come once leaves what
// is used.
func TestMadeUpQueriesDriveNothingOut(t *testing.T) {
	page := costOf(t, "http://s.test/p", 1000)
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
	if n := kept(); n < pages*3/4 {
		t.Errorf("%d of %d pages are left after %d queries that came once", n, pages, flood)
	}
	put(s, "http://s.test/0?again", 1000)
	if !has(s, "http://s.test/0?again") {
		t.Error("what is new is not kept at once")
	}
}
