package feed

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoQuorum is what Append returns when fewer than half of those that hold the log
// can be reached, or none leads them for too long. Unless it is
// ErrUnknown as well, nothing was written.
var ErrNoQuorum = errors.New("feed: too few of the servers that hold the log can be reached")

// ErrUnknown is wrapped beside ErrNoQuorum when the entry may be written yet.
var ErrUnknown = errors.New("whether the entry is or will be written is unknown")

const (
	// clusterName is the name of the cluster that control nodes form.
	clusterName = "perigee"
	// clusterDir is where a member keeps the log, in ServerConfig.Dir: apart from
	// that of a control node alone ("jetstream"), which is no part of a cluster.
	clusterDir = "cluster"
	// maxMembers bounds a cluster: three survive the loss of one, five of two.
	maxMembers = 5
	// quorumWait bounds how long Append waits for a leader: an election takes
	// four to nine seconds.
	quorumWait = 15 * time.Second
	// resyncWait bounds finding out what became of an Append.
	resyncWait = 5 * time.Second
	// quorumStep is how often a leader is looked for meanwhile.
	quorumStep = 250 * time.Millisecond
	// answerStep is how long the answer to one call of JetStream's API is waited for
	// before it is made again.
	answerStep = 2 * time.Second
	// quorumNews is how often a start that waits for the others says so.
	quorumNews = 10 * time.Second
)

// ClusterConfig makes a Server one of three (or five) that hold the log
// together: an entry is acknowledged when most of them have synced it, and the
// loss of a minority stops nothing. Every member may append; of two that do so at
// the same time one gets ErrConflict.
type ClusterConfig struct {
	Name   string // of this member; CheckID
	Listen string // host:port of this member's door for the others
	// Peers are the other members' doors, host:port by name.
	Peers map[string]string
	// TLS has this member's certificate, for both directions (GetCertificate and
	// GetClientCertificate, or Certificates), and RootCAs with the fleet's CA. The
	// others must prove to be ServerName: a node's certificate opens nothing here.
	TLS *tls.Config
}

func (c *ClusterConfig) check() error {
	if err := CheckID(c.Name); err != nil {
		return err
	}
	if n := len(c.Peers) + 1; n%2 == 0 || n < 3 || n > maxMembers {
		return fmt.Errorf("a cluster of %d control nodes: it must have 3 or %d, so that one half is always the larger", n, maxMembers)
	}
	if _, self := c.Peers[c.Name]; self {
		return fmt.Errorf("control node %s is its own peer", c.Name)
	}
	if c.TLS == nil || c.TLS.RootCAs == nil {
		return errors.New("ClusterConfig.TLS with RootCAs is missing: control nodes know each other by their certificates alone")
	}
	return nil
}

// options puts this member into opts.
func (c *ClusterConfig) options(dir string, opts *server.Options) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, aloneDir)); err == nil {
		return fmt.Errorf("feed: %s holds the log of a control node alone, which cannot become a cluster's: start the cluster over new state folders and push the sites again, or take the cluster out of perigee.toml", dir)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("feed: cluster address %q: %w", c.Listen, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("feed: cluster address %q: the port must be a number", c.Listen)
	}
	opts.ServerName = c.Name
	opts.StoreDir = filepath.Join(dir, clusterDir)
	opts.Cluster = server.ClusterOpts{
		Name: clusterName, Host: host, Port: n, NoAdvertise: true,
		TLSConfig: c.tls(), TLSTimeout: authTimeout.Seconds(), AuthTimeout: authTimeout.Seconds(),
		PingInterval: pingEvery, MaxPingsOut: 2,
	}
	for name, addr := range c.Peers {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("feed: cluster address of %s: %w", name, err)
		}
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: addr})
	}
	slices.SortFunc(opts.Routes, func(a, b *url.URL) int { return strings.Compare(a.Host, b.Host) })
	return nil
}

// tls is for both ends of a connection between members. The other end is
// verified here, in both directions alike: by the fleet's CA, as ServerName, and
// as a server, which no node's certificate is.
func (c *ClusterConfig) tls() *tls.Config {
	cfg := c.TLS.Clone()
	cfg.MinVersion = tls.VersionTLS13
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.InsecureSkipVerify = true // VerifyConnection does it
	roots := c.TLS.RootCAs
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return fmt.Errorf("not a control node of this fleet: %w", err)
		}
		return nil
	}
	return cfg
}

// openShared opens the log that the members hold together. It waits until most
// of them are there (all of them at the very first start), as long as ctx lasts.
func (s *Server) openShared(ctx context.Context, c *ClusterConfig, dir string) error {
	if _, _, err := readKnown(dir); err != nil {
		return err // waiting would not help
	}
	said := time.Now()
	for {
		err := s.tryShared(ctx, c, dir)
		if err == nil {
			return nil
		}
		if time.Since(said) >= quorumNews {
			said = time.Now()
			s.events.Warn("waiting for the other control nodes", "peers", len(c.Peers), "why", err)
		}
		if wait(ctx, quorumStep) != nil {
			return fmt.Errorf("%w: %w", ErrNoQuorum, err)
		}
	}
}

func (s *Server) tryShared(ctx context.Context, c *ClusterConfig, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, quorumWait)
	defer cancel()
	stream, err := s.js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = s.js.CreateStream(ctx, streamConfig(ingestPrefix+rand.Text(), len(c.Peers)+1))
	}
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	if len(info.Config.Subjects) != 1 {
		return fmt.Errorf("the log takes messages from %d subjects, not one", len(info.Config.Subjects))
	}
	l := s.newLog(stream, dir, info.Config.Subjects[0])
	l.shared = true
	if err := openLog(ctx, l); err != nil {
		return err
	}
	s.stream, s.log = stream, l
	return nil
}

// Refresh reads what other control nodes have written since. On a log that
// nobody else writes it does nothing.
func (l *Log) Refresh(ctx context.Context) error {
	if !l.shared {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.resync(ctx)
}

// Leader is the member that leads the log just now, and how many members are
// current with it, that one counted in. It asks the leader: an error means that
// none is to be found.
func (l *Log) Leader(ctx context.Context) (name string, current int, err error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrNoQuorum, err)
	}
	if info.Cluster == nil {
		return "", 1, nil
	}
	if info.Cluster.Leader == "" {
		return "", 0, fmt.Errorf("%w: none of them leads", ErrNoQuorum)
	}
	current = 1
	for _, r := range info.Cluster.Replicas {
		if r.Current && !r.Offline {
			current++
		}
	}
	return info.Cluster.Leader, current, nil
}

// untilAnswered makes a call of JetStream's API. Among several servers it makes it again,
// for as long as an election takes, while nobody answers it or nobody leads.
func (l *Log) untilAnswered(ctx context.Context, call func(context.Context) error) error {
	if !l.shared {
		return call(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, quorumWait)
	defer cancel()
	for {
		step, done := context.WithTimeout(ctx, answerStep)
		err := call(step)
		done()
		if err == nil || !unanswered(err) || wait(ctx, quorumStep) != nil {
			return err
		}
	}
}

// unanswered reports that nobody answered a call of JetStream's API, or that nobody leads yet.
func unanswered(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		ok && api.Code == http.StatusServiceUnavailable
}
