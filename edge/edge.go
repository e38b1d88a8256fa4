// Package edge is a shared HTTP cache (RFC 9111) in front of an origin, the
// server of pushed releases, and the edge's listeners. It knows nothing of DNS.
//
// A hit is a pure function, Hit, over request bytes and a Snapshot. The
// connection loop of Serve, the http.Handler and the tests all come to the
// same rules.
//
//	e, err := edge.New(edge.Config{
//		Name: "fra1",
//		Sites: []edge.Site{{
//			Name: "shop", Hosts: []string{"shop.example.com"},
//			Origin: edge.HandlerTransport(app), // or an *origin.Pool
//		}},
//	})
//	if err != nil { … }
//	err = e.Serve(ctx, listener) // or http.Serve(listener, e)
//
// It is not a forward proxy, not a load balancer (that is origin.Pool) and no
// TLS terminator for other protocols. It is strict on what it receives: a head
// that two parsers could read differently is refused. Unless a Site says so, it
// uses no heuristic freshness and stores no response with Set-Cookie. HTTP/2
// and compression are not here yet.
package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"perigee.example/internal/evict"
	"perigee.example/origin"
)

// Site is one tenant: its host names and where its content comes from.
type Site struct {
	Name  string
	Hosts []string // lower case, without port; "*.example.com" covers one label
	// Origin is where misses are fetched: usually an *origin.Pool. Nil: push only.
	// A request's URL and Host are the client's; Origin chooses the upstream.
	Origin http.RoundTripper
	// Push: paths in the active release are served from it, before Origin.
	Push bool
	// PreviewsBelow is one of Hosts: the releases of the site's channels
	// preview-NAME are served too, each at preview-NAME and this host. "": they are not.
	PreviewsBelow string
	// Heuristic gives responses without an explicit lifetime a tenth of the
	// time since Last-Modified, a day at most (RFC 9111 §4.2.2).
	Heuristic bool
	// ShareSetCookie stores responses with Set-Cookie, and gives the cookie to
	// all (RFC 9111 §7.3 warns of it).
	ShareSetCookie bool
	// StoreClientErrors stores 400, 405, 413 and 414 like other responses:
	// one client's odd request can then deny others the page.
	StoreClientErrors bool
	// Query normalises queries, for the key and the origin alike.
	Query QueryRules
	// KeyFields are request fields, in canonical form, that every response is
	// taken to vary by, said or not. They reach the origin even if they are of
	// those that clients may not set otherwise.
	KeyFields []string
	// Shields are the edges that stand between the others and Origin: a miss is
	// fetched through one of them, by its key. This edge may be one. None: from
	// Origin.
	Shields []Peer
	// EarlyHintsAll passes 103 (RFC 8297) on to all HTTP/1.1 clients; without, only
	// to those that are known to understand it. perigee.toml has it as early_hints.
	EarlyHintsAll bool
	// MemoryBytes is a share of the store that the site has to itself, and does
	// not exceed; 0 is none: then it shares what is left with the others.
	MemoryBytes int64
	// Rules give expiry to pushed paths beyond the classes: first match wins.
	Rules []ExpiryRule

	stats  *siteStats     // of the Edge that it is given to
	failed *atomic.Uint64 // requests that the origin failed
}

// ExpiryRule gives the Cache-Control of pushed paths that match its Glob.
type ExpiryRule = origin.ExpiryRule

// Config is what an Edge is made from.
type Config struct {
	Name        string // the edge's name, for Cache-Status and Via; "perigee" when empty
	Sites       []Site
	Releases    *origin.Releases // nil: no push sites
	Blobs       *origin.Blobs    // of Releases
	MemoryBytes int64            // budget of the store; 0 means DefaultMemoryBytes
	Eviction    Eviction         // what leaves the store when it is full
	Log         *slog.Logger     // events; nil discards
	Access      AccessLog        // one record a request; nil: off
	Hide        []string         // query parameters whose values Access is not told; nil means DefaultHide
	Limits      *Limits          // of one client; nil means DefaultLimits
	// Nameless reports whether a TLS connection whose client named no host may ask
	// for one (Certs.CoversNameless); nil: for none. It may be called at any time.
	Nameless func(host string) bool
	Now      func() time.Time // nil means time.Now; its monotonic reading is used for ages
	// Seed of the draws by which hot responses are refreshed at different times;
	// 0 draws one.
	Seed uint64
}

// Eviction is how a full store chooses what leaves.
type Eviction = evict.Policy

const (
	S3FIFO = evict.S3FIFO // the default: what is asked for once drives nothing out that is used
	LRU    = evict.LRU    // the least recently used
)

// AccessLog receives one record a request. It must not block, and not keep r.
type AccessLog interface{ Log(r *AccessRecord) }

// AccessRecord is one served request.
type AccessRecord struct {
	Time        time.Time
	Client      string // address without port
	Site        string
	Method      string
	Host        string
	Path        string // with the query's secrets stripped, control bytes escaped by the writer
	Status      int
	Bytes       int64 // of the body
	Duration    time.Duration
	Proto       string
	Referer     string // its query's secrets stripped
	UserAgent   string
	Cache       string // hit, miss, stale, revalidated, pass, release, error or local
	Release     string
	CacheStatus string
	TLS         *tls.ConnectionState

	// plain: the values that the loop has checked, or made, are there, short and of
	// visible ASCII without what JSON escapes: client, method, host, cache and status.
	plain bool
}

// Edge is a cache with its sites, releases and purges. It is an http.Handler,
// and Serve is a listener loop of its own. Make it with New; Close ends it.
type Edge struct {
	name, id string
	via      []string // our line of Via
	loop     []string // and that of CDN-Loop
	snap     atomic.Pointer[Snapshot]
	store    *store
	disk     atomic.Pointer[disk] // nil: there is none
	purges   *purgeTable
	flights  flights
	clients  clients
	ahead    aheadLimit
	releases *origin.Releases
	blobs    *origin.Blobs
	nameless func(host string) bool
	log      *slog.Logger
	access   AccessLog
	lines    *LineLog // access, if it is one of ours
	secrets  secrets
	now      func() time.Time
	ownClock bool // now is not the system's
	behind   atomic.Bool
	notReady atomic.Bool
	draining atomic.Bool
	panics   atomic.Uint64
	stats    edgeStats
	applied  atomic.Uint64 // feed seq
	local    atomic.Uint64 // purges of this edge alone
	applyMu  sync.Mutex
	anew     bool          // the feed's numbers may have begun anew: see Revalidate; applyMu
	anewAt   atomic.Uint64 // local from which on an asOf's seq is of the log that is read now
	places   places        // on the feed, up to applied
	more     chan struct{} // closed when applied rises; applyMu
	statsMu  sync.Mutex    // guards what follows, by site; each stays for good
	bySite   map[string]*siteStats
	failed   map[string]*atomic.Uint64
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
}

// New makes an edge. It refuses sites that share a host name.
func New(c Config) (*Edge, error) {
	if c.Name == "" {
		c.Name = "perigee"
	}
	if !isToken(c.Name) {
		return nil, fmt.Errorf("edge: the name %q is no token: use letters, digits and dashes", c.Name)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ownClock := c.Now != nil
	if !ownClock {
		c.Now = time.Now
	}
	if (c.Releases == nil) != (c.Blobs == nil) {
		return nil, errors.New("edge: Releases and Blobs come together: give both or neither")
	}
	st, err := newStore(c.MemoryBytes, c.Eviction, c.Now())
	if err != nil {
		return nil, err
	}
	e := &Edge{
		name: c.Name, id: "perigee-" + c.Name, via: []string{"1.1 perigee-" + c.Name}, loop: []string{"perigee-" + c.Name}, store: st, purges: newPurgeTable(),
		releases: c.Releases, blobs: c.Blobs, log: c.Log, access: c.Access, secrets: newSecrets(c.Hide), now: c.Now, ownClock: ownClock, nameless: c.Nameless,
	}
	e.lines, _ = c.Access.(*LineLog)
	if c.Seed != 0 {
		e.store.seed = c.Seed
	}
	e.bySite, e.failed = map[string]*siteStats{}, map[string]*atomic.Uint64{}
	e.flights.m, e.flights.all, e.clients.m = map[string]*flight{}, map[*flight]struct{}{}, map[netip.Addr]*client{}
	if c.Limits == nil {
		l := DefaultLimits()
		c.Limits = &l
	}
	e.SetLimits(*c.Limits)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if err := e.SetSites(c.Sites); err != nil {
		return nil, err
	}
	return e, nil
}

// Close ends fetches under way. Connections are Serve's to end: cancel its context.
func (e *Edge) Close() {
	e.cancel()
	e.endFlights()
	e.CloseDisk()
}

// SetSites swaps all sites, or changes nothing and says why. What is stored
// stays; requests under way end as they began.
func (e *Edge) SetSites(sites []Site) error {
	t, err := newSiteTable(sites)
	if err != nil {
		return err
	}
	for i := range sites {
		if sites[i].Push && e.releases == nil {
			return fmt.Errorf("site %s: it is pushed, but the edge has no Releases", sites[i].Name)
		}
	}
	e.keepStats(t)
	shares := map[string]int64{}
	for i := range sites {
		if n := sites[i].MemoryBytes; n > 0 {
			shares[sites[i].Name] = n
		}
	}
	e.store.setShares(shares)
	e.snap.Store(&Snapshot{
		name: e.name, sites: t, store: e.store, purges: e.purges, behind: &e.behind,
		releases: e.releases, blobs: e.blobs, nameless: e.nameless,
	})
	return nil
}

// Snapshot is what Hit reads: the sites as they are now, and the store and the
// releases, which go on changing. It is for plain HTTP; Over makes it one of a
// TLS connection.
func (e *Edge) Snapshot() *Snapshot { return e.snap.Load() }

// SetMemory bounds the memory that the store takes from the system, to n octets,
// for as long as memory is short: whole slabs of it go back, with what they
// hold. It never exceeds Config.MemoryBytes.
func (e *Edge) SetMemory(n int64) { e.store.setMemory(n) }

// SetReady says what /-/ready answers: 200 or 503. An edge starts ready.
func (e *Edge) SetReady(ready bool) { e.notReady.Store(!ready) }

// Drain announces the end, some time before Serve's context ends: from now on
// every answer says "Connection: close", and the connection is closed after it.
// Connections are still taken.
func (e *Edge) Drain() { e.draining.Store(true) }

// Undrain takes the announcement of Drain back.
func (e *Edge) Undrain() { e.draining.Store(false) }

// siteTable finds the site of a host.
type siteTable struct {
	hosts map[string]*Site
	wild  map[string]*Site // key: what follows "*"
	below map[string]*Site // sites with previews, by the hosts that these are below
}

func newSiteTable(sites []Site) (*siteTable, error) {
	t := &siteTable{hosts: map[string]*Site{}, wild: map[string]*Site{}, below: map[string]*Site{}}
	for i := range sites {
		s := sites[i] // a copy of our own
		if len(s.Shields) > maxShields {
			return nil, fmt.Errorf("site %s: %d shields: want %d at most", s.Name, len(s.Shields), maxShields)
		}
		s.Shields = slices.Clone(s.Shields)
		for j := range s.Shields {
			s.Shields[j].down = new(atomic.Int64)
		}
		for _, r := range s.Rules {
			if _, err := path.Match(r.Glob, ""); err != nil {
				return nil, fmt.Errorf("site %s: expiry glob %q: %w", s.Name, r.Glob, err)
			}
		}
		for _, h := range s.Hosts {
			m, key := t.hosts, h
			if rest, ok := strings.CutPrefix(h, "*"); ok {
				m, key = t.wild, rest
			}
			if name := strings.TrimPrefix(key, "."); key == "" || name == "" || name[0] != '[' && !validHostName(name) {
				return nil, fmt.Errorf("site %s: host %q is no host name: write it in lower case, without port", s.Name, h)
			}
			if other := m[key]; other != nil {
				return nil, fmt.Errorf("site %s: host %q is already that of site %s", s.Name, h, other.Name)
			}
			m[key] = &s
		}
	}
	for _, s := range t.hosts {
		if s.PreviewsBelow != "" && s.Push {
			t.below[s.PreviewsBelow] = s
		}
	}
	return t, nil
}

// find returns the site of a normalised host, or nil, and the channel when the
// host is that of a preview. A host that a site has by its full name is that
// site's; wildcards come last.
func (t *siteTable) find(host string) (s *Site, channel string) {
	if s := t.hosts[host]; s != nil {
		return s, ""
	}
	i := strings.IndexByte(host, '.')
	if i <= 0 {
		return nil, ""
	}
	if len(t.below) > 0 && strings.HasPrefix(host, origin.PreviewPrefix) {
		if s := t.below[host[i+1:]]; s != nil && origin.CheckChannel(host[:i]) == nil {
			return s, host[:i]
		}
	}
	return t.wild[host[i:]], ""
}
