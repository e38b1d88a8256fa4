package edge

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowOrigin answers each request after half a second.
type slowOrigin struct {
	mu           sync.Mutex
	requests     int
	cacheControl string
}

func (o *slowOrigin) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	o.requests++
	h := http.Header{"Cache-Control": {o.cacheControl}}
	o.mu.Unlock()
	select {
	case <-time.After(500 * time.Millisecond):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: 200, Header: h, Body: http.NoBody, Request: r}, nil
}

func (o *slowOrigin) seen() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.requests
}

// round has n clients ask for path at once, and returns how long they took and
// how many requests reached the origin.
func (o *slowOrigin) round(t *testing.T, e *Edge, path string, n int) (took time.Duration, requests int) {
	t.Helper()
	begin := time.Now()
	before := o.seen()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://s.test"+path, nil))
			if w.Code != 200 {
				t.Errorf("%s: %d", path, w.Code)
			}
		})
	}
	wg.Wait()
	took = time.Since(begin)
	time.Sleep(time.Millisecond) // what was fetched is stored
	return took, o.seen() - before
}

// http-checklist 62: twenty who ask for a private page that takes half a second
// have it after little more, in the first round too; a thousand who ask for
// one that all may have cost one fetch, however long it takes.
func TestPrivateIsNotSerialisedAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &slowOrigin{cacheControl: "private"}
		e := gatedEdge(t, o, 0)
		if took, n := o.round(t, e, "/mine", 20); took != 500*time.Millisecond+earlyWait || n != 20 {
			t.Errorf("the first round took %v, %d requests", took, n)
		}
		if took, n := o.round(t, e, "/mine", 20); took != 500*time.Millisecond || n != 20 {
			t.Errorf("the second took %v, %d requests", took, n)
		}
		o.cacheControl = "max-age=60"
		if _, n := o.round(t, e, "/ours", 1000); n != 1 {
			t.Errorf("%d requests for a thousand", n)
		}
		if e.flights.early != 0 {
			t.Errorf("%d are still counted", e.flights.early)
		}
	})
}

// What goes early is bounded: by those who wait, by all who went, and by how
// often it was in vain; and what was stored before is waited for.
func TestEarlyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &slowOrigin{cacheControl: "max-age=60"}
		e := gatedEdge(t, o, 0)
		if _, n := o.round(t, e, "/many", maxGoEarly+2); n != 1 {
			t.Errorf("%d requests for %d who wait", n, maxGoEarly+1)
		}
		e.flights.early = maxEarlyAtOnce - 1
		if _, n := o.round(t, e, "/full", 3); n != 1 {
			t.Errorf("%d requests while others have all places but one", n)
		}
		e.flights.early = 0
		var late sync.WaitGroup
		late.Go(func() {
			time.Sleep(earlyWait - earlyQuiet + time.Millisecond)
			o.round(t, e, "/coming", 1)
		})
		if _, n := o.round(t, e, "/coming", 3); n != 1 {
			t.Errorf("%d requests while more are coming", n)
		}
		late.Wait()
		for i := range earlyTrust {
			if _, n := o.round(t, e, "/vain"+string(rune('a'+i)), 3); n != 3 {
				t.Errorf("%d requests for what may be private", n)
			}
		}
		if _, n := o.round(t, e, "/shared", 3); n != 1 {
			t.Errorf("%d requests on a site where all is shareable", n)
		}
		o.cacheControl = "private"
		o.round(t, e, "/private", 3)
		if _, n := o.round(t, e, "/other", 3); n != 3 || len(e.flights.vain) != 0 {
			t.Errorf("%d requests when one was private, %v", n, e.flights.vain)
		}
		e.Purge(Purge{All: true})
		o.cacheControl = "max-age=60"
		if _, n := o.round(t, e, "/many", 3); n != 1 {
			t.Errorf("%d requests for what was stored before the purge", n)
		}
	})
}

// Who waits for another's fetch pays for no miss; who then fetches by itself does,
// or a client with many connections to private pages would pass [limit] misses.
func TestFetchAfterWaitingCostsAMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &slowOrigin{cacheControl: "private"}
		e := gatedEdge(t, o, 0)
		e.SetLimits(Limits{Misses: 1})
		var refused, served int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 2 * missBurst {
			wg.Go(func() {
				w := httptest.NewRecorder()
				e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://s.test/mine", nil))
				mu.Lock()
				defer mu.Unlock()
				switch w.Code {
				case http.StatusOK:
					served++
				case http.StatusTooManyRequests:
					refused++
				}
			})
		}
		wg.Wait()
		if n := o.seen(); n != missBurst || served != missBurst || refused != missBurst {
			t.Errorf("%d requests reached the origin, %d served, %d refused: %d misses were left", n, served, refused, missBurst)
		}
	})
}

// Who may go and cannot pay gives the place back at once: it waits on, and may be
// asked again at the next fetch that it waits for.
func TestWhoCannotPayKeepsNoPlace(t *testing.T) {
	e := gatedEdge(t, &slowOrigin{}, 0)
	e.SetLimits(Limits{Misses: 1})
	const client = "192.0.2.1"
	for e.clients.miss(client, e.now().Add(time.Hour)) { // it has none again for long
	}
	for range 2 {
		fl := e.solo("key", purgeScopes{})
		fl.early = earlyGo
		x := &exchange{e: e, q: &request{client: client}, spared: true}
		if x.goEarly(fl) || x.early || e.flights.early != 0 {
			t.Errorf("it went: %v, %d are counted", x.early, e.flights.early)
		}
		e.unwatch(fl)
	}
}

// Who went early and has to begin anew, since the representation changed, gives
// its place back once.
func TestEarlyBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 2 << 20
		e := gatedEdge(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(500 * time.Millisecond)
			h := http.Header{"Cache-Control": {"max-age=0"}, "Etag": {`"1"`}, "Accept-Ranges": {"bytes"}}
			if r.Header.Get("Range") != "" {
				h["Etag"] = []string{`"2"`}
			}
			return &http.Response{StatusCode: 200, Header: h, ContentLength: size, Body: io.NopCloser(bytes.NewReader(make([]byte, size))), Request: r}, nil
		}), 8<<20) // keeps 1 MiB an object
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				w := httptest.NewRecorder()
				e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://s.test/a", nil))
				if w.Code != 200 || w.Body.Len() != size {
					t.Errorf("%d, %d octets", w.Code, w.Body.Len())
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if e.flights.early != 0 {
			t.Errorf("%d are counted", e.flights.early)
		}
	})
}
