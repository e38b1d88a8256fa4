package edge

import (
	"sync/atomic"
	"time"

	"perigee.example/internal/arena"
	"perigee.example/origin"
)

// Snapshot is all that a hit reads. Its sites never change; the store and the
// releases it points to are safe to read while they change.
type Snapshot struct {
	name     string
	sites    *siteTable
	store    *store
	purges   *purgeTable
	behind   *atomic.Bool
	releases *origin.Releases
	blobs    *origin.Blobs
	full     bool // who asks is told all of Cache-Status
	tls      bool
	sni      string
	nameless func(host string) bool // of connections without sni; nil: no host
	peer     bool                   // the request came from another edge, which has checked the name
}

// Over returns the snapshot for the requests of a TLS connection whose client
// asked for serverName. A request for another host is misdirected (RFC 9110
// §15.5.20); with "" so is one for a host that Config.Nameless does not allow.
func (s *Snapshot) Over(serverName string) *Snapshot {
	c := *s
	c.tls, c.sni = true, lower(serverName)
	return &c
}

// telling returns the snapshot for a client that is told all of Cache-Status.
func (s *Snapshot) telling() *Snapshot {
	c := *s
	c.full = true
	return &c
}

// use is how a stored response may be used.
type use int

const (
	useNone     use = iota // nothing is stored that may be used
	useFresh               // as it is
	useStale               // as it is, while it is validated behind (RFC 5861 §3)
	useValidate            // after validation
)

// found is what the store has for a request.
type found struct {
	obj     *stored
	use     use
	age     time.Duration
	onError bool // may be used if the origin fails (RFC 5861 §4)
	cutOff  bool // may be used if no origin can be reached (RFC 9111 §4.2.4)
	// tolerable: nothing but its age keeps it from use, so a client that takes
	// stale ones may have it.
	tolerable bool
	why       string // for Cache-Status: fwd
	known     bool   // there is none because it was purged
	ahead     bool   // fresh, hot, and to be refreshed before it expires
	early     bool   // fresh, and to be validated all the same
}

// find looks a GET or HEAD up (RFC 9111 §4). The caller lets go of what it
// found.
func (s *Snapshot) find(site *Site, key []byte, f fields, now time.Time) found {
	obj, other := s.store.get(key, f)
	return s.usable(obj, other, site, f, now)
}

// look is find for a hit: what it finds is a view of a record, into. The caller
// lets go of both, body and record.
func (s *Snapshot) look(site *Site, key []byte, f fields, now time.Time, into *stored) (r found, record arena.Extent) {
	record, other := s.store.hit(key, f, into)
	if record == 0 {
		return s.usable(nil, other, site, f, now), 0
	}
	if r = s.usable(into, false, site, f, now); r.obj == nil {
		s.store.arena.Release(record)
		record = 0
	}
	return r, record
}

// usable says how what is stored may be used for a request; obj is nil when
// nothing is, or, with other, only what it does not select.
func (s *Snapshot) usable(obj *stored, other bool, site *Site, f fields, now time.Time) found {
	if obj == nil {
		if other {
			return found{why: "vary-miss"}
		}
		return found{why: "uri-miss"}
	}
	return s.judge(site, obj, f, now)
}

// judge decides how a stored response that a request selects may be used; of one
// that may not it lets go.
func (s *Snapshot) judge(site *Site, obj *stored, f fields, now time.Time) found {
	hard, soft := s.purges.check(&obj.scopes, obj.asOf)
	if hard || obj.scopes.site != site.Name { // or the host has gone to another site
		s.store.letGo(obj)
		return found{why: "uri-miss", known: true}
	}
	if _, ok := f.combined("Authorization"); ok && !sharesAuthorized(&obj.cc) {
		s.store.letGo(obj)
		return found{why: "request"}
	}
	r := obj.judge(now, soft, s.behind.Load())
	if r.use == useFresh {
		r.ahead, r.early = s.store.due(obj, r.age)
		r.onError = r.early
	}
	return r
}

// judge decides how o may be used now. soft: a soft purge covers it; behind:
// purges may have been missed.
func (o *stored) judge(now time.Time, soft, behind bool) found {
	r := found{obj: o, use: useValidate, age: o.currentAge(now), why: "stale"}
	staleness := r.age - o.lifetime // fresh while it is below 0 (RFC 9111 §4.2)
	young := staleness < 0 && !o.cc.noCache
	if young && !soft && !behind {
		r.use = useFresh
		return r
	}
	mayStale := !mustValidateStale(&o.cc)
	r.tolerable = mayStale && !soft && !behind
	if mayStale && !behind && o.cc.staleWhileRevalidate != noDelta && staleness <= o.cc.staleWhileRevalidate {
		r.use = useStale
	}
	r.onError = young || mayStale && staleness <= max(o.cc.staleIfError, o.cc.staleWhileRevalidate)
	r.cutOff = mayStale && o.lifetime > 0 && staleness < maxCutOff
	return r
}
