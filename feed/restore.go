package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// rollbackGap is how far above the last number of a restored log a new epoch
// begins: more than a fleet writes between two backups, so that no number which
// was given out after the backup is given out again.
const rollbackGap = 1_000_000_000

// Restore writes a log anew from entries, as they were, into dir, which must not
// hold one. It is not durable as a whole before it returns: after an error remove
// dir.
func Restore(ctx context.Context, dir string, entries iter.Seq2[Entry, error]) (head Position, err error) {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return head, err
	}
	if len(names) > 0 {
		return head, fmt.Errorf("feed: %s is not empty", dir)
	}
	s, err := OpenServer(ctx, ServerConfig{Dir: dir})
	if err != nil {
		return head, err
	}
	defer s.Close()
	for e, err := range entries {
		if err == nil {
			err = s.log.rewrite(ctx, &e)
		}
		if err != nil {
			return head, fmt.Errorf("feed: restore: %w", err)
		}
	}
	return s.log.Head(), nil
}

// rewrite writes an entry as it is.
func (l *Log) rewrite(ctx context.Context, e *Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.last == 0 // of a log that was trimmed, it may have any number
	begins := e.Epoch > l.head.Epoch && e.Kind == KindEpoch && e.intact() && e.Seq > l.head.Seq
	if v := Verify(l.head, *e); v.Kind != Next && !begins && !first {
		return fmt.Errorf("the entry with seq %d does not follow: %s", e.Seq, v.Why)
	}
	b, err := e.Encode()
	if err != nil {
		return err
	}
	if err := l.room(); err != nil {
		return err
	}
	ack, err := l.js.PublishMsg(ctx, &nats.Msg{Subject: l.ingest, Data: b}, jetstream.WithExpectLastSequence(l.last))
	if err != nil {
		return err
	}
	l.advance(ack.Sequence, e)
	return nil
}

// Rollback begins a new epoch on the log in dir, which no process may have open:
// what was written after its last entry is given up. Nodes that have read more
// revalidate everything.
func Rollback(ctx context.Context, dir, why string) (head Position, err error) {
	s, err := OpenServer(ctx, ServerConfig{Dir: dir})
	if err != nil {
		return head, err
	}
	defer s.Close()
	at := s.log.Head()
	at.Seq += rollbackGap
	if err := s.log.newEpoch(ctx, why, at); err != nil {
		return head, err
	}
	return s.log.Head(), nil
}
