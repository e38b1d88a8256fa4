package node

import (
	"cmp"
	"slices"
	"strings"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// maxScopes bounds the purges remembered: beyond it the oldest becomes a purge
// of its whole site, which covers it, hard or soft as it was. A node that restarts applies them
// to whatever its cache kept.
const maxScopes = 100_000

// keep says which entries a node's journal must keep.
type keep struct{ purges, releases, drains, nodes bool }

// record is one entry that still matters, decoded.
type record struct {
	entry   feed.Entry
	command any
}

// live is what a node must remember of the log: for each thing that an entry
// can change, the last entry that changed it. It is a fold of the log.
type live struct {
	keep    keep
	records map[string]record
	purges  int
}

func newLive(k keep) *live { return &live{keep: k, records: map[string]record{}} }

// put folds an entry in, and reports whether the picture of drains changed.
func (l *live) put(e feed.Entry, command any) (drains bool) {
	switch c := command.(type) {
	case *control.Purge:
		if l.keep.purges {
			l.purge(e, c)
		}
	case *control.Purges:
		if l.keep.purges {
			// Each is remembered by itself, as an entry of its own would be: the
			// next one of the same scope takes the place of that one alone.
			for i := range c.Purges {
				one := e
				one.Kind, one.Body = control.KindPurge, purgeBody(&c.Purges[i])
				l.purge(one, &c.Purges[i])
			}
		}
	case *control.Activate:
		if l.keep.releases {
			l.records["release "+c.Site] = record{e, c}
		}
	case *control.Channel:
		switch key := "release " + origin.Place(c.Site, c.Channel); {
		case !l.keep.releases:
		case c.Release.IsZero():
			delete(l.records, key)
		default:
			l.records[key] = record{e, c}
		}
	case *control.Forget:
		if l.keep.releases {
			l.forget(e, c)
		}
	case *control.Release:
		l.sealed(c)
	case *control.NodeCert:
		if l.keep.nodes {
			l.records["node "+c.Node] = record{e, c}
		}
	case *control.Drain:
		if !l.keep.drains {
			return false
		}
		if e.Kind == control.KindUndrain {
			delete(l.records, "drain "+c.Edge)
		} else {
			l.records["drain "+c.Edge] = record{e, c}
		}
		return true
	case *control.Force:
		if !l.keep.drains {
			return false
		}
		if c.Force == "obey" {
			delete(l.records, "force "+c.Edge)
		} else {
			l.records["force "+c.Edge] = record{e, c}
		}
		return true
	}
	return false
}

// scope is the key of a purge: what it covers, and how.
func scope(p *control.Purge) string {
	how := "hard"
	if p.Soft {
		how = "soft"
	}
	// None of these holds a NUL.
	return strings.Join([]string{"purge", how, p.Site, p.URL, p.Prefix, p.Tag}, "\x00")
}

func (l *live) purge(e feed.Entry, p *control.Purge) {
	if p.All && !p.Soft {
		// A hard purge of a site covers every purge of it before.
		for k, r := range l.records {
			if old, ok := r.command.(*control.Purge); ok && old.Site == p.Site {
				delete(l.records, k)
				l.purges--
			}
		}
	}
	// Purges of one entry come back from a rewritten journal in any order: one
	// that a hard purge of its site in the same entry covers is left out in each.
	if all, there := l.records[scope(&control.Purge{Site: p.Site})]; there && !p.All && all.entry.Seq >= e.Seq {
		return
	}
	key := scope(p)
	if _, there := l.records[key]; !there {
		l.purges++
	}
	l.records[key] = record{e, p}
	if l.purges > maxScopes {
		l.shed()
	}
}

// shed makes room for a tenth more scopes: the oldest purges are replaced by
// purges of their sites, with the number of the newest one replaced. A hard one stays
// hard: what it covers may not be served, not even stale.
func (l *live) shed() {
	var old []string
	for k, r := range l.records {
		if p, ok := r.command.(*control.Purge); ok && !p.All {
			old = append(old, k)
		}
	}
	slices.SortFunc(old, func(a, b string) int { return cmp.Compare(l.records[a].entry.Seq, l.records[b].entry.Seq) })
	for _, k := range old[:min(len(old), maxScopes/10)] {
		r := l.records[k]
		was := r.command.(*control.Purge)
		p := &control.Purge{Site: was.Site, All: true, Soft: was.Soft}
		delete(l.records, k)
		l.purges--
		e := r.entry
		e.Body = purgeBody(p)
		if site, there := l.records[scope(p)]; !there {
			l.purges++
		} else if site.entry.Seq > e.Seq {
			continue
		}
		l.records[scope(p)] = record{e, p}
	}
}

// previews are the places (origin.Place) of the previews that there are.
func (l *live) previews() map[string]bool {
	places := map[string]bool{}
	for _, r := range l.records {
		if c, ok := r.command.(*control.Channel); ok {
			places[origin.Place(c.Site, c.Channel)] = true
		}
	}
	return places
}

// sorted returns the records in the order of the log.
func (l *live) sorted() []record {
	out := make([]record, 0, len(l.records))
	for _, r := range l.records {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b record) int { return cmp.Compare(a.entry.Seq, b.entry.Seq) })
	return out
}

// drains is the operators' word on edges, a copy.
func (l *live) drains() Drains {
	d := Drains{Drained: map[string]bool{}, Forced: map[string]string{}}
	for _, r := range l.records {
		switch c := r.command.(type) {
		case *control.Drain:
			d.Drained[c.Edge] = true
		case *control.Force:
			d.Forced[c.Edge] = c.Force
		}
	}
	return d
}

// nodes are the certificates that the log speaks of: the hash of the only good
// one of each node, "" for none.
func (l *live) nodes() map[string]string {
	m := map[string]string{}
	for _, r := range l.records {
		if c, ok := r.command.(*control.NodeCert); ok {
			m[c.Node] = c.Cert
		}
	}
	return m
}
