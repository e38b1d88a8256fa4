package feed

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrElsewhere is a log that is not where it is looked for: opening it there would
// begin a new one, and give up all that was on it.
var ErrElsewhere = errors.New("feed: the log is not here")

const (
	// noteSubject is where a control node says that it has written to the log, so
	// that the others read it at once. One that is lost costs them attendEvery.
	noteSubject = "feed.note"
	// externalInbox is where NATS answers control nodes.
	externalInbox = "_INBOX.perigee"
	// fleetMark begins the stream's description; the fleet's mark follows.
	fleetMark = "perigee "
	// copyDir is where a control node keeps its copy of an external log, in
	// ServerConfig.Dir. That it is there says where the log is.
	copyDir = "copy"
	// externalWait is how long a lost connection waits between two servers.
	externalWait = 250 * time.Millisecond
	// externalTry bounds one try to find the stream.
	externalTry = 5 * time.Second
	// maxReplicas is JetStream's own bound.
	maxReplicas = 5
)

// External makes the log a stream in a NATS cluster that the operator runs. Control
// nodes alone connect to it: nodes follow through them, by the same door, with the
// same certificates and rights as ever, and from a copy of the log that each control
// node keeps. So NATS knows no node, and `node remove` needs nobody's help.
//
// Every control node may append, as in a cluster of their own.
type External struct {
	// Servers are client addresses of the NATS cluster: tls://HOST:PORT, all of one
	// account; nats:// on loopback alone.
	Servers []string
	// Credentials is the path of a file with the seed of an nkey, or a NATS
	// credentials file (JWT and seed). "": TLS has a certificate that says who this is.
	Credentials string
	// TLS has the CA of the NATS servers and, if they ask for one, a certificate;
	// nil: the system's CAs.
	TLS *tls.Config
	// Replicas is how many servers hold the log, when this makes the stream: 1, 3 or 5.
	Replicas int
	// Fleet tells one fleet from another: a stream of another one is not touched.
	Fleet string
	// Name is this control node's, for NATS's own monitoring.
	Name string
	// Several: there are other control nodes.
	Several bool
}

func (c *External) check() error {
	if len(c.Servers) == 0 {
		return errors.New("External.Servers is empty")
	}
	for _, s := range c.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "tls" && u.Scheme != "nats" {
			return fmt.Errorf("NATS server %.100q: it must be tls://HOST:PORT", s)
		}
		if ip := net.ParseIP(u.Hostname()); u.Scheme == "nats" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("NATS server %s: the log does not leave this machine in the clear: write tls:// and give the servers certificates", s)
		}
	}
	if c.Replicas < 1 || c.Replicas > maxReplicas || c.Replicas%2 == 0 {
		return fmt.Errorf("%d replicas of the log: 1, 3 or %d", c.Replicas, maxReplicas)
	}
	if c.Fleet == "" {
		return errors.New("External.Fleet is empty")
	}
	return nil
}

// options are those of the connection to the cluster.
func (c *External) options(s *external) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name("perigee control " + c.Name), nats.CustomInboxPrefix(externalInbox), nats.NoEcho(), nats.IgnoreDiscoveredServers(),
		nats.MaxReconnects(-1), nats.ReconnectWait(externalWait), nats.IgnoreAuthErrorAbort(), nats.Timeout(dialTimeout),
		// What cannot be sent now must not be sent later: its sender has given up then.
		nats.ReconnectBufSize(-1), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				s.events.Warn("connection to NATS lost: connecting again", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { s.events.Info("connected to NATS", "server", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				why := err.Error()
				s.refused.Store(&why)
			}
			s.events.Warn("NATS", "err", err)
		}),
	}
	if strings.HasPrefix(c.Servers[0], "tls:") {
		cfg := &tls.Config{}
		if c.TLS != nil {
			cfg = c.TLS.Clone()
		}
		cfg.MinVersion = tls.VersionTLS12
		opts = append(opts, nats.Secure(cfg))
	}
	if c.Credentials == "" {
		return opts, nil
	}
	text, err := os.ReadFile(c.Credentials)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if bytes.Contains(text, []byte("BEGIN NATS USER JWT")) {
		return append(opts, nats.UserCredentials(c.Credentials)), nil
	}
	key, err := nats.NkeyOptionFromSeed(c.Credentials)
	if err != nil {
		return nil, fmt.Errorf("%s: neither the seed of an nkey nor a NATS credentials file: %w", c.Credentials, err)
	}
	return append(opts, key), nil
}

// external is a server's connection to the operator's NATS cluster.
type external struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	events  *slog.Logger
	refused atomic.Pointer[string] // the last thing that NATS did not allow
	noted   chan struct{}          // another control node has written
	several bool
	running sync.WaitGroup
	stop    context.CancelFunc // ends what runs; nil: nothing does
}

// openExternal opens the log in the operator's cluster. It waits for that as long as
// ctx lasts, unless waiting would not help.
func (s *Server) openExternal(ctx context.Context, c *External, dir string) error {
	x := &external{events: s.events, noted: make(chan struct{}, 1), several: c.Several}
	s.ext = x
	opts, err := c.options(x)
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	said := time.Now()
	for {
		err := s.tryExternal(ctx, c, dir, opts)
		if err == nil {
			return s.attach(c)
		}
		if errors.Is(err, ErrElsewhere) || errors.Is(err, ErrNewer) {
			return err
		}
		if why := x.refused.Load(); why != nil {
			err = fmt.Errorf("%w (%s: `perigee feed account` prints the rights that are needed)", err, *why)
		}
		if time.Since(said) >= quorumNews {
			said = time.Now()
			s.events.Warn("waiting for NATS", "servers", c.Servers, "why", err)
		}
		if wait(ctx, quorumStep) != nil {
			return fmt.Errorf("%w: NATS at %s: %w", ErrNoQuorum, strings.Join(c.Servers, ", "), err)
		}
	}
}

// wait returns after d, or with an error when ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) tryExternal(ctx context.Context, c *External, dir string, opts []nats.Option) (err error) {
	x := s.ext
	if x.nc == nil {
		if x.nc, err = nats.Connect(strings.Join(c.Servers, ","), opts...); err != nil {
			x.nc = nil
			return err
		}
		if x.js, err = jetstream.New(x.nc, jetstream.WithDefaultTimeout(apiWait)); err != nil {
			return err
		}
	}
	if n := x.nc.MaxPayload(); n < maxPayload {
		return fmt.Errorf("%w: NATS takes messages of %d bytes at most, %d are needed: raise max_payload", ErrElsewhere, n, maxPayload)
	}
	stream, err := x.find(ctx, c, dir)
	if err != nil {
		return err
	}
	l := s.newLog(stream, dir, storedSubject)
	l.js, l.shared = x.js, true
	if err := s.moveIn(ctx, l, dir); err != nil {
		return err
	}
	if l.own, err = s.newCopy(ctx); err != nil {
		return err
	}
	if err := openLog(ctx, l); err != nil {
		return err
	}
	s.stream, s.log = stream, l
	return nil
}

// find returns the stream when this control node may do with it what it has to.
func (x *external) find(ctx context.Context, c *External, dir string) (jetstream.Stream, error) {
	// Servers that have no leader yet do not answer.
	ctx, cancel := context.WithTimeout(ctx, externalTry)
	defer cancel()
	stream, err := x.findOrMake(ctx, c, dir)
	if err != nil {
		return nil, err
	}
	if err := checkStream(stream.CachedInfo().Config, c); err != nil {
		return nil, err
	}
	return stream, x.tryRights(ctx, stream)
}

// findOrMake returns the stream, made if there is none and there never was.
func (x *external) findOrMake(ctx context.Context, c *External, dir string) (jetstream.Stream, error) {
	stream, err := x.js.Stream(ctx, streamName)
	if err == nil {
		return stream, nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	known, have, err := readKnown(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrElsewhere, err)
	}
	if _, err := os.Stat(filepath.Join(dir, aloneDir)); have && known.Seq > 0 && err != nil {
		return nil, fmt.Errorf("%w: NATS has no stream %s in this account, but entries up to seq %d were acknowledged: is it another account? If the stream is lost, restore a backup (`perigee restore`) and start again; it goes to NATS then", ErrElsewhere, streamName, known.Seq)
	}
	return x.js.CreateStream(ctx, externalStream(c))
}

// externalStream is the log's stream in the operator's cluster. Nobody but control
// nodes is in its account, so its subject is no secret.
func externalStream(c *External) jetstream.StreamConfig {
	want := streamConfig(storedSubject, c.Replicas)
	want.SubjectTransform = nil
	want.MaxBytes = -1 // the account's limit holds
	want.Description = fleetMark + c.Fleet
	return want
}

// checkStream refuses a stream that would lose entries, or is another fleet's.
func checkStream(has jetstream.StreamConfig, c *External) error {
	want := externalStream(c)
	wrong := func(what string, is, should any) error {
		return fmt.Errorf("%w: stream %s at NATS has %s %v, it must have %v", ErrElsewhere, streamName, what, is, should)
	}
	switch {
	case has.Description != want.Description:
		return fmt.Errorf("%w: stream %s at NATS is of another fleet (%q, this one is %q): give each fleet an account of its own", ErrElsewhere, streamName, has.Description, want.Description)
	case !slices.Equal(has.Subjects, want.Subjects):
		return wrong("subjects", has.Subjects, want.Subjects)
	case has.Storage != want.Storage:
		return wrong("storage", has.Storage, want.Storage)
	case has.Retention != want.Retention:
		return wrong("retention", has.Retention, want.Retention)
	case has.Discard != want.Discard:
		return wrong("discard policy", has.Discard, want.Discard)
	case has.MaxAge != 0 || has.MaxMsgs > 0 || has.MaxMsgsPerSubject > 0:
		return fmt.Errorf("%w: stream %s at NATS drops old entries by itself (max_age, max_msgs or max_msgs_per_subject): take the limits off; perigee trims it", ErrElsewhere, streamName)
	case has.MaxMsgSize > 0 && has.MaxMsgSize < want.MaxMsgSize:
		return wrong("max_msg_size", has.MaxMsgSize, want.MaxMsgSize)
	case !has.DenyDelete:
		return wrong("deny_delete", has.DenyDelete, true)
	case has.Mirror != nil || len(has.Sources) > 0 || has.Sealed || has.NoAck:
		return fmt.Errorf("%w: stream %s at NATS takes no messages, or from elsewhere (mirror, sources, sealed, no_ack)", ErrElsewhere, streamName)
	case has.Replicas != want.Replicas:
		return wrong("replicas", has.Replicas, want.Replicas)
	}
	return nil
}

// tryRights uses each right that a control node needs, and changes nothing.
func (x *external) tryRights(ctx context.Context, stream jetstream.Stream) error {
	const never = 1 << 62
	_, err := x.js.PublishMsg(ctx, nats.NewMsg(storedSubject), jetstream.WithExpectLastSequence(never))
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		return fmt.Errorf("publish to %s: %w", storedSubject, err)
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(1)); err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	return nil
}

// attach has this server hear the other control nodes.
func (s *Server) attach(c *External) error {
	x := s.ext
	if !c.Several {
		return nil
	}
	s.log.wrote = func() { _ = x.nc.Publish(noteSubject, nil) } // lost: they look by themselves
	if _, err := x.nc.Subscribe(noteSubject, func(*nats.Msg) {
		select {
		case x.noted <- struct{}{}:
		default:
		}
	}); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if _, err := x.nc.Subscribe(reportPrefix+"*.*", s.take); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	var ctx context.Context
	ctx, x.stop = context.WithCancel(context.Background())
	x.running.Go(func() { x.listen(ctx, s.log) })
	return x.nc.FlushTimeout(apiWait)
}

// listen reads the log when another control node says that there is more.
func (x *external) listen(ctx context.Context, l *Log) {
	for {
		select {
		case <-x.noted:
		case <-ctx.Done():
			return
		}
		within, cancel := context.WithTimeout(ctx, apiWait)
		if err := l.Refresh(within); err != nil {
			x.events.Debug("log not read", "err", err)
		}
		cancel()
	}
}

func (x *external) close() {
	if x.stop != nil {
		x.stop()
		x.running.Wait()
	}
	if x.nc != nil {
		x.nc.Close()
	}
}

// ExternalStatus is how the log stands in the operator's cluster.
type ExternalStatus struct {
	Server   string // that this control node is connected to; "": to none
	Replicas int
}

// External says how this server is connected to the operator's NATS cluster; nil: it
// holds the log itself.
func (s *Server) External() *ExternalStatus {
	if s.ext == nil {
		return nil
	}
	return &ExternalStatus{Server: s.ext.nc.ConnectedUrlRedacted(), Replicas: s.stream.CachedInfo().Config.Replicas}
}
