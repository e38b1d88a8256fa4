package feed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"perigee.example/internal/durable"
)

// ownCopy is this server's copy of a log that an external NATS cluster holds: nodes
// follow it, and the log is read from it, so that what crosses the network crosses it
// once. It is made anew at each start, from what was checked, and never synced.
type ownCopy struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	ingest string

	mu          sync.Mutex
	segments    []segment // of the copy's own messages
	first, last uint64    // its messages
	broken      error     // an entry is missing from it
}

func (s *Server) newCopy(ctx context.Context) (*ownCopy, error) {
	if err := s.js.DeleteStream(ctx, streamName); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("feed: copy of the log: %w", err)
	}
	c := &ownCopy{js: s.js, ingest: ingestPrefix + rand.Text(), first: 1}
	var err error
	if c.stream, err = s.js.CreateStream(ctx, streamConfig(c.ingest, 1)); err != nil {
		return nil, fmt.Errorf("feed: copy of the log: %w", err)
	}
	return c, nil
}

// put takes the next entry of the log.
func (c *ownCopy) put(e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), apiWait)
	defer cancel()
	b, err := e.Encode()
	if err == nil {
		_, err = c.js.PublishMsg(ctx, &nats.Msg{Subject: c.ingest, Data: b}, jetstream.WithExpectLastSequence(c.last))
	}
	if err != nil {
		c.broken = fmt.Errorf("feed: this control node's copy of the log ends before seq %d: restart it: %w", e.Seq, err)
		return
	}
	c.last++
	c.segments = addSegment(c.segments, e.Seq, c.last)
}

// trim removes the entries with numbers below seq.
func (c *ownCopy) trim(ctx context.Context, seq uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := min(streamSeq(c.segments, seq), c.last)
	if at <= c.first {
		return nil
	}
	c.first = at
	return c.stream.Purge(ctx, jetstream.WithPurgeSequence(at))
}

// at returns the first message with an entry numbered seq or higher, and the last one.
func (c *ownCopy) at(seq uint64) (at, last uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(streamSeq(c.segments, seq), c.first), c.last, c.broken
}

// trimmedPast reports that a message is before the first one.
func (c *ownCopy) trimmedPast(at uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return at < c.first
}

// moveIn brings the log that this control node held alone, or that a backup was
// restored to, into the operator's cluster, as it is. When it is cut off it goes on at
// the next start. A log that is there already must be the same one: it may go on
// further, which is so when a backup is restored and NATS has lost nothing.
func (s *Server) moveIn(ctx context.Context, l *Log, dir string) error {
	here := filepath.Join(dir, aloneDir)
	if _, err := os.Stat(here); err != nil {
		return nil
	}
	old, err := OpenServer(ctx, ServerConfig{Dir: dir, Log: s.events, moving: true})
	if err != nil {
		return fmt.Errorf("%w: the log in %s cannot be read: %w", ErrElsewhere, here, err)
	}
	defer old.Close()
	moved, err := l.join(ctx, old.log)
	if err != nil {
		return fmt.Errorf("feed: move the log in %s to NATS: %w", here, err)
	}
	old.Close()
	s.events.Info("the log of this control node is at NATS now", "entries", l.last, "sent", moved)
	if err := os.Rename(here, here+".moved-"+strconv.FormatInt(time.Now().Unix(), 10)); err != nil {
		return err
	}
	l.head, l.last, l.segments, l.first = Position{}, 0, nil, firstEntry{}
	return durable.SyncDir(dir)
}

// join writes the entries of old to l that l does not have. What both have must be
// the same, and they must have something, unless l is empty.
func (l *Log) join(ctx context.Context, old *Log) (sent int, err error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	there := map[uint64]Position{}
	for m := range l.messages(ctx, max(info.State.FirstSeq, 1), info.State.LastSeq) {
		if m.err != nil && !errors.Is(m.err, jetstream.ErrMsgNotFound) {
			return 0, m.err
		}
		if e, err := m.entry(); err == nil {
			there[e.Seq], l.head = e.Position(), e.Position()
		}
	}
	l.last = info.State.LastSeq
	last, common := l.head, l.last == 0
	w := &rewriter{l: l}
	for e, err := range old.Entries(ctx, 1) {
		if err != nil {
			return sent, err
		}
		switch p, has := there[e.Seq]; {
		case has && p != e.Position():
			return sent, fmt.Errorf("%w: NATS holds another log, which differs at seq %d: move one of them away", ErrElsewhere, e.Seq)
		case has:
			common = true
		case e.Seq <= last.Seq: // trimmed there
		case !common:
			return sent, fmt.Errorf("%w: NATS holds another log, which ends at seq %d: move one of them away", ErrElsewhere, last.Seq)
		default:
			if err := w.write(ctx, &e); err != nil {
				return sent, err
			}
			sent++
		}
	}
	if !common {
		return sent, fmt.Errorf("%w: NATS holds another log, which begins after the end of this one: move one of them away", ErrElsewhere)
	}
	return sent, w.settle(ctx, 0)
}
