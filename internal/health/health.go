// Package health probes targets, counts rises and falls, and publishes a
// frozen picture of who is up. It knows neither DNS nor HTTP caching.
//
//	c, err := health.New(health.Options{Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3,
//		OnChange: func(s health.Snapshot) { … }})
//	err = c.SetTargets([]health.Target{{Name: "fra1", URL: "http://192.0.2.10/-/ready"}})
//	c.Snapshot()["fra1"].State
//	c.Close()
//
// A target is Unknown until its first success, or until Fall failures in a
// row: not knowing is not being down. Then Rise successes or Fall failures in
// a row change its state, at most once in HoldDown. Each target has a goroutine
// and a random stream of its own; at most maxConcurrent probes run at a time.
package health

import (
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Options.
const (
	DefaultInterval = 5 * time.Second
	DefaultTimeout  = 2 * time.Second
	DefaultRise     = 2
	DefaultFall     = 3
	// DefaultHoldDown is the least time between two changes of one target:
	// a target that flaps faster would make its clients dance.
	DefaultHoldDown = 10 * time.Second
)

// Limits.
const (
	// maxConcurrent bounds the probes in flight, and so the sockets, when a
	// whole fleet hangs.
	maxConcurrent = 128
	// maxTargets bounds a checker: each has a goroutine.
	maxTargets = 10_000
	// jitterShare is by how much an interval may be shorter or longer, so that
	// probes of many targets, and of many checkers, spread out.
	jitterShare = 0.1
)

// State is what is known of a target.
type State uint8

// The states.
const (
	Unknown State = iota
	Up
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// Target is one thing to probe.
type Target struct {
	Name string // unique in a checker
	// URL is fetched by GET; a 2xx is a success. http or https.
	URL string
	// Address is "host:port": a TCP connection that opens is a success. Used
	// when URL is empty.
	Address string
	Host    string // replaces the Host field; empty: as in URL
	// ServerName is the name that an https target's certificate must have;
	// empty: as in URL.
	ServerName string
}

// Options say how to probe. The zero value is every default.
type Options struct {
	Interval time.Duration // from one probe's start to the next one's, ± 10 %
	Timeout  time.Duration // of one whole probe
	Rise     int           // successes in a row that turn Down into Up
	Fall     int           // failures in a row that turn Unknown or Up into Down
	HoldDown time.Duration // least time between two changes of a target; negative: none
	Seed     uint64        // of the jitter; 0 draws one

	// OnChange is called with the newest picture after one or more targets
	// changed state, appeared or went away; from one goroutine, never twice
	// at a time. It must not call Close.
	OnChange func(Snapshot)
	// DialContext opens connections; nil is a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	TLS         *tls.Config // for https; nil is the default
}

// Status is what is known of one target.
type Status struct {
	State    State
	Why      string    // the last result in words, or "not probed yet"
	Since    time.Time // when State became what it is
	Failures int       // in a row, up to the last probe
}

// Snapshot is a picture of all targets by name. Treat it as immutable.
type Snapshot map[string]Status

// Checker probes its targets until Close.
type Checker struct {
	o      Options
	client *http.Client
	slots  chan struct{} // one for each probe in flight
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup

	snap   atomic.Pointer[Snapshot]
	change chan struct{} // holds at most one token: there is news

	mu      sync.Mutex
	closed  bool
	running map[string]*probe
}

// probe is a running target. Its fields are guarded by Checker.mu.
type probe struct {
	target    Target
	cancel    context.CancelFunc
	status    Status
	successes int       // in a row
	changed   time.Time // of the last change that counts for HoldDown
}

// New makes a checker without targets.
func New(o Options) (*Checker, error) {
	o.Interval = orDefault(o.Interval, DefaultInterval)
	o.Timeout = orDefault(o.Timeout, DefaultTimeout)
	o.Rise = orDefault(o.Rise, DefaultRise)
	o.Fall = orDefault(o.Fall, DefaultFall)
	o.HoldDown = orDefault(o.HoldDown, DefaultHoldDown)
	if o.Interval < 0 || o.Timeout < 0 || o.Rise < 0 || o.Fall < 0 {
		return nil, errors.New("health: interval, timeout, rise and fall must be positive")
	}
	if o.DialContext == nil {
		o.DialContext = (&net.Dialer{}).DialContext
	}
	if o.Seed == 0 {
		var b [8]byte
		_, _ = crand.Read(b[:]) // never fails
		o.Seed = binary.LittleEndian.Uint64(b[:])
	}
	c := &Checker{o: o, slots: make(chan struct{}, maxConcurrent), change: make(chan struct{}, 1), running: map[string]*probe{}}
	c.client = newClient(o)
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.snap.Store(&Snapshot{})
	c.wg.Go(c.notify)
	return c, nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Snapshot returns the newest picture. It allocates nothing.
func (c *Checker) Snapshot() Snapshot { return *c.snap.Load() }

// Close stops all probes and waits for them, and for OnChange, to end.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
}

// SetTargets makes list the targets: new ones are probed at once, those that
// are gone are forgotten, the others go on untouched with their counts. A
// target whose fields changed starts anew. On an error nothing changes.
func (c *Checker) SetTargets(list []Target) error {
	want := make(map[string]Target, len(list))
	if len(list) > maxTargets {
		return fmt.Errorf("health: %d targets, the limit is %d", len(list), maxTargets)
	}
	for _, t := range list {
		if err := t.check(); err != nil {
			return err
		}
		if _, twice := want[t.Name]; twice {
			return fmt.Errorf("health: two targets are called %s", t.Name)
		}
		want[t.Name] = t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("health: closed")
	}
	news := false
	for name, p := range c.running {
		if want[name] != p.target {
			p.cancel()
			delete(c.running, name)
			news = true
		}
	}
	for _, t := range list {
		if c.running[t.Name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(c.ctx)
		p := &probe{target: t, cancel: cancel, status: Status{Why: "not probed yet", Since: time.Now()}}
		c.running[t.Name] = p
		c.wg.Go(func() { c.run(ctx, p) })
		news = true
	}
	if news {
		c.publish()
		c.wake()
	}
	return nil
}

func (t Target) check() error {
	if t.Name == "" {
		return errors.New("health: a target has no name")
	}
	if t.URL == "" {
		if _, _, err := net.SplitHostPort(t.Address); err != nil {
			return fmt.Errorf("health: target %s: address %q: want host:port, or a URL", t.Name, t.Address)
		}
		return nil
	}
	u, err := url.Parse(t.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil {
		return fmt.Errorf("health: target %s: URL %q: want http://host/path or https://host/path", t.Name, t.URL)
	}
	return nil
}

// run probes one target until ctx ends.
func (c *Checker) run(ctx context.Context, p *probe) {
	h := fnv.New64a()
	h.Write([]byte(p.target.Name)) // never fails
	random := rand.New(rand.NewPCG(c.o.Seed, h.Sum64()))
	timer := time.NewTimer(0) // the first round runs at once
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		jitter := 1 + jitterShare*(2*random.Float64()-1)
		timer.Reset(time.Duration(jitter * float64(c.o.Interval)))
		select {
		case <-ctx.Done():
			return
		case c.slots <- struct{}{}:
		}
		why, err := c.try(ctx, p.target)
		<-c.slots
		if ctx.Err() != nil {
			return // stopped, which says nothing about the target
		}
		c.record(p, why, err)
	}
}

// record counts one result and changes the target's state when it is due.
func (c *Checker) record(p *probe, why string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[p.target.Name] != p {
		return // replaced meanwhile
	}
	s := &p.status
	s.Why = why
	if err == nil {
		p.successes++
		s.Failures = 0
	} else {
		s.Why = err.Error()
		p.successes = 0
		s.Failures++
	}
	now := time.Now()
	held := !p.changed.IsZero() && now.Sub(p.changed) < c.o.HoldDown
	next := s.State
	switch {
	case s.State == Unknown && p.successes >= 1:
		next = Up // counted as up already: no need to wait, and none to hold
	case held:
	case s.State == Down && p.successes >= c.o.Rise:
		next = Up
	case s.State != Down && s.Failures >= c.o.Fall:
		next = Down
	}
	if next == s.State {
		c.publish()
		return
	}
	if s.State != Unknown || next == Down {
		p.changed = now
	}
	s.State, s.Since = next, now
	c.publish()
	c.wake()
}

// publish stores a picture of now. c.mu is held.
func (c *Checker) publish() {
	snap := make(Snapshot, len(c.running))
	for name, p := range c.running {
		snap[name] = p.status
	}
	c.snap.Store(&snap)
}

// wake tells notify that there is news.
func (c *Checker) wake() {
	select {
	case c.change <- struct{}{}:
	default: // it will see this news with the last
	}
}

// notify calls OnChange, outside of any lock.
func (c *Checker) notify() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.change:
			if c.o.OnChange != nil {
				c.o.OnChange(c.Snapshot())
			}
		}
	}
}
