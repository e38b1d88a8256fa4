package origin

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Three failures open the circuit; then one trial at a time, ever rarer up to
// a minute; a trial that is answered closes it.
func TestCircuit(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", nil)
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a", "http://b"}, Balance: ActivePassive})
		if got := sequence(t, p, 10); got != strings.Repeat("b", 10) {
			t.Errorf("answers %s", got)
		}
		if n := f.dialled("a:80"); n != openAfter {
			t.Errorf("%d tries of a, want %d", n, openAfter)
		}
		if s := p.Status()[0]; s.Circuit != "open" || s.Opened != 1 {
			t.Errorf("%+v", s)
		}
		var trials []time.Time
		for range 3000 {
			before := f.dialled("a:80")
			time.Sleep(100 * time.Millisecond)
			get(t, p)
			if f.dialled("a:80") > before {
				trials = append(trials, time.Now())
			}
		}
		for i := 1; i < len(trials); i++ {
			gap, least := trials[i].Sub(trials[i-1]), min(minOpen<<i, maxOpen)
			if gap < least || gap > least*12/10+200*time.Millisecond {
				t.Errorf("trial %d came after %s, want %s to %s", i, gap, least, least*12/10)
			}
		}
		if len(trials) < 8 {
			t.Errorf("%d trials in 300 s", len(trials))
		}
		f.set("a:80", says("a"))
		time.Sleep(maxOpen * 12 / 10)
		if got := sequence(t, p, 3); got != "aaa" {
			t.Errorf("after a came back: %s", got)
		}
		if s := p.Status()[0]; s.Circuit != "closed" || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// While one request tries an upstream that hangs, no other joins it.
func TestOneTrialAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", nil)
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a", "http://b"}, Balance: ActivePassive})
		sequence(t, p, openAfter)
		f.set("a:80", thenHangs(""))
		time.Sleep(2 * minOpen)
		before := f.dialled("a:80")
		go func() { _, _ = send(p, http.MethodGet, "") }()
		synctest.Wait()
		if got := sequence(t, p, 20); got != strings.Repeat("b", 20) {
			t.Errorf("answers %s", got)
		}
		if got := f.dialled("a:80") - before; got != 1 || p.Status()[0].Circuit != "trial" {
			t.Errorf("%d tries of a, circuit %s", got, p.Status()[0].Circuit)
		}
		time.Sleep(DefaultHeaderTimeout) // the trial fails, and the other upstream answers it
		synctest.Wait()
		if s := p.Status()[0]; s.Circuit != "open" || s.InFlight != 0 {
			t.Errorf("after the trial: %+v", s)
		}
	})
}

// A request that cannot be repeated is never the trial while another is up.
func TestPostIsNoTrial(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", nil)
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a", "http://b"}, Balance: ActivePassive})
		sequence(t, p, openAfter)
		time.Sleep(2 * minOpen)
		if got, err := send(p, http.MethodPost, "x"); got != "b" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// All down: the least recently failed is tried all the same, and its answer
// ends the outage at once.
func TestAllDown(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		for _, name := range []string{"a", "b", "c"} {
			f.set(name+":80", nil)
		}
		p := newPool(t, f, PoolConfig{})
		for range 2 * openAfter {
			if _, err := send(p, http.MethodGet, ""); err == nil {
				t.Fatal("no error")
			}
			time.Sleep(time.Millisecond)
		}
		for _, s := range p.Status() {
			if s.Circuit != "open" {
				t.Errorf("%+v", s)
			}
		}
		f.set("b:80", says("b"))
		if got := sequence(t, p, 5); got != "bbbbb" {
			t.Errorf("answers %s", got)
		}
	})
}

// F18: an origin that is up and down each second costs few errors and no herd.
func TestFlapping(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a", "http://b"}})
		bad := 0
		for i := range 600 {
			if (i/10)%2 == 0 {
				f.set("a:80", thenCloses(""))
			} else {
				f.set("a:80", says("a"))
			}
			if _, err := send(p, http.MethodGet, ""); err != nil {
				bad++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if bad != 0 {
			t.Errorf("%d of 600 requests failed", bad)
		}
		if s := p.Status(); s[0].Failed > 150 || s[0].Requests < 10 {
			t.Errorf("%+v", s[0])
		}
	})
}

func TestActiveCheck(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", answers("HTTP/1.1 500 Sick\r\nConnection: close\r\nContent-Length: 4\r\n\r\nsick"))
		p := newPool(t, f, PoolConfig{Balance: ActivePassive, Check: "/healthz", CheckInterval: time.Second, Rise: 2, Fall: 3})
		if got := get(t, p); got != "sick" { // unknown is not down, and an answer is an answer
			t.Errorf("at start: %q", got)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := get(t, p); got != "b" {
			t.Errorf("with a sick: %q", got)
		}
		if s := p.Status()[0]; s.Check != "down" || !strings.Contains(s.Why, "500") {
			t.Errorf("%+v", s)
		}
		f.set("a:80", says("a"))
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if got := get(t, p); got != "a" {
			t.Errorf("after a is well: %q", got)
		}
	})
}
