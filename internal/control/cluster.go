package control

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// Cluster makes the control node one of three (or five) that hold the log
// together. Each takes every command; a command is acknowledged when most of
// them have synced it, a blob and a release when one more has.
//
// With NATS, an operator's NATS cluster holds the log, and there may be one alone.
type Cluster struct {
	Name   string // of this one
	Listen string // host:port of its door for the others; not with NATS
	// First is the one that makes the fleet's keys at its first start; the others
	// are given them.
	First string
	Peers []ClusterPeer
	NATS  *NATS
}

// NATS is the operator's NATS cluster, and what of it may be asked for its settings.
type NATS struct {
	feed.External          // Fleet, Name and Several are filled in
	Monitoring    []string // http://HOST:PORT
}

// ClusterPeer is one of the others: its doors, host:port.
type ClusterPeer struct{ Name, Cluster, Blobs string }

const (
	// attendEvery is how often a control node reads what the others have written.
	attendEvery = 250 * time.Millisecond
	// attendWait bounds that, and a catch-up on demand.
	attendWait = 3 * time.Second
	// lostAfter is when a control node that cannot read the log refuses commands
	// at once: longer than an election takes.
	lostAfter = 12 * time.Second
	// maxTries bounds how often a command is tried when others write at the same time.
	maxTries = 8
	// durabilityEvery is how often the monitoring of NATS is asked.
	durabilityEvery = time.Minute
	// snapshotTurn and snapshotTurnAge are how much later each further control node makes a
	// snapshot, when none of them leads the log.
	snapshotTurn    = 1000
	snapshotTurnAge = 5 * time.Minute
)

// ClusterStatus is how the control nodes stand, as this one sees it.
type ClusterStatus struct {
	Name    string `json:"name"`             // of the one that answers
	Members int    `json:"members"`          // of the cluster
	Current int    `json:"current"`          // members that have every entry, the leader counted in; 0: there is no leader
	Leader  string `json:"leader,omitempty"` // of the log
	// LostSince is when the log was readable last, if it is not now.
	LostSince *time.Time `json:"lost_since,omitempty"`
	// NATS holds the log, and Leader and Current are of its servers.
	NATS *NATSStatus `json:"nats,omitempty"`
}

// NATSStatus is how the log stands in the operator's NATS cluster.
type NATSStatus struct {
	Server     string `json:"server,omitempty"` // that this control node is connected to, if any
	Replicas   int    `json:"replicas"`
	Durability string `json:"durability"` // what is known of it
}

// checkKeys refuses to make a second set of keys.
func (c *Cluster) checkKeys(dir string) error {
	if c.Name == c.First {
		return nil
	}
	for _, name := range []string{caCertName, caKeyName, tokensName} {
		_, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is missing: copy %s, %s and %s from the folder control of %s's state folder into %s (mode 0600), and start again",
				filepath.Join(dir, name), caCertName, caKeyName, tokensName, c.First, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// feedCluster is the feed's part of the cluster, or nil.
func (s *Server) feedCluster() *feed.ClusterConfig {
	c := s.c.Cluster
	if c == nil || c.NATS != nil {
		return nil
	}
	fc := &feed.ClusterConfig{Name: c.Name, Listen: c.Listen, Peers: map[string]string{}, TLS: s.ca.peerTLS()}
	for _, p := range c.Peers {
		fc.Peers[p.Name] = p.Cluster
	}
	return fc
}

// feedExternal is the operator's NATS cluster, or nil.
func (s *Server) feedExternal() *feed.External {
	c := s.c.Cluster
	if c == nil || c.NATS == nil {
		return nil
	}
	x := c.NATS.External
	sum := sha256.Sum256(s.ca.cert.Raw)
	x.Fleet, x.Name, x.Several = hex.EncodeToString(sum[:8]), c.Name, len(c.Peers) > 0
	return &x
}

// natsStatus is how the log stands at NATS, or nil. Asked by attend alone.
func (s *Server) natsStatus(ctx context.Context) *NATSStatus {
	x := s.feed.External()
	if x == nil {
		return nil
	}
	if now := s.now(); now.Sub(s.durabilityAt) > durabilityEvery {
		s.durability, s.durabilityAt = feed.Durability(ctx, s.c.Cluster.NATS.Monitoring), now
	}
	return &NATSStatus{Server: x.Server, Replicas: x.Replicas, Durability: s.durability}
}

// turn says how many turns later than the first this control node makes a snapshot: as
// many turns as there are names before its own.
func (c *Cluster) turn() (n int) {
	for _, p := range c.Peers {
		if p.Name < c.Name {
			n++
		}
	}
	return n
}

// peerTLS is a control node's side of a connection that it makes to another.
func (c *ca) peerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: feed.ServerName, RootCAs: c.pool(), GetCertificate: c.serverCert,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.serverCert(nil) },
	}
}

// attend reads what the other control nodes have written, as long as ctx lasts.
func (s *Server) attend(ctx context.Context) {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	for {
		s.refresh(ctx)
		s.takeNodes(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fetchOn gets what other control nodes have and this one lacks, as long as ctx lasts.
// Apart from attend: it may take hours, and what the log says must be taken meanwhile.
func (s *Server) fetchOn(ctx context.Context) {
	for ok := true; ok; ok = pause(ctx, attendEvery) == nil {
		s.gatherBlobs(ctx)
		s.gatherSnapshot(ctx)
	}
}

// refresh reads the log, and notes how the cluster stands.
func (s *Server) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, attendWait)
	defer cancel()
	st := ClusterStatus{Name: s.c.Cluster.Name, Members: len(s.c.Cluster.Peers) + 1, NATS: s.natsStatus(ctx)}
	err := s.readOn(ctx)
	if err == nil {
		st.Leader, st.Current, err = s.feed.Log().Leader(ctx)
	}
	now := s.now()
	s.clusterMu.Lock()
	defer s.clusterMu.Unlock()
	switch {
	case err == nil:
		if s.unreadable {
			s.log.Info("the log is there again", "leader", st.Leader)
		}
		s.readable, s.unreadable = now, false
		if was := s.standing; was.Current != st.Current || was.Leader != st.Leader {
			s.log.Info(st.who(), "leader", st.Leader, "with_every_entry", st.Current, "of", st.holders())
		}
	default:
		since := s.readable.UTC()
		st.LostSince = &since
		st.Leader, st.Current = s.standing.Leader, 0
		if now.Sub(s.readable) > lostAfter && !s.unreadable {
			s.unreadable = true
			s.log.Error("too few "+st.who()+" can be reached: commands are refused, everything else goes on", "since", since, "why", err)
			if st.NATS != nil && s.peers != nil { // another one may read what this one cannot
				s.feed.CutNodes()
			}
		}
	}
	s.standing = st
}

// who holds the log.
func (c *ClusterStatus) who() string {
	if c.NATS != nil {
		return "NATS servers"
	}
	return "control nodes"
}

// holders is how many of them there are.
func (c *ClusterStatus) holders() int {
	if c.NATS != nil {
		return c.NATS.Replicas
	}
	return c.Members
}

// readOn brings the state to where the log is now.
func (s *Server) readOn(ctx context.Context) error {
	if err := s.feed.Log().Refresh(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catchUp(ctx)
}

// quorum refuses a command when the log has not been readable for too long.
func (s *Server) quorum() error {
	if s.c.Cluster == nil {
		return nil
	}
	s.clusterMu.Lock()
	defer s.clusterMu.Unlock()
	if s.now().Sub(s.readable) <= lostAfter {
		return nil
	}
	return s.noQuorum("the log has no majority of " + s.standing.who() + " since " + s.readable.UTC().Format(time.RFC3339) + ": nothing was done")
}

func (s *Server) noQuorum(message string) *Error {
	hint := "two of three control nodes must reach each other; edges and DNS nodes go on meanwhile"
	if s.c.Cluster != nil && s.c.Cluster.NATS != nil {
		hint = "the NATS cluster of [feed] servers must be there, and most of the servers that hold the log; edges and DNS nodes go on meanwhile"
	}
	e := refuse(http.StatusServiceUnavailable, hint, "%s", message)
	e.Elsewhere = true
	return e
}

// takeNodes makes the list of nodes what the log says, and cuts off who is out.
func (s *Server) takeNodes(ctx context.Context) {
	s.mu.Lock()
	changed := s.syncLists()
	s.mu.Unlock()
	s.admitAnew(ctx, changed)
}

// admitAnew cuts nodes off whose certificates changed, and makes a place for those
// that are still of the fleet.
func (s *Server) admitAnew(ctx context.Context, changed []string) {
	for _, name := range changed {
		s.feed.Forget(name)
		if !s.nodes.has(name) {
			continue
		}
		if err := s.feed.AddNode(ctx, name); err != nil {
			s.log.Warn("place of a node on the log", "node", name, "err", err)
		}
	}
}

// syncLists brings the lists of nodes and tokens to what the log says, and
// returns the nodes that changed. Called with mu held.
func (s *Server) syncLists() (changed []string) {
	err := s.nodes.change(func(m map[string]nodeEntry) error {
		for name, cert := range s.state.Nodes {
			old, there := m[name]
			if there == (cert != "") && old.Cert == cert {
				continue
			}
			changed = append(changed, name)
			if cert == "" {
				delete(m, name)
			} else {
				m[name] = nodeEntry{Name: name, Cert: cert, Added: s.now().UTC()}
			}
		}
		if changed == nil {
			return errAsItIs
		}
		return nil
	})
	if err != nil && err != errAsItIs {
		s.log.Error("list of nodes not saved", "err", err)
		return nil
	}
	if err := s.tokens.take(s.state.Tokens); err != nil {
		s.log.Error("list of tokens not saved", "err", err)
	}
	return changed
}

var errAsItIs = errors.New("as it is")

// shareToken puts a change of the tokens on the log, unless another control node
// has given the name away meanwhile: its secret would be worth nothing.
func (s *Server) shareToken(c TokenChange) error {
	ctx, cancel := context.WithTimeout(context.Background(), purgeWait)
	defer cancel()
	taken := func(st *State) error {
		if c.Token != nil && st.Tokens[c.Name] != nil {
			return tokenExists(c.Name)
		}
		return nil
	}
	if _, err := s.command(ctx, KindToken, c, taken); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens.take(s.state.Tokens)
}

// clusterStatus is how the cluster stood a moment ago, or nil.
func (s *Server) clusterStatus() *ClusterStatus {
	if s.c.Cluster == nil {
		return nil
	}
	s.clusterMu.Lock()
	defer s.clusterMu.Unlock()
	st := s.standing
	return &st
}

// wantBlobs notes a sealed release whose blobs are to be here as well. Called
// with mu held.
func (s *Server) wantBlobs(release origin.Digest) {
	if _, here := s.blobs.Has(release); s.peers != nil || s.bucket != nil && !here {
		s.fetching = append(s.fetching, release)
	}
}
