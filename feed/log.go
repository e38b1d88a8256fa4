package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrConflict is what Append returns when another control node wrote to the log
// since: the command was not written. Read the log, and decide anew.
var ErrConflict = errors.New("feed: another control node has written to the log")

// Log is the log as the control node sees it: the only writer. Its methods may
// be called from several goroutines.
type Log struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	dir    string
	ingest string // the secret subject that the stream takes messages from
	shared bool   // other control nodes write, too
	// own is what nodes follow when the log is not in this server; else nil.
	own   *ownCopy
	wrote func() // called after an entry was written here; may be nil
	log   *slog.Logger
	now   func() time.Time
	free  func(dir string) (uint64, error) // freeBytes

	mu       sync.Mutex
	head     Position
	last     uint64 // stream sequence of the last message
	segments []segment
	first    firstEntry
	unsure   bool // an Append had no clear outcome: read the end of the stream first
	epochWhy string
	// shown is head for those who must not wait until an Append ends.
	shown atomic.Pointer[Position]
}

// openLog walks the whole stored log, checks it, and starts a new epoch when it
// is not what was acknowledged.
func openLog(ctx context.Context, l *Log) error {
	known, have, err := readKnown(l.dir)
	if err != nil {
		return err
	}
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("feed: read the log: %w", err)
	}
	s := &scan{}
	for m := range l.messages(ctx, max(info.State.FirstSeq, 1), info.State.LastSeq) {
		if errors.Is(m.err, jetstream.ErrMsgNotFound) {
			if err := l.cut(ctx, m.at, m.err); err != nil {
				return err // no damage: it is read anew
			}
			continue // the gap shows as a break of Seq at the next entry
		}
		if m.err != nil {
			return fmt.Errorf("feed: read message %d of the log: %w", m.at, m.err)
		}
		e, err := m.entry()
		if errors.Is(err, ErrNewer) { // no damage, and no reason for a new epoch
			return fmt.Errorf("feed: message %d of the log in %s: %w", m.at, l.dir, err)
		}
		if s.add(m.at, e, err, known) && l.own != nil {
			l.own.put(&e)
		}
	}
	s.last = info.State.LastSeq
	l.head, l.last, l.segments, l.first = s.head, s.last, s.segments, s.first
	l.shown.Store(&s.head)
	why := s.judge(known, have)
	if why == "" {
		if l.head.Epoch == 0 {
			l.head.Epoch = 1
			l.shown.Store(&Position{Epoch: 1})
			if have { // an empty log of a later epoch cannot be: judge would have said so
				l.head = known
				l.shown.Store(&known)
			}
		}
		if have && known == l.head {
			return nil // a full disk is no reason not to start
		}
		return writeKnown(l.dir, l.head)
	}
	return l.newEpoch(ctx, why, known)
}

// newEpoch writes the entry that starts an epoch, above every number that was
// ever given out.
func (l *Log) newEpoch(ctx context.Context, why string, known Position) error {
	prev := max(l.head.Epoch, known.Epoch)
	body, err := json.Marshal(EpochBody{Why: why, Previous: prev, Known: max(l.head.Seq, known.Seq)})
	if err != nil {
		return err
	}
	l.log.Error("the log is damaged or older than what was acknowledged: starting a new epoch; every node revalidates everything",
		"why", why, "epoch", prev+1, "dir", l.dir)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochWhy = why
	e := Entry{Version: entryVersion, Epoch: prev + 1, Seq: max(l.head.Seq, known.Seq) + 1, Kind: KindEpoch, At: l.now().UnixMilli(), Body: body}
	return l.publish(ctx, &e, noChain)
}

// Append writes one command and returns it when it is synced to disk. kind is
// a-z and hyphens; body must marshal to a JSON object. After ErrConflict
// and when the disk is full (syscall.ENOSPC) nothing was written, nor after
// ErrNoQuorum unless it is ErrUnknown as well; after any
// other error the outcome is unknown until the next Append, which finds out first.
func (l *Log) Append(ctx context.Context, kind string, body any) (Entry, error) {
	return l.append(ctx, nil, kind, body)
}

// AppendAfter is Append for a command that was checked against the entries up to
// number seq: it is ErrConflict when the log has others, whoever read them here.
func (l *Log) AppendAfter(ctx context.Context, seq uint64, kind string, body any) (Entry, error) {
	return l.append(ctx, &seq, kind, body)
}

func (l *Log) append(ctx context.Context, after *uint64, kind string, body any) (Entry, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("feed: %s entry: %w", kind, err)
	}
	if raw, err = compactObject(raw); err != nil {
		return Entry{}, fmt.Errorf("feed: %s entry: body: %w", kind, err)
	}
	if kind == KindEpoch {
		return Entry{}, fmt.Errorf("feed: entries of kind %s are written by the feed alone", kind)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsure {
		if err := l.resync(ctx); err != nil && l.shared {
			return Entry{}, fmt.Errorf("%w: the log cannot be read (nothing was written): %w", ErrNoQuorum, err)
		} else if err != nil {
			return Entry{}, fmt.Errorf("feed: the last append had no clear outcome, and the log cannot be read: %w", err)
		}
	}
	if after != nil && l.head.Seq != *after {
		return Entry{}, ErrConflict
	}
	prev, err := parseChain(l.head.Chain)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Version: entryVersion, Epoch: l.head.Epoch, Seq: l.head.Seq + 1, Kind: kind, At: l.now().UnixMilli(), Body: raw}
	if err := l.publish(ctx, &e, prev); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// publish seals e and writes it. Called with mu held.
func (l *Log) publish(ctx context.Context, e *Entry, prev [32]byte) error {
	b, err := e.seal(prev)
	if err != nil {
		return err
	}
	if err := l.room(); err != nil {
		return err
	}
	ack, err := l.send(ctx, b)
	if errors.Is(err, ErrNoQuorum) {
		return err // nobody has seen it
	}
	if err == nil && (ack.Stream != streamName || ack.Sequence != l.last+1 || ack.Duplicate) {
		err = fmt.Errorf("acknowledged as %s message %d, expected %s message %d", ack.Stream, ack.Sequence, streamName, l.last+1)
	}
	if err != nil {
		l.unsure = true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resyncWait)
		defer cancel()
		var api *jetstream.APIError
		conflict := errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
		if e := l.resyncPast(ctx, conflict && l.shared); e != nil {
			if l.shared {
				return fmt.Errorf("%w: %w: %w", ErrNoQuorum, ErrUnknown, err)
			}
			return fmt.Errorf("feed: append: %w (whether it was written is unknown; if this lasts, restart the control node)", err)
		}
		if conflict { // certainly not ours, though another may have written the same in the same millisecond
			return ErrConflict
		}
		if api != nil && l.own != nil { // the account's limits, or the stream's
			return fmt.Errorf("feed: append: NATS refuses it (nothing was written): %w", err)
		}
		if l.head == e.Position() {
			return l.keep() // written after all: only the acknowledgement was lost
		}
		if l.shared { // a member that leads no more may still have handed it on
			return fmt.Errorf("%w: %w: %w", ErrNoQuorum, ErrUnknown, err)
		}
		return fmt.Errorf("feed: append: %w (nothing was written; if this lasts, restart the control node)", err)
	}
	l.advance(ack.Sequence, e)
	if l.wrote != nil {
		l.wrote()
	}
	return l.keep()
}

// send publishes an entry after the last one known here. Among several control
// nodes it waits for one that leads the log; nothing was written when it says
// ErrNoQuorum.
func (l *Log) send(ctx context.Context, b []byte) (*jetstream.PubAck, error) {
	msg := &nats.Msg{Subject: l.ingest, Data: b}
	if !l.shared {
		return l.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequence(l.last))
	}
	ctx, cancel := context.WithTimeout(ctx, quorumWait)
	defer cancel()
	for {
		ack, err := l.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequence(l.last))
		if !errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, nats.ErrReconnectBufExceeded) {
			return ack, err // of the two, nobody has got it
		}
		if wait(ctx, quorumStep) != nil {
			return nil, fmt.Errorf("%w: none leads the log for %s (nothing was written)", ErrNoQuorum, quorumWait)
		}
	}
}

// advance takes over an entry that is on the log. Called with mu held.
func (l *Log) advance(at uint64, e *Entry) {
	l.segments = addSegment(l.segments, e.Seq, at)
	l.head, l.last = e.Position(), at
	if l.first.at.Seq == 0 {
		l.first = firstEntry{e.Position(), at, *e}
	}
	if l.own != nil {
		l.own.put(e)
	}
	head := l.head
	l.shown.Store(&head)
}

// keep saves the head durably. While it cannot, nothing is acknowledged: the disk
// fails, and JetStream has been seen to acknowledge what a dead disk did not take.
// Called with mu held.
func (l *Log) keep() error {
	if err := writeKnown(l.dir, l.head); err != nil {
		return fmt.Errorf("feed: append: whether the entry is on disk is unknown: the head of the log cannot be saved: %w", err)
	}
	return nil
}

// resyncPast is resync that waits, if it is to, until there is more than was
// known: who leads the log refuses an entry already when another is on its way,
// before that one can be read. Called with mu held.
func (l *Log) resyncPast(ctx context.Context, wait bool) error {
	for before := l.last; ; {
		if err := l.resync(ctx); err != nil || !wait || l.last != before {
			return err
		}
		timer := time.NewTimer(conflictStep)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil // the other one was given up
		}
	}
}

// conflictStep is how often an entry that was in the way is looked for.
const conflictStep = 10 * time.Millisecond

// resync reads what was written since the last message known here. Called with mu held.
func (l *Log) resync(ctx context.Context) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return err
	}
	before := l.head
	defer func() {
		if l.head == before {
			return
		}
		if err := l.keep(); err != nil {
			l.log.Error("lost entries would not be noticed", "err", err)
		}
	}()
	if info.State.FirstSeq > max(l.first.stream, 1) {
		if err := l.seek(ctx, info.State.FirstSeq); err != nil {
			return err
		}
	}
	if l.own != nil && info.State.LastSeq < l.last {
		return fmt.Errorf("the stream at NATS ends at message %d, and %d were acknowledged: if that stays, it was made anew or restored from an old copy; restart this control node to begin a new epoch", info.State.LastSeq, l.last)
	}
	for m := range l.messages(ctx, l.last+1, info.State.LastSeq) {
		e, err := m.entry()
		if err != nil {
			return fmt.Errorf("message %d: %w", m.at, err)
		}
		switch v := Verify(l.head, e); v.Kind {
		case Next:
			l.advance(m.at, &e)
		case Duplicate: // every receiver skips it
			l.last = m.at
		case Break:
			return fmt.Errorf("message %d: %s: restart this control node to begin a new epoch", m.at, v.Why)
		}
	}
	l.unsure = false
	return nil
}

// Head returns the place after the last entry. Its Seq is 0 on an empty log.
func (l *Log) Head() Position { return *l.shown.Load() }

// EpochWhy says why this start of the server began a new epoch, or "".
func (l *Log) EpochWhy() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochWhy
}

// Entries yields the entries from number seq on, up to the head at the time of
// the call. Messages that cannot be read are left out: they show as a break
// when the entries are verified. It ends with an error when the log cannot be read,
// or was trimmed meanwhile.
func (l *Log) Entries(ctx context.Context, seq uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		at, last, err := l.span(seq)
		for ; err == nil && at <= last; at++ {
			var e Entry
			e, err = l.read(ctx, at)
			switch {
			case errors.Is(err, jetstream.ErrMsgNotFound):
				if err = l.hole(ctx, at, err); err == nil {
					continue
				}
			case errors.Is(err, errUnreadable):
				err = nil
				continue
			}
			if err == nil && !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

// span returns where the entries from number seq on are, in the stream that read reads.
func (l *Log) span(seq uint64) (at, last uint64, err error) {
	if l.own != nil {
		return l.own.at(seq)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(streamSeq(l.segments, seq), l.first.stream), l.last, nil
}

// hole judges a message that is not there: nil for one that was damaged, and an error
// when the log was trimmed meanwhile, be it by another control node.
func (l *Log) hole(ctx context.Context, at uint64, missing error) error {
	if !l.shared || l.own != nil {
		if l.trimmedPast(at) {
			return fmt.Errorf("feed: the log was trimmed while it was read: %w", missing)
		}
		return nil
	}
	return l.cut(ctx, at, missing)
}

// cut is an error for a message that is not there because another control node has
// trimmed the log.
func (l *Log) cut(ctx context.Context, at uint64, missing error) error {
	if !l.shared {
		return nil
	}
	var info *jetstream.StreamInfo
	err := l.untilAnswered(ctx, func(ctx context.Context) (err error) {
		info, err = l.stream.Info(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("feed: read message %d: %w", at, err)
	}
	if at < info.State.FirstSeq {
		return fmt.Errorf("feed: the log was trimmed by another control node while it was read: %w", missing)
	}
	return nil
}

// trimmedPast reports that a message is before the first entry of the log.
func (l *Log) trimmedPast(at uint64) bool {
	if l.own != nil {
		return l.own.trimmedPast(at)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return at < l.first.stream
}

// errUnreadable is an entry that Decode refuses.
var errUnreadable = errors.New("feed: unreadable entry")

// read reads a message of the stream that nodes follow.
func (l *Log) read(ctx context.Context, at uint64) (Entry, error) {
	if l.own != nil {
		return readFrom(ctx, l.own.stream, at)
	}
	var e Entry
	err := l.untilAnswered(ctx, func(ctx context.Context) (err error) {
		e, err = readFrom(ctx, l.stream, at)
		return err
	})
	return e, err
}

func readFrom(ctx context.Context, stream jetstream.Stream, at uint64) (Entry, error) {
	msg, err := stream.GetMsg(ctx, at)
	if err != nil {
		return Entry{}, fmt.Errorf("feed: read message %d: %w", at, err)
	}
	e, err := Decode(msg.Data)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: message %d: %w", errUnreadable, at, err)
	}
	return e, nil
}

// holds reports whether p is on this log: a node whose position is not has
// followed another one. The zero position is on every log.
func (l *Log) holds(ctx context.Context, p Position) (bool, error) {
	if p.Epoch == 0 {
		return true, nil
	}
	at, last, err := l.span(p.Seq)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	head, first := l.head, l.first
	l.mu.Unlock()
	if p == head {
		return true, nil
	}
	if at > last {
		return false, nil
	}
	if first.at.Seq > 1 && p.Seq+1 == first.at.Seq { // trimmed just behind it
		return first.follows(p), nil
	}
	e, err := l.read(ctx, at)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, errUnreadable):
		return false, nil
	case err != nil:
		return false, err
	}
	return e.Epoch == p.Epoch && e.Seq == p.Seq && sameChain(e.Chain, p.Chain), nil
}
