package control

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// Snapshots: every hour, or ten thousand entries, the fold of the log is stored as
// a blob and named by an entry. Behind a snapshot that is older than the horizon the
// log is trimmed. Every step may be the last before a crash: a blob that no entry
// names is swept, an entry whose blob is there is true, and what is not trimmed is
// trimmed the next time.
const (
	snapshotTick = time.Minute
	// snapshotEvery and snapshotEntries are when one is due, if there is anything new.
	snapshotEvery   = time.Hour
	snapshotEntries = 10_000
	// logHorizon is how long entries stay behind a snapshot at least: who was away
	// for less reads on where it was, who was away for longer begins with the
	// snapshot and validates what it has stored.
	logHorizon = 72 * time.Hour
	// logEntries is how many entries stay whatever their age is: a start reads all
	// of them, some 20,000 a second.
	logEntries = 200_000
	// logSlack is how many more there may be because a node that is there has not
	// applied them.
	logSlack = 200_000
	// heardWithin is when a node counts as there: it reports once a second.
	heardWithin = time.Minute
)

// keepSnapshots makes snapshots and trims the log, as long as ctx lasts.
func (s *Server) keepSnapshots(ctx context.Context) {
	tick := time.NewTicker(snapshotTick)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := s.snapshotDue(ctx)
		if err == nil {
			err = s.trim(ctx)
		}
		if err == nil {
			said = ""
		} else if ctx.Err() == nil && err.Error() != said { // once, and not each minute
			said = err.Error()
			s.log.Warn("no snapshot of the log, or not trimmed behind it: it grows meanwhile", "err", err)
		}
	}
}

// snapshotDue makes a snapshot if it is time. Among several control nodes the one
// that leads the log does, or, with an external log, the first that is there.
func (s *Server) snapshotDue(ctx context.Context) error {
	if s.onHold() != nil || s.quorum() != nil {
		return nil
	}
	later, laterAge := uint64(0), time.Duration(0)
	switch c := s.c.Cluster; {
	case c != nil && c.NATS != nil: // none of them leads: they take turns
		later, laterAge = uint64(c.turn())*snapshotTurn, time.Duration(c.turn())*snapshotTurnAge
	case c != nil:
		if name, _, err := s.feed.Log().Leader(ctx); err != nil || name != s.c.Cluster.Name {
			return nil
		}
	}
	s.mu.Lock()
	last, since := uint64(0), s.opened
	if n := len(s.state.Snapshots); n > 0 {
		last, since = s.state.Snapshots[n-1].Seq, s.state.Snapshots[n-1].Made
	}
	s.mu.Unlock()
	entries := s.feed.Log().After(last)
	if entries == 0 || entries < snapshotEntries+later && s.now().Sub(since) < snapshotEvery+laterAge {
		return nil
	}
	return s.snapshot(ctx)
}

// snapshot makes one and names it on the log.
func (s *Server) snapshot(ctx context.Context) error {
	f, err := os.CreateTemp(s.c.Dir, "snapshot.tmp-*") // swept at the next start if this one is killed
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // its space is freed when it is closed
		return err
	}
	sum := sha256.New()
	made, err := s.writeSnapshot(ctx, io.MultiWriter(f, sum))
	if err != nil {
		return err
	}
	made.Digest = origin.Digest(sum.Sum(nil))
	if made.Size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	if err := made.check(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s.mu.Lock()
	s.vital[made.Digest] = true
	s.mu.Unlock()
	if err := s.blobs.Put(made.Digest, made.Size, f); err != nil {
		return err
	}
	if err := s.secondCopy(ctx, "", origin.Blob{Digest: made.Digest, Size: made.Size}); err != nil {
		return err
	}
	if _, err := s.command(ctx, KindSnapshot, made, free); err != nil {
		return err
	}
	s.log.Info("snapshot of the log", "seq", made.At.Seq, "bytes", made.Size)
	return nil
}

// writeSnapshot writes the state as it is at this moment. What this version cannot read,
// another one of the fleet wrote, and will look for: it must stay on the log, so no snapshot
// covers it that has nothing of it.
func (s *Server) writeSnapshot(ctx context.Context, w io.Writer) (SnapshotMade, error) {
	out := bufio.NewWriter(w)
	s.mu.Lock()
	err := s.catchUp(ctx)
	if err == nil && s.unread != nil {
		err = fmt.Errorf("an entry of the log cannot be read by this version: update perigee on this control node: %w", s.unread)
	}
	snap := Snapshot{At: s.folded, State: s.state, Purges: s.purged.sorted()}
	if s.now().Sub(s.lostAt) < lostKeep {
		snap.State.LostAt = s.lostAt.UTC()
	}
	if err == nil {
		err = snap.Write(out)
	}
	s.mu.Unlock()
	if err == nil {
		err = out.Flush()
	}
	return SnapshotMade{At: snap.At}, err
}

// trim removes what is behind the horizon from the log, and blobs of snapshots that
// have newer ones.
func (s *Server) trim(ctx context.Context) error {
	now := s.now()
	s.mu.Lock()
	snaps := slices.Clone(s.state.Snapshots)
	s.mu.Unlock()
	if len(snaps) == 0 || now.Sub(s.opened) < heardWithin { // nodes were not heard of yet
		return nil
	}
	applied := s.appliedEverywhere(now)
	upTo := uint64(0)
	for _, m := range snaps {
		behind := s.feed.Log().After(m.At.Seq)
		if old := now.Sub(m.Made) > logHorizon || behind > logEntries; old && (m.At.Seq <= applied || behind > logEntries+logSlack) {
			upTo = m.At.Seq
		}
	}
	if !s.collecting.TryLock() { // a backup begins; there is a next time
		return nil
	}
	defer s.collecting.Unlock()
	s.sweepSnapshots(snaps)
	if upTo == 0 || s.feed.Log().First() > upTo {
		return nil
	}
	newest := snaps[len(snaps)-1].Digest
	f, err := s.openBlob(ctx, newest)
	if err != nil {
		return fmt.Errorf("the log is kept whole, since its newest snapshot is not at hand: %w", err)
	}
	_, err = ReadSnapshot(f, newest, true)
	f.Close()
	if err != nil {
		return fmt.Errorf("the log is kept whole, since its newest snapshot cannot be read: %w", err)
	}
	if err := s.feed.Log().Trim(ctx, upTo+1); err != nil {
		return err
	}
	s.log.Info("log trimmed", "first", s.feed.Log().First(), "head", s.feed.Log().Head().Seq)
	return nil
}

// appliedEverywhere is the number up to which every node that is there has applied
// the log.
func (s *Server) appliedEverywhere(now time.Time) uint64 {
	s.reportMu.Lock()
	defer s.reportMu.Unlock()
	least := ^uint64(0)
	for _, n := range s.reports {
		if now.Sub(n.reportAt) < heardWithin || now.Sub(n.markAt) < heardWithin {
			least = min(least, n.watermark.Seq)
		}
	}
	return least
}

// keptSnapshots is how many blobs stay: the newest, and the one before it, which a
// node may be reading.
const keptSnapshots = 2

// sweepSnapshots removes the blobs of older ones.
func (s *Server) sweepSnapshots(snaps []MadeSnapshot) {
	gone := map[origin.Digest]bool{}
	for _, m := range snaps[:max(0, len(snaps)-keptSnapshots)] {
		if _, ok := s.blobs.Has(m.Digest); ok {
			gone[m.Digest] = true
		}
	}
	for _, m := range snaps[max(0, len(snaps)-keptSnapshots):] {
		delete(gone, m.Digest)
		s.blobs.Keep(m.Digest, m.Size) // younger than what a collection of blobs takes
	}
	s.mu.Lock()
	for d := range s.pinned {
		delete(gone, d)
	}
	s.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	if _, err := s.blobs.Sweep(func(d origin.Digest) bool { return !gone[d] }, s.now()); err != nil {
		s.log.Warn("old snapshots not removed", "err", err)
	}
}

// snapshotBlobs are those that must stay. Called with mu held.
func (s *Server) snapshotBlobs() []origin.Digest {
	var out []origin.Digest
	for _, m := range s.state.Snapshots[max(0, len(s.state.Snapshots)-keptSnapshots):] {
		out = append(out, m.Digest)
	}
	return out
}

// took notes a snapshot that the log names. Called with mu held, or before anyone
// else has the server.
func (s *Server) took(m SnapshotMade) {
	if err := s.feed.SetSnapshot(feed.Snapshot{At: m.At, Digest: m.Digest.String(), Size: m.Size}); err != nil {
		s.log.Error("snapshot not handed on", "err", err)
	}
	s.vital[m.Digest] = true
	if s.peers != nil || s.bucket != nil {
		s.snapshotWanted = true
	}
}

// gatherSnapshot gets the newest snapshot from another control node.
func (s *Server) gatherSnapshot(ctx context.Context) {
	s.mu.Lock()
	wanted, list := s.snapshotWanted, s.snapshotBlobs()
	s.snapshotWanted = false // a newer one may be made while this one comes
	s.mu.Unlock()
	if !wanted || len(list) == 0 {
		return
	}
	f, err := s.openBlob(ctx, list[len(list)-1])
	if err == nil {
		f.Close()
		return
	}
	s.log.Debug("snapshot not here yet", "err", err)
	s.mu.Lock()
	s.snapshotWanted = true
	s.mu.Unlock()
}

// begin starts the state anew from the newest snapshot on the log, which does not
// reach back to what is folded. Called as catchUp is.
func (s *Server) begin(ctx context.Context, first uint64) error {
	var snaps []SnapshotMade
	for e, err := range s.feed.Log().Entries(ctx, first) {
		if err != nil {
			return err
		}
		s.noteEpoch(e)
		if e.Kind != KindSnapshot {
			continue
		}
		command, err := DecodeCommand(e)
		if err != nil {
			return err
		}
		if m := command.(*SnapshotMade); m.At.Seq+1 >= first {
			snaps = append(snaps, *m)
		}
	}
	if len(snaps) == 0 && s.peers == nil { // it was never trimmed: Trim leaves the entry that names the snapshot
		s.log.Error("the beginning of the log is lost, and there was no snapshot of it: releases and activations of that time are not known here any more; restore a backup, or push every site again", "first", first)
		s.lostAt = s.now() // nothing is collected: what the releases of that time need is not known
		return nil
	}
	for {
		var errs []error
		for _, m := range slices.Backward(snaps) {
			snap, err := s.readSnapshot(ctx, m.Digest)
			if err == nil && snap.At != m.At {
				err = fmt.Errorf("snapshot %s: it is of another place on the log", m.Digest)
			}
			if err == nil {
				s.take(snap)
				return nil
			}
			errs = append(errs, err)
		}
		// Another control node has one, which may be starting, too.
		if s.peers == nil || len(snaps) == 0 || pause(ctx, attendEvery) != nil {
			return fmt.Errorf("the log begins with seq %d, and the state up to there cannot be read: %w", first, errors.Join(append(errs, errNoSnapshot)...))
		}
	}
}

var errNoSnapshot = errors.New("no snapshot is left to begin with: restore a backup (`perigee restore`)")

func (s *Server) readSnapshot(ctx context.Context, d origin.Digest) (*Snapshot, error) {
	f, err := s.openBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadSnapshot(f, d, true)
}

// take makes a snapshot the state. Called as catchUp is.
func (s *Server) take(snap *Snapshot) {
	s.state, s.folded, s.purged, s.unread = snap.State, snap.At, purged{}, nil
	if s.state.LostAt.After(s.lostAt) {
		s.lostAt = s.state.LostAt
	}
	s.state.LostAt = time.Time{}
	for _, p := range snap.Purges {
		s.purged[p.Purge] = p.Seq
	}
	s.referenced, s.held = map[origin.Digest]bool{}, map[string]*held{}
	if !s.starting {
		s.referAll()
	}
	s.log.Info("the state begins with a snapshot", "seq", snap.At.Seq, "epoch", snap.At.Epoch)
}
