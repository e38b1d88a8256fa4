package edge

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
)

func putFor(s *store, site, key string, size int64) bool {
	return s.put(&stored{key: key, status: 200, header: http.Header{}, size: size, scopes: purgeScopes{site: site}})
}

// TestNoisySite: of 10,000 sites with shares of their own one stores far more
// than its share, and so does one that has none: all that the others have stays.
func TestNoisySite(t *testing.T) {
	const sites = 10_000
	page := costOf(t, "http://s0000.test/0", 100)
	s := testStore(t, sites*4*page+1<<20)
	budgets := map[string]int64{}
	for i := range sites {
		budgets[fmt.Sprintf("s%04d", i)] = 4 * page
	}
	s.setShares(budgets)
	stored := func(i, n int) string { return fmt.Sprintf("http://s%04d.test/%d", i, n) }
	for i := range sites {
		for n := range 3 {
			putFor(s, fmt.Sprintf("s%04d", i), stored(i, n), 100)
		}
	}
	rounds := 50_000
	if raceEnabled {
		rounds = 5_000
	}
	for n := range rounds {
		putFor(s, "s0007", stored(7, n), 100)
		putFor(s, "open", fmt.Sprintf("http://open.test/%d", n), 1000)
	}
	lost := 0
	for i := range sites {
		for n := range 3 {
			if i != 7 && !has(s, stored(i, n)) {
				lost++
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d pages of the others are gone", lost, 3*(sites-1))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	noisy, open := s.queues.Bytes(s.shares["s0007"].group), s.queues.Bytes(pages)
	if noisy > 4*page || noisy < 3*page || s.bytes > s.budget || open < 500<<10 {
		t.Errorf("the noisy site has %d octets of %d, the open one %d, all %d of %d", noisy, 4*page, open, s.bytes, s.budget)
	}
}

// TestSharesChange: a share that is lowered, taken away or given anew.
func TestSharesChange(t *testing.T) {
	page := costOf(t, "http://a.test/00", 100)
	s := testStore(t, 1<<20)
	s.setShares(map[string]int64{"a": 10 * page, "b": 10 * page})
	bytes := func(site string) int64 { return s.queues.Bytes(s.shares[site].group) }
	for i := range 20 {
		putFor(s, "a", fmt.Sprintf("http://a.test/%02d", i), 100)
		putFor(s, "b", fmt.Sprintf("http://b.test/%02d", i), 100)
	}
	if bytes("a") != 10*page || bytes("b") != 10*page {
		t.Fatalf("%d and %d octets", bytes("a"), bytes("b"))
	}
	s.setShares(map[string]int64{"a": 3 * page})
	if bytes("a") != 3*page || s.bytes != 3*page {
		t.Errorf("lowered: %d of %d octets are of the site that has a share", bytes("a"), s.bytes)
	}
	s.setShares(map[string]int64{"a": 3 * page, "c": page})
	if s.queues.Groups() != 4 || putFor(s, "c", "http://c.test/large", 1<<17) || !putFor(s, "c", "http://c.test/00", 100) || bytes("c") != page {
		t.Errorf("%d groups; the new one has %d octets of %d", s.queues.Groups(), bytes("c"), page)
	}
	if s.maxObject("c") != page/2 || s.maxObject("none") != 1<<17 {
		t.Errorf("responses of %d and %d octets at most", s.maxObject("c"), s.maxObject("none"))
	}
	// More shares than there is memory: what is there is of who stored last.
	s.setShares(map[string]int64{"a": 1 << 20, "b": 1 << 20, "c": 1 << 20})
	for _, site := range []string{"a", "b", "c"} {
		for i := range 2000 {
			if !putFor(s, site, fmt.Sprintf("http://%s.test/%d", site, i), 1000) {
				t.Fatalf("%s: %d is not stored", site, i)
			}
		}
	}
	if s.bytes > s.budget || s.bytes < s.budget/2 {
		t.Errorf("%d of %d octets", s.bytes, s.budget)
	}
}

// TestIdleSites: what 10,000 sites cost that nobody asks for.
func TestIdleSites(t *testing.T) {
	const n = 10_000
	sites := make([]Site, n)
	for i := range sites {
		sites[i] = Site{Name: fmt.Sprintf("s%d", i), Hosts: []string{fmt.Sprintf("s%d.test", i)}, Origin: http.DefaultTransport, MemoryBytes: 64 << 10}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	e, err := New(Config{Sites: sites})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Logf("%d octets for each idle site", each)
	if limit := int64(6 << 10); each > limit && !raceEnabled {
		t.Errorf("%d octets for each idle site: want %d at most", each, limit)
	}
	runtime.KeepAlive(sites)
}

// TestMemoryPressure (F13): slabs go back at once, what is left is whole, and
// when memory is there again the store fills it again.
func TestMemoryPressure(t *testing.T) {
	s := testStore(t, 16<<20)
	fillStore(t, s, 5000)
	touched := s.arena.Stats().Touched
	held, _ := s.get([]byte("http://shop.example.com/articles/4999.html"), headerFields{"Accept-Encoding": {"gzip"}})
	if touched < 10<<20 || held == nil {
		t.Fatalf("%d octets touched; the last page is there: %v", touched, held != nil)
	}
	s.setMemory(4 << 20)
	if got := s.arena.Stats().Touched; got > 5<<20 { // one slab is held
		t.Errorf("%d octets of %d are still taken", got, touched)
	}
	if s.bytes > 4<<20 || s.index.count == 0 {
		t.Errorf("%d octets, %d pages are left", s.bytes, s.index.count)
	}
	if err := func() error { _, err := readRecord(appendRecord(nil, held, &s.boot), &s.boot); return err }(); err != nil {
		t.Error(err)
	}
	s.letGo(held)
	count := s.index.count
	fillStore(t, s, 100)
	if s.index.count < count-100 || s.arena.Stats().Touched > 5<<20 {
		t.Errorf("%d pages, then %d; %d octets touched", count, s.index.count, s.arena.Stats().Touched)
	}
	s.setMemory(1 << 40)
	fillStore(t, s, 5000)
	if s.budget != 16<<20 || s.index.count < 5000 {
		t.Errorf("with memory again: %d octets, %d pages", s.budget, s.index.count)
	}
	if why := s.excess(); why != "" {
		t.Error(why)
	}
}
