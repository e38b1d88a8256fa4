package edge

import (
	"encoding/json"

	"perigee.example/internal/seglog"
)

// purgeNote is a purge as the disk tier writes it down, so that a restart does
// not bring back what it covers. A node's journal has the purges of the feed
// too; the tier has them all, and so depends on nobody's.
type purgeNote struct {
	Kind   scopeKind `json:"kind"`
	Within string    `json:"within,omitempty"`
	Name   string    `json:"name,omitempty"`
	Site   string    `json:"site,omitempty"`
	Seq    uint64    `json:"seq,omitempty"`
	Local  uint64    `json:"local,omitempty"`
	Soft   bool      `json:"soft,omitempty"`
}

func (n *purgeNote) at() instant { return instant{n.Seq, n.Local} }

func (n *purgeNote) scope() scope { return scope{n.Kind, n.Within, n.Name} }

// note writes a purge down. Edge.applyMu is held. The feed's are synced by the
// node's journal before they are acknowledged; one of this edge alone is by us.
func (d *disk) note(n purgeNote) {
	if d == nil {
		return
	}
	log := d.log.Load()
	if log == nil {
		if len(d.early) == maxEarly {
			d.lost = true
			return
		}
		d.early = append(d.early, n)
		return
	}
	d.say(log, n, n.Seq == 0)
}

func (d *disk) say(log *seglog.Log, n purgeNote, sync bool) {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // it is numbers and strings
	}
	log.Note(b, sync)
}

// restore takes up what the log says of purges. Local purges are numbered from
// beyond all that were ever given out here, so what an earlier process stored
// stands where it stood among its own.
//
// A note with a seq that this edge has not applied is of another feed, or of a
// journal that has been lost: it then counts as a local one from before now.
// unknown says that it is not known of all that was invalidated what it was.
func (d *disk) restore(log *seglog.Log, unknown bool) {
	e := d.e
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	applied, start := e.applied.Load(), max(e.local.Load(), uint64(max(0, e.now().UnixNano())))
	var notes []purgeNote
	for _, b := range log.Notes() {
		var n purgeNote
		if json.Unmarshal(b, &n) != nil || n.Kind >= scopeKinds {
			d.lost = true // a later version's, say
			continue
		}
		notes = append(notes, n)
		start = max(start, n.Local)
		if n.Kind == scopeAll && n.Local > 0 { // what Revalidate notes
			e.anewAt.Store(max(e.anewAt.Load(), n.Local))
		}
	}
	start++
	suspect := d.lost || unknown || log.Suspect()
	for _, n := range notes {
		if n.Seq > applied {
			n.Seq, n.Local = 0, start
		}
		e.purges.record(n.scope(), n.Site, n.at(), n.Soft)
	}
	for _, n := range d.early {
		if n.Seq == 0 || n.Local != 0 { // it had a number of before the log was there
			n.Local = start
			e.purges.record(n.scope(), n.Site, n.at(), n.Soft)
			if n.Kind == scopeAll {
				e.anewAt.Store(start)
			}
		}
		d.say(log, n, n.Seq == 0)
	}
	d.early, d.lost = nil, false
	e.local.Store(start)
	d.before.Store(start)
	d.seqAt.Store(applied)
	if suspect {
		e.log.Warn("the disk tier may have lost word of what was invalidated: what it holds is validated before it is used", "dir", d.c.Dir)
		n := purgeNote{Kind: scopeAll, Local: start, Soft: true}
		e.purges.record(n.scope(), "", n.at(), true)
		d.say(log, n, true)
		if err := log.Settled(); err != nil {
			e.log.Warn("the state of the disk tier could not be saved", "dir", d.c.Dir, "why", err)
		}
	}
}
