package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/origin"
)

// TestOnePullForAll: many who ask for a blob that is at another control node have it come
// once.
func TestOnePullForAll(t *testing.T) {
	const content, edges = "a large file", 20
	d := origin.DigestOf([]byte(content))
	asked, answer := make(chan struct{}, edges), make(chan struct{})
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		http.ServeContent(w, httptest.NewRequest(http.MethodGet, "/", nil), "", time.Time{}, strings.NewReader(content))
	}))
	t.Cleanup(other.Close)
	blobs, err := origin.OpenBlobs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	s := &Server{blobs: blobs, pulls: newFlights(), peers: &peers{list: []ClusterPeer{{Name: "ctl2", Blobs: other.Listener.Addr().String()}}, http: other.Client()}}
	var wg sync.WaitGroup
	for range edges {
		wg.Go(func() {
			c, err := s.findContent(bounded(t), d)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if b, err := io.ReadAll(c); err != nil || string(b) != content {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	waiting := func() int {
		s.pulls.mu.Lock()
		defer s.pulls.mu.Unlock()
		if fl := s.pulls.of[d]; fl != nil {
			return fl.wanted
		}
		return 0
	}
	for end := time.Now().Add(patience); waiting() < edges && len(asked) < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	close(answer)
	wg.Wait()
	if n := len(asked); n != 1 {
		t.Errorf("the other control node was asked %d times", n)
	}
}

// TestFlights: who came while a call was under way has one of its own when that fails,
// and shares it with the others of that kind; who gives up does not end it for others, and
// the last one does.
func TestFlights(t *testing.T) {
	d := origin.DigestOf([]byte("x"))
	failed := errors.New("not there")
	t.Run("late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			found, f, calls := make(chan error), newFlights(), 0
			get := func(context.Context) error { calls++; return <-found }
			var got [3]chan error
			for i := range got {
				got[i] = make(chan error, 1)
				go func() { got[i] <- f.do(t.Context(), d, get) }()
				synctest.Wait()
			}
			found <- failed
			synctest.Wait()
			if err := <-got[0]; err != failed || calls != 2 {
				t.Errorf("who began the call: %v; %d calls", err, calls)
			}
			found <- nil
			if err := errors.Join(<-got[1], <-got[2]); err != nil || calls != 2 {
				t.Errorf("who came later: %v; %d calls", err, calls)
			}
		})
	})
	t.Run("given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, ended := newFlights(), 0
			get := func(ctx context.Context) error { <-ctx.Done(); ended++; return ctx.Err() }
			var got [2]chan error
			var giveUp [2]context.CancelFunc
			for i := range got {
				var ctx context.Context
				ctx, giveUp[i] = context.WithCancel(t.Context())
				got[i] = make(chan error, 1)
				go func() { got[i] <- f.do(ctx, d, get) }()
				synctest.Wait()
			}
			giveUp[0]()
			synctest.Wait()
			if err := <-got[0]; !errors.Is(err, context.Canceled) || ended != 0 {
				t.Errorf("%v; the call has ended %d times, and one waits for it", err, ended)
			}
			giveUp[1]()
			if err := <-got[1]; !errors.Is(err, context.Canceled) || ended != 1 || len(f.of) != 0 || len(f.slots) != 0 {
				t.Errorf("%v; ended %d times; %d under way, %d slots", err, ended, len(f.of), len(f.slots))
			}
		})
	})
}
