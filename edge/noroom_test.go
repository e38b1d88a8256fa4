package edge

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestNoRoomForWhatIsUnderWay: when responses under way take all the room there
// is for them, another is passed to its client by the one fetch that it is.
func TestNoRoomForWhatIsUnderWay(t *testing.T) {
	text := strings.Repeat("x", 3*maxLag)
	for _, length := range []int64{-1, int64(len(text))} {
		synctest.Test(t, func(t *testing.T) {
			var fetches atomic.Int64
			e := gatedEdge(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
				if fetches.Add(1) > 10 {
					return nil, io.ErrUnexpectedEOF // enough is enough
				}
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {"max-age=60"}},
					Body: io.NopCloser(strings.NewReader(text)), ContentLength: length, Request: r}, nil
			}), 64<<20)
			if !e.store.reserve(e.store.budget / fillingShare) {
				t.Fatal("nothing to take")
			}
			w := newAnswer()
			if aborted := call(t.Context(), e, w); aborted || w.body.String() != text || fetches.Load() != 1 {
				t.Errorf("length %d: aborted %v, status %d with %d octets, after %d fetches", length, aborted, w.status, w.body.Len(), fetches.Load())
			}
			synctest.Wait()
			if len(e.flights.m) != 0 {
				t.Error("a flight is left")
			}
		})
	}
}

// Nor does a fetch wait for a client that has left, or that never waited for it.
func TestNoRoomAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=1, stale-while-revalidate=60")
		e := gatedEdge(t, g, 64<<20)
		close(g.head)
		g.body <- "hello"
		close(g.body)
		if w := newAnswer(); call(t.Context(), e, w) || w.body.String() != "hello" {
			t.Fatalf("%d %q", w.status, w.body.String())
		}
		if !e.store.reserve(e.store.budget / fillingShare) {
			t.Fatal("nothing to take")
		}
		time.Sleep(2 * time.Second)
		if w := newAnswer(); call(t.Context(), e, w) || w.body.String() != "hello" {
			t.Errorf("stale: %d %q", w.status, w.body.String())
		}
		synctest.Wait()
		if n := g.requests.Load(); n != 2 || len(e.flights.m) != 0 {
			t.Errorf("%d fetches, %d under way", n, len(e.flights.m))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var fetches atomic.Int64
		head := make(chan struct{})
		e := gatedEdge(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			fetches.Add(1)
			<-head
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {"max-age=60"}},
				Body: io.NopCloser(strings.NewReader("hello")), ContentLength: -1, Request: r}, nil
		}), 64<<20)
		e.store.reserve(e.store.budget / fillingShare)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() { gone <- call(ctx, e, newAnswer()) }()
		synctest.Wait()
		second := newAnswer()
		var wg sync.WaitGroup
		wg.Go(func() { call(t.Context(), e, second) })
		synctest.Wait()
		leave()
		<-gone
		close(head)
		wg.Wait()
		if n := fetches.Load(); second.body.String() != "hello" || n > 2 {
			t.Errorf("the follower got %q after %d fetches", second.body.String(), n)
		}
		synctest.Wait()
		if len(e.flights.m) != 0 {
			t.Error("a flight is left")
		}
	})
}

// Slices that cannot be kept reach the client all the same.
func TestNoRoomForSlices(t *testing.T) {
	f := newLargeFile(8 << 20)
	slicing(t, f, 16<<20, func(t *testing.T, w *world) {
		w.edge.store.reserve(w.edge.store.budget / fillingShare)
		f.expect(t, w, "", 0, f.size, "fwd=uri-miss")
		w.edge.store.release(w.edge.store.budget / fillingShare)
	})
}

// A client that is slower than the origin, and alone, gets a body whole that turns
// out to be too large to keep, however far it is behind in that moment.
func TestTooLargeForASlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		e := gatedEdge(t, g, 64<<20) // keeps 8 MiB an object
		close(g.head)
		slow := &streamed{header: http.Header{}, stall: make(chan struct{})}
		part := strings.Repeat("x", 64<<10)
		for range 200 {
			g.body <- part
		}
		close(g.body)
		var wg sync.WaitGroup
		wg.Go(func() {
			if call(t.Context(), e, slow) {
				t.Error("it was cut off")
			}
		})
		synctest.Wait() // it takes nothing, and the body is no longer kept
		close(slow.stall)
		wg.Wait()
		synctest.Wait()
		if got := len(slow.String()); got != 200*64<<10 {
			t.Errorf("it has %d octets", got)
		}
	})
}

// Nothing is kept for a client that takes nothing of such a body while another
// reads on.
func TestTooLargeKeepsNothingForWhoStalls(t *testing.T) {
	e := gatedEdge(t, newGated(""), 0)
	g := newGrowing(-1, e.store.arena)
	stalled, fast := g.follow(false), g.follow(false)
	go g.fill(t.Context(), strings.NewReader(strings.Repeat("x", 16*maxLag)), func(int64) bool { return false })
	if _, err := stalled.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err != io.EOF; {
		if _, err = fast.next(t.Context()); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	kept := 0
	for c := stalled.at; c != nil; c = c.next {
		kept += len(c.data)
	}
	if kept > 4*maxLag {
		t.Errorf("%d octets are kept", kept)
	}
	if _, err := stalled.next(t.Context()); err != errTooSlow {
		t.Errorf("it goes on: %v", err)
	}
	stalled.close()
	fast.close()
	g.letGoOf()
	g.letGoOf()
}
