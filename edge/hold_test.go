package edge

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"perigee.example/internal/arena"
	"perigee.example/internal/evict"
)

func testStore(t testing.TB, budget int64) *store {
	t.Helper()
	s, err := newStore(budget, evict.S3FIFO, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// all calls f for each stored response; mu is held.
func (s *store) all(f func(id uint32, v *slot)) {
	for b := range s.index.buckets {
		for id := *s.index.head(b); id != 0; id = s.index.at(id).next {
			f(id, s.index.at(id))
		}
	}
}

// excess says what is held, beside by the store, of a store's arena: "" when
// every reader has let go.
func (s *store) excess() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	owners := map[arena.Extent]int{}
	var sum int64
	own := func(e arena.Extent) {
		owners[e]++
		for at := e.First(); at != 0 && owners[e] == 1; {
			var p []byte
			p, at = s.arena.Read(at)
			sum += int64(len(p))
		}
	}
	s.all(func(_ uint32, v *slot) {
		own(v.meta)
		if v.body != 0 {
			own(v.body)
		}
	})
	for e, n := range owners {
		if got := s.arena.Owners(e); got != n {
			return fmt.Sprintf("a body has %d owners, %d of them in the store", got, n)
		}
	}
	if used := s.arena.Stats().Used; used != sum {
		return fmt.Sprintf("%d octets of the arena are used, %d of them for what is stored", used, sum)
	}
	return ""
}

// holdsNothing fails the test if somebody who read a stored response has not let
// go of it, when all that is under way has had time to end.
func holdsNothing(t testing.TB, s *store) {
	t.Helper()
	var why string
	for range 500 {
		if why = s.excess(); why == "" {
			return
		}
		time.Sleep(10 * time.Millisecond) // for connections that the test has closed
	}
	t.Errorf("not let go of: %s", why)
}

// TestMissingCloseIsFound: the check that all other tests end with sees a body
// that Hit gave and nobody closed.
func TestMissingCloseIsFound(t *testing.T) {
	e := gatedEdge(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {"max-age=60"}},
			Body: io.NopCloser(strings.NewReader("hello")), ContentLength: 5, Request: r}, nil
	}), 1<<20)
	if w := newAnswer(); call(t.Context(), e, w) || w.body.String() != "hello" {
		t.Fatalf("%d %q", w.status, w.body.String())
	}
	holdsNothing(t, e.store)
	_, body, ok := Hit(nil, []byte("GET /a HTTP/1.1\r\nHost: s.test\r\n\r\n"), e.Snapshot(), time.Now())
	if !ok {
		t.Fatal("no hit")
	}
	if e.store.excess() == "" {
		t.Error("a body that is open counts for nothing")
	}
	e.store.remove("http://s.test/a")
	var out bytes.Buffer
	if _, err := body.WriteTo(&out); err != nil || out.String() != "hello" {
		t.Errorf("a body that left the store while it is open: %q, %v", out.String(), err)
	}
	body.Close()
	body.Close()
	if why := e.store.excess(); why != "" {
		t.Errorf("after Close: %s", why)
	}
}

// TestHeldWhileRead: many hits read while others make them leave the store and
// take their room: each gets its own octets.
func TestHeldWhileRead(t *testing.T) {
	text := func(path string) string { return strings.Repeat(path+"\n", 1+len(path)*211%3000) }
	e, err := New(Config{MemoryBytes: 1 << 20, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		s := text(r.URL.Path)
		n := int64(len(s))
		if len(r.URL.Path)%2 == 0 {
			n = -1
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {"max-age=60"}},
			Body: io.NopCloser(strings.NewReader(s)), ContentLength: n, Request: r}, nil
	})}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 11))
			for range 400 {
				path := "/" + strings.Repeat("x", rng.IntN(40)) + fmt.Sprint(rng.IntN(10))
				_, body, ok := Hit(nil, []byte("GET "+path+" HTTP/1.1\r\nHost: s.test\r\n\r\n"), e.Snapshot(), time.Now())
				var got string
				if ok {
					var out bytes.Buffer
					body.WriteTo(&out)
					got = out.String()
					body.Close()
				} else {
					r, _ := http.NewRequest(http.MethodGet, "http://s.test"+path, nil)
					w := newAnswer()
					e.ServeHTTP(w, r)
					got = w.body.String()
				}
				if got != text(path) {
					t.Errorf("%s: %d octets, %d wanted, or another's", path, len(got), len(text(path)))
				}
			}
		})
	}
	wg.Wait()
	if st := e.Stats().Store; st.Evictions == 0 || st.Bytes > st.Budget {
		t.Errorf("%d evictions, %d of %d octets", st.Evictions, st.Bytes, st.Budget)
	}
	holdsNothing(t, e.store)
}
