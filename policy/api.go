package policy

import "net/netip"

// Set is a compiled Config: for every policy its rules, and for every policy
// that a name is bound to the Atlas that maps clients to regions. Immutable.
type Set struct{ stub int }

// Name is a handle for a policy or endpoint that a name may be steered by.
type Name int32

// Compile checks c and compiles it. roots are the policies or endpoints that
// steered names are bound to; an Atlas is built for each. A nil geography
// knows nothing of any address.
//
// The error is a list (errors.Join) of *ConfigError.
func Compile(c Config, roots []string, g Geography) (*Set, error) { panic("not yet") }

// ConfigError is a mistake in a Config. Path says where, in the words of
// perigee.toml ("policy.canary.weights.fra9").
type ConfigError struct {
	Path string
	Text string
	Hint string // what to do about it, or empty
}

func (e *ConfigError) Error() string { return e.Path + ": " + e.Text }

// Root returns the handle of one of the roots given to Compile.
func (s *Set) Root(name string) (Name, bool) { panic("not yet") }

// Reaches returns the indexes of every endpoint that root can lead to, in order.
func (s *Set) Reaches(root Name) []int { panic("not yet") }

// Endpoint returns the endpoint with index i.
func (s *Set) Endpoint(i int) Endpoint { panic("not yet") }

// NewState returns a State for s in which every endpoint's health is Unknown.
func (s *Set) NewState() *State { panic("not yet") }

// Decide fills d with the answer for q, from the compiled tables. It allocates
// nothing when d is reused, and is safe for concurrent use.
func (s *Set) Decide(root Name, q Query, st *State, d *Decision) { panic("not yet") }

// Explain fills d as Decide does, and d.Why, by evaluating the rules as
// written, without the compiled tables. That both agree on endpoints, TTL and
// scope is a test of the compiler.
func (s *Set) Explain(root Name, q Query, st *State, d *Decision) { panic("not yet") }

// ResolverDraw returns the Draw of a resolver: a keyed hash (SipHash-2-4) of
// its /24 or /48 under the server's secret seed.
func ResolverDraw(seed [16]byte, resolver netip.Addr) uint64 { panic("not yet") }

// Selector says which clients a rule is for. Exactly one field is set; the
// zero Selector is the default rule.
type Selector struct {
	Prefix      netip.Prefix // CIDR: the longest wins over all other kinds
	ASN         uint32       // then the autonomous system
	City        string       // "DE/Berlin": country and English name
	Subdivision string       // "US-CA"
	Country     string       // "DE"
	Continent   string       // "EU"; in text a word: africa antarctica asia europe north-america oceania south-america
}

// ParseSelector reads a map key of perigee.toml: "default", a CIDR prefix,
// "AS64500", "US-CA", "DE/Berlin", "DE", or a continent's word.
func ParseSelector(text string) (Selector, error) { panic("not yet") }

func (s Selector) String() string { panic("not yet") }
