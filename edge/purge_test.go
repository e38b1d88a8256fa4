package edge

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// told is an origin whose n-th response a test writes; each waits for its gate.
type told struct {
	mu       sync.Mutex
	requests []http.Header
	answers  []toldAnswer
}

type toldAnswer struct {
	gate   chan struct{} // nil: at once
	status int
	header http.Header
	body   string
}

func (o *told) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	n := len(o.requests)
	o.requests = append(o.requests, r.Header)
	a := o.answers[min(n, len(o.answers)-1)]
	o.mu.Unlock()
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return &http.Response{StatusCode: a.status, Header: a.header.Clone(), ContentLength: int64(len(a.body)),
		Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func (o *told) seen() []http.Header {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.requests)
}

func purged(t *testing.T, e *Edge, p Purge) {
	t.Helper()
	if err := e.Purge(p); err != nil {
		t.Fatal(err)
	}
}

// TestPurgeByTagAgainstFill: a request from after the purge of a tag may join a
// fetch from before it, since nobody knows the tags yet. It must not be
// answered with what that fetch brings.
func TestPurgeByTagAgainstFill(t *testing.T) {
	for _, p := range []Purge{{Seq: 42, Site: "s", Tag: "summer"}, {Seq: 42, Site: "s", Tag: "summer", Soft: true}} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			h := http.Header{"Cache-Control": {"max-age=60"}, "Surrogate-Key": {"list summer"}}
			o := &told{answers: []toldAnswer{{gate, 200, h, "old"}, {nil, 200, h, "new"}}}
			e := gatedEdge(t, o, 0)
			e.SetApplied(41, testLog)
			var wg sync.WaitGroup
			before, after := newAnswer(), newAnswer()
			wg.Go(func() { call(t.Context(), e, before) })
			synctest.Wait()
			purged(t, e, p)
			wg.Go(func() { call(t.Context(), e, after) })
			synctest.Wait()
			close(gate)
			wg.Wait()
			synctest.Wait()
			if before.body.String() != "old" || after.body.String() != "new" {
				t.Errorf("before the purge %q, after it %q", before.body.String(), after.body.String())
			}
			third := newAnswer()
			call(t.Context(), e, third)
			if got := third.body.String(); got != "new" || len(o.seen()) != 2 {
				t.Errorf("then %q, with %d requests", got, len(o.seen()))
			}
		})
	}
}

// TestPurgeByTagWhileTheBodyComes: once the head is here the tags are known,
// and a request from after the purge does not join at all.
func TestPurgeByTagWhileTheBodyComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &inTurn{origins: []*gated{newGated("max-age=60"), newGated("max-age=60")}}
		for _, g := range s.origins {
			g.header["Cache-Tag"] = []string{"summer"}
			close(g.head)
		}
		e := gatedEdge(t, s, 0)
		var wg sync.WaitGroup
		after := newAnswer()
		wg.Go(func() { call(t.Context(), e, newAnswer()) })
		synctest.Wait()
		purged(t, e, Purge{Seq: 42, Site: "s", Tag: "summer"})
		s.origins[1].body <- "new"
		close(s.origins[1].body)
		wg.Go(func() { call(t.Context(), e, after) })
		synctest.Wait()
		if got := after.body.String(); got != "new" {
			t.Errorf("after the purge: %q", got)
		}
		s.origins[0].body <- "old"
		close(s.origins[0].body)
		wg.Wait()
		synctest.Wait()
		last := newAnswer()
		if call(t.Context(), e, last); last.body.String() != "new" {
			t.Errorf("stored: %q", last.body.String())
		}
	})
}

// TestPurgeWhileRevalidating: the 304 that answers a validation from before a
// hard purge revives nothing; the origin is asked again, without condition.
func TestPurgeWhileRevalidating(t *testing.T) {
	for _, p := range []Purge{{URL: "http://s.test/a"}, {Site: "s", Tag: "summer"}, {Prefix: "http://s.test/"}, {Site: "s", All: true}} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			h := http.Header{"Cache-Control": {"max-age=1"}, "Etag": {`"1"`}, "Cache-Groups": {`"summer"`}}
			o := &told{answers: []toldAnswer{
				{nil, 200, h, "old"},
				{gate, 304, http.Header{"Etag": {`"1"`}, "Cache-Control": {"max-age=60"}}, ""},
				{nil, 200, h, "new"},
			}}
			e := gatedEdge(t, o, 0)
			call(t.Context(), e, newAnswer())
			time.Sleep(2 * time.Second)
			var wg sync.WaitGroup
			during := newAnswer()
			wg.Go(func() { call(t.Context(), e, during) })
			synctest.Wait()
			p.Seq = 42
			purged(t, e, p)
			close(gate)
			wg.Wait()
			synctest.Wait()
			seen := o.seen()
			if got := during.body.String(); got != "new" || len(seen) != 3 {
				t.Fatalf("%+v: %q after %d requests", p, got, len(seen))
			}
			if seen[1].Get("If-None-Match") != `"1"` || seen[2].Get("If-None-Match") != "" {
				t.Errorf("asked %v, then %v", seen[1], seen[2])
			}
			if obj, _ := e.store.get([]byte("http://s.test/a"), headerFields{}); obj != nil {
				e.store.letGo(obj)
				if obj.asOf.seq >= 42 {
					return
				}
				if hard, _ := e.purges.check(&obj.scopes, obj.asOf); !hard {
					t.Error("what is stored counts as not purged")
				}
			}
		})
	}
}

// TestPurgedNeverStandsIn: an origin that fails while a hard purge comes does
// not bring back what was purged, whatever stale-if-error says.
func TestPurgedNeverStandsIn(t *testing.T) {
	for _, soft := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			h := http.Header{"Cache-Control": {"max-age=1, stale-if-error=600"}, "Surrogate-Key": {"summer"}}
			o := &told{answers: []toldAnswer{{nil, 200, h, "old"}, {gate, 503, http.Header{}, "down"}}}
			e := gatedEdge(t, o, 0)
			call(t.Context(), e, newAnswer())
			time.Sleep(2 * time.Second)
			var wg sync.WaitGroup
			w := newAnswer()
			wg.Go(func() { call(t.Context(), e, w) })
			synctest.Wait()
			purged(t, e, Purge{Seq: 42, Site: "s", Tag: "summer", Soft: soft})
			close(gate)
			wg.Wait()
			want := "down"
			if soft { // that is what soft is for
				want = "old"
			}
			if got := w.body.String(); got != want {
				t.Errorf("soft %v: %q, want %q", soft, got, want)
			}
		})
	}
}

func TestTagged(t *testing.T) {
	long := strings.Repeat("x", maxTagBytes)
	numbered := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "t%d ", i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name   string
		h      http.Header
		tags   int
		groups string
		anyTag bool
	}{
		{"none", http.Header{}, 0, "[]", false},
		{"empty", http.Header{"Surrogate-Key": {" "}, "Cache-Tag": {", ,"}, "Cache-Groups": {`""`}}, 0, "[]", false},
		{"twice", http.Header{"Surrogate-Key": {"a b a"}, "Cache-Tag": {"a, b"}}, 2, "[]", false},
		{"groups", http.Header{"Cache-Groups": {`"a";x;y="z, \"";n=1`, `"b c"`}}, 2, "[a b c]", false},
		{"a token is no group", http.Header{"Cache-Groups": {`"a", b`}}, 0, "[]", false},
		{"open string", http.Header{"Cache-Groups": {`"a`}}, 0, "[]", false},
		{"trailing comma", http.Header{"Cache-Groups": {`"a",`}}, 0, "[]", false},
		{"escape", http.Header{"Cache-Groups": {`"\a"`}}, 0, "[]", false},
		{"32 groups of 32 characters", http.Header{"Cache-Groups": {strings.Repeat(`"`+long[:31]+`","`+long[:32]+`",`, 15) + `"a","b"`}}, 4, "32", false},
		{"as many as are kept", http.Header{"Surrogate-Key": {numbered(maxTags)}}, maxTags, "[]", false},
		{"one more", http.Header{"Surrogate-Key": {numbered(maxTags + 1)}}, maxTags, "[]", true},
		{"as long as may be", http.Header{"Cache-Tag": {long}}, 1, "[]", false},
		{"longer", http.Header{"Cache-Tag": {long + "x"}}, 0, "[]", true},
		{"too many octets together", http.Header{"Cache-Tag": {strings.Repeat(long+",", maxTagsBytes/maxTagBytes) + "a"}}, 1, "[]", true},
	} {
		s := purgeScopes{site: "s"}.tagged(c.h, &target{authority: "s.test"})
		groups := fmt.Sprint(s.groups)
		if len(s.groups) > 4 {
			groups = fmt.Sprint(len(s.groups))
		}
		if len(s.tags) != c.tags || groups != c.groups || s.anyTag != c.anyTag {
			t.Errorf("%s: %d tags, groups %s, anyTag %v", c.name, len(s.tags), groups, s.anyTag)
		}
		if (len(s.groups) > 0) != (s.origin == "http://s.test") {
			t.Errorf("%s: origin %q", c.name, s.origin)
		}
	}
}

// TestTooManyTags: a response of which not every tag is kept is covered by the
// purge of any tag of its site, and of no other site's.
func TestTooManyTags(t *testing.T) {
	table := newPurgeTable()
	s := purgeScopes{site: "s", resource: "s.test/a"}.tagged(http.Header{"Cache-Tag": {strings.Repeat("x", maxTagBytes+1)}}, &target{})
	table.record(scope{scopeTag, "other", "y"}, "other", instant{seq: 1}, false)
	if hard, _ := table.check(&s, instant{}); hard {
		t.Error("purged by a tag of another site")
	}
	table.record(scope{scopeTag, "s", "y"}, "s", instant{seq: 2}, false)
	if hard, _ := table.check(&s, instant{}); !hard {
		t.Error("the purge of a tag that may be its own left it")
	}
	if hard, soft := table.check(&s, instant{seq: 2}); hard || soft {
		t.Error("purged again, though it was fetched after")
	}
}

// TestPurgeTableFoldsEveryKind: tags and prefixes count and fold as URLs do.
func TestPurgeTableFoldsEveryKind(t *testing.T) {
	table := newPurgeTable()
	table.max = 3
	name := func(i int) (scope, purgeScopes) {
		tag, path := fmt.Sprint("t", i), fmt.Sprintf("s.test/%d", i)
		p := purgeScopes{site: "s", resource: path + "/x?y", tags: []string{tag}, groups: []string{tag}, origin: "http://s.test"}
		return []scope{
			{scopeTag, "s", tag}, {scopePrefix, "", path}, {scopeURL, "", path + "/x?y"}, {scopeGroup, "http://s.test", tag},
		}[i%4], p
	}
	const n = 40
	for i := range n {
		s, _ := name(i)
		table.record(s, "s", instant{seq: uint64(i + 1)}, false)
	}
	if table.bounded != 3 || table.folded != n-3 {
		t.Errorf("%d scopes, %d folded", table.bounded, table.folded)
	}
	counted := 0
	for _, c := range table.count {
		counted += c
	}
	if counted != 3 {
		t.Errorf("%v counted by kind", table.count)
	}
	for i := range n {
		_, p := name(i)
		hard, soft := table.check(&p, instant{seq: uint64(i)})
		if !hard {
			t.Errorf("purge %d is hard no more (soft %v)", i+1, soft)
		}
	}
}

// TestPrefixSegments: a prefix at the bound is found below a path of any
// depth, a longer one is refused.
func TestPrefixSegments(t *testing.T) {
	e := gatedEdge(t, newGated(""), 0)
	deepest := "http://s.test" + strings.Repeat("/a", maxPrefixSegments)
	purged(t, e, Purge{Seq: 1, Prefix: deepest + "/"})
	if err := e.Purge(Purge{Seq: 2, Prefix: deepest + "/a/a"}); err == nil {
		t.Error("a deeper prefix was taken")
	}
	for path, want := range map[string]bool{
		strings.Repeat("/a", maxPrefixSegments):         true,
		strings.Repeat("/a", maxPrefixSegments) + "b":   false,
		strings.Repeat("/a", maxPrefixSegments) + "/?a": true,
		strings.Repeat("/a", 4000):                      true,
		strings.Repeat("/a", maxPrefixSegments-1):       false,
		strings.Repeat("/a", maxPrefixSegments-1) + "/": false,
	} {
		if hard, _ := e.purges.check(&purgeScopes{site: "s", resource: "s.test" + path}, instant{}); hard != want {
			t.Errorf("%.80s: %v, want %v", path, hard, want)
		}
	}
}

// TestPurgeCheckAllocatesNothing: a hit probes every scope of its response.
func TestPurgeCheckAllocatesNothing(t *testing.T) {
	table := newPurgeTable()
	for i, s := range []scope{{scopeURL, "", "x"}, {scopePrefix, "", "x"}, {scopeTag, "s", "x"}, {scopeGroup, "o", "x"}} {
		table.record(s, "s", instant{seq: uint64(i + 1)}, false)
	}
	p := purgeScopes{site: "s", resource: "s.test/a/b/c?d", origin: "http://s.test", tags: []string{"a", "b"}, groups: []string{"a"}}
	if n := testing.AllocsPerRun(100, func() { table.check(&p, instant{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzGroups(f *testing.F) {
	f.Add(`"a";b=1, "c"`)
	f.Add(`"\"";*x="\\",`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, g := range groupsOf([]string{s}) {
			quoted := string(appendSFString(nil, g))
			if again := groupsOf([]string{quoted}); len(again) != 1 || again[0] != g {
				t.Errorf("%q came back as %q", g, again)
			}
		}
	})
}

// TestPurgeTableFoldsAsItWas: a hard purge that is folded keeps what it covered
// from being served, a soft one lets it be served stale, and neither covers what
// was fetched after it.
func TestPurgeTableFoldsAsItWas(t *testing.T) {
	for _, soft := range []bool{false, true} {
		table := newPurgeTable()
		table.max = 2
		for i := range 5 {
			table.record(scope{scopeURL, "", fmt.Sprintf("s.test/%d", i)}, "s", instant{seq: uint64(i + 1)}, soft)
		}
		p := purgeScopes{site: "s", resource: "s.test/0"}
		if h, s := table.check(&p, instant{}); h == soft || s != soft {
			t.Errorf("soft purge %v: after the fold hard %v, soft %v", soft, h, s)
		}
		if h, s := table.check(&p, instant{seq: 3}); h || s {
			t.Errorf("soft purge %v: what was fetched after it: hard %v, soft %v", soft, h, s)
		}
	}
}

// TestRevalidateBeginsAnew: the feed's log was restored from an older copy. What is
// stored is validated; a purge with a number that was given out before takes what was
// fetched since, and an old purge with a higher one takes nothing more.
func TestRevalidateBeginsAnew(t *testing.T) {
	h := http.Header{"Cache-Control": {"max-age=60"}}
	o := &told{answers: []toldAnswer{{nil, 200, h, "1"}, {nil, 200, h, "2"}, {nil, 200, h, "3"}, {nil, 200, h, "4"}}}
	e := gatedEdge(t, o, 0)
	get := func(want string) {
		t.Helper()
		a := newAnswer()
		if call(t.Context(), e, a); a.body.String() != want {
			t.Errorf("got %q, want %q", a.body.String(), want)
		}
		fetchesEnd(e)
	}
	purged(t, e, Purge{Seq: 8, URL: "http://s.test/a"})
	e.SetApplied(9, testLog)
	get("1")
	get("1")
	e.Revalidate()
	e.SetApplied(6, testLog) // the copy's end
	get("2")
	get("2")
	purged(t, e, Purge{Seq: 7, URL: "http://s.test/a"})
	get("3")
	get("3")
	e.Revalidate() // twice: numbers of the second log are over, too
	purged(t, e, Purge{Seq: 3, Site: "s", All: true})
	get("4")
	get("4")
}

// Slices fall under the tags that the representation has now, and under those
// that they came with.
func TestTagsOfSlices(t *testing.T) {
	f := newLargeFile(20 << 20)
	f.tags = "old"
	slicing(t, f, 64<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "0-2000000", 0, 2000001, "")
		time.Sleep(61 * time.Second)
		f.tags = "new"
		f.expect(t, w, "1000000-2000000", 1000000, 1000001, "fwd=stale") // a 304 with other tags
		if got := f.requests(); strings.Count(got, "GET") != 3 {
			t.Fatalf("the origin was asked %s", got)
		}
		f.expect(t, w, "1000000-2000000", 1000000, 1000001, "hit")
		w.edge.Purge(Purge{Site: "shop", Tag: "new"})
		f.shift = 3 // under the same validator: only the purge can tell
		f.expect(t, w, "0-2000000", 0, 2000001, "fwd=uri-miss")
		f.tags = "of one slice"
		f.expect(t, w, "6000000-6000009", 6000000, 10, "hit")
		f.tags = "new"
		f.requests()
		w.edge.Purge(Purge{Site: "shop", Tag: "slice"})
		f.shift = 4
		f.expect(t, w, "6000000-6000009", 6000000, 10, "hit")
		if got := f.requests(); strings.Count(got, "GET") != 1 {
			t.Errorf("after the purge of a slice's own tag: %s", got)
		}
	})
}
