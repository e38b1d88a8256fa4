// Package dnsserver answers DNS queries from compiled zones, steered by
// policies.
//
// The answer path is one pure function over wire bytes, View.Answer: no
// socket, no clock, no global random source. Server puts it behind UDP and TCP;
// tests, fuzzers, "perigee explain" and the simulator call it directly.
package dnsserver

import (
	"net/netip"
	"time"

	"perigee.example/policy"
	"perigee.example/zones"
)

// View is everything an answer needs: the table of zones, each a snapshot of
// its own, with the policies and what binds them to names. Immutable.
type View struct{ stub int }

// ViewConfig is what a View is made from.
type ViewConfig struct {
	Zones     []*zones.Zone
	Policies  *policy.Set
	Steer     []Binding
	Endpoints []Endpoint // one for each endpoint of Policies, in order
	NSID      []byte     // answered when asked (RFC 5001); nil never
}

// Binding steers the A and AAAA RRsets, or the CNAME, of one owner name.
type Binding struct {
	Zone   string // origin, presentation form
	Name   string // owner, fully qualified, presentation form; may be a wildcard
	Policy string // a root of Policies
}

// Endpoint is what DNS hands out for one endpoint: addresses, or a name.
type Endpoint struct {
	Addresses []netip.Addr
	Target    string // a domain name for alias names (CNAME), or empty
}

// NewView checks the bindings against the zones and precomputes what answers
// need. The error is a list (errors.Join) of *BindingError; DESIGN "Endpoints"
// has the rules.
func NewView(c ViewConfig) (*View, error) { panic("not yet") }

// BindingError is a steered name that cannot be steered.
type BindingError struct {
	Binding Binding
	Text    string
	Hint    string
}

func (e *BindingError) Error() string { return e.Binding.Name + ": " + e.Text }

// Transport is how a query came.
type Transport uint8

// The transports.
const (
	UDP Transport = iota + 1
	TCP
)

// Context is what Answer is told about one query.
type Context struct {
	From      netip.AddrPort // the resolver
	Local     netip.AddrPort // the address the query came to
	Transport Transport
	Now       time.Duration // since the Unix epoch; read once a batch
	Seed      [16]byte      // the server's secret, for draws
	State     *policy.State // nil: all unknown
}

// Action is what to do with a query after Answer.
type Action uint8

// What Answer can ask for.
const (
	Reply Action = iota + 1
	Drop         // send nothing: a response, a stub of a header, …
)

// Outcome describes one answer for counters, logs and limits, which act on it
// outside of Answer. Reuse one.
type Outcome struct {
	Action   Action
	Zone     string // origin, or empty
	Rcode    uint16 // extended RCODE (RFC 6891 §6.1.3)
	QType    uint16
	Steered  bool
	Decision policy.Decision // when Steered
	Root     policy.Name     // when Steered
	HasECS   bool            // the reply carries ECS
	Scope    int
	TTL      uint32 // the least TTL in the answer section, seconds
	TC       bool
}

// Answer appends the reply to the query in wire form to dst and returns it. It
// is pure, allocates nothing when dst has room and out is reused, and is the
// only path by which a packet is answered.
func (v *View) Answer(dst, query []byte, c *Context, out *Outcome) []byte { panic("not yet") }
