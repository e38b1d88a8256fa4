package feed

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrLost is what a Follower's methods return once the connection is gone: Dial
// again, from the last position. Nothing on the log is lost by it.
var ErrLost = errors.New("feed lost")

const (
	// heartbeat is how often the server shows that it lives while nothing
	// happens. When two are missed it is asked (probe).
	heartbeat = 2 * time.Second
	// probeWait bounds the wait for its answer, after which the feed counts as
	// lost: nine seconds in all. A connection that ends is noticed at once. Two
	// missed heartbeats alone say little: on a machine with too much to do they wait
	// in the socket of the process that misses them, and coming back, which is most
	// of the work that there is, does not help it.
	probeWait = 5 * time.Second
	// pullExpiry is how long one request for entries stands.
	pullExpiry = 30 * time.Second
	// dialTimeout bounds connect and TLS handshake.
	dialTimeout = 5 * time.Second
)

// DialConfig says where the feed is and who follows.
type DialConfig struct {
	ID string // the node's name, as in its certificate
	// Addr is host:port of the control node's feed door; of several control nodes
	// each one's, with a space between: they are tried in any order.
	Addr string
	// TLS holds the node's certificate and RootCAs with the fleet's CA. The
	// server must prove to be ServerName, whatever TLS.ServerName says.
	TLS *tls.Config
	// From is the last position that was applied; zero to read from the start.
	From Position
	Log  *slog.Logger // nil discards

	heartbeat time.Duration // of tests; zero: the constant
}

// Follower reads the log for one node. Next is for one goroutine, the rest for any.
type Follower struct {
	id       string
	nc       *nats.Conn
	msgs     jetstream.MessagesContext
	head     Position
	diverged bool
	snapshot *Snapshot
	log      *slog.Logger
	done     chan struct{}
	once     sync.Once
	cons     jetstream.Consumer

	mu sync.Mutex
	// pending are entries handed out by Next and not yet acknowledged, oldest
	// first; Ack takes them off. At most maxAckPending.
	pending []delivered
}

type delivered struct {
	at  Position
	msg jetstream.Msg
}

// Dial connects, says where the node stands, and reads the head of the log.
// When the node's position is not on the log, Diverged is true and Next begins
// with the first entry.
func Dial(ctx context.Context, c DialConfig) (*Follower, error) {
	if err := CheckID(c.ID); err != nil {
		return nil, err
	}
	if c.TLS == nil {
		return nil, errors.New("feed: DialConfig.TLS is missing: the node door speaks TLS only")
	}
	cfg := c.TLS.Clone()
	cfg.ServerName = ServerName
	cfg.MinVersion = tls.VersionTLS13
	cfg.InsecureSkipVerify = false
	return follow(ctx, c, c.Addr, []nats.Option{
		nats.Name(c.ID), nats.Secure(cfg), nats.TLSHandshakeFirst(), nats.NoReconnect(), nats.IgnoreDiscoveredServers(),
		nats.CustomInboxPrefix(inboxPrefix + c.ID), nats.Timeout(dialTimeout), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
	})
}

// Follow is Dial from within the server's own process: no door, no certificate.
func (s *Server) Follow(ctx context.Context, id string, from Position) (*Follower, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	f, err := follow(ctx, DialConfig{ID: id, From: from, Log: s.events}, "this process", s.inside(id))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followers = slices.DeleteFunc(s.followers, func(old *Follower) bool {
		select {
		case <-old.done:
			return true
		default:
			return false
		}
	})
	s.followers = append(s.followers, f)
	return f, nil
}

func follow(ctx context.Context, c DialConfig, where string, opts []nats.Option) (_ *Follower, err error) {
	f := &Follower{id: c.ID, log: c.Log, done: make(chan struct{})}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	opts = append(opts,
		nats.ClosedHandler(func(*nats.Conn) { f.once.Do(func() { close(f.done) }) }),
		nats.ErrorHandler(func(nc *nats.Conn, _ *nats.Subscription, err error) {
			f.log.Debug("feed connection", "err", err)
			if errors.Is(err, nats.ErrPermissionViolation) {
				nc.Close() // the certificate is another node's: waiting would not help
			}
		}))
	url := ""
	if c.Addr != "" {
		url = "tls://" + strings.Join(strings.Fields(c.Addr), ",tls://")
	}
	f.nc, err = nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("feed: connect to %s as %s: %w", where, c.ID, err)
	}
	defer func() {
		if err != nil {
			f.nc.Close()
			err = fmt.Errorf("feed: follow %s as %s: %w", where, c.ID, err)
		}
	}()
	if err = f.start(ctx, c.From); err != nil {
		return nil, err
	}
	js, err := jetstream.New(f.nc, jetstream.WithDefaultTimeout(apiWait))
	if err != nil {
		return nil, err
	}
	f.cons, err = js.Consumer(ctx, streamName, c.ID)
	if err != nil {
		return nil, err
	}
	f.msgs, err = f.cons.Messages(jetstream.PullMaxMessages(fetchBatch), jetstream.PullExpiry(pullExpiry),
		jetstream.PullHeartbeat(cmp.Or(c.heartbeat, heartbeat)), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	return f, err
}

// start tells the server the node's position and takes its answer.
func (f *Follower) start(ctx context.Context, from Position) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	msg, err := f.nc.RequestWithContext(ctx, reportPrefix+f.id+"."+kindStart, b)
	if err != nil {
		return fmt.Errorf("read the head of the log: %w", err)
	}
	var r startReply
	if err := decodeStrict(msg.Data, &r); err != nil {
		return fmt.Errorf("read the head of the log: %w", err)
	}
	if r.Error != "" {
		return fmt.Errorf("control node: %.300s", r.Error)
	}
	if _, err := parseChain(r.Head.Chain); err != nil {
		return err
	}
	if r.Snapshot != nil {
		if err := r.Snapshot.check(); err != nil {
			return err
		}
	}
	f.head, f.diverged, f.snapshot = r.Head, r.Diverged, r.Snapshot
	return nil
}

// Head is where the log stood when Dial connected.
func (f *Follower) Head() Position { return f.head }

// Diverged reports that the position given to Dial is not on the log.
func (f *Follower) Diverged() bool { return f.diverged }

// Snapshot is what the follower has to begin with, since the log does not reach
// back to the position given to Dial (Diverged or not): Next then begins with the
// entry after it. Nil: the log does.
func (f *Follower) Snapshot() *Snapshot { return f.snapshot }

// Done is closed when the connection is gone.
func (f *Follower) Done() <-chan struct{} { return f.done }

// Next waits for the next entry. Entries come in order; after a reconnect of
// JetStream's own some may come twice: Verify tells. A message that is no entry
// is skipped and logged; the entry after it then does not verify. One that a later
// version wrote is not: it is ErrNewer, and comes again to who connects again.
func (f *Follower) Next(ctx context.Context) (Entry, error) {
	for {
		msg, err := f.msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			if ctx.Err() != nil {
				return Entry{}, ctx.Err()
			}
			if errors.Is(err, jetstream.ErrNoHeartbeat) {
				if err = f.probe(ctx); err == nil {
					continue
				}
			}
			return Entry{}, fmt.Errorf("%w: %w", ErrLost, err)
		}
		e, err := Decode(msg.Data())
		if errors.Is(err, ErrNewer) {
			return Entry{}, err
		}
		if err != nil {
			f.log.Error("unreadable message on the feed skipped", "err", err)
			if err := msg.Ack(); err != nil {
				return Entry{}, fmt.Errorf("%w: %w", ErrLost, err)
			}
			continue
		}
		f.mu.Lock()
		f.pending = append(f.pending, delivered{e.Position(), msg})
		f.mu.Unlock()
		return e, nil
	}
}

// probe asks whether the server and this node's place on the log are still there.
func (f *Follower) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	if _, err := f.cons.Info(ctx); err != nil {
		return fmt.Errorf("no heartbeat, and no answer: %w", err)
	}
	f.log.Debug("heartbeats of the feed were late")
	return nil
}

// Ack says that e, and every entry handed out before it, is applied and synced
// here. The server does not send them to this node again.
func (f *Follower) Ack(e Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, d := range f.pending {
		if d.at != e.Position() {
			continue
		}
		for _, d := range f.pending[:i+1] {
			if err := d.msg.Ack(); err != nil {
				return fmt.Errorf("%w: %w", ErrLost, err)
			}
		}
		f.pending = append(f.pending[:0], f.pending[i+1:]...)
		return nil
	}
	return fmt.Errorf("feed: seq %d was not handed out, or was acknowledged already", e.Seq)
}

// Report sends a report to the control node: the last one of each kind counts,
// and it may be lost. kind is a-z and hyphens; payload at most MaxReportBytes.
func (f *Follower) Report(kind string, payload []byte) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	if kind == kindStart {
		return fmt.Errorf("feed: reports of kind %s are sent by the feed alone", kind)
	}
	if len(payload) > MaxReportBytes {
		return fmt.Errorf("feed: report %s has %d bytes, more than %d", kind, len(payload), MaxReportBytes)
	}
	if err := f.nc.Publish(reportPrefix+f.id+"."+kind, payload); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}

// Close ends the connection. It is not an error to close twice.
func (f *Follower) Close() {
	f.msgs.Stop()
	// What was acknowledged last may still be in the buffer; a lost one only
	// means that the entry comes again.
	_ = f.nc.FlushTimeout(time.Second)
	f.nc.Close()
}
