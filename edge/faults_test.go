package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/memnet"
	"perigee.example/origin"
)

// rawOrigin is an origin that speaks bytes: it answers each request with what
// say returns, "hang" for silence, and ends the connection when that is over.
type rawOrigin struct {
	network *memnet.Network
	ln      *memnet.Listener
	say     func(r *http.Request) string
	seen    atomic.Int64
	now     atomic.Int64 // requests under way
	most    atomic.Int64 // that there ever were
}

const rawOriginAddr = "192.0.2.9:80"

func (o *rawOrigin) start(t *testing.T) {
	var err error
	if o.ln, err = o.network.Listen("tcp", rawOriginAddr); err != nil {
		t.Fatal(err)
	}
	ln := o.ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go o.serve(c)
		}
	}()
}

// raise makes most at least n.
func raise(most *atomic.Int64, n int64) {
	for have := most.Load(); have < n && !most.CompareAndSwap(have, n); have = most.Load() {
	}
}

func (o *rawOrigin) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		o.seen.Add(1)
		raise(&o.most, o.now.Add(1))
		text := o.say(req)
		hangs := strings.HasSuffix(text, "hang")
		_, err = io.WriteString(c, strings.TrimSuffix(text, "hang"))
		if hangs {
			r.ReadByte() // until the edge hangs up
		}
		o.now.Add(-1)
		if err != nil || hangs || !strings.Contains(text, "keep") {
			return
		}
	}
}

// faulty runs a test of an edge before a raw origin.
func faulty(t *testing.T, say func(r *http.Request) string, test func(t *testing.T, w *world, o *rawOrigin)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, nil)
		defer w.stop()
		o := &rawOrigin{network: w.network, say: say}
		o.start(t)
		defer func() { o.ln.Close() }()
		pool, err := origin.NewPool(origin.PoolConfig{Origins: []string{"http://" + rawOriginAddr}, DialContext: w.network.DialContext, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if err := w.edge.SetSites([]Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}}); err != nil {
			t.Fatal(err)
		}
		test(t, w, o)
	})
}

// get asks the edge; status 0 is a connection that broke off in the head.
func (w *world) get(path string, fields ...string) (status int, header http.Header, body string, whole bool) {
	r, _ := http.NewRequest(http.MethodGet, "http://shop.test"+path, nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := w.client.RoundTrip(r)
	if err != nil {
		return 0, nil, err.Error(), false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err == nil
}

func fine(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%s", len(body), body)
}

// F15: an origin that is down is 502, and only what stale-if-error says stands
// in for it. When it is back, it is asked at once.
func TestOriginDown(t *testing.T) {
	say := func(r *http.Request) string {
		if r.URL.Path == "/old" {
			return "HTTP/1.1 200 OK\r\nCache-Control: max-age=1, stale-if-error=600\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nold"
		}
		return fine("new")
	}
	faulty(t, say, func(t *testing.T, w *world, o *rawOrigin) {
		w.get("/old")
		o.ln.Close()
		time.Sleep(time.Minute) // kept connections have ended too
		if status, h, body, _ := w.get("/old"); status != 200 || body != "old" {
			t.Errorf("what may stand in: %d %q %v", status, body, h)
		}
		for range 5 {
			if status, h, _, _ := w.get("/gone"); status != 502 || h.Get("Cache-Control") != "no-store" {
				t.Errorf("nothing stands in: %d %v", status, h)
			}
		}
		o.start(t)
		if status, _, body, _ := w.get("/gone"); status != 200 || body != "new" {
			t.Errorf("when it is back: %d %q", status, body)
		}
	})
}

// F16: an origin that hangs costs its own requests its timeout, once for all
// that wait for one key, and other keys nothing.
func TestOriginHangs(t *testing.T) {
	say := func(r *http.Request) string {
		switch r.URL.Path {
		case "/head":
			return "hang"
		case "/half":
			return "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nhang"
		case "/body":
			return "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n12345hang"
		}
		return fine("other")
	}
	for _, test := range []struct {
		path    string
		status  int
		whole   bool
		fetches int64
	}{
		// Each waits for three fetches of 5 s at most, and the last to its end.
		{"/head", 504, true, maxTries},
		{"/half", 504, true, maxTries},
		{"/body", 200, false, 1},
	} {
		t.Run(test.path, func(t *testing.T) {
			faulty(t, say, func(t *testing.T, w *world, o *rawOrigin) {
				begin := time.Now()
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						if status, _, _, whole := w.get(test.path); status != test.status || whole != test.whole {
							t.Errorf("%d, whole %v", status, whole)
						}
					})
				}
				synctest.Wait()
				if status, _, body, _ := w.get("/other"); status != 200 || body != "other" || time.Since(begin) != 0 {
					t.Errorf("another key: %d %q after %v", status, body, time.Since(begin))
				}
				wg.Wait()
				if n := o.seen.Load() - 1; n != test.fetches {
					t.Errorf("%d fetches, want %d", n, test.fetches)
				}
				limit := origin.DefaultHeaderTimeout + (maxTries-1)*maxCollapseWait
				if took := time.Since(begin); took > limit {
					t.Errorf("took %v, want %v at most", took, limit)
				}
			})
		})
	}
}

// F17: what no parser should take for a response is 502 and not stored, a body
// that is not whole breaks off, and the edge goes on.
func TestOriginTalksGarbage(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
	for name, test := range map[string]struct {
		text   string
		status int
	}{
		"nothing":            {"", 502},
		"garbage":            {"\x00\x01\x02\r\n\r\n", 502},
		"a megabyte of head": {ok + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 502},
		"NUL":                {ok + "X: \x00\r\nContent-Length: 2\r\n\r\nok", 502},
		"bare CR":            {ok + "X: a\rb\r\nContent-Length: 2\r\n\r\nok", 502},
		"folded":             {ok + "X: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 502},
		"two lengths":        {ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502},
		"length and chunked": {ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502},
		"status 099":         {"HTTP/1.1 099 Odd\r\n\r\n", 502},
		"status 1000":        {"HTTP/1.1 1000 Odd\r\n\r\n", 502},
		"1000 interim ones":  {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000) + ok + "Content-Length: 2\r\n\r\nok", 502},
		"a switch":           {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 502},
		"an empty reason":    {"HTTP/1.1 200\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhalf", 200},
		"a short body":       {ok + "Content-Length: 1000\r\n\r\nhalf", 200},
		"no last chunk":      {ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 200},
		"a bad chunk":        {ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", 200},
	} {
		t.Run(name, func(t *testing.T) {
			var answer atomic.Value
			answer.Store(test.text)
			faulty(t, func(*http.Request) string { return answer.Load().(string) }, func(t *testing.T, w *world, o *rawOrigin) {
				status, h, body, whole := w.get("/a")
				if status != test.status || whole != (status == 502) || status == 200 && body != "half" {
					t.Errorf("%d %q, whole %v, %v", status, body, whole, h)
				}
				synctest.Wait()
				if w.edge.store.bytes != 0 || w.edge.store.filling != 0 {
					t.Errorf("%d octets are stored, %d reserved", w.edge.store.bytes, w.edge.store.filling)
				}
				answer.Store(fine("sound"))
				if status, _, body, whole := w.get("/a"); status != 200 || body != "sound" || !whole {
					t.Errorf("then %d %q", status, body)
				}
			})
		})
	}
}

// F18: an origin that is up and down by the second never sees two requests for
// one key at once, however many clients ask.
func TestOriginFlaps(t *testing.T) {
	var up atomic.Bool
	say := func(*http.Request) string {
		time.Sleep(100 * time.Millisecond)
		if !up.Load() {
			return ""
		}
		return "HTTP/1.1 200 OK\r\nCache-Control: max-age=1, stale-if-error=5\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
	}
	faulty(t, say, func(t *testing.T, w *world, o *rawOrigin) {
		up.Store(true)
		var asked, served atomic.Int64
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				for range 300 {
					asked.Add(1)
					if status, _, _, _ := w.get("/a"); status == 200 {
						served.Add(1)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					up.Store(!up.Load())
				}
			}
		}()
		wg.Wait()
		close(stop)
		if o.most.Load() != 1 {
			t.Errorf("%d requests for one key at once", o.most.Load())
		}
		// A fetch takes 0.1 s, and one that fails on a kept connection is made
		// again: 20 a second at most, over some 60 s.
		if n := o.seen.Load(); n > 1300 || n < 10 || served.Load() != asked.Load() {
			t.Errorf("%d fetches for %d requests, of which %d were served", n, asked.Load(), served.Load())
		}
	})
}

// http-checklist 62: twenty requests at once for what cannot be shared take as
// long as one, but for the first time that its head is what takes long: then
// they wait for it a moment. nginx's lock takes 5.5 s for the same.
func TestUncacheableIsNotSerialised(t *testing.T) {
	const pause = 500 * time.Millisecond
	for _, test := range []struct {
		name         string
		head, body   time.Duration
		first, later time.Duration
	}{
		{"the head takes long", pause, 0, earlyWait + pause, pause},
		{"the body takes long", 0, pause, pause, pause},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests, most, now atomic.Int64
				e := gatedEdge(t, HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n := requests.Add(1)
					raise(&most, now.Add(1))
					defer now.Add(-1)
					time.Sleep(test.head)
					w.Header().Set("Cache-Control", "private")
					w.(http.Flusher).Flush()
					time.Sleep(test.body)
					fmt.Fprint(w, n)
				})), 0)
				for round, want := range []time.Duration{test.first, test.later, test.later} {
					requests.Store(0)
					most.Store(0)
					begin := time.Now()
					var wg sync.WaitGroup
					answers := make([]*streamed, 20)
					for i := range answers {
						answers[i] = &streamed{header: http.Header{}}
						wg.Go(func() { call(t.Context(), e, answers[i]) })
					}
					wg.Wait()
					seen := map[string]bool{}
					for _, a := range answers {
						seen[a.String()] = true
					}
					if took := time.Since(begin); took != want || requests.Load() != 20 || len(seen) != 20 {
						t.Errorf("round %d took %v, want %v; %d requests, %d different answers", round, took, want, requests.Load(), len(seen))
					}
					if round > 0 && most.Load() != 20 {
						t.Errorf("round %d: %d at once", round, most.Load())
					}
				}
			})
		})
	}
}

// http-checklist 63: requests that differ in a field that selects never share
// a fetch whose responses vary by it, nor do credentials.
func TestCollapseKeepsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		e := gatedEdge(t, HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			time.Sleep(earlyWait / 2)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "Cookie, Accept-Language")
			fmt.Fprint(w, r.Header.Get("Cookie"), r.Header.Get("Accept-Language"), r.Header.Get("Authorization"))
		})), 0)
		ask := func(n int, fields ...string) *sync.WaitGroup {
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					a := &streamed{header: http.Header{}}
					call(t.Context(), e, a, fields...)
					if a.String() != fields[1] {
						t.Errorf("%q got %q", fields, a.String())
					}
				})
			}
			return &wg
		}
		for range 2 { // not knowing what varies, and knowing
			all := []*sync.WaitGroup{ask(10, "Cookie", "a=1"), ask(10, "Cookie", "a=2"), ask(10, "Accept-Language", "de"), ask(3, "Authorization", "Basic x")}
			for _, wg := range all {
				wg.Wait()
			}
			synctest.Wait()
			// One for each value, and one for each that bore credentials.
			if n := requests.Swap(0); n != 3+3 {
				t.Errorf("%d requests", n)
			}
			if err := e.Purge(Purge{All: true}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// http-checklist 54: the client is told to go on when the origin is, and a
// refusal reaches it in place of that; never both.
func TestExpectContinueIsForwarded(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, true, nil)
			defer w.stop()
			ln, err := w.network.Listen("tcp", rawOriginAddr)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			var got string
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				got = req.Header.Get("Expect") + " "
				if refuses {
					io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					return
				}
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				b, _ := io.ReadAll(req.Body)
				got += string(b)
				io.WriteString(c, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}()
			pool := poolTo(t, w.network, rawOriginAddr)
			defer pool.Close()
			if err := w.edge.SetSites([]Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}}); err != nil {
				t.Fatal(err)
			}
			c, err := w.network.DialFrom(t.Context(), clientAddr, edgeAddr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "POST /up HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
			r := bufio.NewReader(c)
			first, _ := r.ReadString('\n')
			if refuses {
				rest, _ := io.ReadAll(r)
				if !strings.HasPrefix(first, "HTTP/1.1 413 ") || strings.Contains(string(rest), " 100 ") || got != "100-continue " {
					t.Errorf("client: %q %q, origin: %q", first, rest, got)
				}
				return
			}
			r.ReadString('\n')
			if first != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("client: %q", first)
			}
			io.WriteString(c, "body")
			if second, _ := r.ReadString('\n'); second != "HTTP/1.1 201 Created\r\n" || got != "100-continue body" {
				t.Errorf("client: %q, origin: %q", second, got)
			}
		})
	}
}
