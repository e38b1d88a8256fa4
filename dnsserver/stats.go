package dnsserver

import (
	"sync"
	"sync/atomic"

	"perigee.example/policy"
)

const (
	// maxZoneStats bounds the zones that are counted apart; those beyond count as
	// "other". Who serves more looks at the query log.
	maxZoneStats = 1000
	// maxSteerStats bounds the pairs of policy and endpoint in the same way.
	maxSteerStats = 4096
	// lastRcode is the highest extended RCODE that is in use (BADCOOKIE); one slot
	// more takes the rest.
	lastRcode  = 23
	otherStats = "other"
)

// Stats is what a Server has counted since it began.
type Stats struct {
	Queries map[QueryKind]uint64 // replies; those that were dropped are in Dropped or Limited
	Zones   map[string]uint64    // queries by the origin of their zone; "other" beyond 1,000
	Steered map[Steering]uint64  // steered decisions
	Dropped uint64               // queries that get no reply: responses, stubs of a header
	Limited map[Verdict]uint64   // replies that were held back, or cut
	Panics  uint64
	Streams uint64 // opened
	Refused uint64 // streams that were closed at once: their client had too many
	Evicted uint64 // streams that made way
	Open    int    // streams
}

// QueryKind is what queries are counted by.
type QueryKind struct {
	Transport Transport
	Rcode     uint16 // extended; what is beyond those assigned is lastRcode + 1
}

// Steering is one way in which a steered name was answered; the endpoint is the
// first of the decision.
type Steering struct{ Policy, Endpoint string }

// counters are those of one goroutine at a time, which alone adds to them; Stats
// reads them meanwhile.
type counters struct {
	queries [TCP + 1][lastRcode + 2]atomic.Uint64
	dropped atomic.Uint64
	limited [Slipped + 1]atomic.Uint64

	// Queries are counted here and published by flush, once a batch: an atomic
	// store costs as much as finding a name. Each of these holds the last of those
	// that share it.
	likes  [runs]run // by RCODE
	zone   string    // counted last
	inZone run
	steers [runs]steerRun // by endpoint
	set    *policy.Set    // that steered is of

	mu      sync.Mutex // held to add to the maps, and by Stats to read them
	zones   map[string]*atomic.Uint64
	steered map[steerKey]*atomic.Uint64
	retired map[Steering]uint64 // of policies that are no longer in use

	_ [128]byte // the next one's on another cache line
}

// runs is how many kinds of query, and of decision, wait for flush side by side:
// answers come mixed with NXDOMAIN, and one endpoint with others.
const runs = 8

// run is a count that waits for flush.
type run struct {
	to *atomic.Uint64
	n  uint64
}

func (r *run) flush() {
	if r.n > 0 {
		r.to.Store(r.to.Load() + r.n) // without locking the bus: no other goroutine adds
		r.n = 0
	}
}

// steerRun is a run of like decisions.
type steerRun struct {
	steerKey
	run
}

// steerKey is a Steering without its words.
type steerKey struct {
	set      *policy.Set
	root     policy.Name
	endpoint int
}

func (k steerKey) words() Steering {
	return Steering{k.set.NameOf(k.root), k.set.Endpoint(k.endpoint).Name}
}

// add1 counts without locking the bus: no other goroutine adds.
func add1(n *atomic.Uint64) { n.Store(n.Load() + 1) }

// count counts one query.
func (c *counters) count(t Transport, o *Outcome) {
	switch {
	case o.Limit == Dropped:
		add1(&c.limited[Dropped])
	case o.Action != Reply:
		add1(&c.dropped)
		return
	default:
		like := &c.likes[o.Rcode%runs]
		if n := &c.queries[min(t, TCP)][min(o.Rcode, lastRcode+1)]; n != like.to {
			like.flush()
			like.to = n
		}
		like.n++
		if o.Limit == Slipped {
			add1(&c.limited[Slipped])
		}
	}
	if o.Zone != "" {
		if o.Zone != c.zone {
			c.inZone.flush()
			c.zone, c.inZone.to = o.Zone, c.zoneCounter(o.Zone)
		}
		c.inZone.n++
	}
	if o.Steered && len(o.Decision.Endpoints) > 0 {
		k := steerKey{o.Policies, o.Root, o.Decision.Endpoints[0]}
		r := &c.steers[uint(k.endpoint)%runs]
		if k != r.steerKey {
			r.flush()
			to := c.steerCounter(k)
			r.steerKey, r.to = k, to
		}
		r.n++
	}
}

// flush publishes what waits. It is called before its goroutine waits for more.
func (c *counters) flush() {
	for i := range c.likes {
		c.likes[i].flush()
	}
	c.inZone.flush()
	for i := range c.steers {
		c.steers[i].flush()
	}
}

func (c *counters) zoneCounter(zone string) *atomic.Uint64 {
	if n := c.zones[zone]; n != nil {
		return n // only this goroutine changes the map
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.zones == nil {
		c.zones = map[string]*atomic.Uint64{otherStats: {}}
	}
	if len(c.zones) > maxZoneStats {
		return c.zones[otherStats]
	}
	n := new(atomic.Uint64)
	c.zones[zone] = n
	return n
}

func (c *counters) steerCounter(k steerKey) *atomic.Uint64 {
	if n := c.steered[k]; n != nil {
		return n
	}
	if c.steered == nil || k.set != c.set || len(c.steered) >= maxSteerStats {
		for i := range c.steers {
			c.steers[i].flush()
		}
		c.steers = [runs]steerRun{} // so that an old Set is not kept alive
		c.mu.Lock()
		c.retire()
		c.mu.Unlock()
		c.set = k.set
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := new(atomic.Uint64)
	c.steered[k] = n
	return n
}

// retire writes steered down by words. mu is held.
func (c *counters) retire() {
	if c.retired == nil {
		c.retired = map[Steering]uint64{}
	}
	c.addSteered(c.retired)
	c.steered = map[steerKey]*atomic.Uint64{}
}

func (c *counters) addSteered(to map[Steering]uint64) {
	for k, n := range c.steered {
		w := k.words()
		if _, known := to[w]; !known && len(to) >= maxSteerStats {
			w = Steering{otherStats, otherStats}
		}
		to[w] += n.Load()
	}
}

// addTo adds what c has counted to s.
func (c *counters) addTo(s *Stats) {
	for t := range c.queries {
		for rcode := range c.queries[t] {
			if n := c.queries[t][rcode].Load(); n > 0 {
				s.Queries[QueryKind{Transport(t), uint16(rcode)}] += n
			}
		}
	}
	s.Dropped += c.dropped.Load()
	for v := range c.limited {
		if n := c.limited[v].Load(); n > 0 {
			s.Limited[Verdict(v)] += n
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for zone, n := range c.zones {
		if _, known := s.Zones[zone]; !known && len(s.Zones) >= maxZoneStats {
			zone = otherStats
		}
		if v := n.Load(); v > 0 {
			s.Zones[zone] += v
		}
	}
	for w, n := range c.retired {
		s.Steered[w] += n
	}
	c.addSteered(s.Steered)
}

// tally is all counters of a Server. A goroutine has one while it serves, and
// leaves it, with what it has counted, to the next.
type tally struct {
	mu   sync.Mutex
	all  []*counters
	free []*counters

	streams, refused, evicted atomic.Uint64
}

func (t *tally) take() *counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		c := t.free[n-1]
		t.free = t.free[:n-1]
		return c
	}
	c := new(counters)
	t.all = append(t.all, c)
	return c
}

func (t *tally) give(c *counters) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free = append(t.free, c)
}

// Stats sums what every goroutine has counted.
func (s *Server) Stats() Stats {
	st := Stats{Queries: map[QueryKind]uint64{}, Zones: map[string]uint64{}, Steered: map[Steering]uint64{}, Limited: map[Verdict]uint64{}}
	s.tally.mu.Lock()
	all := s.tally.all[:len(s.tally.all):len(s.tally.all)]
	s.tally.mu.Unlock()
	for _, c := range all {
		c.addTo(&st)
	}
	st.Panics = s.panics.Load()
	st.Streams, st.Refused, st.Evicted = s.tally.streams.Load(), s.tally.refused.Load(), s.tally.evicted.Load()
	st.Open = int(s.nstreams.Load())
	return st
}

// rcodeTexts are the names of extended RCODEs (IANA DNS RCODEs); those in between
// are not assigned, or mean something in TSIG alone.
var rcodeTexts = [lastRcode + 1]string{
	0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN",
	7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 16: "BADVERS", 23: "BADCOOKIE",
}

// RcodeText is the name of an extended RCODE, or "other".
func RcodeText(rcode uint16) string {
	if int(rcode) < len(rcodeTexts) && rcodeTexts[rcode] != "" {
		return rcodeTexts[rcode]
	}
	return otherStats
}
