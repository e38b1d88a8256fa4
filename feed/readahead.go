package feed

import (
	"context"
	"iter"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// readAhead is how many messages are asked for at a time when each costs a round trip.
const readAhead = 64

// message is one message of the log's stream, or why it cannot be had.
type message struct {
	at  uint64
	raw *jetstream.RawStreamMsg
	err error
}

func (m *message) entry() (Entry, error) {
	if m.err != nil {
		return Entry{}, m.err
	}
	return Decode(m.raw.Data)
}

// messages yields the messages from one to another, both counted in, in their order.
func (l *Log) messages(ctx context.Context, from, to uint64) iter.Seq[message] {
	step := uint64(1)
	if l.shared {
		step = readAhead
	}
	return func(yield func(message) bool) {
		for from <= to {
			got := l.get(ctx, from, min(step, to-from+1))
			for _, m := range got {
				if !yield(m) {
					return
				}
			}
			from += uint64(len(got))
		}
	}
}

// get asks for n messages at a time.
func (l *Log) get(ctx context.Context, from, n uint64) []message {
	ctx, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	got := make([]message, n)
	var wg sync.WaitGroup
	for i := range got {
		m := &got[i]
		m.at = from + uint64(i)
		if n == 1 {
			m.raw, m.err = l.stream.GetMsg(ctx, m.at)
			break
		}
		wg.Go(func() { m.raw, m.err = l.stream.GetMsg(ctx, m.at) })
	}
	wg.Wait()
	return got
}
