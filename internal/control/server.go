package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/bucket"
	"perigee.example/internal/durable"
	"perigee.example/origin"
)

// Known is what the configuration says exists: commands about anything else
// are refused, with what does exist.
type Known struct {
	Sites  []KnownSite
	Edges  []string
	Limits Limits
}

// KnownSite is one site of the configuration.
type KnownSite struct {
	Name   string
	Hosts  []string            // lower case, without port; "*.example.com" covers one label
	Push   bool                // takes releases
	Expiry []origin.ExpiryRule // the site's own, before the classes
	Quota  Quota
	Retain Retain
	// PreviewsBelow is the host below which its channels preview-NAME are served; "": it has none.
	PreviewsBelow string
}

// Config is what a Server is made from.
type Config struct {
	Dir   string // "control" in the state folder; made if absent; one process only
	Known Known
	// FeedListen is the host:port of the feed's door; "" when every node is in
	// this process.
	FeedListen string
	// Addresses are how commands reach the admin door ("https://host:port").
	Addresses []string
	// FeedAddress and BlobAddress are how nodes reach their doors (host:port).
	// They go into the credentials of new nodes; FeedAddress "" is what
	// FeedListen became.
	// They may name several of a cluster's, with a space between.
	FeedAddress, BlobAddress string
	Cluster                  *Cluster       // nil: this control node is alone
	Bucket                   *bucket.Config // where blobs are; nil: in the folder
	Log                      *slog.Logger   // nil discards

	byHand bool // tests make snapshots, and trim the log, themselves
}

// Server is the control node.
type Server struct {
	c      Config
	log    *slog.Logger
	ca     *ca
	tokens *tokenList
	audit  *audit
	nodes  *nodeList
	blobs  *origin.Blobs
	bucket *bucketed // nil: all blobs are in the folder
	pages  *pageStores
	proofs *proofs
	// readers are the manifests that are being read.
	readers chan struct{}
	feed    *feed.Server
	known   atomic.Pointer[Known]
	now     func() time.Time
	// calls, purgers and failures bound what one caller, or one address, may do.
	calls, purgers, failures buckets
	gather                   *gather // the way of purges to the log
	peers                    *peers  // the other control nodes; nil when alone
	pulls                    *flights
	// MadeToken is the path of the admin token's file if this start made it.
	MadeToken string

	// mu orders commands: what one was checked against is what it is appended to.
	mu         sync.Mutex
	state      State
	folded     feed.Position // the last entry in state
	unread     error         // the first entry up to there that is not in state; nil: all are
	purged     purged
	open       map[openKey]*openRelease
	openOrder  []openKey
	referenced map[origin.Digest]bool // blobs of sealed releases, manifests included
	held       map[string]*held       // by site: what its sealed releases hold
	unsealed   unsealed               // what sites have sent beside that
	// vital are blobs that stay in the folder when there is a bucket: manifests and snapshots.
	vital map[origin.Digest]bool
	// forgotSince is when the first release was forgotten that held may still have; zero: none.
	forgotSince time.Time
	starting    bool                  // the log is read for the first time
	marking     *marking              // nil: no collection is finding out what is needed
	pinned      map[origin.Digest]int // blobs that backups are made of, by how many
	collecting  sync.RWMutex          // a collection; a backup that begins reads

	holdMu sync.Mutex
	hold   *hold // nil: this state was not restored, or may go on
	// accepted is the restore after which the log begins a new epoch; nil: none.
	accepted *Restored

	fetching []origin.Digest // releases whose blobs are to come from other control nodes
	// snapshotWanted says that the newest snapshot is to come from another one.
	snapshotWanted bool
	opened         time.Time
	lostAt         time.Time // when the log began an epoch last: entries before it may be lost

	durability   string    // of NATS, as far as it is known; of attend alone
	durabilityAt time.Time // when it was asked for

	clusterMu  sync.Mutex
	standing   ClusterStatus
	readable   time.Time          // when the log was last read
	unreadable bool               // and that it is not was said
	background sync.WaitGroup     // attend, keepSnapshots
	stop       context.CancelFunc // ends them

	reportMu sync.Mutex
	reports  map[string]*nodeState
	reported chan struct{} // closed and replaced at each watermark

	servers []*http.Server
	serveMu sync.Mutex
	closed  bool
}

// openKey names a release that is being pushed.
type openKey struct {
	site    string
	release origin.Digest
}

// openRelease is one that is being pushed: the size of each blob. Its manifest is
// among the blobs, and is not held.
type openRelease struct {
	sizes   map[origin.Digest]int64
	touched time.Time // posted, or given a blob, last
}

const (
	// maxOpen bounds releases that are pushed at one time; the oldest is forgotten
	// first, and its push simply begins again.
	maxOpen = 64
	// maxOpenBlobs bounds their blobs, of some 60 bytes in memory each: two
	// releases of the largest size.
	maxOpenBlobs = 8 * origin.MaxFiles
)

// Open starts the control node: keys, blobs, the feed, and the fold of its log.
// At the first start it makes the CA and the admin token (MadeToken).
func Open(ctx context.Context, c Config) (_ *Server, err error) {
	s := &Server{
		c: c, log: c.Log, now: time.Now,
		open: map[openKey]*openRelease{}, referenced: map[origin.Digest]bool{}, held: map[string]*held{}, unsealed: unsealed{}, pinned: map[origin.Digest]int{}, vital: map[origin.Digest]bool{}, purged: purged{},
		reports: map[string]*nodeState{}, reported: make(chan struct{}), pulls: newFlights(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.known.Store(&c.Known)
	s.gather = newGather(s.writePurges)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("control: %w", err)
		}
	}()
	if err := durable.Sweep(c.Dir); err != nil {
		return nil, err
	}
	if c.Cluster != nil {
		if err = c.Cluster.checkKeys(c.Dir); err != nil {
			return nil, err
		}
	}
	if s.ca, err = openCA(c.Dir, s.now); err != nil {
		return nil, err
	}
	s.ca.names = certNames(c)
	if s.tokens, s.MadeToken, err = openTokens(c.Dir, s.now(), s.log); err != nil {
		return nil, err
	}
	if s.audit, err = openAudit(c.Dir, s.log); err != nil {
		return nil, err
	}
	if s.nodes, err = openNodes(c.Dir); err != nil {
		return nil, err
	}
	if s.blobs, err = origin.OpenBlobs(filepath.Join(c.Dir, "blobs")); err != nil {
		return nil, err
	}
	if err = s.openBucket(); err != nil {
		return nil, err
	}
	s.pages = &pageStores{dir: filepath.Join(c.Dir, "pages"), of: map[string]*pageStore{}}
	s.proofs = &proofs{dir: filepath.Join(c.Dir, provedDir), of: map[string]map[origin.Digest]struct{}{}}
	if err = os.MkdirAll(s.proofs.dir, 0o700); err != nil {
		return nil, err
	}
	s.readers = make(chan struct{}, maxReaders)
	if err = s.openHold(); err != nil {
		return nil, err
	}
	if err = s.openFeed(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// openFeed opens the log, brings the state to it, and starts what goes on in the
// background.
func (s *Server) openFeed(ctx context.Context) (err error) {
	c := &s.c
	s.peers = newPeers(c.Cluster, s.ca.peerTLS())
	s.feed, err = feed.OpenServer(ctx, feed.ServerConfig{
		Dir: filepath.Join(c.Dir, "feed"), Listen: c.FeedListen, TLS: s.ca.nodeTLS(), Admit: s.nodes.admit, Ahead: s.ahead, Log: s.log, Cluster: s.feedCluster(), External: s.feedExternal(),
	})
	if err != nil {
		return err
	}
	if err = s.rollBack(ctx); err != nil {
		return err
	}
	s.starting = true
	if err = s.catchUp(ctx); err != nil {
		return err
	}
	s.starting = false
	s.referAll()
	s.forgotSince = time.Time{} // what is held is of now
	if c.Cluster != nil {
		s.mu.Lock()
		s.syncLists()
		s.mu.Unlock()
		s.tokens.share = s.shareToken
	}
	for _, n := range s.nodes.all() {
		if err = s.feed.AddNode(ctx, n.Name); err != nil {
			return err
		}
	}
	s.feed.Reports(s.report)
	s.opened = s.now()
	var running context.Context
	running, s.stop = context.WithCancel(context.Background())
	if c.Cluster != nil {
		s.readable = s.now()
		s.background.Go(func() { s.attend(running) })
		s.background.Go(func() { s.fetchOn(running) })
	}
	if s.bucket != nil {
		s.background.Go(func() { s.keepBucket(running) })
	}
	if !c.byHand {
		s.background.Go(func() { s.keepSnapshots(running) })
		s.background.Go(func() { s.keepCollecting(running) })
	}
	return nil
}

// certNames are the hosts that the control node's certificate covers.
func certNames(c Config) []string {
	var names []string
	for _, a := range slices.Concat([]string{c.FeedListen}, strings.Fields(c.FeedAddress), strings.Fields(c.BlobAddress), c.Addresses) {
		a = strings.TrimPrefix(a, "https://")
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			host = strings.TrimSuffix(a, "/")
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			continue
		}
		if host != "" && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	return names
}

// SetKnown takes a changed configuration.
func (s *Server) SetKnown(k Known) { s.known.Store(&k) }

// FeedAddr is the address of the feed's door, or nil when there is none.
func (s *Server) FeedAddr() net.Addr { return s.feed.Addr() }

// CAFile is the path of the fleet's CA certificate, which commands pin.
func (s *Server) CAFile() string { return filepath.Join(s.c.Dir, caCertName) }

// TokenFile is the path of the admin token's file.
func (s *Server) TokenFile() string { return filepath.Join(s.c.Dir, tokenName) }

// command appends one entry if check finds the state such that it may. The
// state that it saw is the one the entry is appended to.
func (s *Server) command(ctx context.Context, kind string, body any, check func(*State) error) (feed.Entry, error) {
	if err := s.onHold(); err != nil {
		return feed.Entry{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.quorum(); err != nil {
		return feed.Entry{}, err
	}
	var e feed.Entry
	err := feed.ErrConflict
	// Another control node may have written meanwhile: what it wrote is read then,
	// and this is checked against it. Who was conditional on the older state hears so.
	for try := 0; errors.Is(err, feed.ErrConflict) && try < maxTries; try++ {
		if err := s.catchUp(ctx); err != nil {
			return feed.Entry{}, err
		}
		if err := check(&s.state); err != nil {
			return feed.Entry{}, err
		}
		e, err = s.feed.Log().AppendAfter(ctx, s.folded.Seq, writtenKind(kind), body)
	}
	switch {
	case errors.Is(err, feed.ErrConflict):
		return e, &Error{Status: http.StatusConflict, Message: fmt.Sprintf("other control nodes write to the log without end (it is at %d now): nothing was done", s.feed.Log().Head().Seq), Hint: "run the command again"}
	case errors.Is(err, feed.ErrNoQuorum):
		e := s.noQuorum(err.Error())
		e.Elsewhere = !errors.Is(err, feed.ErrUnknown)
		return feed.Entry{}, e
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) {
		return e, err // asError says 507
	}
	if err != nil {
		return e, &Error{Status: http.StatusServiceUnavailable, Message: err.Error(), Hint: "the log did not take the command; `perigee status` shows whether it arrived"}
	}
	s.fold(e)
	return e, nil
}

// AddLocal makes a node that runs in this process known: it follows by Follow
// and comes in by no door.
func (s *Server) AddLocal(ctx context.Context, name string) error {
	if err := feed.CheckID(name); err != nil {
		return err
	}
	if !s.nodes.has(name) {
		err := s.nodes.change(func(m map[string]nodeEntry) error {
			m[name] = nodeEntry{Name: name, Added: s.now().UTC()}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.feed.AddNode(ctx, name)
}

// Follow is how a node in this process follows the feed (node.Config.Dial).
func (s *Server) Follow(ctx context.Context, name string, from feed.Position) (*feed.Follower, error) {
	return s.feed.Follow(ctx, name, from)
}

// FetchBlob is how a node in this process gets blobs (node.Config.Fetch).
func (s *Server) FetchBlob(ctx context.Context, d origin.Digest) (io.ReadCloser, int64, error) {
	c, err := s.openContent(ctx, d)
	if err != nil {
		return nil, 0, err
	}
	return c, c.size, nil
}

// Close ends the doors and the feed. What was acknowledged is on disk already.
func (s *Server) Close() {
	s.serveMu.Lock()
	s.closed = true
	servers := s.servers
	s.serveMu.Unlock()
	if s.stop != nil {
		s.stop()
		s.background.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	for _, hs := range servers {
		if err := hs.Shutdown(ctx); err != nil {
			_ = hs.Close() // the rest of the connections, at once
		}
	}
	if s.tokens != nil {
		s.tokens.close()
	}
	if s.audit != nil {
		if err := s.audit.close(); err != nil {
			s.log.Error("audit log not closed", "err", err)
		}
	}
	if s.feed != nil {
		s.feed.Close()
	}
	if s.pages != nil {
		s.pages.close()
	}
	if s.blobs != nil {
		_ = s.blobs.Close() // a folder handle: nothing is unwritten
	}
	if s.bucket != nil {
		_ = s.bucket.Close() // idle connections
	}
}
