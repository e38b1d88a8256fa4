package feed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

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
	s, err := OpenServer(ctx, ServerConfig{Dir: dir, unsynced: true})
	if err != nil {
		return head, err
	}
	w := &rewriter{l: s.log}
	for e, err := range entries {
		if err == nil {
			err = w.write(ctx, &e)
		}
		if err != nil {
			s.Close()
			return head, fmt.Errorf("feed: restore: %w", err)
		}
	}
	err = w.settle(ctx, 0)
	head = s.log.Head()
	s.Close()
	if err == nil {
		err = writeKnown(dir, head)
	}
	if err != nil {
		return head, fmt.Errorf("feed: restore: %w", err)
	}
	return head, syncAll(dir)
}

// rewriter writes entries as they are. Nothing is synced before all are there, and
// the next is on its way before the one before is acknowledged: one sync an entry
// would make minutes of a hundred thousand.
type rewriter struct {
	l   *Log
	way []rewriting // on their way, in their order
}

type rewriting struct {
	ack jetstream.PubAckFuture
	at  uint64 // the message that it is to become
}

// maxRewriting bounds entries on their way: the server takes as many in a moment.
const maxRewriting = 256

func (w *rewriter) write(ctx context.Context, e *Entry) error {
	l := w.l
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
	ack, err := l.js.PublishMsgAsync(&nats.Msg{Subject: l.ingest, Data: b}, jetstream.WithExpectLastSequence(l.last))
	if err != nil {
		return err
	}
	w.way = append(w.way, rewriting{ack, l.last + 1})
	l.advance(l.last+1, e)
	return w.settle(ctx, maxRewriting)
}

// settle waits until at most n entries are on their way.
func (w *rewriter) settle(ctx context.Context, n int) error {
	for len(w.way) > n {
		select {
		case ack := <-w.way[0].ack.Ok():
			if ack.Sequence != w.way[0].at {
				return fmt.Errorf("message %d was written as %d", w.way[0].at, ack.Sequence)
			}
		case err := <-w.way[0].ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		w.way = w.way[1:]
	}
	return nil
}

// syncAll syncs every file and folder below dir.
func syncAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
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
	err = s.log.Rollback(ctx, why)
	return s.log.Head(), err
}

// Rollback begins a new epoch: what was written after the last entry is given up.
func (l *Log) Rollback(ctx context.Context, why string) error {
	at := l.Head()
	at.Seq += rollbackGap
	return l.newEpoch(ctx, why, at)
}
