package feed

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Snapshot names a fold of the log up to a place on it, which whoever comes from
// before the log's first entry begins with. What is in it, and where it is kept, is
// not the feed's: it hands the name on.
type Snapshot struct {
	At     Position `json:"at"`     // of the last entry that is folded in
	Digest string   `json:"digest"` // "sha256-" and 64 hex digits
	Size   int64    `json:"size"`   // in bytes
}

// maxDigestBytes bounds Snapshot.Digest.
const maxDigestBytes = 80

func (s *Snapshot) check() error {
	if _, err := parseChain(s.At.Chain); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if s.At.Epoch == 0 || s.At.Seq == 0 || s.Digest == "" || len(s.Digest) > maxDigestBytes || s.Size < 0 {
		return errors.New("snapshot: it has no place on the log, or no digest")
	}
	return nil
}

// SetSnapshot sets what followers begin with whose position is before the log's
// first entry.
func (s *Server) SetSnapshot(snap Snapshot) error {
	if err := snap.check(); err != nil {
		return err
	}
	s.snapshot.Store(&snap)
	return nil
}

// firstEntry is the oldest entry that is on the log.
type firstEntry struct {
	at     Position
	stream uint64 // stream sequence of its message
	entry  Entry
}

// follows reports whether the first entry is the one after p.
func (f *firstEntry) follows(p Position) bool { return Verify(p, f.entry).Kind == Next }

// First is the number of the oldest entry on the log, 0 when it is empty.
func (l *Log) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first.at.Seq
}

// After is how many entries come after the one numbered seq. Numbers alone do not
// tell: a new epoch may begin far above the one before.
func (l *Log) After(seq uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last + 1 - min(max(streamSeq(l.segments, seq+1), l.first.stream), l.last+1)
}

// trimmed reports whether entries after p are gone from the log by Trim. One that
// was lost whole has a high first number, too, and begins with an epoch.
func (s *Server) trimmed(p Position) bool {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	first := &l.first
	return first.at.Seq > 1 && (first.entry.Kind != KindEpoch || s.snapshot.Load() != nil) && p.Seq+1 < first.at.Seq && p.Epoch <= first.at.Epoch
}

// Trim removes the entries with numbers below seq. The caller has a snapshot that
// goes on to seq-1 at least. The last entry always stays.
func (l *Log) Trim(ctx context.Context, seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsure {
		if err := l.resync(ctx); err != nil {
			return err
		}
	}
	at := min(streamSeq(l.segments, seq), l.last)
	if at <= l.first.stream {
		return nil
	}
	// Read first: when it cannot be, nothing is removed.
	e, err := readFrom(ctx, l.stream, at)
	if err != nil {
		return fmt.Errorf("feed: trim: %w", err)
	}
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(at)); err != nil {
		return fmt.Errorf("feed: trim: %w", err)
	}
	l.first = firstEntry{e.Position(), at, e}
	return l.trimOwn(ctx)
}

// trimOwn trims this server's copy, if it has one, as the log is. Called with mu held.
func (l *Log) trimOwn(ctx context.Context) error {
	if l.own == nil {
		return nil
	}
	if err := l.own.trim(ctx, l.first.at.Seq); err != nil {
		return fmt.Errorf("feed: trim the copy of the log: %w", err)
	}
	return nil
}

// seek notes that another control node has trimmed the log: its first message is
// at now. Called with mu held.
func (l *Log) seek(ctx context.Context, at uint64) error {
	e, err := readFrom(ctx, l.stream, at)
	if err != nil {
		return err
	}
	l.first = firstEntry{e.Position(), at, e}
	if l.last+1 < at { // this one was away for so long
		l.segments = nil
		l.advance(at, &e)
	}
	return l.trimOwn(ctx)
}
