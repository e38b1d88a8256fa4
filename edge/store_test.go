package edge

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"perigee.example/internal/evict"
)

func put(s *store, key string, size int64, sel ...selecting) *stored {
	o := &stored{key: key, status: 200, header: http.Header{}, size: size, sel: sel}
	s.put(o)
	return o
}

func has(s *store, key string) bool {
	o, _ := s.get([]byte(key), headerFields{})
	return o != nil
}

// costOf is what a response takes of a store's budget.
func costOf(t testing.TB, key string, size int64) int64 {
	s := testStore(t, 1<<30)
	put(s, key, size)
	return s.bytes
}

// TestStoreBudget: with lru the least recently used leaves, and the sum stays
// within.
func TestStoreBudget(t *testing.T) {
	cost := costOf(t, "k0", 1000)
	s, err := newStore(10*cost, evict.LRU, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(s, fmt.Sprintf("k%d", i), 1000)
	}
	if !has(s, "k0") || s.bytes != s.budget {
		t.Fatalf("%d of %d octets", s.bytes, s.budget)
	}
	put(s, "kA", 1000)
	if has(s, "k1") || !has(s, "k0") || !has(s, "kA") {
		t.Error("k1 was the least recently used")
	}
	put(s, "kB", 5000)
	if s.bytes > s.budget || !has(s, "kB") {
		t.Errorf("%d of %d octets", s.bytes, s.budget)
	}
	if s.put(&stored{key: "big", status: 200, size: s.budget}) || has(s, "big") {
		t.Error("stored what is larger than the store")
	}
	for range 100 {
		put(s, "kB", 1000) // in place of itself
	}
	for s.evictOne(pages) {
	}
	if s.bytes != 0 || s.index.count != 0 || s.arena.Stats().Used != 0 {
		t.Errorf("empty, but %d octets, %d responses, %d octets in the arena", s.bytes, s.index.count, s.arena.Stats().Used)
	}
}

// TestScanLeavesWhatIsUsed: what is asked for once, ten times as much as there is
// room, drives nothing out that is in use; with lru it does.
func TestScanLeavesWhatIsUsed(t *testing.T) {
	const pages = 100
	cost := costOf(t, "page00", 1000)
	for _, policy := range []evict.Policy{evict.S3FIFO, evict.LRU} {
		s, err := newStore(pages*2*cost, policy, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		kept := func() (n int) {
			for i := range pages {
				if has(s, fmt.Sprintf("page%02d", i)) {
					n++
				}
			}
			return n
		}
		for i := range pages {
			put(s, fmt.Sprintf("page%02d", i), 1000)
		}
		kept() // they are used
		for i := range 20 * pages {
			put(s, fmt.Sprintf("scan%04d", i), 1000)
		}
		if n := kept(); (n == pages) != (policy == evict.S3FIFO) {
			t.Errorf("policy %d: %d of %d pages are left", policy, n, pages)
		}
		if s.bytes > s.budget {
			t.Errorf("%d of %d octets", s.bytes, s.budget)
		}
	}
}

func TestStoreVariants(t *testing.T) {
	s := testStore(t, 0)
	for i := range 2 * maxVariants {
		put(s, "k", 10, selecting{name: "Accept", value: fmt.Sprint(i), present: true})
	}
	if n := len(s.variants("k")); n != maxVariants {
		t.Errorf("%d variants", n)
	}
	newest := fmt.Sprint(2*maxVariants - 1)
	o, _ := s.get([]byte("k"), headerFields{"Accept": {newest}})
	if o == nil || o.sel[0].value != newest {
		t.Error("the newest is gone")
	}
	if o, other := s.get([]byte("k"), headerFields{"Accept": {"0"}}); o != nil || !other {
		t.Error("the oldest is still there")
	}
	s.remove("k")
	if s.bytes != 0 {
		t.Errorf("%d octets after remove", s.bytes)
	}
}

// TestMostRecentDate: of several that match, the most recent Date (RFC 9111 §4.1).
func TestMostRecentDate(t *testing.T) {
	s := testStore(t, 0)
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	newer := &stored{key: "k", status: 200, validators: validators{date: day.Add(time.Hour)}, sel: []selecting{{name: "A"}}}
	older := &stored{key: "k", status: 200, validators: validators{date: day}, sel: []selecting{{name: "B"}}}
	s.put(newer)
	s.put(older)
	if o, _ := s.get([]byte("k"), headerFields{}); o == nil || !o.date.Equal(newer.date) {
		t.Error("chose the older")
	}
}

func TestMarksAreBounded(t *testing.T) {
	s := testStore(t, 0)
	now := time.Now()
	for i := range maxMarks + 1000 {
		s.mark(fmt.Sprint(i), now)
	}
	if len(s.marks) > maxMarks {
		t.Errorf("%d marks", len(s.marks))
	}
	s.mark("k", now)
	if !s.marked("k", now.Add(markFor-1)) || s.marked("k", now.Add(markFor)) {
		t.Error("a mark lasts from now for markFor")
	}
	s.put(&stored{key: "k", status: 200})
	if s.marked("k", now) {
		t.Error("what was stored is still marked")
	}
}

// TestPurgeTableFolds: beyond its bound the oldest URL becomes a soft purge of
// its site; nothing that was purged comes back as fresh.
func TestPurgeTableFolds(t *testing.T) {
	p := newPurgeTable()
	const n = maxPurgeScopes + 5000
	for seq := uint64(1); seq <= n; seq++ {
		p.record(scope{kind: scopeURL, name: fmt.Sprint("u", seq)}, "s", instant{seq: seq}, false)
	}
	if len(p.last) > maxPurgeScopes+1 || p.folded < 4999 {
		t.Fatalf("%d scopes, %d folded", len(p.last), p.folded)
	}
	for seq := uint64(1); seq <= n; seq++ {
		hard, soft := p.check(&purgeScopes{site: "s", resource: fmt.Sprint("u", seq)}, instant{seq: seq - 1})
		if !hard && !soft {
			t.Fatalf("the purge with seq %d is forgotten", seq)
		}
	}
	if hard, soft := p.check(&purgeScopes{site: "other", resource: "x"}, instant{}); hard || soft {
		t.Error("another site is purged")
	}
	if hard, soft := p.check(&purgeScopes{site: "s", resource: "u1"}, instant{seq: n}); hard || soft {
		t.Error("what was fetched after all purges counts as purged")
	}
	// The same URL again and again takes no room.
	p = newPurgeTable()
	for seq := uint64(1); seq <= 3*maxPurgeScopes; seq++ {
		p.record(scope{kind: scopeURL, name: "same"}, "s", instant{seq: seq}, seq%2 == 0)
	}
	if len(p.last) != 1 || len(p.order) > 2*maxPurgeScopes || p.folded != 0 {
		t.Errorf("%d scopes, %d in order, %d folded", len(p.last), len(p.order), p.folded)
	}
}

// TestLocalPurgeTakesNoSeq: a purge of this edge alone must not let a later
// feed purge pass for one that was applied already.
func TestLocalPurgeTakesNoSeq(t *testing.T) {
	e, err := New(Config{Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: http.DefaultTransport}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.SetApplied(41, testLog)
	scopes := &purgeScopes{site: "s", resource: "s.test/a"}
	first := e.asOf()
	if err := e.Purge(Purge{All: true, Soft: true}); err != nil {
		t.Fatal(err)
	}
	if hard, soft := e.purges.check(scopes, first); hard || !soft {
		t.Errorf("after the local purge: hard %v, soft %v", hard, soft)
	}
	second := e.asOf()
	if hard, soft := e.purges.check(scopes, second); hard || soft {
		t.Errorf("fetched after the local purge: hard %v, soft %v", hard, soft)
	}
	if err := e.Purge(Purge{Seq: 42, Site: "s", URL: "http://s.test/a"}); err != nil {
		t.Fatal(err)
	}
	if hard, _ := e.purges.check(scopes, second); !hard {
		t.Error("the feed's purge with seq 42 was taken for one applied before")
	}
	if hard, soft := e.purges.check(scopes, e.asOf()); hard || soft {
		t.Errorf("fetched after both: hard %v, soft %v", hard, soft)
	}
}

func TestSiteTable(t *testing.T) {
	rt := http.DefaultTransport
	for _, sites := range [][]Site{
		{{Name: "a", Hosts: []string{"x.test"}, Origin: rt}, {Name: "b", Hosts: []string{"x.test"}, Origin: rt}},
		{{Name: "a", Hosts: []string{"X.test"}, Origin: rt}},
		{{Name: "a", Hosts: []string{"x.test:80"}, Origin: rt}},
		{{Name: "a", Hosts: []string{"*"}, Origin: rt}},
		{{Name: "a", Hosts: []string{"x.test"}, Push: true}},
		{{Name: "a", Hosts: []string{"x.test"}, Origin: rt, Rules: []ExpiryRule{{Glob: "["}}}},
	} {
		if _, err := New(Config{Sites: sites}); err == nil {
			t.Errorf("%+v was taken", sites)
		}
	}
	e, err := New(Config{Sites: []Site{{Name: "a", Hosts: []string{"x.test", "*.x.test"}, Origin: rt}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetSites([]Site{{Name: "b", Hosts: []string{"Y.test"}}}); err == nil {
		t.Error("a bad table was taken")
	}
	for host, want := range map[string]bool{"x.test": true, "y.x.test": true, "z.y.x.test": false, "test": false, ".x.test": false} {
		if s, _ := e.Snapshot().sites.find(host); (s != nil) != want {
			t.Errorf("%s: %v", host, s)
		}
	}
}
