package edge

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hotEdge is an edge whose origin counts, and answers each request anew.
func hotEdge(t *testing.T, lifetime int, requests *atomic.Int64) *Edge {
	e, err := New(Config{Seed: 1, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		time.Sleep(time.Second)
		w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", lifetime))
		fmt.Fprint(w, n)
	}))}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// asks sends one request and returns the body, and how long it took.
func asks(t *testing.T, e *Edge, path string) (body, cache string, took time.Duration) {
	t.Helper()
	begin := time.Now()
	w := &streamed{header: http.Header{}}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://s.test"+path, nil)
	e.ServeHTTP(w, r)
	took = time.Since(begin)
	synctest.Wait()
	return w.String(), w.header.Get("Cache-Status"), took
}

// http-checklist 62: what is asked for again and again is refreshed before it
// expires, once, and none of its clients ever waits. What is not, expires.
func TestRefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		e := hotEdge(t, 100, &requests)
		asks(t, e, "/hot")
		asks(t, e, "/cold")
		for range 300 {
			time.Sleep(time.Second)
			if body, cache, took := asks(t, e, "/hot"); took != 0 || !strings.Contains(cache, "; hit") {
				t.Fatalf("%q after %v: %s", body, took, cache)
			}
		}
		// 100 s of life each, of which the last 5 to 10 are not waited for.
		if n := requests.Load(); n < 4 || n > 5 {
			t.Errorf("%d requests to the origin in 300 s", n)
		}
		requests.Store(0)
		if _, cache, took := asks(t, e, "/cold"); took != time.Second || requests.Load() != 1 {
			t.Errorf("the cold one: %s after %v", cache, took)
		}
	})
}

// A refresh that fails is not tried again: the response lives to its end.
func TestRefreshAheadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		e := gatedEdge(t, HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=100")
			if requests.Add(1) > 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})), 0)
		asks(t, e, "/hot")
		for range 99 {
			time.Sleep(time.Second)
			if _, cache, _ := asks(t, e, "/hot"); !strings.Contains(cache, "; hit") {
				t.Fatal(cache)
			}
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("%d requests to the origin", n)
		}
	})
}

// What was stored at once comes due at different times, and no faster than the
// rate: the origin sees no herd. Hit leaves each refreshing request alone.
func TestRefreshAheadIsSpreadAndLimited(t *testing.T) {
	const keys = 300
	for _, test := range []struct{ lifetime, least, most int64 }{
		{1000, keys, keys},               // over 30 s, by the draws
		{20, aheadRate, 2*aheadRate + 1}, // within a second: the rest is validated later
	} {
		synctest.Test(t, func(t *testing.T) {
			var requests atomic.Int64
			e := hotEdge(t, int(test.lifetime), &requests)
			for i := range keys {
				go func() {
					for range 1 + aheadUses {
						asksAlone(t, e, fmt.Sprint("/", i))
						time.Sleep(time.Millisecond) // the fetch's own goroutine stores it
					}
				}()
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			requests.Store(0)
			window := min(test.lifetime/aheadShare, int64(maxAhead/time.Second))
			time.Sleep(time.Duration(test.lifetime-window-2) * time.Second)
			most, total, left := int64(0), int64(0), 0
			for range 2 * (window - 1) { // its age is a second more than it has been here
				time.Sleep(500 * time.Millisecond)
				for i := range keys {
					head := fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: s.test\r\n\r\n", i)
					_, body, ok := Hit(nil, []byte(head), e.Snapshot(), e.now())
					body.Close()
					if !ok {
						left++
						asksAlone(t, e, fmt.Sprint("/", i))
					}
				}
				synctest.Wait()
				n := requests.Swap(0)
				most, total = max(most, n), total+n
			}
			time.Sleep(2 * time.Second) // the last ones end
			if most > aheadRate+aheadRate/2 || total < test.least || total > test.most || left > keys {
				t.Errorf("lifetime %d s: %d refreshes, %d in half a second at most; Hit left %d", test.lifetime, total, most, left)
			}
		})
	}
}

// http-checklist 62: what was stored at once and is asked for seldom does not
// expire at once either: it is validated at ages drawn from the last twentieth of
// its lifetime. Until then it is fresh: it stands in for an origin that fails, and
// for who does not want the origin to be asked.
func TestExpiryIsSpread(t *testing.T) {
	const keys, lifetime = 300, 1000
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		e := hotEdge(t, lifetime, &requests)
		all := func() int64 {
			requests.Store(0)
			for i := range keys {
				go asksAlone(t, e, fmt.Sprint("/", i))
			}
			time.Sleep(time.Second)
			synctest.Wait()
			return requests.Load()
		}
		all()
		begin := time.Now()
		at := func(age time.Duration) { time.Sleep(time.Until(begin.Add(age*time.Second - time.Second))) }
		at(lifetime - 31)
		if n := all(); n != 0 {
			t.Errorf("%d of %d were validated half a minute before they expire", n, keys)
		}
		at(lifetime - 15)
		first := all()
		if first < keys/3 || first > keys*2/3 {
			t.Errorf("%d of %d were validated in the first half of the time that they have for it", first, keys)
		}
		at(lifetime - 1)
		if n := all(); n+first != keys {
			t.Errorf("%d and %d of %d were validated before they expired", first, n, keys)
		}
	})
	for _, c := range []struct {
		name, method, field, value, want string
	}{
		{"the origin fails", "GET", "", "", "; fwd=stale"},
		{"only what is stored", "GET", "Cache-Control", "only-if-cached", "; hit"},
		{"HEAD", "HEAD", "", "", "; hit"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var failing atomic.Bool
			e := gatedEdge(t, HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=1000, must-revalidate")
				if failing.Load() {
					w.WriteHeader(http.StatusBadGateway)
				}
				fmt.Fprint(w, "good")
			})), 0)
			e.store.seed = 1 // some draws are of the last second
			asksAlone(t, e, "/a")
			failing.Store(true)
			time.Sleep(999 * time.Second)
			w := &streamed{header: http.Header{}}
			r, _ := http.NewRequestWithContext(t.Context(), c.method, "http://s.test/a", nil)
			if c.field != "" {
				r.Header.Set(c.field, c.value)
			}
			e.ServeHTTP(w, r)
			synctest.Wait()
			if got := w.header.Get("Cache-Status"); !strings.Contains(got, c.want) || c.method == "GET" && w.String() != "good" {
				t.Errorf("%s: %q, %s", c.name, w.String(), got)
			}
		})
	}
}

func asksAlone(t *testing.T, e *Edge, path string) {
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://s.test"+path, nil)
	e.ServeHTTP(&streamed{header: http.Header{}}, r)
}

func TestAheadAge(t *testing.T) {
	const all = ^uint64(0)
	for _, test := range []struct {
		lifetime time.Duration
		draw     uint64
		want     time.Duration
	}{
		{aheadLifetime - 1, 0, 0},
		{100 * time.Second, 0, 90 * time.Second},
		{100 * time.Second, uint64(5*time.Second) - 1, 95*time.Second - 1},
		{100 * time.Second, uint64(5 * time.Second), 90 * time.Second},
		{24 * time.Hour, 0, 24*time.Hour - maxAhead},
	} {
		if got := aheadAge(test.lifetime, test.draw); got != test.want {
			t.Errorf("aheadAge(%v, %d) = %v, want %v", test.lifetime, test.draw, got, test.want)
		}
	}
	if got := aheadAge(aheadLifetime, all); got < 9*time.Second || got >= aheadLifetime {
		t.Errorf("%v", got)
	}
}
