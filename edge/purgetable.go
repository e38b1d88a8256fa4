package edge

import (
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// maxPurgeScopes bounds the purge table: URLs, prefixes and tags together,
	// some 20 MiB. Beyond it the oldest scope is folded into a purge of its
	// site, hard or soft as it was, which forgets nothing that was purged.
	maxPurgeScopes = 100_000
	// maxPrefixSegments bounds the segments of a purged prefix, and so the
	// probes that a path of any depth costs. Real paths have under ten.
	maxPrefixSegments = 32
)

type scopeKind uint8

const (
	scopeAll     scopeKind = iota
	scopeSite              // within: the site
	scopeAnyTag            // within: the site; the last purge of any of its tags
	scopeURL               // name: host, path and query
	scopePrefix            // name: host and path, without a final "/"
	scopeTag               // within: the site, name: the tag
	scopeGroup             // within: the URI's origin, name: the group (RFC 9875)
	scopeKinds             // how many there are
	firstBounded = scopeURL
)

// scope is what a purge covers. It is the key of the purge table.
type scope struct {
	kind         scopeKind
	within, name string
}

// purgeScopes are the scopes that a stored response falls under.
type purgeScopes struct {
	site     string
	resource string   // host, path and query
	tags     []string // of its site, each once; those of groups among them
	groups   []string // of origin: Cache-Groups
	origin   string   // of the URI; "" without groups
	// anyTag: it has more tags than are kept, so the purge of any may mean it.
	anyTag bool
}

// instant is a place in the order of purges: in the feed's, and in that of
// the purges of this edge alone. The two are counted apart, so that a purge of
// our own takes no seq that the feed will use.
type instant struct{ seq, local uint64 }

func (a instant) after(b instant) bool { return a.seq > b.seq || a.local > b.local }

func (a instant) merge(b instant) instant {
	return instant{max(a.seq, b.seq), max(a.local, b.local)}
}

type lastPurges struct{ hard, soft instant }

// purgeTable keeps the last hard and the last soft purge of each scope. A
// response may be used while no scope it falls under was purged after its asOf.
type purgeTable struct {
	// The newest purge of all: what was fetched after it needs no look.
	newestSeq, newestLocal atomic.Uint64

	mu      sync.RWMutex
	last    map[scope]lastPurges
	max     int
	bounded int             // scopes in last that count towards max
	count   [scopeKinds]int // of each bounded kind: the kinds there are none of cost no probe
	order   []ordered       // oldest first; holds outdated entries too
	folded  uint64
}

type ordered struct {
	scope scope
	site  string
	at    instant // its seq, or its local when that is 0, tells whether it is the last
}

func newPurgeTable() *purgeTable {
	return &purgeTable{last: map[scope]lastPurges{}, max: maxPurgeScopes}
}

// record notes a purge. site is the one it counts for when it is folded.
func (t *purgeTable) record(s scope, site string, at instant, soft bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, there := t.last[s]
	t.raise(s, at, soft)
	if s.kind == scopeTag {
		t.raise(scope{kind: scopeAnyTag, within: s.within}, at, soft)
	}
	if s.kind >= firstBounded {
		if !there {
			t.bounded++
			t.count[s.kind]++
		}
		t.order = append(t.order, ordered{s, site, at})
		for t.bounded > t.max || len(t.order) > 2*t.max {
			t.fold()
		}
	}
	t.newestSeq.Store(max(t.newestSeq.Load(), at.seq))
	t.newestLocal.Store(max(t.newestLocal.Load(), at.local))
}

func (t *purgeTable) raise(s scope, at instant, soft bool) {
	l := t.last[s]
	if soft {
		l.soft = l.soft.merge(at)
	} else {
		l.hard = l.hard.merge(at)
	}
	t.last[s] = l
}

// restart puts the purges with numbers of the feed at one place in the order of
// this edge's own: numbers begin anew, and what was fetched before stays purged.
func (t *purgeTable) restart(at instant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	moved := func(i instant) instant {
		if i.seq > 0 {
			return at
		}
		return i
	}
	for s, l := range t.last {
		t.last[s] = lastPurges{moved(l.hard), moved(l.soft)}
	}
	for i := range t.order {
		t.order[i].at = moved(t.order[i].at)
	}
	t.newestLocal.Store(at.local) // first: a look in between finds too much rather than too little
	t.newestSeq.Store(0)
}

// fold gives up the oldest scope; mu is held.
func (t *purgeTable) fold() {
	o := t.order[0]
	t.order = t.order[1:]
	l, there := t.last[o.scope]
	last := l.hard.merge(l.soft)
	newest := last.seq == o.at.seq
	if o.at.seq == 0 {
		newest = last.local == o.at.local
	}
	if !there || !newest {
		return // purged again since, or folded: another entry stands for it
	}
	delete(t.last, o.scope)
	t.bounded--
	t.count[o.scope.kind]--
	s := scope{kind: scopeSite, within: o.site}
	if o.site == "" {
		s = scope{kind: scopeAll}
	}
	// A hard purge stays one: what it covered may still be stored, and is not to
	// be served, not even stale. It takes what else of the site is as old.
	if l.hard != (instant{}) {
		t.raise(s, l.hard, false)
	}
	if l.soft != (instant{}) {
		t.raise(s, l.soft, true)
	}
	t.folded++
}

// check reports whether a response fetched as of asOf has been purged since.
func (t *purgeTable) check(p *purgeScopes, asOf instant) (hard, soft bool) {
	newest := instant{t.newestSeq.Load(), t.newestLocal.Load()}
	if !newest.after(asOf) {
		return false, false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := checking{t: t, asOf: asOf}
	c.probe(scope{kind: scopeAll})
	c.probe(scope{kind: scopeSite, within: p.site})
	if t.count[scopeURL] > 0 {
		c.probe(scope{kind: scopeURL, name: p.resource})
	}
	if t.count[scopePrefix] > 0 {
		c.prefixes(p.resource)
	}
	if t.count[scopeTag] > 0 {
		for _, tag := range p.tags {
			c.probe(scope{kind: scopeTag, within: p.site, name: tag})
		}
	}
	if p.anyTag {
		c.probe(scope{kind: scopeAnyTag, within: p.site})
	}
	if t.count[scopeGroup] > 0 {
		for _, group := range p.groups {
			c.probe(scope{kind: scopeGroup, within: p.origin, name: group})
		}
	}
	return c.hard, c.soft
}

// checking gathers what the scopes of one response say.
type checking struct {
	t          *purgeTable
	asOf       instant
	hard, soft bool
}

func (c *checking) probe(s scope) {
	l := c.t.last[s]
	c.hard = c.hard || l.hard.after(c.asOf)
	c.soft = c.soft || l.soft.after(c.asOf)
}

// prefixes probes every prefix that a resource falls under: its host, the
// path up to each "/", and the whole path.
func (c *checking) prefixes(resource string) {
	path, _, _ := strings.Cut(resource, "?")
	n := 0
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		c.probe(scope{kind: scopePrefix, name: path[:i]})
		if n++; n > maxPrefixSegments {
			return
		}
	}
	c.probe(scope{kind: scopePrefix, name: path})
}
