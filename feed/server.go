package feed

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"perigee.example/internal/durable"
)

const (
	streamName = "FEED"
	// aloneDir is where a control node alone keeps the log, in ServerConfig.Dir.
	aloneDir = "jetstream"
	// storedSubject is the subject of every stored message.
	storedSubject = "feed.cmd"
	// ingestPrefix and a random word make the subject that the stream takes
	// messages from. A node may ask for messages with any reply subject, and
	// the server would deliver them there: if that subject were known, a stolen
	// node key could write old entries to the log again.
	ingestPrefix = "feed.in."

	// maxConns bounds connections: 300 nodes, each twice during a reconnect, and room.
	maxConns = 1024
	// maxSubs bounds subscriptions of one connection: a follower needs 3.
	maxSubs = 64
	// maxPayload leaves room for headers around the largest entry.
	maxPayload = MaxEntryBytes + 8<<10
	// maxPending bounds what waits in memory for one slow connection.
	maxPending = 16 << 20
	// maxStoreBytes bounds the log on disk. At 200 bytes an entry that is
	// 300 million commands; snapshots and trimming come long before.
	maxStoreBytes = 64 << 30
	// readyWait bounds the start of the embedded server, recovery included.
	readyWait = 60 * time.Second
	// readyStep is how often a failed start is looked for meanwhile.
	readyStep = 100 * time.Millisecond
	// authTimeout bounds a connection's TLS handshake and CONNECT.
	authTimeout = 5 * time.Second
	// pingEvery times two is how long a dead connection is kept.
	pingEvery = 10 * time.Second
	// apiWait bounds one request to JetStream.
	apiWait = 10 * time.Second
)

// ServerConfig is what a Server is made from.
type ServerConfig struct {
	// Dir holds the log and epoch.json. It is made if absent; one process only.
	Dir string
	// Listen is the host:port of the node door; "" opens none, and only this
	// process can follow. (An address, not a listener: the embedded server opens
	// its own. Port 0 takes a free one; see Server.Addr.)
	Listen string
	// TLS is needed with Listen: the control node's certificate, and ClientCAs
	// with the fleet's CA. Client certificates are always required and verified.
	TLS *tls.Config
	// Admit says whether a node with this certificate may connect. It is asked
	// at each connection, from any goroutine. Needed with Listen.
	Admit func(id string, cert *x509.Certificate) bool
	// Cluster makes this one of several servers that hold the log together; nil:
	// it holds it alone.
	Cluster *ClusterConfig
	// External has the log in a NATS cluster of the operator's; Cluster is nil then.
	External *External
	// Log takes events; nil discards them.
	Log *slog.Logger
	// unsynced leaves syncing to the caller, once at the end: Restore.
	unsynced bool
	// moving opens a log that is on its way to External.
	moving bool
	// Ahead is asked about each node whose position is not on this log. With an
	// error the node is refused, and told it; else it reads the log anew.
	Ahead func(id string, at Position) error
}

// Server is the control node's end of the feed: the log, the durable place of
// every node on it, and the door they come in by.
type Server struct {
	ns     *server.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	log    *Log
	ext    *external // the operator's NATS cluster, which holds the log; nil: it is here
	events *slog.Logger
	secret string // password of this process's own connections
	admit  func(id string, cert *x509.Certificate) bool
	ahead  func(id string, at Position) error // nil: none is refused
	// snapshot is what followers from before the log's first entry begin with.
	snapshot atomic.Pointer[Snapshot]

	mu        sync.Mutex
	nodes     map[string]bool // with a consumer
	conns     map[uint64]string
	accounts  map[string]*server.Account // by node
	starts    map[string]startCount
	onReport  func(node, kind string, payload []byte)
	followers []*Follower
}

// OpenServer starts the embedded server, checks the whole log, and returns when
// it can be appended to. A damaged log, or one shorter than what was
// acknowledged, starts a new epoch and says so (Log.EpochWhy).
func OpenServer(ctx context.Context, c ServerConfig) (*Server, error) {
	s := &Server{events: c.Log, admit: c.Admit, ahead: c.Ahead, secret: rand.Text(), nodes: map[string]bool{}, conns: map[uint64]string{}, accounts: map[string]*server.Account{}, starts: map[string]startCount{}}
	if s.events == nil {
		s.events = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	if err := durable.Sweep(c.Dir); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	if err := c.where(); err != nil {
		return nil, err
	}
	opts, err := s.options(c)
	if err != nil {
		return nil, err
	}
	if s.ns, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	fatal := make(chan string, 1)
	s.ns.SetLoggerV2(natsLog{s.events, fatal}, false, false, false)
	s.ns.Start()
	if err := s.ready(fatal); err != nil {
		s.ns.Shutdown()
		return nil, fmt.Errorf("feed: start on %q with %s: %w", c.Listen, c.Dir, err)
	}
	if err := s.export(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.open(ctx, c); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// where sees to it that the log is looked for where it is.
func (c *ServerConfig) where() error {
	path := filepath.Join(c.Dir, copyDir)
	if c.External == nil {
		if _, err := os.Stat(path); err == nil && !c.moving {
			return fmt.Errorf("%w: %s says that it is at NATS: write [feed] servers again, or restore a backup of it into a new state folder, and go on there without", ErrElsewhere, path)
		}
		return nil
	}
	if err := c.External.check(); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	return nil
}

// ready waits until the embedded server takes connections, or says why not.
func (s *Server) ready(fatal <-chan string) error {
	for end := time.Now().Add(readyWait); time.Now().Before(end); {
		if s.ns.ReadyForConnections(readyStep) {
			return nil
		}
		select {
		case why := <-fatal:
			return errors.New(why)
		default:
		}
	}
	return fmt.Errorf("the embedded server was not ready after %s", readyWait)
}

func (s *Server) options(c ServerConfig) (*server.Options, error) {
	opts := &server.Options{
		ServerName:                 "control",
		DontListen:                 c.Listen == "",
		NoSigs:                     true,
		NoLog:                      true,
		MaxConn:                    maxConns,
		MaxSubs:                    maxSubs,
		MaxPayload:                 maxPayload,
		MaxPending:                 maxPending,
		AuthTimeout:                authTimeout.Seconds(),
		TLSTimeout:                 authTimeout.Seconds(),
		PingInterval:               pingEvery,
		MaxPingsOut:                2,
		JetStream:                  true,
		DisableJetStreamBanner:     true,
		JetStreamMaxStore:          maxStoreBytes,
		StoreDir:                   c.Dir,
		SyncAlways:                 syncAlways && !c.unsynced,
		CustomClientAuthentication: authenticator{s},
	}
	if c.Cluster != nil {
		if err := c.Cluster.options(c.Dir, opts); err != nil {
			return nil, err
		}
	}
	if c.External != nil { // a copy, which is made anew at each start
		opts.StoreDir, opts.SyncAlways = filepath.Join(c.Dir, copyDir), false
	}
	if c.Listen == "" {
		return opts, nil
	}
	if c.TLS == nil || c.TLS.ClientCAs == nil || c.Admit == nil {
		return nil, errors.New("feed: a listening server needs TLS with ClientCAs, and Admit: nodes are known by their certificates alone")
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("feed: listen address %q: %w", c.Listen, err)
	}
	if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port < 0 || opts.Port > 65535 {
		return nil, fmt.Errorf("feed: listen address %q: the port must be a number", c.Listen)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	opts.Host = host
	opts.TLSConfig = c.TLS.Clone()
	opts.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
	opts.TLSConfig.MinVersion = tls.VersionTLS13
	opts.TLSVerify = true
	opts.TLSHandshakeFirst = true // not one byte before the client has proved who it is
	return opts, nil
}

// open connects to the server from inside, sets up the stream, and checks the log.
func (s *Server) open(ctx context.Context, c ServerConfig) (err error) {
	s.nc, err = nats.Connect("", s.inside(selfInbox)...)
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if s.js, err = jetstream.New(s.nc, jetstream.WithDefaultTimeout(apiWait)); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	switch {
	case c.External != nil:
		err = s.openExternal(ctx, c.External, c.Dir)
	case c.Cluster != nil:
		err = s.openShared(ctx, c.Cluster, c.Dir)
	default:
		err = s.openAlone(ctx, c.Dir)
	}
	if err != nil {
		return err
	}
	if _, err := s.nc.Subscribe(reportPrefix+"*.*", s.report); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	// One control node answers each.
	if _, err := s.nc.QueueSubscribe(reportPrefix+"*."+kindStart, startQueue, s.startRequest); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	return s.nc.FlushTimeout(apiWait)
}

// openAlone opens the log that this server holds alone.
func (s *Server) openAlone(ctx context.Context, dir string) (err error) {
	ingest := ingestPrefix + rand.Text()
	within, cancel := context.WithTimeout(ctx, readyWait) // it syncs, on a disk that may be slow
	defer cancel()
	s.stream, err = s.js.CreateOrUpdateStream(within, streamConfig(ingest, 1))
	if err != nil {
		return fmt.Errorf("feed: open the log in %s: %w", filepath.Join(dir, aloneDir), err)
	}
	s.log = s.newLog(s.stream, dir, ingest)
	return openLog(ctx, s.log)
}

func (s *Server) newLog(stream jetstream.Stream, dir, ingest string) *Log {
	return &Log{js: s.js, stream: stream, dir: dir, ingest: ingest, log: s.events, now: time.Now, free: freeBytes}
}

// streamConfig is the log's stream: it takes messages from one secret subject.
func streamConfig(ingest string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              streamName,
		Subjects:          []string{ingest},
		SubjectTransform:  &jetstream.SubjectTransformConfig{Source: ingest, Destination: storedSubject},
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		MaxBytes:          maxStoreBytes / 2,
		MaxMsgSize:        maxPayload,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		Replicas:          replicas,
		DenyDelete:        true,
	}
}

// inside returns the options of a connection from this process.
func (s *Server) inside(name string) []nats.Option {
	return []nats.Option{
		nats.InProcessServer(s.ns), nats.Name(name), nats.UserInfo(insideUser, s.secret),
		nats.NoReconnect(), nats.CustomInboxPrefix(inboxPrefix + name), nats.Timeout(readyWait),
	}
}

// Log returns the log.
func (s *Server) Log() *Log { return s.log }

// Addr returns the address of the node door, or nil when there is none.
func (s *Server) Addr() net.Addr { return s.ns.Addr() }

// Close ends every connection and stops the server. Everything acknowledged is
// on disk already.
func (s *Server) Close() {
	s.mu.Lock()
	followers := s.followers
	s.followers = nil
	s.mu.Unlock()
	for _, f := range followers {
		f.Close()
	}
	if s.ext != nil {
		s.ext.close()
	}
	if s.nc != nil {
		s.nc.Close()
	}
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

// AddNode gives a node its durable place on the log, from the first entry on,
// unless it has one. A node needs it before it can follow. Among several servers
// each is told of every node, and the place is made when the node comes.
func (s *Server) AddNode(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	var err error
	if !s.log.shared {
		_, err = s.js.Consumer(ctx, streamName, id)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		err = s.placeAt(ctx, id, 1)
	}
	if err != nil {
		return fmt.Errorf("feed: place of node %s: %w", id, err)
	}
	s.mu.Lock()
	s.nodes[id] = true
	s.mu.Unlock()
	return nil
}

// placeAt makes the node's consumer anew, to begin with the message at. It is
// kept in memory: what a node has applied is in the node's own journal, and it
// says so at each connection (start). On disk every entry would cost a sync for
// each node's acknowledgement of it.
func (s *Server) placeAt(ctx context.Context, id string, at uint64) error {
	if err := s.deletePlace(ctx, id); err != nil {
		return err
	}
	_, err := s.js.CreateConsumer(ctx, streamName, jetstream.ConsumerConfig{
		Durable:       id,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   at,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: maxAckPending,
		MaxWaiting:    maxWaiting,
		MemoryStorage: true,
	})
	return err
}

// RemoveNode takes away a node's place and cuts its connections. Admit must
// refuse it from before the call on, or it comes back.
func (s *Server) RemoveNode(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	s.Forget(id)
	if err := s.deletePlace(ctx, id); err != nil {
		return fmt.Errorf("feed: place of node %s: %w", id, err)
	}
	return nil
}

// deletePlace deletes the node's consumer, if there is one. Of a cluster only the
// server that leads the consumer says that it is deleted; when that one was lost a
// moment ago it is deleted and nobody says so. Who asks again is told that there is none.
func (s *Server) deletePlace(ctx context.Context, id string) error {
	err := s.log.untilAnswered(ctx, func(ctx context.Context) error { return s.js.DeleteConsumer(ctx, streamName, id) })
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}

// CutNodes cuts the connections of all nodes, which then connect to another server. One
// that cannot read an external log must: its copy stands still, and shows that it lives.
func (s *Server) CutNodes() {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	clear(s.conns)
	s.mu.Unlock()
	for _, cid := range conns {
		_ = s.ns.DisconnectClientByID(cid) // an error means that it is gone already
	}
}

// Forget is RemoveNode at a server where the node is removed because it was at
// another: it cuts the node's connections to this one.
func (s *Server) Forget(id string) {
	s.mu.Lock()
	delete(s.nodes, id)
	delete(s.starts, id)
	var cut []uint64
	for cid, node := range s.conns {
		if node == id {
			cut = append(cut, cid)
			delete(s.conns, cid)
		}
	}
	s.mu.Unlock()
	for _, cid := range cut {
		// An error means that the connection is gone already.
		_ = s.ns.DisconnectClientByID(cid)
	}
}
