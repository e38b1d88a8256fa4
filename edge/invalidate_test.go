package edge

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestInvalidateRace: what was fetched before an unsafe request is not stored
// after it, however close the two come (RFC 9111 §4.4).
func TestInvalidateRace(t *testing.T) {
	var version, acknowledged atomic.Int64
	site := Site{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Version", strconv.FormatInt(version.Add(1), 10))
			return
		}
		v := strconv.FormatInt(version.Load(), 10)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Version", v)
		w.Write([]byte(v))
	}))}
	e, err := New(Config{Sites: []Site{site}, Limits: &Limits{}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ask := func(method string) int64 {
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, httptest.NewRequest(method, "http://shop.test/page", nil))
		v, err := strconv.ParseInt(rec.Header().Get("Version"), 10, 64)
		if err != nil || rec.Code != http.StatusOK {
			t.Errorf("%s: %d, %v", method, rec.Code, err)
		}
		return v
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if floor, v := acknowledged.Load(), ask(http.MethodGet); v < floor {
					t.Errorf("version %d, and %d was acknowledged", v, floor)
					return
				}
			}
		})
	}
	for range 3000 {
		v := ask(http.MethodPost)
		acknowledged.Store(v)
	}
	close(done)
	wg.Wait()
}

// TestInvalidateSolo: nor is what was fetched by a request that nobody shares
// its fetch with.
func TestInvalidateSolo(t *testing.T) {
	gate := make(chan struct{})
	fields := http.Header{"Cache-Control": {"public, max-age=60"}}
	o := &told{answers: []toldAnswer{{gate: gate, status: 200, header: fields, body: "old"}, {status: 204}, {status: 200, header: fields, body: "new"}}}
	e, err := New(Config{Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: o}}, Limits: &Limits{}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ask := func(method, authorization string) string {
		rec := httptest.NewRecorder()
		r := httptest.NewRequest(method, "http://shop.test/page", nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		e.ServeHTTP(rec, r)
		return rec.Body.String()
	}
	first := make(chan string)
	go func() { first <- ask("GET", "Basic x") }()
	for len(o.seen()) == 0 {
		runtime.Gosched()
	}
	ask("POST", "")
	close(gate)
	if got := <-first; got != "old" {
		t.Errorf("who asked before got %q", got)
	}
	for range 100 { // till what it brought would have been stored
		e.flights.mu.Lock()
		n := len(e.flights.all)
		e.flights.mu.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if got := ask("GET", ""); got != "new" {
		t.Errorf("who asked after got %q", got)
	}
}
