package control

import (
	"context"
	"crypto/tls"
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
type Cluster struct {
	Name   string // of this one
	Listen string // host:port of its door for the others
	// First is the one that makes the fleet's keys at its first start; the others
	// are given them.
	First string
	Peers []ClusterPeer
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
)

// ClusterStatus is how the control nodes stand, as this one sees it.
type ClusterStatus struct {
	Name    string `json:"name"`             // of the one that answers
	Members int    `json:"members"`          // of the cluster
	Current int    `json:"current"`          // members that have every entry, the leader counted in; 0: there is no leader
	Leader  string `json:"leader,omitempty"` // of the log
	// LostSince is when the log was readable last, if it is not now.
	LostSince *time.Time `json:"lost_since,omitempty"`
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
	if c == nil {
		return nil
	}
	fc := &feed.ClusterConfig{Name: c.Name, Listen: c.Listen, Peers: map[string]string{}, TLS: s.ca.peerTLS()}
	for _, p := range c.Peers {
		fc.Peers[p.Name] = p.Cluster
	}
	return fc
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
		s.gatherBlobs(ctx)
		s.gatherSnapshot(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// refresh reads the log, and notes how the cluster stands.
func (s *Server) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, attendWait)
	defer cancel()
	st := ClusterStatus{Name: s.c.Cluster.Name, Members: len(s.c.Cluster.Peers) + 1}
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
			s.log.Info("control nodes", "leader", st.Leader, "with_every_entry", st.Current, "of", st.Members)
		}
	default:
		since := s.readable.UTC()
		st.LostSince = &since
		st.Leader, st.Current = s.standing.Leader, 0
		if now.Sub(s.readable) > lostAfter && !s.unreadable {
			s.unreadable = true
			s.log.Error("too few control nodes can be reached: commands are refused, everything else goes on", "since", since, "why", err)
		}
	}
	s.standing = st
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
	return noQuorum("the log has no majority of control nodes since " + s.readable.UTC().Format(time.RFC3339) + ": nothing was done")
}

func noQuorum(message string) *Error {
	e := refuse(http.StatusServiceUnavailable, "two of three control nodes must reach each other; edges and DNS nodes go on meanwhile", "%s", message)
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
	if s.peers != nil {
		s.fetching = append(s.fetching, release)
	}
}
