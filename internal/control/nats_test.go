package control

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"perigee.example/feed"
)

func newNATS(t *testing.T) *server.Server {
	t.Helper()
	ns, err := server.NewServer(&server.Options{ServerName: "nats", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(ns.Shutdown)
	if !ns.ReadyForConnections(patience) {
		t.Fatal("NATS is not ready")
	}
	return ns
}

// TestCutOffFromNATS: a control node that cannot read the log at NATS for too long cuts its
// nodes off, which follow a copy here that stands still: another one may go on.
func TestCutOffFromNATS(t *testing.T) {
	ns := newNATS(t)
	s, err := Open(bounded(t), Config{Dir: t.TempDir(), Known: known, FeedListen: "127.0.0.1:0", BlobAddress: "127.0.0.1:1", byHand: true, Cluster: &Cluster{
		Name: "ctl1", First: "ctl1", Peers: []ClusterPeer{{Name: "ctl2", Blobs: "127.0.0.1:1"}}, NATS: &NATS{External: feed.External{Servers: []string{ns.ClientURL()}, Replicas: 1}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	socket := filepath.Join(t.TempDir(), "s")
	local := listen(t, "unix", socket)
	go func() { _ = s.ServeLocal(local) }() // ends with the server
	c, err := NewClient(ClientConfig{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	added, err := c.NodeAdd(bounded(t), "fra1", false)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ParseCredentials([]byte(added.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	node, err := feed.Dial(bounded(t), feed.DialConfig{ID: "fra1", Addr: s.FeedAddr().String(), TLS: cred.TLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	ns.Shutdown()
	end := patient(t)
	for {
		s.clusterMu.Lock() // again and again: who was reading as NATS went says that it could
		s.readable = s.now().Add(-2 * lostAfter)
		s.clusterMu.Unlock()
		select {
		case <-node.Done():
			return
		case <-end.Done():
			t.Fatal("the node follows a log that stands still")
		case <-time.After(attendEvery):
		}
	}
}

// TestRestoreAtNATS: a backup is restored, and its log goes to NATS. A node has seen more, so
// nothing is changed; an operator accepts that, and the next start begins the new epoch
// there. Once.
func TestRestoreAtNATS(t *testing.T) {
	ns := newNATS(t)
	f := newFleet(t)
	f.fill(t)
	var saved bytes.Buffer
	if err := f.local.Backup(bounded(t), &saved, true); err != nil {
		t.Fatal(err)
	}
	f.Close()
	dir := filepath.Join(t.TempDir(), "control")
	if _, err := Restore(bounded(t), dir, &saved, false); err != nil {
		t.Fatal(err)
	}
	c := Config{Dir: dir, Known: known, byHand: true, Cluster: &Cluster{Name: "control", First: "control", NATS: &NATS{External: feed.External{Servers: []string{ns.ClientURL()}, Replicas: 1}}}}
	open := func() *Server {
		t.Helper()
		s, err := Open(bounded(t), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	s := open()
	head := s.feed.Log().Head()
	s.mu.Lock()
	site := s.state.Sites["www"]
	s.mu.Unlock()
	if head.Epoch != 1 || head.Seq == 0 || !s.nodes.has("fra1") || site == nil {
		t.Fatalf("the restored log at NATS ends at %+v", head)
	}
	if err := s.ahead("fra1", feed.Position{Epoch: 1, Seq: head.Seq + 5}); err == nil {
		t.Fatal("a node that has seen more is not refused")
	}
	local := func(s *Server) error {
		_, err := s.command(bounded(t), KindDrain, Drain{Edge: "iad1"}, free)
		return err
	}
	if err := local(s); err == nil || !strings.Contains(err.Error(), "has seen seq") {
		t.Fatalf("a command while it waits: %v", err)
	}
	s.Close()
	if m, err := AcceptRollback(bounded(t), dir); err != nil || !m.Accepted {
		t.Fatalf("%+v, %v", m, err)
	}
	for i := range 2 {
		s = open()
		if got := s.feed.Log().Head(); got.Epoch != 2 {
			t.Fatalf("start %d: the log stands at %+v", i+1, got)
		}
		if err := local(s); err != nil {
			t.Fatalf("start %d: %v", i+1, err)
		}
		for end := time.Now().Add(patience); s.clusterStatus().NATS == nil; time.Sleep(attendEvery / 10) {
			if time.Now().After(end) {
				t.Fatal("status has no word of NATS")
			}
		}
		if st := s.Status().Cluster; st.NATS.Durability != "set at NATS, not verified" || st.NATS.Replicas != 1 || st.Leader != "nats" || st.LostSince != nil {
			t.Errorf("status: %+v %+v", st, st.NATS)
		}
		s.Close()
	}

	// NATS is gone: commands are refused, with the cure, and status says since when.
	s = open()
	ns.Shutdown()
	s.clusterMu.Lock()
	s.readable = s.readable.Add(-2 * lostAfter)
	s.clusterMu.Unlock()
	wantStatus(t, local(s), 503, "nothing was done")
}
