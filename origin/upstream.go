package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// upstream is one origin of a pool.
type upstream struct {
	name      string // as configured
	base      *url.URL
	prefix    string // of paths: that of base, without a slash at its end
	address   string // host:port to dial
	index     int
	weight    int
	transport *transport
	dial      func(ctx context.Context, network, address string) (net.Conn, error)

	circuit // guarded by Pool.mu
}

// newUpstream reads an origin's URL and makes its transport: each upstream has
// its own, with a dialer that knows what this origin may resolve to.
func newUpstream(text string, c *PoolConfig) (*upstream, error) {
	base, err := url.Parse(text)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Hostname() == "" ||
		base.User != nil || base.RawQuery != "" || base.Fragment != "" || base.Opaque != "" {
		return nil, fmt.Errorf("origin %q: want http://host or https://host, with port and path if need be, and nothing else", text)
	}
	port := base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	g := guard{origin: text, private: c.AllowPrivate}
	host := strings.ToLower(strings.TrimSuffix(base.Hostname(), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		g.private = true
		if err := g.check(addr); err != nil {
			return nil, err
		}
	} else if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		g.loopback = true
	}
	u := &upstream{name: text, base: base, prefix: strings.TrimSuffix(base.EscapedPath(), "/"), address: net.JoinHostPort(base.Hostname(), port)}
	u.dial = boundedDial(c, g)
	u.transport = newTransport(u.address, c)
	u.transport.dial = u.dial
	if base.Scheme == "https" {
		config := c.TLS.Clone()
		if config == nil {
			config = &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)}
		}
		if config.ServerName == "" {
			config.ServerName = host
		}
		config.NextProtos = []string{"http/1.1"}
		u.transport.tls = config
	}
	return u, nil
}

// boundedDial dials within ConnectTimeout, and only what the guard lets pass.
// The guard looks at the address of the very connection that is made, so a
// name that resolves to something else the second time gains nothing.
func boundedDial(c *PoolConfig, g guard) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := c.DialContext
	if dial == nil {
		dial = (&net.Dialer{Resolver: c.Resolver, ControlContext: g.control}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, c.ConnectTimeout, timeoutError{"no connection", c.ConnectTimeout})
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			if timeout, ok := errors.AsType[timeoutError](context.Cause(ctx)); ok {
				err = timeout
			}
			return nil, err
		}
		return &boundConn{Conn: conn, timeout: c.BetweenTimeout}, nil
	}
}

// boundConn bounds each write: an upstream that does not read holds nobody. It
// remembers that it came to its end, which TLS does not tell.
type boundConn struct {
	net.Conn
	timeout time.Duration
	ended   bool
}

func (c *boundConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *boundConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.ended = c.ended || err == io.EOF
	return n, err
}

// AddressError is an origin that resolved to an address it may not have.
type AddressError struct {
	Origin  string
	Address netip.Addr
	Hint    string
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("origin %s is at %s: %s", e.Origin, e.Address, e.Hint)
}

// guard says which addresses an origin may have.
type guard struct {
	origin   string
	private  bool // any but metadata services
	loopback bool // loopback, because its name is localhost
}

// metadata are the addresses at which cloud providers tell a machine its
// secrets. No origin is ever there.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // most providers
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("100.100.100.200"), // Alibaba
}

// special are blocks beside those that netip knows to be not public: "this
// network" (RFC 1122 §3.2.1.3), shared space of carriers (RFC 6598), and
// benchmarking (RFC 2544).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("198.18.0.0/15"),
}

// nat64 is the prefix behind which IPv6 addresses hold IPv4 ones (RFC 6052 §2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// control is a net.Dialer's ControlContext: it sees the address about to be used.
func (g guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("origin %s: address %q: %w", g.origin, address, err)
	}
	return g.check(ap.Addr())
}

// check returns an *AddressError for an address that the origin may not have.
func (g guard) check(addr netip.Addr) error {
	a := addr.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, m := range metadata {
		if a == m {
			return &AddressError{g.origin, addr, "a cloud metadata service, which is never an origin"}
		}
	}
	if g.private || g.loopback && a.IsLoopback() {
		return nil
	}
	private := a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
	for _, p := range special {
		private = private || p.Contains(a)
	}
	if private {
		return &AddressError{g.origin, addr, "not a public address: set allow_private = true for this site if it is meant"}
	}
	return nil
}
