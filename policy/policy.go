// Package policy decides which endpoints answer for a client, and says why.
//
// It is pure: no packet, no socket, no clock, no global random source. What is
// known about the client, the fleet and the time comes in as data, so the DNS
// server, the tests, the fuzzers and "perigee explain" run the same code.
//
// It is not a DNS server, not a health checker and not a database of places:
// it knows endpoints by number and name, and takes what dnsserver, probes and
// internal/geo have found out. A Set is compiled once from a Config and a
// Geography and is then immutable; the state of the fleet changes all the time
// and is an argument.
//
//	set, err := policy.Compile(config, []string{"nearest"}, geography)
//	root, ok := set.Root("nearest")
//	state := set.NewState() // then again after each round of probes
//	var d policy.Decision   // reused
//	for client, resolver := range questions {
//		draw := policy.ResolverDraw(seed, resolver)
//		q := policy.Query{Client: client, Draw: draw, Now: time.Duration(time.Now().UnixNano())}
//		set.Decide(root, &q, state, &d)
//		// d.Endpoints for d.TTL, for every client in d.Scope bits around client
//	}
//
// # Draws
//
// Every level of a policy draws anew from the resolver's draw, its own name,
// the block that the scope speaks of, and the epoch, which is as long as the
// least TTL met so far. So a retry, TCP, AAAA beside A, and every client in the
// scope get the same answer within an epoch, and over resolvers, blocks and
// epochs the shares are those configured. Where an epoch begins differs from
// key to key.
//
// # What is down
//
// A choice is out when its endpoint is down, drained or forced down, or when
// it is a policy with all choices out. Each kind then takes its next best: geo
// the next less specific rule that matches. When all that a root can choose is
// out, only the root opens: what is down counts as up, and when nothing is left
// even so, what is drained and forced down too. A Decision is never empty, but
// for a question that leaves endpoints out itself (Query.Only).
//
// # Limits
//
// They are the constants below; a Config past one is an error. Clients are told
// apart down to /24 and /48. What a root tells apart may cut the address space
// into two million blocks. Compiling ten roots over a country database takes a
// few seconds, Decide some hundred nanoseconds and no memory, Explain up to a
// second where it has to look at many networks around a client.
package policy

import (
	"iter"
	"net/netip"
	"time"
)

// Kind is how a policy chooses.
type Kind uint8

// The kinds of policy. To add one: a constant here, a case in each of compile,
// decide and explain, a file of its own, and a conversation in testdata/steer.
const (
	Weighted   Kind = iota + 1 // by draw, in proportion to the weights
	Latency                    // the lowest round trip: static table, else great-circle distance
	Geo                        // the most specific matching rule of a map whose target is up
	Failover                   // the first that is up
	Multivalue                 // several that are up, chosen by draw
)

// String is the word for k in perigee.toml.
func (k Kind) String() string {
	switch k {
	case Weighted:
		return "weighted"
	case Latency:
		return "latency"
	case Geo:
		return "geo"
	case Failover:
		return "failover"
	case Multivalue:
		return "multivalue"
	}
	return "unknown"
}

// Config is a fleet's steering rules as written. It is plain data.
type Config struct {
	Endpoints []Endpoint
	Policies  []Policy
}

// Endpoint is one possible choice: an edge, a set of addresses or another
// name. This package knows only what it needs in order to choose; which
// families an endpoint has addresses of is not part of it, since endpoints are
// chosen once for A and AAAA.
type Endpoint struct {
	Name     string
	Lat, Lon float64 // degrees north and east; used by Latency where no table entry fits
	Located  bool    // Lat and Lon are known
}

// Policy is one named rule. A choice names an endpoint or another policy;
// endpoint and policy names share one name space.
type Policy struct {
	Name    string
	Kind    Kind
	TTL     time.Duration // whole seconds; 0 means DefaultTTL
	Choices []Choice      // Weighted, Latency, Failover, Multivalue: in the order written
	Map     []Rule        // Geo
	RTT     []RTTRow      // Latency: static table; the most specific selector that matches wins
	Answers int           // Multivalue: how many; 0 means DefaultAnswers
}

// Choice is one member of a policy.
type Choice struct {
	To     string
	Weight uint32 // Weighted only; 0 is never chosen unless every other choice is down
}

// Rule sends the clients that Match selects to To. While To is down they go
// where the next less specific rule that selects them leads, and at last to
// the default, which every map has.
type Rule struct {
	Match Selector
	To    string
}

// RTTRow holds measured or estimated round trips from the clients that Match
// selects to choices, by name. For each choice the most specific row that has
// it counts; without one, an endpoint's round trip is estimated from the
// great-circle distance, in steps of 1 ms (67 km). Choices of which neither is
// known come last, in the order written.
type RTTRow struct {
	Match Selector
	RTT   map[string]time.Duration
}

// Limits. A configuration past one of them is an error, never cut.
const (
	DefaultTTL     = 60 * time.Second
	DefaultAnswers = 8
	MaxAnswers     = 8 // endpoints in one answer; a UDP reply of 1232 octets holds these with room to spare
	MaxDepth       = 8 // nested policies; deeper is a mistake
	MaxChoices     = 1024
	MaxRules       = 1 << 16          // in one map or table of round trips
	MaxPaths       = 1 << 16          // ways on which the policies below one lead to choices; Decide walks all when the whole fleet is down
	MaxTTL         = 24 * time.Hour   // what is steered for longer is not steered; a drain would last as long
	MaxRTT         = 10 * time.Second // no network on earth is slower
)

// Location is what a geography knows of a block of addresses. The zero value
// means that nothing is known.
type Location struct {
	Continent   string // two letters as in GeoIP2: AF AN AS EU NA OC SA
	Country     string // ISO 3166-1 alpha-2
	Subdivision string // ISO 3166-2 without the country, such as "CA" of "US-CA"
	City        string // English name
	ASN         uint32
	Lat, Lon    float64 // degrees north and east
	Located     bool    // Lat and Lon are known
	Centroid    bool    // Lat and Lon are those of the country's centroid, not of the network
}

// Geography maps addresses to locations. Implementations are immutable and
// safe for concurrent use; internal/geo has the one for GeoIP2 databases.
type Geography interface {
	// Lookup returns what is known of addr, and a block around addr inside
	// which everything is the same. The block need not be the largest.
	Lookup(addr netip.Addr) (Location, netip.Prefix)
	// Within yields disjoint blocks in address order that together cover
	// every address of p about which something is known. A block larger than
	// p is cut to p. p is of one family; IPv4 is never mapped into IPv6.
	Within(p netip.Prefix) iter.Seq2[netip.Prefix, Location]
}

// Query is what is known about one question.
type Query struct {
	// Client is the ECS SOURCE prefix (RFC 7871), or the resolver's address
	// as a /32 or /128 when no ECS came or its SOURCE was 0.
	Client netip.Prefix
	// Draw is uniform over all uint64 for each resolver: a keyed hash of the
	// server's secret seed and the resolver's /24 or /48 (see ResolverDraw).
	// Each level of a policy derives its own draw from it, from the level's
	// name, from the scope block and from the epoch.
	Draw uint64
	// Now is the time since the Unix epoch. Only epochs depend on it.
	Now time.Duration
	// Only, if not nil, has an entry for each endpoint: one whose entry is
	// false does not exist for this question, as when it has no address of the
	// family asked for. Scope and draws stay the same. A Decision is empty when
	// the rules lead this client to no endpoint that exists.
	Only []bool
}

// Decision is the answer to a Query. Reuse one: Decide appends to Endpoints
// after cutting it to zero length, and so allocates nothing.
type Decision struct {
	Endpoints []int         // indexes into Config.Endpoints, best first
	TTL       time.Duration // the least TTL met along the path of nested policies
	// Scope is the ECS SCOPE PREFIX-LENGTH in bits (RFC 7871 §7.2.1): the
	// length of the block around Client inside which every client gets this
	// answer. It is 0 when Client does not matter, and never depends on State.
	//
	// It is longer than Client when Client is larger than the blocks it lies
	// on. The answer is then that of the rules that hold in most of Client, and
	// Scope says with what SOURCE a resolver would get a tailored one.
	Scope int
	Open  bool   // every choice was down, so all that were not drained or forced down counted as up
	Why   []Step // filled by Explain only
}

// Step is one line of an explanation.
type Step struct {
	Policy string // the policy or endpoint that this step is about
	Text   string // what was decided there and why, for an operator to read
}
