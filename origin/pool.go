package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"perigee.example/internal/health"
)

// Defaults of PoolConfig.
const (
	DefaultConnectTimeout = 3 * time.Second
	DefaultTLSTimeout     = 5 * time.Second
	DefaultHeaderTimeout  = 15 * time.Second
	DefaultBetweenTimeout = 15 * time.Second
)

// Limits of a Pool.
const (
	// MaxOrigins bounds a pool: choosing looks at each of them.
	MaxOrigins = 64
	// maxTries bounds how many upstreams one request is sent to, so that a
	// request which breaks what it meets does not take the whole pool along.
	maxTries = 3
	// maxWeight keeps sums of weights small.
	maxWeight = 1_000_000
)

// PoolConfig is what a Pool is made from. Only Origins must be set.
type PoolConfig struct {
	// Origins are base URLs: "https://origin.example.net", "http://192.0.2.1:8080/site".
	// A path is put before that of each request.
	Origins []string
	Balance Balance
	Weights []int // one for each origin; nil: all 1. Used by Weighted and LeastLoaded

	// AllowPrivate lets an origin given by name resolve to a loopback, private
	// or link-local address. An origin given as an IP address, or as localhost,
	// needs no permission: to write it is to mean it. Addresses of cloud
	// metadata services are refused always.
	AllowPrivate bool
	// HostHeader replaces the Host of requests; empty keeps the client's, since
	// the origin of a site is usually configured for the site's own name.
	HostHeader string

	ConnectTimeout time.Duration // to resolve and connect
	TLSTimeout     time.Duration // of the TLS handshake
	HeaderTimeout  time.Duration // from the request's end to the end of the response's head
	BetweenTimeout time.Duration // between two reads of the body, and for each write

	// Check is a path that is fetched from each origin; a 2xx is a success.
	// Empty: health is passive only, from the requests themselves.
	Check         string
	CheckInterval time.Duration // defaults as in the [health] table
	CheckTimeout  time.Duration
	Rise, Fall    int

	Seed uint64      // of random draws; 0 draws one
	TLS  *tls.Config // for https; nil is the default: the system's roots
	// Resolver resolves names; nil is the system's.
	Resolver *net.Resolver
	// DialContext replaces the dialer. It then also answers for which
	// addresses may be reached.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Pool sends requests to one of several upstreams: an http.RoundTripper that
// balances, watches health, and tries another upstream when that is safe.
//
// It never fails without trying: when every upstream looks down it tries the
// one that failed least recently. It follows no redirect, uses no proxy from
// the environment, and neither asks for nor undoes compression. Only the
// configured origins are ever dialled, whatever a request's URL and Host say.
//
// A request is tried again, on another upstream, at most twice more, and only
// if its method is idempotent (RFC 9110 §9.2.2), its body is absent or can be
// had again (GetBody), and no byte of a response was seen. Beneath that, such a
// request is repeated once on a new connection to the same upstream when a kept
// connection turned out to be closed. Nothing else is repeated.
//
// What an upstream sends is read strictly: a head, a chunk or a length that two
// parsers could read differently is an error, and its connection is closed.
// Interim responses (1xx) go to the Got1xxResponse hook of an
// httptrace.ClientTrace in the request's context, in order, before RoundTrip
// returns; an error from it ends the exchange. Trailer fields are in the
// response's Trailer once its body has been read to io.EOF. A request's Expect
// field is sent, and its body then waits for "100 Continue" for a second; a
// final response that comes before the body is sent is returned at once.
//
// Errors are *UpstreamError, also those from reading a body.
type Pool struct {
	c       PoolConfig
	ups     []*upstream
	checker *health.Checker // nil: passive only

	mu     sync.Mutex // guards all that follows and the guarded fields of upstreams
	random *rand.Rand
	next   int // round robin: where to begin
}

// NewPool checks c and makes a Pool. Close it after use.
func NewPool(c PoolConfig) (*Pool, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("origin pool: %w", err)
	}
	c.ConnectTimeout = orDefault(c.ConnectTimeout, DefaultConnectTimeout)
	c.TLSTimeout = orDefault(c.TLSTimeout, DefaultTLSTimeout)
	c.HeaderTimeout = orDefault(c.HeaderTimeout, DefaultHeaderTimeout)
	c.BetweenTimeout = orDefault(c.BetweenTimeout, DefaultBetweenTimeout)
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	p := &Pool{c: c, random: rand.New(rand.NewPCG(c.Seed, 0))}
	for i, text := range c.Origins {
		u, err := newUpstream(text, &p.c)
		if err != nil {
			return nil, fmt.Errorf("origin pool: %w", err)
		}
		u.index, u.weight = i, 1
		if c.Weights != nil {
			u.weight = c.Weights[i]
		}
		p.ups = append(p.ups, u)
	}
	if err := p.startChecks(); err != nil {
		p.Close()
		return nil, fmt.Errorf("origin pool: %w", err)
	}
	return p, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (c *PoolConfig) check() error {
	if len(c.Origins) == 0 || len(c.Origins) > MaxOrigins {
		return fmt.Errorf("%d origins: want 1 to %d", len(c.Origins), MaxOrigins)
	}
	seen := map[string]bool{}
	for _, o := range c.Origins {
		if seen[o] {
			return fmt.Errorf("origin %s is there twice: give it a weight instead", o)
		}
		seen[o] = true
	}
	if c.Balance > ActivePassive {
		return fmt.Errorf("balance %d is not known", c.Balance)
	}
	if c.Weights != nil {
		if len(c.Weights) != len(c.Origins) {
			return fmt.Errorf("%d weights for %d origins: want one for each", len(c.Weights), len(c.Origins))
		}
		positive := false
		for i, w := range c.Weights {
			if w < 0 || w > maxWeight {
				return fmt.Errorf("weight %d of %s: want 0 to %d", w, c.Origins[i], maxWeight)
			}
			positive = positive || w > 0
		}
		if !positive {
			return errors.New("every weight is 0")
		}
	}
	if c.Check != "" && c.Check[0] != '/' {
		return fmt.Errorf("check %q: want a path that begins with a slash", c.Check)
	}
	if c.ConnectTimeout < 0 || c.TLSTimeout < 0 || c.HeaderTimeout < 0 || c.BetweenTimeout < 0 {
		return errors.New("a timeout is negative")
	}
	return nil
}

// startChecks begins the active checks, if any.
func (p *Pool) startChecks() error {
	if p.c.Check == "" {
		return nil
	}
	byAddress := map[string]*upstream{}
	var targets []health.Target
	for _, u := range p.ups {
		byAddress[u.address] = u
		targets = append(targets, health.Target{Name: u.name, URL: strings.TrimSuffix(u.name, "/") + p.c.Check, Host: p.c.HostHeader})
	}
	checker, err := health.New(health.Options{
		Interval: p.c.CheckInterval, Timeout: p.c.CheckTimeout, Rise: p.c.Rise, Fall: p.c.Fall,
		Seed: p.c.Seed, TLS: p.c.TLS,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			u := byAddress[address]
			if u == nil {
				return nil, fmt.Errorf("%s is not an origin", address)
			}
			return u.dial(ctx, network, address)
		},
	})
	if err != nil {
		return err
	}
	p.checker = checker
	return checker.SetTargets(targets)
}

// Close ends the checks and closes idle connections. Requests under way go on.
func (p *Pool) Close() {
	if p.checker != nil {
		p.checker.Close()
	}
	for _, u := range p.ups {
		u.transport.closeIdle()
	}
}

// RoundTrip implements http.RoundTripper. Of req.URL only the path and the
// query matter; they reach the upstream byte for byte.
func (p *Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	retry := replayable(req)
	var room [MaxOrigins]bool
	tried := room[:len(p.ups)]
	limit := min(maxTries, len(p.ups))
	for n := 1; ; n++ {
		u, trial := p.choose(tried, retry)
		tried[u.index] = true
		out, err := p.outgoing(req, u, n)
		if err != nil {
			p.settle(u, none, nil, trial)
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, &UpstreamError{u.name, PhaseSend, n, false, err}
		}
		resp, upErr := p.try(u, out, trial, retry, n)
		if upErr == nil {
			return resp, nil
		}
		if !retry || upErr.seen || n >= limit || req.Context().Err() != nil {
			return nil, upErr.UpstreamError
		}
	}
}

// replayable reports whether req may be sent twice.
func replayable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	}
	return false
}

// outgoing makes the n-th request to an upstream from the caller's, which a
// RoundTripper must leave as it is.
func (p *Pool) outgoing(req *http.Request, u *upstream, n int) (*http.Request, error) {
	if n == 1 && req.Host != "" && req.URL.Opaque == "" && p.c.HostHeader == "" && u.prefix == "" {
		return req, nil // of its URL, path and query are all that is sent
	}
	out := new(http.Request)
	*out = *req
	target := *req.URL
	target.Scheme, target.Host, target.User = u.base.Scheme, u.base.Host, nil
	if u.prefix != "" {
		target.RawPath = u.prefix + target.EscapedPath()
		path, err := url.PathUnescape(target.RawPath)
		if err != nil {
			return nil, err
		}
		target.Path = path
	}
	out.URL = &target
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	if p.c.HostHeader != "" {
		out.Host = p.c.HostHeader
	}
	if n > 1 && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		out.Body = body
	}
	return out, nil
}
