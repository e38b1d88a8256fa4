package edge

import (
	"sync/atomic"
)

// Caches are the words of AccessRecord.Cache, which requests are counted by.
var caches = [...]string{"hit", "miss", "stale", "revalidated", "pass", "release", "error", "local"}

// pathFast and pathGeneral are the two ways in which a request is answered: by
// the connection loop, and by everything else.
const (
	pathFast = iota
	pathGeneral
)

// statShards spread a site's counters over cache lines, so that the connections
// of one site do not wait for each other. It is a power of two.
const statShards = 8

// generalShard takes what the general path answers: it is slow enough for one.
const generalShard = 0

// siteStats counts the requests of one site. It outlives changes of the site.
type siteStats struct {
	shards [statShards]struct {
		requests [2][len(caches) + 1]atomic.Uint64 // the last: another word
		classes  [6]atomic.Uint64                  // by the first digit of the status
		bytes    atomic.Uint64
		_        [64]byte
	}
}

// count counts one answer; shard is any number.
func (s *siteStats) count(shard uint32, path int, cache string, status int, bytes int64) {
	s.countAll(shard, path, cache, status, 1, bytes)
}

// countAll counts times answers that are alike, of so many bytes together.
func (s *siteStats) countAll(shard uint32, path int, cache string, status int, times uint64, bytes int64) {
	n := &s.shards[shard%statShards]
	i := 0
	for i < len(caches) && caches[i] != cache {
		i++
	}
	n.requests[path][i].Add(times)
	if class := status / 100; class >= 1 && class <= 5 {
		n.classes[class].Add(times)
	}
	n.bytes.Add(uint64(max(bytes, 0)))
}

// tally gathers answers of the loop that are alike, and counts them at once: each
// count is three additions that other processors must see.
type tally struct {
	stats  *siteStats // nil: there are none
	cache  string
	status int
	times  uint64
	bytes  int64
}

func (t *tally) add(shard uint32, s *siteStats, r *AccessRecord) {
	if t.stats != s || t.cache != r.Cache || t.status != r.Status {
		t.flush(shard)
		*t = tally{stats: s, cache: r.Cache, status: r.Status}
	}
	t.times++
	t.bytes += max(0, r.Bytes)
}

func (t *tally) flush(shard uint32) {
	if t.stats != nil {
		t.stats.countAll(shard, pathFast, t.cache, t.status, t.times, t.bytes)
		t.stats = nil
	}
}

// SiteStats is what one site has answered.
type SiteStats struct {
	Requests map[Answered]uint64
	Classes  [6]uint64 // by the first digit of the status
	Bytes    uint64    // of bodies
}

// Answered is how requests were answered.
type Answered struct {
	Cache string // as in AccessRecord
	Path  string // "fast": by the connection loop; "general": by all rules
}

// Stats is what an Edge has counted since it began. What changes with sites has
// at most as many entries as there have been sites.
type Stats struct {
	Sites        map[string]SiteStats // "" has what is of no site
	OriginErrors map[string]uint64    // requests that got 502 or 504, by site
	Purges       uint64               // applied
	Panics       uint64
	Connections  int    // open
	Accepted     uint64 // connections
	Turned       uint64 // connections that were closed at once: too many, or too many of one client
	Store        StoreStats
	Disk         DiskStats
	Ready        bool
}

// StoreStats is how full the store is.
type StoreStats struct {
	Bytes, Budget, Filling int64
	Objects                int
	Evictions              uint64 // responses that made way for others
}

// edgeStats are the counters of an Edge beside its sites'.
type edgeStats struct {
	none                     siteStats
	purges, accepted, turned atomic.Uint64
	open                     atomic.Int64
}

// statsOf is where the requests of a site are counted.
func (e *Edge) statsOf(s *Site) *siteStats {
	if s == nil || s.stats == nil {
		return &e.stats.none
	}
	return s.stats
}

// keepStats gives each site its counters: those of its name, if it had some.
func (e *Edge) keepStats(t *siteTable) {
	e.statsMu.Lock()
	defer e.statsMu.Unlock()
	for _, m := range []map[string]*Site{t.hosts, t.wild} {
		for _, s := range m {
			if e.bySite[s.Name] == nil {
				e.bySite[s.Name] = new(siteStats)
				e.failed[s.Name] = new(atomic.Uint64)
			}
			s.stats, s.failed = e.bySite[s.Name], e.failed[s.Name]
		}
	}
}

// Stats sums what has been counted.
func (e *Edge) Stats() Stats {
	st := Stats{
		Sites: map[string]SiteStats{"": e.stats.none.sum()}, OriginErrors: map[string]uint64{},
		Purges: e.stats.purges.Load(), Panics: e.panics.Load(), Connections: int(e.stats.open.Load()),
		Accepted: e.stats.accepted.Load(), Turned: e.stats.turned.Load(), Store: e.store.stats(), Disk: e.disk.Load().stats(), Ready: !e.notReady.Load(),
	}
	e.statsMu.Lock()
	defer e.statsMu.Unlock()
	for name, s := range e.bySite {
		st.Sites[name] = s.sum()
		st.OriginErrors[name] = e.failed[name].Load()
	}
	return st
}

func (s *siteStats) sum() SiteStats {
	out := SiteStats{Requests: map[Answered]uint64{}}
	for i := range s.shards {
		n := &s.shards[i]
		for path, word := range []string{"fast", "general"} {
			for c := range n.requests[path] {
				v := n.requests[path][c].Load()
				if v == 0 {
					continue
				}
				cache := "other"
				if c < len(caches) {
					cache = caches[c]
				}
				out.Requests[Answered{cache, word}] += v
			}
		}
		for c := range n.classes {
			out.Classes[c] += n.classes[c].Load()
		}
		out.Bytes += n.bytes.Load()
	}
	return out
}

// stats looks at the store. Its variants are counted as objects each.
func (s *store) stats() StoreStats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return StoreStats{Bytes: s.bytes, Budget: s.budget, Filling: s.filling, Objects: s.index.count, Evictions: s.evictions}
}
