// Package config reads perigee.toml into typed values, with every cross-check,
// and reports each mistake with file, line and a caret.
//
// It opens no socket and starts nothing. Parse is pure; Load also reads the
// file and looks which zone files a glob finds. The same file is read by every
// node of a fleet, so nothing here asks which node this is.
//
//	c, err := config.Load("perigee.toml")
//	if err != nil {
//		fmt.Fprint(os.Stderr, config.Render(err)) // all mistakes, each with its line and a caret
//		os.Exit(1)
//	}
//	for _, e := range c.Edges {
//		fmt.Println(e.Name, e.Addresses)
//	}
//
// Limits: a file of at most 512 KiB, of which at most 20 mistakes are shown.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"net/url"
	"time"

	"perigee.example/policy"
)

// Config is a whole perigee.toml, checked. Treat it as immutable.
type Config struct {
	File    string // as given to Load or Parse, for messages
	Version int    // of the file's format; 1
	State   string // the state folder, or empty when the file says none
	DNS     DNS
	// Zones holds the [zone."…"] tables in file order. After Load they are
	// followed by the zones that zone_files finds, in order of their origin.
	Zones     []Zone
	Control   Control
	Feed      Feed
	Health    Health
	Cache     Cache
	Limit     ClientLimit
	Log       Log
	Metrics   Metrics
	Edges     []Edge     // in file order
	Endpoints []Endpoint // in file order
	// Policy is what policy.Compile takes. Its Endpoints are the Edges and then
	// the Endpoints, each in file order: index i is Edges[i] for i < len(Edges).
	Policy policy.Config
	Sites  []Site // in file order

	src    *source
	mixed  map[string]bool // policies with families = "mixed"
	root   *node
	hash   [sha256.Size]byte
	globs  []span // of DNS.ZoneFiles, in order
	tables []Zone // the [zone."…"] tables, as the file has them
}

// DNS is [dns].
type DNS struct {
	Listen    []netip.AddrPort // UDP and TCP, see Network; empty: this fleet has no DNS node
	ZoneFiles []string         // globs, absolute or relative to the working folder
	GeoIP     string           // path of a City or Country database; empty: the built-in one
	GeoIPASN  string           // path of an ASN database, or empty
	NSID      string           // RFC 5001; empty: never answered
	Cookies   bool             // give and check server cookies (RFC 7873)
	Chaos     Chaos
	Limit     Limit
}

// Chaos is [dns.chaos]: texts of class CH (RFC 4892); an empty one is refused.
type Chaos struct{ Version, ID string }

// Limit is [dns.limit]: of replies by UDP.
type Limit struct {
	Rate   int            // a second to one network in one class of answers; 0: no limit
	Slip   int            // of the replies over the rate, one in so many goes out small; 0: none
	Exempt []netip.Prefix // networks without a limit
}

// ClientLimit is [limit]: what one client, an IPv4 address or an IPv6 /64, may
// ask of an edge.
type ClientLimit struct {
	Connections int            // at once; 0: no limit
	Misses      int            // requests a second for what is not stored; 0: no limit
	Exempt      []netip.Prefix // clients without a limit
	Proxies     []netip.Prefix // peers whose X-Forwarded-For says who the client is
	Told        []netip.Prefix // clients that see all of Cache-Status
}

// Zone is one zone: where its master file is and which of its names are steered.
type Zone struct {
	Origin string // lower case, with the final dot
	File   string // path of the master file, which is the zone's truth
	Auto   bool   // serial = "auto": raised when the file changes without it
	Steer  []Steer
	Pos    Position // of the table's name, or of the glob that found the file
}

// Steer binds a policy, an edge or an endpoint to an owner name.
type Steer struct {
	Name string // fully qualified, lower case, with the final dot; may be a wildcard
	To   string // a policy, an edge or an endpoint
	// Mixed says that To is a policy with families = "mixed": its endpoints may
	// lack addresses of a family that the name has.
	Mixed bool
	Pos   Position // of the name

	path string // in the words of the file
}

// Control is [control].
type Control struct {
	Present    bool           // the file has a [control] table; the values below hold either way
	Listen     netip.AddrPort // the admin door
	FeedListen netip.AddrPort // the node door: NATS
	BlobListen netip.AddrPort // the node door: blobs
	Addresses  []*url.URL     // how commands reach Listen; never empty
	// Cluster are the control nodes when there are several: three or five. The
	// first makes the fleet's keys.
	Cluster []ControlMember
	Limit   ControlLimit
	Bucket  Bucket // where blobs are; without a name: in the state folder
}

// ControlLimit is [control.limit]: what one token may ask of the control API.
// 0 is no limit.
type ControlLimit struct {
	Calls    int // a second
	Purges   int // a second
	Failures int // a minute, of one address
}

// Health is [health]: how DNS nodes probe, and how an edge leaves.
type Health struct {
	Path              string // begins with "/"
	Interval, Timeout time.Duration
	Rise, Fall        int           // probes in a row
	Drain             time.Duration // how long an edge that ends says so before it takes no more
}

// Cache is [cache].
type Cache struct {
	Memory   int64  // bytes, for each edge that has no size of its own
	Disk     int64  // bytes, likewise; 0: none
	Eviction string // one of the words of eviction
}

// The words of eviction in [cache].
const (
	EvictionS3FIFO = "s3fifo" // what is asked for once drives nothing out that is used
	EvictionLRU    = "lru"    // the least recently used leaves
)

// The words of families in a policy.
const (
	FamiliesSame  = "same"  // whatever is chosen has the families of the name
	FamiliesMixed = "mixed" // A and AAAA may be chosen apart
)

// Edge is one [edge.NAME].
type Edge struct {
	Name        string
	Lat, Lon    float64 // degrees north and east
	Located     bool    // Lat and Lon are known
	Addresses   []netip.Addr
	Listen      []netip.AddrPort // HTTP, see Network
	ListenTLS   []netip.AddrPort // HTTPS
	Peer        netip.AddrPort   // the node door for other edges; not valid: none
	Check       string           // URL to probe; empty: never probed
	CacheMemory int64            // bytes: its own, else that of [cache]
	CacheDisk   int64            // bytes, likewise; 0: none
	Eviction    string           // the same
	Pos         Position         // of the name
}

// Endpoint is one [endpoint.NAME]: addresses or a name that are not ours.
type Endpoint struct {
	Name      string
	Lat, Lon  float64 // degrees north and east
	Located   bool
	Addresses []netip.Addr // or
	Target    string       // a domain name, lower case, with the final dot
	Check     string       // URL to probe; empty: never probed
	Pos       Position
}

// The words of a site's balance.
const (
	RoundRobin    = "round-robin"
	Weighted      = "weighted"
	LeastLoaded   = "least-loaded"
	Random        = "random"
	ActivePassive = "active-passive"
)

// Site is one [site.NAME].
type Site struct {
	Name           string
	Hosts          []string   // lower case, without port; "*.example.com" covers one label
	Origins        []*url.URL // scheme and host only; empty: push only
	Shield         []string   // edges through which the others fetch; empty: each from the origins
	Balance        string
	Weights        []uint32      // Weighted: one for each origin; else nil
	Check          string        // path probed on each origin; empty: passive only
	AllowPrivate   bool          // origin names may resolve to loopback, private and link-local addresses
	ConnectTimeout time.Duration // to connect, TLS included
	HeaderTimeout  time.Duration // until the response's head is complete
	BetweenTimeout time.Duration // between two reads of the body
	Heuristic      bool          // responses without explicit lifetime get 10 % of the time since Last-Modified
	ShareSetCookie bool          // responses with Set-Cookie are stored, and the cookie goes to all
	// Memory is the site's own share of each edge's memory, in bytes; 0 is none.
	Memory int64
	// StoreClientErrors stores 400, 405, 413 and 414 too.
	StoreClientErrors bool
	// QuerySort, QueryKeep and QueryDrop normalise queries; a name may end in "*".
	QuerySort            bool
	QueryKeep, QueryDrop []string
	KeyFields            []string // canonical; every response varies by them
	EarlyHintsAll        bool     // 103 goes to all HTTP/1.1 clients
	Push                 bool
	Previews             bool // channels preview-NAME are served at preview-NAME.HOST
	Keep                 int  // releases kept for grace and rollback
	// KeepFor is how long the control node keeps others; 0: for ever.
	KeepFor   time.Duration
	MaxFiles  int      // of one release; 0: no limit
	MaxStored int64    // bytes of all releases on the control node; 0: no limit
	Expiry    []Expiry // in file order: the first that matches wins
	TLS       TLS
	Pos       Position
}

// TLS is a certificate and its key; both paths are empty or neither is.
type TLS struct {
	Cert, Key string
	Default   bool // for clients that name no host
}

// Expiry gives the Cache-Control of pushed paths that match Glob.
type Expiry struct{ Glob, CacheControl string }

// Hash is the SHA-256 over the text of the file, in hex: every node reports it,
// so that nodes with another file are seen.
func (c *Config) Hash() string { return hex.EncodeToString(c.hash[:]) }

// Network is the network to open a listen address with: network ("tcp", "udp")
// with 4 or 6. Without the digit, [::] would take IPv4 too, and 0.0.0.0 beside
// it would be in use already.
func Network(network string, listen netip.AddrPort) string {
	if listen.Addr().Is4() {
		return network + "4"
	}
	return network + "6"
}

// Site returns the site of that name, or nil.
func (c *Config) Site(name string) *Site {
	for i := range c.Sites {
		if c.Sites[i].Name == name {
			return &c.Sites[i]
		}
	}
	return nil
}

// Edge returns the edge of that name, or nil.
func (c *Config) Edge(name string) *Edge {
	for i := range c.Edges {
		if c.Edges[i].Name == name {
			return &c.Edges[i]
		}
	}
	return nil
}

// Roots returns what steered names are bound to, each once, in file order: the
// roots of policy.Compile.
func (c *Config) Roots() []string {
	var roots []string
	seen := map[string]bool{}
	for _, z := range c.Zones {
		for _, s := range z.Steer {
			if !seen[s.To] {
				seen[s.To] = true
				roots = append(roots, s.To)
			}
		}
	}
	return roots
}
