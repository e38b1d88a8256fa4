package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fleet is an in-memory network: each address has a script that answers its
// connections, or refuses.
type fleet struct {
	mu      sync.Mutex
	answer  map[string]string // by address; "" refuses, "hang" accepts and says nothing
	dials   map[string][]time.Time
	request map[string]string // the last request line and Host
}

func newFleet() *fleet {
	return &fleet{answer: map[string]string{}, dials: map[string][]time.Time{}, request: map[string]string{}}
}

func (f *fleet) set(address, answer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer[address] = answer
}

func (f *fleet) times(address string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dials[address])
}

func (f *fleet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials[address] = append(f.dials[address], time.Now())
	answer := f.answer[address]
	if answer == "" {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		req, err := http.ReadRequest(bufio.NewReader(server))
		if err != nil {
			return
		}
		f.mu.Lock()
		f.request[address] = req.Method + " " + req.URL.Path + " " + req.Host
		f.mu.Unlock()
		if answer == "hang" {
			_, _ = server.Read(make([]byte, 1)) // until the prober hangs up
			return
		}
		_, _ = server.Write([]byte(answer))
	}()
	return client, nil
}

const (
	ok      = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
	sick    = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
	moved   = "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"
	short   = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok\n"
	garbage = "220 smtp.example.net ESMTP\r\n\r\n"
)

// start runs a checker over f, with a fixed seed.
func start(t *testing.T, f *fleet, o Options, targets ...Target) *Checker {
	t.Helper()
	o.DialContext, o.Seed = f.dial, 1
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
	return c
}

func httpTarget(name string) Target {
	return Target{Name: name, URL: "http://" + name + ":80/-/health"}
}

func wantState(t *testing.T, c *Checker, name string, want State, why string) {
	t.Helper()
	s := c.Snapshot()[name]
	if s.State != want || !strings.Contains(s.Why, why) {
		t.Errorf("%s is %s (%s), want %s (%s)", name, s.State, s.Why, want, why)
	}
}

func TestFirstRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:80", ok)
		c := start(t, f, Options{}, httpTarget("a"), httpTarget("b"))
		if s := c.Snapshot()["a"]; s.State != Unknown || s.Why != "not probed yet" {
			t.Errorf("before the first probe: %+v", s)
		}
		synctest.Wait()
		wantState(t, c, "a", Up, "status 200")
		// One failure of a target never seen is not down.
		wantState(t, c, "b", Unknown, "connection refused")
		time.Sleep(2 * DefaultInterval * 11 / 10)
		synctest.Wait()
		wantState(t, c, "b", Down, "connection refused")
		if got := f.request["a:80"]; got != "GET /-/health a:80" {
			t.Errorf("the probe was %q", got)
		}
	})
}

func TestResults(t *testing.T) {
	for _, test := range []struct {
		name, answer string
		want         State
		why          string
	}{
		{"ok", ok, Up, "status 200"},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", Up, "status 204"},
		{"sick", sick, Down, "status 503"},
		{"a redirect is not followed", moved, Down, "status 302"},
		{"short body", short, Down, "unexpected EOF"},
		{"garbage", garbage, Down, "malformed HTTP"},
		{"hangs", "hang", Down, "no answer within 2s"},
		{"huge head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeadBytes) + "\r\n\r\n", Down, "exceeded"},
		{"long body is cut, not a failure", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000), Up, "status 200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				f.set("a:80", test.answer)
				c := start(t, f, Options{Fall: 1}, httpTarget("a"))
				time.Sleep(DefaultTimeout)
				synctest.Wait()
				wantState(t, c, "a", test.want, test.why)
			})
		})
	}
}

func TestTCPCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:53", "hang")
		c := start(t, f, Options{Fall: 1}, Target{Name: "a", Address: "a:53"}, Target{Name: "b", Address: "b:53"})
		synctest.Wait()
		wantState(t, c, "a", Up, "connected")
		wantState(t, c, "b", Down, "refused")
	})
}

func TestHostReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("192.0.2.1:80", ok)
		c := start(t, f, Options{}, Target{Name: "a", URL: "http://192.0.2.1/h", Host: "www.example.com"})
		synctest.Wait()
		wantState(t, c, "a", Up, "200")
		if got := f.request["192.0.2.1:80"]; got != "GET /h www.example.com" {
			t.Errorf("the probe was %q", got)
		}
	})
}

// Fall failures in a row take a target out, Rise successes bring it back; a
// result in between starts the count anew.
func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:80", ok)
		c := start(t, f, Options{HoldDown: -1}, httpTarget("a"))
		synctest.Wait()
		round := func(answer string, want State) {
			t.Helper()
			f.set("a:80", answer)
			before := len(f.times("a:80"))
			for len(f.times("a:80")) == before {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
			if got := c.Snapshot()["a"].State; got != want {
				t.Errorf("after probe %d: %s, want %s", before+1, got, want)
			}
		}
		round(sick, Up)
		round(sick, Up)
		round(ok, Up)
		round(sick, Up)
		round(sick, Up)
		round(sick, Down)
		round(ok, Down)
		round(sick, Down)
		round(ok, Down)
		round(ok, Up)
	})
}

// F28: a target that flaps changes at most once in the hold-down time.
func TestHoldDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:80", ok)
		var mu sync.Mutex
		var changes []time.Time
		last := Unknown
		c := start(t, f, Options{Interval: time.Second, Rise: 1, Fall: 1, OnChange: func(s Snapshot) {
			mu.Lock()
			defer mu.Unlock()
			if s["a"].State != last {
				last = s["a"].State
				changes = append(changes, time.Now())
			}
		}}, httpTarget("a"))
		for i := range 300 {
			f.set("a:80", []string{ok, sick}[i%2])
			time.Sleep(time.Second)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(changes) < 10 {
			t.Errorf("%d changes in 300 s of flapping: the target is stuck", len(changes))
		}
		for i := 2; i < len(changes); i++ { // the first is Unknown to Up, which holds nothing
			if d := changes[i].Sub(changes[i-1]); d < DefaultHoldDown {
				t.Errorf("change %d came %s after the one before", i, d)
			}
		}
		if c.Snapshot()["a"].Since != changes[len(changes)-1] {
			t.Errorf("Since is %s, the last change was told at %s", c.Snapshot()["a"].Since, changes[len(changes)-1])
		}
	})
}

// Intervals vary, by the target's own stream, and within 10 %.
func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:80", ok)
		f.set("b:80", ok)
		start(t, f, Options{}, httpTarget("a"), httpTarget("b"))
		time.Sleep(100 * DefaultInterval)
		synctest.Wait()
		a, b := f.times("a:80"), f.times("b:80")
		if slices.Equal(a[:20], b[:20]) {
			t.Error("two targets are probed in step")
		}
		different := map[time.Duration]bool{}
		for i := 1; i < len(a); i++ {
			d := a[i].Sub(a[i-1])
			different[d] = true
			if d < DefaultInterval*9/10 || d > DefaultInterval*11/10 {
				t.Errorf("interval %d is %s", i, d)
			}
		}
		if len(a) < 90 || len(different) < 90 {
			t.Errorf("%d probes, %d different intervals", len(a), len(different))
		}
	})
}

func TestSetTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:80", ok)
		c := start(t, f, Options{}, httpTarget("a"), httpTarget("b"))
		time.Sleep(3 * DefaultInterval * 11 / 10)
		synctest.Wait()
		wantState(t, c, "b", Down, "refused")
		before := c.Snapshot()["b"]
		probesOfB := len(f.times("b:80"))
		if err := c.SetTargets([]Target{httpTarget("b"), httpTarget("c")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		snap := c.Snapshot()
		if _, there := snap["a"]; there || len(snap) != 2 {
			t.Errorf("snapshot has %v", snap)
		}
		if snap["b"] != before || len(f.times("b:80")) != probesOfB {
			t.Errorf("b was touched: %+v, was %+v", snap["b"], before)
		}
		wantState(t, c, "c", Unknown, "refused")
		probesOfA := len(f.times("a:80"))
		time.Sleep(10 * DefaultInterval)
		if len(f.times("a:80")) != probesOfA {
			t.Error("a target that is gone is still probed")
		}
	})
}

func TestSetTargetsRefuses(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]Target{
		{{Name: "", URL: "http://a/"}},
		{httpTarget("a"), httpTarget("a")},
		{{Name: "a", URL: "ftp://a/"}},
		{{Name: "a", URL: "http:///"}},
		{{Name: "a", URL: "http://user:pass@a/"}},
		{{Name: "a", Address: "192.0.2.1"}},
		make([]Target, maxTargets+1),
	} {
		if err := c.SetTargets(list); err == nil {
			t.Errorf("%.200s was accepted", fmt.Sprint(list))
		}
	}
	c.Close()
	if err := c.SetTargets([]Target{httpTarget("a")}); err == nil {
		t.Error("SetTargets after Close succeeded")
	}
	if _, err := New(Options{Fall: -1}); err == nil {
		t.Error("Fall -1 was accepted")
	}
}

// Close ends while probes hang; synctest.Test fails if a goroutine is left.
func TestCloseWhileHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		f.set("a:80", "hang")
		c := start(t, f, Options{Timeout: time.Hour, Interval: time.Hour}, httpTarget("a"))
		synctest.Wait()
		before := time.Now()
		c.Close()
		if d := time.Since(before); d != 0 {
			t.Errorf("Close took %s", d)
		}
		wantState(t, c, "a", Unknown, "not probed yet")
	})
}

// A fleet that hangs holds at most maxConcurrent connections.
func TestConcurrencyBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		var targets []Target
		for i := range maxConcurrent + 20 {
			name := fmt.Sprintf("t%d", i)
			f.set(name+":80", "hang")
			targets = append(targets, httpTarget(name))
		}
		start(t, f, Options{}, targets...)
		synctest.Wait()
		dialled := func() (n int) {
			for _, target := range targets {
				n += len(f.times(target.Name + ":80"))
			}
			return n
		}
		if got := dialled(); got != maxConcurrent {
			t.Errorf("%d probes at once, want %d", got, maxConcurrent)
		}
		time.Sleep(DefaultTimeout)
		synctest.Wait()
		if got := dialled(); got != len(targets) {
			t.Errorf("%d of %d targets probed after the first timed out", got, len(targets))
		}
	})
}

func TestSnapshotAllocatesNothing(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := testing.AllocsPerRun(100, func() { _ = c.Snapshot()["a"].State }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// On a real socket, with no script: up, then its listener closes.
func TestRealLoopback(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })}
	go func() { _ = server.Serve(listener) }()
	news := make(chan Snapshot, 100)
	c, err := New(Options{Interval: 20 * time.Millisecond, HoldDown: -1, OnChange: func(s Snapshot) { news <- s }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetTargets([]Target{{Name: "a", URL: "http://" + listener.Addr().String() + "/"}}); err != nil {
		t.Fatal(err)
	}
	for s := range news {
		if s["a"].State == Up {
			break
		}
	}
	server.Close()
	for s := range news {
		if s["a"].State == Down {
			break
		}
	}
	wantState(t, c, "a", Down, "refused")
}
