package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
)

// session is one connection to the feed.
type session struct {
	n      *Node
	f      *feed.Follower
	target feed.Position // the head when it began: until it is reached, we are behind
	caught bool
	// rebuild gathers what the log says from its first entry on, when our
	// position is not on it; nil else. It takes the journal's place when the
	// head is reached: until then the old one stands, and so does the old
	// picture of drains.
	rebuild *live
	at      feed.Position // of the last entry read
	from    feed.Position // where it began
}

// connect runs one session: it returns when the feed is lost or ctx is done.
func (n *Node) connect(ctx context.Context) error {
	n.mu.Lock()
	from := n.position
	n.mu.Unlock()
	f, err := n.c.Dial(ctx, from)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{n: n, f: f, target: f.Head(), at: from}
	snap := f.Snapshot()
	if snap != nil { // before anything is said: without it, all stays as it is
		if s.rebuild, err = n.snapshot(ctx, snap); err != nil {
			return err
		}
	}
	n.setElsewhere(f.Diverged() || snap != nil)
	switch {
	case f.Diverged():
		why := fmt.Sprintf("what this node read (epoch %d, seq %d) is not on the log (head: epoch %d, seq %d)", from.Epoch, from.Seq, s.target.Epoch, s.target.Seq)
		n.log.Error("the log is another one: revalidating everything and reading it from the start", "why", why)
		n.revalidate(why)
		if snap == nil {
			s.rebuild, s.at = newLive(n.keep()), feed.Position{}
		}
	case snap != nil && from.Epoch > 0:
		why := fmt.Sprintf("this node was away for longer than the log reaches back (seq %d, a snapshot goes on to seq %d)", from.Seq, snap.At.Seq)
		n.log.Warn("beginning anew with a snapshot of the log: revalidating everything", "why", why)
		n.revalidate(why)
	}
	if snap != nil {
		s.at = snap.At
	}
	s.from = s.at
	// The head is known before the first entry is asked for: while behind,
	// nothing stored may be served as fresh.
	n.setBehind(!s.atTarget())
	n.setLost(false, nil)
	if err := s.reached(); err != nil {
		return err
	}
	entries := make(chan feed.Entry, batch)
	go func() {
		for {
			e, err := f.Next(ctx)
			if errors.Is(err, feed.ErrNewer) {
				n.stay(err)
				return
			}
			if err != nil {
				cancel(err)
				return
			}
			select {
			case entries <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	go n.report(ctx, f)
	err = s.follow(ctx, entries)
	cancel(err)
	return err
}

// stay is for a log that goes on in a later version: this node reads no further,
// which it reports, and is behind until it is updated. It stays connected, so that it
// is not taken for lost.
func (n *Node) stay(why error) {
	n.log.Error("the log goes on in a version that is not known here: it is not read any further, and everything is validated before use", "err", why)
	n.mu.Lock()
	n.tooOld = why.Error()
	n.mu.Unlock()
	n.setBehind(true)
	n.changed()
}

// follow applies entries as they come, all that are there as one batch.
func (s *session) follow(ctx context.Context, entries <-chan feed.Entry) error {
	slow := time.NewTimer(stillBehind)
	defer slow.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.f.Done():
			return feed.ErrLost
		case <-slow.C:
			if !s.caught {
				s.n.log.Warn("still behind the log", "seq", s.at.Seq, "head", s.target.Seq)
			}
		case e := <-entries:
			es := []feed.Entry{e}
			for more := true; more && len(es) < batch; {
				select {
				case e := <-entries:
					es = append(es, e)
				default:
					more = false
				}
			}
			if err := s.apply(es); err != nil {
				return err
			}
		}
	}
}

// apply verifies a batch, applies its purges, journals it with one sync, applies the
// rest of it in order, and acknowledges it. One purge too many does no harm, so none
// waits for the disk; when the journal cannot be written nothing is acknowledged.
func (s *session) apply(es []feed.Entry) error {
	fresh := es[:0:0]
	var gap error
	for _, e := range es {
		v := feed.Verify(s.at, e)
		if v.Kind == feed.Duplicate {
			continue
		}
		if v.Kind == feed.Break {
			if e.Epoch == s.at.Epoch && e.Seq > s.at.Seq+1 && s.at != s.from && s.rebuild == nil {
				// The log was trimmed while this node was far behind: connecting again
				// brings the snapshot. If that begins with the same, entries are lost.
				gap = fmt.Errorf("%w: %s", feed.ErrLost, v.Why)
				break
			}
			s.n.log.Error("the log broke: revalidating everything", "why", v.Why, "epoch", e.Epoch, "seq", e.Seq)
			s.n.revalidate(v.Why)
		}
		s.at = e.Position()
		fresh = append(fresh, e)
	}
	if len(fresh) > 0 {
		if err := s.take(fresh); err != nil {
			return err
		}
	}
	if gap != nil {
		return gap
	}
	if err := s.f.Ack(es[len(es)-1]); err != nil {
		return err
	}
	if err := s.reached(); err != nil {
		return err
	}
	s.n.changed()
	return nil
}

// take journals and applies entries that are new here.
func (s *session) take(es []feed.Entry) error {
	n := s.n
	commands := make([]any, len(es))
	for i, e := range es {
		c, err := control.DecodeCommand(e)
		switch {
		case errors.Is(err, control.ErrUnknownKind):
			n.log.Warn("entry skipped: update this node", "seq", e.Seq, "kind", e.Kind)
			if strings.HasPrefix(e.Kind, control.KindPurge) { // a way to purge that this version does not know
				n.revalidate(fmt.Sprintf("a purge of a kind that is not known here (%s, seq %d)", e.Kind, e.Seq))
			}
		case err != nil:
			n.log.Error("entry skipped", "err", err)
			if e.Kind == control.KindPurge || e.Kind == control.KindPurges { // it may have been for anything
				n.revalidate(fmt.Sprintf("a purge could not be read (seq %d)", e.Seq))
			}
		}
		commands[i] = c
	}
	if purgeFirst {
		s.purge(es, commands)
	}
	var failed error
	drains := false
	if s.rebuild != nil {
		for i, e := range es {
			s.rebuild.put(e, commands[i])
		}
	} else {
		n.mu.Lock()
		drains, failed = n.journal.append(es, commands)
		n.trouble = ""
		if failed != nil {
			n.trouble = failed.Error()
		}
		n.mu.Unlock()
	}
	whole := failed == nil && s.rebuild == nil
	handOn := func() { s.handOn(es, commands, drains) }
	if !whole {
		if failed != nil {
			n.log.Error("the journal cannot be written: not acknowledging until it can", "err", failed)
		}
		return failed
	}
	places := make([]feed.Position, len(es))
	for i, e := range es {
		places[i] = e.Position()
	}
	inOrder(handOn, func() { n.applied(places) })
	return nil
}

// purge tells the hook of the purges among entries.
func (s *session) purge(es []feed.Entry, commands []any) {
	n := s.n
	if n.c.Hooks.Purge == nil {
		return
	}
	for i, e := range es {
		for _, p := range control.PurgesOf(commands[i]) {
			n.c.Hooks.Purge(e.Position(), p)
		}
	}
}

// handOn tells the other hooks and the activator of entries that are durable.
func (s *session) handOn(es []feed.Entry, commands []any, drains bool) {
	n := s.n
	if !purgeFirst {
		s.purge(es, commands)
	}
	for i, e := range es {
		if n.act != nil {
			n.act.apply(commands[i], e.Seq)
		}
	}
	if drains {
		n.tellDrains()
	}
	if slices.ContainsFunc(commands, func(c any) bool { _, ok := c.(*control.NodeCert); return ok }) {
		n.tellNodes()
	}
}

// atTarget reports whether everything that was on the log at the beginning is
// read. An empty log's head has an epoch and no entry.
func (s *session) atTarget() bool {
	return s.target.Seq == 0 || s.at.Epoch >= s.target.Epoch && s.at.Seq >= s.target.Seq
}

// reached ends being behind once the head of the beginning is applied here.
func (s *session) reached() error {
	if s.caught || !s.atTarget() {
		return nil
	}
	n := s.n
	if s.rebuild != nil {
		if n.act != nil { // before the journal: a crash in between has it done again
			if err := n.act.restart(); err != nil {
				return err
			}
		}
		n.mu.Lock()
		err := n.journal.replace(s.rebuild, s.at)
		n.mu.Unlock()
		if err != nil {
			return err
		}
		s.rebuild = nil
		n.replay(s.at)
		n.setElsewhere(false)
	}
	if n.act != nil {
		n.mu.Lock()
		places, seq := n.journal.live.previews(), n.position.Seq
		n.mu.Unlock()
		n.act.prune(places, seq)
	}
	s.caught = true
	n.setBehind(false)
	n.changed()
	return nil
}
