package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// gated is an origin whose responses' heads and bodies come when the test says.
type gated struct {
	requests atomic.Int64
	header   http.Header
	head     chan struct{} // closed: the head is sent
	body     chan string   // parts; closed at the end
	fail     error         // instead of the end
}

func newGated(cacheControl string) *gated {
	return &gated{header: http.Header{"Cache-Control": {cacheControl}}, head: make(chan struct{}), body: make(chan string, 1000)}
}

func (g *gated) RoundTrip(r *http.Request) (*http.Response, error) {
	g.requests.Add(1)
	select {
	case <-g.head:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	pr, pw := io.Pipe()
	go func() {
		for part := range g.body {
			if _, err := io.WriteString(pw, part); err != nil {
				return
			}
		}
		pw.CloseWithError(g.fail)
	}()
	return &http.Response{StatusCode: 200, Header: g.header.Clone(), Body: pr, ContentLength: -1, Request: r}, nil
}

func gatedEdge(t *testing.T, rt http.RoundTripper, memory int64) *Edge {
	e, err := New(Config{MemoryBytes: memory, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: rt}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		holdsNothing(t, e.store)
	})
	return e
}

// call runs one GET through the handler; aborted tells an abort from an end.
func call(ctx context.Context, e *Edge, w http.ResponseWriter, fields ...string) (aborted bool) {
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://s.test/a", nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			aborted = true
		}
	}()
	e.ServeHTTP(w, r)
	return false
}

func TestFollowersStreamFromTheGrowingBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		const waiters = 1000
		answers := make([]*streamed, waiters)
		var wg sync.WaitGroup
		for i := range answers {
			answers[i] = &streamed{header: http.Header{}}
			wg.Go(func() {
				if call(t.Context(), e, answers[i]) {
					t.Errorf("request %d was aborted", i)
				}
			})
		}
		synctest.Wait()
		close(g.head)
		g.body <- "first "
		synctest.Wait() // the origin is still sending: everybody has the first part
		for i, w := range answers {
			if got := w.String(); got != "first " {
				t.Fatalf("request %d has %q", i, got)
			}
		}
		if e.store.bytes != 0 {
			t.Errorf("stored before the end")
		}
		g.body <- "second"
		close(g.body)
		wg.Wait()
		synctest.Wait()
		for i, w := range answers {
			if got := w.String(); got != "first second" {
				t.Fatalf("request %d has %q", i, got)
			}
		}
		if n := g.requests.Load(); n != 1 {
			t.Errorf("%d requests to the origin", n)
		}
		w := &streamed{header: http.Header{}}
		call(t.Context(), e, w)
		if cs := w.header.Get("Cache-Status"); !strings.Contains(cs, "; hit") || e.store.filling != 0 {
			t.Errorf("after the end: %s, %d octets still reserved", cs, e.store.filling)
		}
	})
}

// streamed is a ResponseWriter that can be read while it is written.
type streamed struct {
	mu     sync.Mutex
	header http.Header
	status int
	body   bytes.Buffer
	stall  chan struct{} // not nil: writes wait for it
}

func (w *streamed) Header() http.Header    { return w.header }
func (w *streamed) WriteHeader(status int) { w.status = status }
func (w *streamed) Write(p []byte) (int, error) {
	if w.stall != nil {
		<-w.stall
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.Write(p)
}
func (w *streamed) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.String()
}

func TestLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() { gone <- call(ctx, e, newAnswer()) }()
		synctest.Wait()
		second := newAnswer()
		var wg sync.WaitGroup
		wg.Go(func() { call(t.Context(), e, second) })
		synctest.Wait()
		leave()
		if !<-gone {
			t.Error("the leader was not aborted")
		}
		close(g.head)
		g.body <- "hello"
		close(g.body)
		wg.Wait()
		if second.body.String() != "hello" || g.requests.Load() != 1 {
			t.Errorf("the follower got %q after %d requests", second.body.String(), g.requests.Load())
		}
	})
}

// What cannot be shared is nobody's once its leader has left: the fetch lets go
// of all that it holds, its context too, which would stay for the edge's life.
func TestLeaderOfAPrivateResponseLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("private")
		e := gatedEdge(t, g, 0)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() { gone <- call(ctx, e, newAnswer()) }()
		synctest.Wait()
		var fl *flight
		for _, fl = range e.flights.m {
		}
		var wg sync.WaitGroup
		wg.Go(func() { call(t.Context(), e, newAnswer()) })
		synctest.Wait()
		leave()
		<-gone
		close(g.head)
		close(g.body)
		wg.Wait()
		synctest.Wait() // the fetch ends behind those who wait for it
		if fl.ctx.Err() == nil {
			t.Error("the context of the fetch is still there")
		}
	})
}

func TestFetchThatNobodyWantsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() { gone <- call(ctx, e, newAnswer()) }()
		synctest.Wait()
		leave()
		<-gone
		synctest.Wait() // a fill that went on would keep the bubble from ending
		if len(e.flights.m) != 0 {
			t.Error("the flight is still there")
		}
	})
}

// http-checklist 62: a hung fetch holds nobody up for long, and a thousand who
// waited for it make one more, not a thousand.
func TestCollapseIsTimeBoxed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { call(t.Context(), e, newAnswer()) })
		}
		for want := int64(1); want <= maxTries; want++ {
			synctest.Wait()
			if n := g.requests.Load(); n != want {
				t.Errorf("%d requests to the origin, want %d", n, want)
			}
			time.Sleep(maxCollapseWait + time.Millisecond)
		}
		synctest.Wait()
		if n := g.requests.Load(); n != maxTries {
			t.Errorf("%d requests to the origin at last", n)
		}
		close(g.head)
		close(g.body)
		wg.Wait()
	})
}

// TestAuthorizationNeverWaits: requests with Authorization each ask the origin.
func TestAuthorizationNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { call(t.Context(), e, newAnswer(), "Authorization", "Basic YTpi") })
		}
		synctest.Wait()
		if n := g.requests.Load(); n != 5 {
			t.Errorf("%d requests to the origin, want 5", n)
		}
		close(g.head)
		close(g.body)
		wg.Wait()
	})
}

// TestPurgeAgainstFill: what was asked for before a purge is not used after
// it, neither from the store nor by joining its fetch.
func TestPurgeAgainstFill(t *testing.T) {
	for _, purge := range []Purge{{URL: "http://s.test/a"}, {Site: "s", All: true}, {All: true}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGated("max-age=60")
			e := gatedEdge(t, g, 0)
			e.SetApplied(41, testLog)
			var wg sync.WaitGroup
			before, after := newAnswer(), newAnswer()
			wg.Go(func() { call(t.Context(), e, before) })
			synctest.Wait()
			purge.Seq = 42
			if err := e.Purge(purge); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { call(t.Context(), e, after) })
			synctest.Wait()
			if n := g.requests.Load(); n != 2 {
				t.Fatalf("%d requests: the second joined a fetch from before the purge", n)
			}
			close(g.head)
			close(g.body)
			wg.Wait()
			synctest.Wait()
			third := newAnswer()
			call(t.Context(), e, third)
			if cs := third.header.Get("Cache-Status"); !strings.Contains(cs, "hit") {
				t.Errorf("%s: the fetch after the purge was not stored", cs)
			}
			obj, _ := e.store.get([]byte("http://s.test/a"), headerFields{})
			if obj == nil || obj.asOf.seq != 42 {
				t.Errorf("stored: %+v, want asOf 42", obj)
			}
			// A restart replays its journal: the same purge again changes nothing.
			if err := e.Purge(purge); err != nil {
				t.Fatal(err)
			}
			if f := e.Snapshot().find(&Site{Name: "s"}, []byte("http://s.test/a"), headerFields{}, e.now()); f.use != useFresh {
				t.Errorf("after the purge again: use %d", f.use)
			}
		})
	}
}

// TestInvalidationAgainstFill: a GET under way when a POST succeeds is not stored.
func TestInvalidationAgainstFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 0)
		var wg sync.WaitGroup
		wg.Go(func() { call(t.Context(), e, newAnswer()) })
		synctest.Wait()
		e.invalidate("http://s.test/a", nil)
		close(g.head)
		close(g.body)
		wg.Wait()
		synctest.Wait()
		if o, _ := e.store.get([]byte("http://s.test/a"), headerFields{}); o != nil {
			t.Error("the response from before the POST was stored")
		}
	})
}

// TestTooLargeToKeep: a body of unknown length that outgrows the store is
// passed on whole, not kept, and a follower that stalls is cut off alone.
func TestTooLargeToKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 1<<20) // keeps 128 KiB an object
		fast := &streamed{header: http.Header{}}
		slow := &streamed{header: http.Header{}, stall: make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() {
			if call(t.Context(), e, fast) {
				t.Error("the fast client was aborted")
			}
		})
		var cut atomic.Bool
		wg.Go(func() { cut.Store(call(t.Context(), e, slow)) })
		synctest.Wait()
		close(g.head)
		synctest.Wait() // both follow: who came when the start is gone would fetch by itself
		part := strings.Repeat("x", 64<<10)
		for range 100 {
			g.body <- part
		}
		close(g.body)
		synctest.Wait()
		if got := len(fast.String()); got != 100*64<<10 {
			t.Errorf("the fast client has %d octets", got)
		}
		close(slow.stall)
		wg.Wait()
		synctest.Wait()
		if !cut.Load() {
			t.Error("the stalled client was not cut off")
		}
		if e.store.bytes != 0 || e.store.filling != 0 {
			t.Errorf("%d octets stored, %d reserved", e.store.bytes, e.store.filling)
		}
	})
}

func TestFailedBodyReachesEveryFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		g.fail = errors.New("connection reset")
		e := gatedEdge(t, g, 0)
		var wg sync.WaitGroup
		var aborted atomic.Int64
		for range 10 {
			wg.Go(func() {
				if call(t.Context(), e, newAnswer()) {
					aborted.Add(1)
				}
			})
		}
		synctest.Wait()
		close(g.head)
		g.body <- "half"
		close(g.body)
		wg.Wait()
		synctest.Wait()
		if aborted.Load() != 10 || e.store.bytes != 0 {
			t.Errorf("%d of 10 aborted, %d octets stored", aborted.Load(), e.store.bytes)
		}
	})
}

// inTurn gives each request its own origin.
type inTurn struct {
	n       atomic.Int64
	origins []*gated
}

func (s *inTurn) RoundTrip(r *http.Request) (*http.Response, error) {
	return s.origins[s.n.Add(1)-1].RoundTrip(r)
}

// TestOldFillDoesNotReplaceNew: a fetch from before a purge that ends after
// one from behind it leaves that one's response alone.
func TestOldFillDoesNotReplaceNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &inTurn{origins: []*gated{newGated("max-age=60"), newGated("max-age=60")}}
		e := gatedEdge(t, s, 0)
		var wg sync.WaitGroup
		wg.Go(func() { call(t.Context(), e, newAnswer()) })
		synctest.Wait()
		if err := e.Purge(Purge{Seq: 7, URL: "http://s.test/a"}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { call(t.Context(), e, newAnswer()) })
		synctest.Wait()
		for i, text := range map[int]string{0: "old", 1: "new"} {
			s.origins[i].body <- text
			close(s.origins[i].body)
		}
		close(s.origins[1].head)
		synctest.Wait()
		close(s.origins[0].head)
		wg.Wait()
		synctest.Wait()
		w := newAnswer()
		call(t.Context(), e, w)
		if w.body.String() != "new" || s.n.Load() != 2 {
			t.Errorf("%q after %d requests to the origin", w.body.String(), s.n.Load())
		}
	})
}
