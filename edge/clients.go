package edge

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what one client may ask of an edge. A client is an IPv4
// address, or the /64 of an IPv6 address: who has one has them all.
type Limits struct {
	// Connections at once; 0 is no limit.
	Connections int
	// Misses a second: GET and HEAD that would reach the origin for want of a
	// stored response. Ten times as many may come at once. 0 is no limit.
	Misses int
	// Exempt clients have no limits: this machine's, and those that ask for many.
	Exempt []netip.Prefix
	// Proxies are peers that ask for others: the client is then the last address
	// in X-Forwarded-For that is no proxy. They are exempt themselves. Of any
	// other peer that field is not believed, and not passed on.
	Proxies []netip.Prefix
	// Told clients see all of Cache-Status (RFC 9211): the key, the origin's
	// status and why. Operators: to others it tells how a site is built and what
	// is worth probing for.
	Told []netip.Prefix
}

const (
	// DefaultClientConnections is room for some eighty browsers behind one
	// address, at six connections each.
	DefaultClientConnections = 512
	// DefaultClientMisses is more than any page has; who asks for more URLs
	// that nobody has asked for makes them up.
	DefaultClientMisses = 100
	// missBurst is how many seconds' worth of misses may come at once.
	missBurst = 10
	// maxClients bounds the clients that are remembered, at some 100 bytes each.
	maxClients = 100_000
	// maxForwardedFor bounds the addresses of X-Forwarded-For that are read.
	maxForwardedFor = 16
)

// DefaultLimits are what Config.Limits is when it is nil: loopback is exempt.
func DefaultLimits() Limits {
	return Limits{Connections: DefaultClientConnections, Misses: DefaultClientMisses,
		Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

// clients counts what each client does.
type clients struct {
	limits  atomic.Pointer[Limits]
	refused atomic.Uint64 // connections
	denied  atomic.Uint64 // misses

	mu sync.Mutex
	m  map[netip.Addr]*client
}

type client struct {
	conns int
	left  float64 // misses that it may ask for now
	at    time.Time
}

// SetLimits changes what one client may ask; what is open stays open.
func (e *Edge) SetLimits(l Limits) { e.clients.limits.Store(&l) }

// ClientsRefused counts connections closed at once, and requests answered 429,
// because their client had all that it may have.
func (e *Edge) ClientsRefused() (connections, misses uint64) {
	return e.clients.refused.Load(), e.clients.denied.Load()
}

// of returns the client that an address belongs to; limited is false for
// exempt ones, and for what is no address.
func (c *clients) of(address string) (a netip.Addr, limited bool) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return a, false
	}
	a = a.Unmap().WithZone("")
	l := c.limits.Load()
	limited = !contains(l.Exempt, a) && !contains(l.Proxies, a)
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 is in range
		a = p.Addr()
	}
	return a, limited
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// entry returns a client's counts, new or old; mu is held.
func (c *clients) entry(a netip.Addr, l *Limits, now time.Time) *client {
	e := c.m[a]
	if e == nil {
		looked := 0
		for k, old := range c.m { // in random order: each new one looks at a few others
			if len(c.m) < maxClients || looked == 16 {
				break
			}
			if looked++; old.conns == 0 {
				delete(c.m, k)
			}
		}
		e = &client{left: float64(l.Misses * missBurst), at: now}
		c.m[a] = e
	}
	e.left = min(float64(l.Misses*missBurst), e.left+now.Sub(e.at).Seconds()*float64(l.Misses))
	e.at = now
	return e
}

// connect counts a connection; false means that its client has enough.
func (c *clients) connect(address string, now time.Time) bool {
	a, limited := c.of(address)
	l := c.limits.Load()
	if !limited {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(a, l, now)
	if l.Connections > 0 && e.conns >= l.Connections {
		c.refused.Add(1)
		return false
	}
	e.conns++
	return true
}

// disconnect ends what connect counted.
func (c *clients) disconnect(address string) {
	a, _ := c.of(address)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[a]
	if e == nil {
		return
	}
	if e.conns = max(0, e.conns-1); e.conns == 0 && e.left >= float64(c.limits.Load().Misses*missBurst) {
		delete(c.m, a)
	}
}

// miss uses up one miss of a client, or says that it has none left.
func (c *clients) miss(address string, now time.Time) bool {
	a, limited := c.of(address)
	l := c.limits.Load()
	if !limited || l.Misses == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(a, l, now)
	if e.left < 1 {
		c.denied.Add(1)
		return false
	}
	e.left--
	return true
}

// spare gives a miss back: the request went along with another's fetch.
func (c *clients) spare(address string) {
	a, limited := c.of(address)
	if !limited {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[a]; e != nil {
		e.left++
	}
}

// clientOf is the address of who asks: the peer's, unless that is a proxy of
// ours, who then says for whom it asks.
func (e *Edge) clientOf(peer string, f fields) string {
	l := e.clients.limits.Load()
	if len(l.Proxies) == 0 {
		return peer
	}
	a, err := netip.ParseAddr(peer)
	if err != nil || !contains(l.Proxies, a.Unmap()) {
		return peer
	}
	list, _ := f.combined("X-Forwarded-For")
	for range maxForwardedFor {
		i := strings.LastIndexByte(list, ',')
		a, err := netip.ParseAddr(trimOWS(list[i+1:]))
		if err != nil {
			return peer // what cannot be read is nobody's word
		}
		a = a.Unmap().WithZone("")
		if peer = a.String(); i < 0 || !contains(l.Proxies, a) {
			return peer
		}
		list = list[:i]
	}
	return peer
}

// tellsAny reports whether any client is told all of Cache-Status.
func (e *Edge) tellsAny() bool { return len(e.clients.limits.Load().Told) > 0 }

// tells reports whether a client is told all of Cache-Status.
func (e *Edge) tells(client string) bool {
	a, err := netip.ParseAddr(client)
	return err == nil && contains(e.clients.limits.Load().Told, a.Unmap().WithZone(""))
}

// spareMiss gives a miss of this client's back.
func (x *exchange) spareMiss() {
	if !x.peer {
		x.e.clients.spare(x.q.client)
	}
}

// missAllowed takes a miss of this client's; without one it answers 429. An
// edge that asks for its client has counted it.
func (x *exchange) missAllowed() bool {
	if x.peer || x.e.clients.miss(x.q.client, x.e.now()) {
		return true
	}
	x.status.detail = "client-limit"
	x.w.Header()["Retry-After"] = []string{"1"}
	x.fail(http.StatusTooManyRequests, "this client asks for too much that is not stored")
	return false
}
