package edge

import (
	"fmt"
	"strings"
)

// Purge is one purge, as the feed carries it. It names exactly one of URL,
// Prefix, Tag and All.
type Purge struct {
	// Seq is the feed seq of the entry. 0 is a purge of this edge alone: it
	// takes effect between what was fetched before and what is fetched after.
	Seq uint64
	// Log names the log up to Seq: see SetApplied. It may be empty.
	Log string
	// Site is the site; with URL and Prefix it may be empty.
	Site string
	// URL purges one URL with all its variants, whatever the scheme and port.
	URL string
	// Prefix is a URL without query: it purges that path and all below it on
	// that host, with any query, whatever the scheme and port. It ends at a
	// segment: "/a" covers "/a" and "/a/b", never "/ab".
	Prefix string
	// Tag purges the responses of Site that carry this tag.
	Tag string
	// All purges the site, or every site when Site is empty.
	All bool
	// Soft makes responses stale, hard (the default) unusable.
	Soft bool
}

// Purge applies a purge: from its return on no response whose fetch started
// before is used (or, when soft, used as fresh). It also raises what SetApplied set.
func (e *Edge) Purge(p Purge) error {
	s, err := p.scope()
	if err != nil {
		return err
	}
	if p.Site == "" && s.host != "" {
		if site, _ := e.snap.Load().sites.find(s.host); site != nil {
			p.Site = site.Name
		}
	}
	if site, _ := e.snap.Load().sites.find(s.host); site != nil && p.URL != "" {
		path, query, has := strings.Cut(s.scope.name, "?")
		if has {
			s.scope.name = path + site.Query.apply("?"+query)
		}
	}
	e.stats.purges.Add(1)
	e.purgeScope(s.scope, &p)
	return nil
}

// purgeScope records the purge of one scope, and makes it an instant in the
// order of purges: of the feed with a seq, else of this edge.
func (e *Edge) purgeScope(s scope, p *Purge) {
	site, seq, soft := p.Site, p.Seq, p.Soft
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	if seq == 0 {
		at := instant{local: e.local.Load() + 1}
		e.purges.record(s, site, at, soft)
		e.local.Add(1)
		e.disk.Load().note(purgeNote{s.kind, s.within, s.name, site, 0, at.local, soft})
		return
	}
	at := instant{seq: seq}
	if e.anew {
		// What was fetched in the time of the old numbers may have higher ones.
		at.local = e.local.Load() + 1
	}
	e.purges.record(s, site, at, soft)
	if e.anew {
		e.local.Add(1)
	}
	e.disk.Load().note(purgeNote{s.kind, s.within, s.name, site, seq, at.local, soft})
	e.raiseApplied(seq, p.Log)
}

// Revalidate says that purges may have been missed, or that the feed's numbers
// begin anew (its log was restored from an older copy, say): every stored response
// counts as stale until it is validated, and a purge from now on covers all that
// was fetched before it, whatever its number.
func (e *Edge) Revalidate() {
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	at := instant{local: e.local.Load() + 1}
	e.purges.restart(at)
	e.purges.record(scope{}, "", at, true)
	e.applied.Store(0)
	e.places.forget()
	e.local.Add(1)
	e.disk.Load().note(purgeNote{Kind: scopeAll, Local: at.local, Soft: true})
	e.anew = true
	e.anewAt.Store(at.local)
}

// named is a scope and the host it is on, if it is on one.
type named struct {
	scope
	host string
}

// scope says what p covers.
func (p *Purge) scope() (named, error) {
	n := 0
	for _, given := range []bool{p.URL != "", p.Prefix != "", p.Tag != "", p.All} {
		if given {
			n++
		}
	}
	switch {
	case n != 1:
		return named{}, fmt.Errorf("purge: give exactly one of a URL, a prefix, a tag, and all of a site")
	case p.All && p.Site != "":
		return named{scope: scope{kind: scopeSite, within: p.Site}}, nil
	case p.All:
		return named{}, nil
	case p.Tag != "":
		if p.Site == "" || len(p.Tag) > maxTagBytes {
			return named{}, fmt.Errorf("purge: a tag needs its site, and has at most %d bytes", maxTagBytes)
		}
		return named{scope: scope{kind: scopeTag, within: p.Site, name: p.Tag}}, nil
	case p.URL != "":
		t, err := parseURL(p.URL)
		if err != nil {
			return named{}, err
		}
		return named{scope{kind: scopeURL, name: string(t.appendResource(nil))}, t.host}, nil
	}
	t, err := parseURL(p.Prefix)
	if err != nil {
		return named{}, err
	}
	if t.query != "" {
		return named{}, fmt.Errorf("purge: the prefix %q has a query: it covers every query of its paths", p.Prefix)
	}
	path := strings.TrimSuffix(t.path, "/")
	if strings.Count(path, "/") > maxPrefixSegments {
		return named{}, fmt.Errorf("purge: the prefix %q has more than %d segments", p.Prefix, maxPrefixSegments)
	}
	return named{scope{kind: scopePrefix, name: t.host + path}, t.host}, nil
}

// asOf is where a fetch that starts now stands among the purges. Revalidate may come
// in between: a seq of the old numbers must not meet a local of after it.
func (e *Edge) asOf() instant {
	local := e.local.Load()
	return instant{e.applied.Load(), local}
}

// SetApplied says that all feed entries up to seq have been applied here.
// Fetches that start from now on are as of seq. log names the log up to seq, the
// same on edges that have read the same entries and no others: between edges of
// which one is a shield a seq counts only with its log (at most maxLogBytes, no
// space). A place without a name, or one that was never told, is not known.
func (e *Edge) SetApplied(seq uint64, log string) {
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	e.raiseApplied(seq, log)
}

// SetBehind says whether the feed is known to be ahead of what is applied
// here. While it is, every stored response counts as stale: it is validated,
// and used only when the origin fails. Being cut off is not being behind.
func (e *Edge) SetBehind(behind bool) { e.behind.Store(behind) }

// PurgesFolded counts the scopes that the bounded purge table gave up; each
// became a purge of all of its site that is as old.
func (e *Edge) PurgesFolded() uint64 {
	e.purges.mu.RLock()
	defer e.purges.mu.RUnlock()
	return e.purges.folded
}

// PurgeScopes is how many URLs, prefixes and tags the purge table holds.
func (e *Edge) PurgeScopes() int {
	e.purges.mu.RLock()
	defer e.purges.mu.RUnlock()
	return e.purges.bounded
}
