package node

import (
	"encoding/json"
	"slices"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// forget remembers which releases of a site were forgotten last, in one record: a
// crash may have come between the entry and the removal, which is then made at
// the start.
func (l *live) forget(e feed.Entry, c *control.Forget) {
	all := slices.Clone(c.Releases)
	if old, ok := l.records["forgotten "+c.Site].command.(*control.Forget); ok {
		for _, d := range old.Releases {
			if !slices.Contains(c.Releases, d) {
				all = append(all, d)
			}
		}
	}
	l.keepForgotten(e, c.Site, all[:min(len(all), control.MaxForgotten)])
}

// sealed takes a release out of those that were forgotten: it was pushed again.
func (l *live) sealed(c *control.Release) {
	r, ok := l.records["forgotten "+c.Site]
	if !ok {
		return
	}
	old := r.command.(*control.Forget).Releases
	if slices.Contains(old, c.Release) {
		l.keepForgotten(r.entry, c.Site, slices.DeleteFunc(slices.Clone(old), func(d origin.Digest) bool { return d == c.Release }))
	}
}

func (l *live) keepForgotten(e feed.Entry, site string, releases []origin.Digest) {
	if len(releases) == 0 {
		delete(l.records, "forgotten "+site)
		return
	}
	c := &control.Forget{Site: site, Releases: releases}
	e.Kind, e.Body = control.KindForget, forgetBody(c)
	l.records["forgotten "+site] = record{e, c}
}

func forgetBody(c *control.Forget) json.RawMessage {
	b, err := json.Marshal(c)
	if err != nil { // digests and a name
		panic(err)
	}
	return b
}
