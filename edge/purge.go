package edge

import (
	"fmt"
	"sync"
)

// maxPurgeScopes bounds the purge table. Beyond it the oldest scope is folded
// into a soft purge of its site, which forgets nothing that was purged.
const maxPurgeScopes = 100_000

// Purge is one purge, as the feed carries it.
type Purge struct {
	// Seq is the feed seq of the entry. 0 is a purge of this edge alone: it
	// takes effect between what was fetched before and what is fetched after.
	Seq  uint64
	Site string // the site; with URL it may be empty
	// URL purges one URL with all its variants, whatever the scheme and port.
	URL string
	// All purges the site, or every site when Site is empty.
	All bool
	// Soft makes responses stale, hard (the default) unusable.
	Soft bool
}

type scopeKind uint8

const (
	scopeAll scopeKind = iota
	scopeSite
	scopeURL
)

// scope is what a purge covers.
type scope struct {
	kind scopeKind
	name string
}

// purgeScopes are the scopes that a stored response falls under.
type purgeScopes struct {
	site     string
	resource string // host, path and query
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
	mu     sync.RWMutex
	last   map[scope]lastPurges
	order  []ordered // oldest first; holds outdated entries too
	folded uint64
}

type ordered struct {
	scope scope
	site  string
	at    instant // one of its parts is 0
}

func newPurgeTable() *purgeTable { return &purgeTable{last: map[scope]lastPurges{}} }

// record notes a purge. site is the one it counts for when it is folded.
func (t *purgeTable) record(s scope, site string, at instant, soft bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.raise(s, at, soft)
	if s.kind != scopeURL {
		return // as many as there are sites
	}
	t.order = append(t.order, ordered{s, site, at})
	for len(t.last) > maxPurgeScopes || len(t.order) > 2*maxPurgeScopes {
		t.fold()
	}
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

// fold gives up the oldest scope; mu is held.
func (t *purgeTable) fold() {
	if len(t.order) == 0 {
		return
	}
	o := t.order[0]
	t.order = t.order[1:]
	l := t.last[o.scope]
	last := l.hard.merge(l.soft)
	newest := last.seq == o.at.seq
	if o.at.seq == 0 {
		newest = last.local == o.at.local
	}
	if !newest {
		return // purged again since, or folded: another entry stands for it
	}
	delete(t.last, o.scope)
	s := scope{scopeSite, o.site}
	if o.site == "" {
		s = scope{kind: scopeAll}
	}
	t.raise(s, last, true)
	t.folded++
}

// check reports whether a response fetched as of asOf has been purged since.
func (t *purgeTable) check(p *purgeScopes, asOf instant) (hard, soft bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.last) == 0 {
		return false, false
	}
	for _, s := range [...]scope{{kind: scopeAll}, {scopeSite, p.site}, {scopeURL, p.resource}} {
		l := t.last[s]
		hard = hard || l.hard.after(asOf)
		soft = soft || l.soft.after(asOf)
	}
	return hard, soft
}

// Purge applies a purge: from its return on no response whose fetch started
// before is used (or, when soft, used as fresh). It also raises what SetApplied set.
func (e *Edge) Purge(p Purge) error {
	s := scope{}
	switch {
	case p.All == (p.URL != ""):
		return fmt.Errorf("purge: give either a URL or all of a site")
	case p.All && p.Site != "":
		s = scope{scopeSite, p.Site}
	case p.URL != "":
		t, err := parseURL(p.URL)
		if err != nil {
			return err
		}
		s = scope{scopeURL, string(t.appendResource(nil))}
		if p.Site == "" {
			if site := e.snap.Load().sites.find(t.host); site != nil {
				p.Site = site.Name
			}
		}
	}
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	if p.Seq == 0 {
		e.purges.record(s, p.Site, instant{local: e.local.Load() + 1}, p.Soft)
		e.local.Add(1)
		return nil
	}
	e.purges.record(s, p.Site, instant{seq: p.Seq}, p.Soft)
	e.applied.Store(max(e.applied.Load(), p.Seq))
	return nil
}

// asOf is where a fetch that starts now stands among the purges.
func (e *Edge) asOf() instant { return instant{e.applied.Load(), e.local.Load()} }

// SetApplied says that all feed entries up to seq have been applied here.
// Fetches that start from now on are as of seq.
func (e *Edge) SetApplied(seq uint64) {
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	e.applied.Store(max(e.applied.Load(), seq))
}

// SetBehind says whether the feed is known to be ahead of what is applied
// here. While it is, every stored response counts as stale: it is validated,
// and used only when the origin fails. Being cut off is not being behind.
func (e *Edge) SetBehind(behind bool) { e.behind.Store(behind) }

// PurgesFolded counts the scopes that the bounded purge table gave up; each
// made its site stale.
func (e *Edge) PurgesFolded() uint64 {
	e.purges.mu.RLock()
	defer e.purges.mu.RUnlock()
	return e.purges.folded
}
