package feed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// clusterPatience bounds what takes an election or two.
const clusterPatience = 90 * time.Second

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	t.Cleanup(cancel)
	return ctx
}

// members are three control nodes that hold the log together.
type members struct {
	ca    *authority
	dir   string
	names []string
	doors map[string]string // for the other members
	feeds map[string]string // for nodes
	// relays stand on the way from one member to another's door, if there are any.
	relays map[[2]string]*relay

	mu      sync.Mutex
	servers map[string]*Server
}

func newMembers(t *testing.T) *members {
	t.Helper()
	// An address of loopback that no other test has: between the choice of a port
	// and a start or another one, nobody else's connection may get that port.
	// Through NATS, members also tell each other the address that a connection comes
	// from with the port of the door: were the doors at 127.0.0.1 they would find
	// their way around the relays, which are there.
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
	m := &members{ca: newAuthority(t), dir: t.TempDir(), names: []string{"ctl1", "ctl2", "ctl3"}, doors: map[string]string{}, feeds: map[string]string{}, servers: map[string]*Server{}}
	for _, name := range m.names {
		for _, addrs := range []map[string]string{m.doors, m.feeds} {
			ln, err := net.Listen("tcp", host+":0") // each must be known before the first starts
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			addrs[name] = ln.Addr().String()
		}
	}
	return m
}

func (m *members) config(t *testing.T, name string) ServerConfig {
	peers := map[string]string{}
	for _, other := range m.names {
		if other != name {
			peers[other] = m.doors[other]
			if r := m.relays[[2]string{name, other}]; r != nil {
				peers[other] = r.Addr().String()
			}
		}
	}
	door := m.ca.server(t)
	door.RootCAs = m.ca.pool
	return ServerConfig{
		Dir: filepath.Join(m.dir, name), Listen: m.feeds[name], TLS: m.ca.server(t),
		Admit:   func(string, *x509.Certificate) bool { return true },
		Cluster: &ClusterConfig{Name: name, Listen: m.doors[name], Peers: peers, TLS: door},
	}
}

// start opens members, all at the same time, and waits for them.
func (m *members) start(t *testing.T, names ...string) {
	t.Helper()
	var wg sync.WaitGroup
	for _, name := range names {
		c := m.config(t, name)
		wg.Go(func() {
			s, err := OpenServer(patient(t), c)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			m.mu.Lock()
			m.servers[name] = s
			m.mu.Unlock()
			t.Cleanup(s.Close)
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func (m *members) follow(t *testing.T, id, via string, from Position) *Follower {
	t.Helper()
	f, err := Dial(patient(t), DialConfig{ID: id, Addr: m.feeds[via], TLS: m.ca.node(t, id), From: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// entriesOf is what a member's log holds, verified.
func entriesOf(t *testing.T, s *Server) []string {
	t.Helper()
	if err := s.Log().Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	var out []string
	var at Position
	for e, err := range s.Log().Entries(patient(t), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if v := Verify(at, e); v.Kind != Next {
			t.Fatalf("seq %d: %v %s", e.Seq, v.Kind, v.Why)
		}
		at = e.Position()
		out = append(out, string(e.Body))
	}
	return out
}

// Three control nodes: each appends, all see it, nodes follow through any; of
// two that write at the same time one wins. One is lost, the one that leads, and
// nothing stops. With two lost nothing is acknowledged, and what was is there
// when they are back.
func TestThreeControlNodes(t *testing.T) {
	m := newMembers(t)
	m.start(t, m.names...)
	one, two, three := m.servers["ctl1"], m.servers["ctl2"], m.servers["ctl3"]
	for _, s := range m.servers {
		if err := s.AddNode(patient(t), "fra1"); err != nil {
			t.Fatal(err)
		}
	}
	body := func(n int) map[string]int { return map[string]int{"n": n} }
	must := func(s *Server, n int) Entry {
		t.Helper()
		e, err := s.Log().Append(patient(t), "purge", body(n))
		if errors.Is(err, ErrConflict) { // it knows the newest now
			e, err = s.Log().Append(patient(t), "purge", body(n))
		}
		if err != nil {
			t.Fatalf("append %d: %v", n, err)
		}
		return e
	}
	must(one, 1)

	// Compare-and-set: who has not seen the newest entry does not write.
	if _, err := two.Log().Append(patient(t), "purge", body(0)); !errors.Is(err, ErrConflict) {
		t.Fatalf("append over an unseen entry: %v", err)
	}
	if got, want := two.Log().Head(), one.Log().Head(); got != want {
		t.Fatalf("after the conflict ctl2 stands at %+v, want %+v", got, want)
	}
	must(two, 2)
	last := must(three, 3)

	f := m.follow(t, "fra1", "ctl2", Position{})
	if f.Head() != last.Position() || f.Diverged() {
		t.Fatalf("ctl2 says the head is %+v (diverged %v), want %+v", f.Head(), f.Diverged(), last.Position())
	}
	at := Position{}
	read := func(f *Follower, n int) {
		t.Helper()
		e, err := f.Next(patient(t))
		if err != nil {
			t.Fatalf("entry %d: %v", n, err)
		}
		if v := Verify(at, e); v.Kind != Next || string(e.Body) != fmt.Sprintf(`{"n":%d}`, n) {
			t.Fatalf("read %d %s (%v %s), want %d", e.Seq, e.Body, v.Kind, v.Why, n)
		}
		at = e.Position()
		if err := f.Ack(e); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		read(f, n+1)
	}
	reports := make(chan string, 10)
	for name, s := range m.servers {
		s.Reports(func(node, kind string, payload []byte) {
			reports <- name + " " + node + " " + kind + " " + string(payload)
		})
	}
	if err := f.Report("watermark", []byte("here")); err != nil {
		t.Fatal(err)
	}
	heard := map[string]bool{}
	for range m.servers {
		select {
		case r := <-reports:
			heard[r] = true
		case <-patient(t).Done():
			t.Fatal("not every control node hears of the report")
		}
	}
	if len(heard) != 3 || !heard["ctl3 fra1 watermark here"] {
		t.Fatalf("heard %v", heard)
	}

	// The leader is lost.
	leader, current, err := one.Log().Leader(patient(t))
	if err != nil || current != 3 {
		t.Fatalf("leader %s, %d current, %v", leader, current, err)
	}
	f.Close()
	m.servers[leader].Close()
	var left []string
	for _, name := range m.names {
		if name != leader {
			left = append(left, name)
		}
	}
	must(m.servers[left[0]], 4)
	must(m.servers[left[1]], 5)
	f = m.follow(t, "fra1", left[1], at)
	read(f, 4)
	read(f, 5)
	must(m.servers[left[0]], 6) // while somebody reads
	read(f, 6)
	f.Close()

	// Another is lost: the last one alone acknowledges nothing.
	alone := m.servers[left[1]]
	if n := len(entriesOf(t, alone)); n != 6 {
		t.Fatalf("%d entries", n)
	}
	m.servers[left[0]].Close()
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	if _, err := alone.Log().Append(ctx, "purge", body(7)); !errors.Is(err, ErrNoQuorum) || ctx.Err() != nil {
		t.Fatalf("append without quorum: %v", err)
	}
	if alone.Log().Head().Seq != 6 {
		t.Fatalf("head %+v", alone.Log().Head())
	}

	// Both are back, over their folders.
	m.start(t, leader, left[0])
	e := must(m.servers[leader], 8)
	got := entriesOf(t, m.servers[left[0]])
	want := 7
	if len(got) == 8 { // the seventh had no clear outcome: it may be there, whole
		want = 8
	}
	if len(got) != want || got[5] != `{"n":6}` || got[len(got)-1] != `{"n":8}` || e.Seq != uint64(want) {
		t.Fatalf("the log holds %v, the last is %d", got, e.Seq)
	}
	for name, s := range m.servers {
		if why := s.Log().EpochWhy(); why != "" {
			t.Errorf("%s began a new epoch: %s", name, why)
		}
	}
}

// The door between control nodes opens to control nodes of the fleet alone: not
// to its nodes, nor to another fleet, nor without a certificate.
func TestDoorBetweenControlNodes(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	server := func(a *authority) *tls.Config {
		c := a.server(t)
		c.RootCAs = ca.pool
		return c
	}
	door := (&ClusterConfig{TLS: server(ca)}).tls()
	for _, c := range []struct {
		who    string
		config *tls.Config
		ok     bool
	}{
		{"a control node", (&ClusterConfig{TLS: server(ca)}).tls(), true},
		{"a node of the fleet", ca.node(t, "fra1"), false},
		{"another fleet's control node", server(other), false},
		{"nobody", &tls.Config{}, false},
	} {
		client := c.config.Clone()
		client.InsecureSkipVerify = true // what it thinks of the door is not asked here
		ours, theirs := tcpPair(t)
		failed := make(chan error, 1)
		go func() {
			s := tls.Server(ours, door)
			failed <- s.HandshakeContext(bounded(t))
			ours.Close()
		}()
		conn := tls.Client(theirs, client)
		_ = conn.HandshakeContext(bounded(t)) // with TLS 1.3 the door's answer comes after
		if err := <-failed; (err == nil) != c.ok {
			t.Errorf("%s: %v", c.who, err)
		}
		theirs.Close()
	}
	// And a member does not take anything else for the door of another.
	for who, config := range map[string]*tls.Config{"a node": ca.node(t, "ctl2"), "another fleet's": other.server(t)} {
		ours, theirs := tcpPair(t)
		config.ClientAuth = tls.RequestClientCert
		go func() {
			_ = tls.Server(theirs, config).HandshakeContext(bounded(t))
			theirs.Close()
		}()
		if err := tls.Client(ours, door).HandshakeContext(bounded(t)); err == nil || !strings.Contains(err.Error(), "not a control node") {
			t.Errorf("connected to the door of %s: %v", who, err)
		}
		ours.Close()
	}
}

// tcpPair is a connection's two ends. (A net.Pipe has no room for the alert that
// the other end does not read.)
func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestClusterConfigIsChecked(t *testing.T) {
	ca := newAuthority(t)
	tlsConfig := ca.server(t)
	tlsConfig.RootCAs = ca.pool
	for name, c := range map[string]*ClusterConfig{
		"two":         {Name: "ctl1", Listen: "127.0.0.1:1", Peers: map[string]string{"ctl2": "127.0.0.1:2"}, TLS: tlsConfig},
		"four":        {Name: "ctl1", Listen: "127.0.0.1:1", Peers: map[string]string{"a": "h:1", "b": "h:2", "c": "h:3"}, TLS: tlsConfig},
		"self":        {Name: "ctl1", Listen: "127.0.0.1:1", Peers: map[string]string{"ctl1": "h:1", "b": "h:2"}, TLS: tlsConfig},
		"no name":     {Listen: "127.0.0.1:1", Peers: map[string]string{"a": "h:1", "b": "h:2"}, TLS: tlsConfig},
		"no TLS":      {Name: "ctl1", Listen: "127.0.0.1:1", Peers: map[string]string{"a": "h:1", "b": "h:2"}},
		"no port":     {Name: "ctl1", Listen: "127.0.0.1", Peers: map[string]string{"a": "h:1", "b": "h:2"}, TLS: tlsConfig},
		"port 0":      {Name: "ctl1", Listen: "127.0.0.1:0", Peers: map[string]string{"a": "h:1", "b": "h:2"}, TLS: tlsConfig},
		"peer's port": {Name: "ctl1", Listen: "127.0.0.1:1", Peers: map[string]string{"a": "h", "b": "h:2"}, TLS: tlsConfig},
	} {
		if s, err := OpenServer(bounded(t), ServerConfig{Dir: t.TempDir(), Cluster: c}); err == nil {
			s.Close()
			t.Errorf("%s: taken", name)
		}
	}
	// A log that was kept alone is not thrown away.
	dir := t.TempDir()
	s, err := OpenServer(bounded(t), ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	good := &ClusterConfig{Name: "ctl1", Listen: "127.0.0.1:1", Peers: map[string]string{"a": "h:1", "b": "h:2"}, TLS: tlsConfig}
	if s, err := OpenServer(bounded(t), ServerConfig{Dir: dir, Cluster: good}); err == nil || !strings.Contains(err.Error(), "a control node alone") {
		if s != nil {
			s.Close()
		}
		t.Errorf("over the log of one alone: %v", err)
	}
}

// A member is lost, and with it who leads the places of some nodes: a node is removed
// all the same, at once, though nobody is there to say that its place is deleted.
func TestNodeIsRemovedAsAMemberIsLost(t *testing.T) {
	m := newMembers(t)
	m.start(t, m.names...)
	for i := range 6 {
		id := fmt.Sprint("n", i)
		for _, s := range m.servers {
			if err := s.AddNode(patient(t), id); err != nil {
				t.Fatal(err)
			}
		}
		m.follow(t, id, m.names[i%3], Position{}).Close()
	}
	leads := func(id string) string {
		c, err := m.servers["ctl1"].js.Consumer(patient(t), streamName, id)
		if err != nil {
			t.Fatal(err)
		}
		return c.CachedInfo().Cluster.Leader
	}
	lost := leads("n0")
	var alive *Server
	for _, name := range m.names {
		if name != lost {
			alive = m.servers[name]
		}
	}
	var orphans []string
	for i := range 6 {
		if id := fmt.Sprint("n", i); leads(id) == lost {
			orphans = append(orphans, id)
		}
	}
	m.servers[lost].Close()
	for _, id := range orphans {
		if err := alive.RemoveNode(t.Context(), id); err != nil {
			t.Errorf("%s, whose place %s led: %v", id, lost, err)
		}
		if _, err := alive.js.Consumer(patient(t), streamName, id); !errors.Is(err, jetstream.ErrConsumerNotFound) {
			t.Errorf("%s still has a place: %v", id, err)
		}
	}
}

// unsettled is a stream that nobody leads for a while.
type unsettled struct {
	jetstream.Stream
	refusals int
}

func (u *unsettled) GetMsg(ctx context.Context, at uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	if u.refusals--; u.refusals >= 0 {
		return nil, &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"}
	}
	return u.Stream.GetMsg(ctx, at, opts...)
}

// A control node reads the log as it starts, while the servers elect who leads: it waits
// for them, and does not end.
func TestLogIsReadDuringAnElection(t *testing.T) {
	f := newFleet(t, "fra1")
	want, err := f.Log().Append(bounded(t), "purge", map[string]int{"n": 1})
	if err != nil {
		t.Fatal(err)
	}
	l := f.Log()
	l.stream, l.shared = &unsettled{l.stream, 3}, true
	for e, err := range l.Entries(bounded(t), 1) {
		if err != nil || e.Position() != want.Position() {
			t.Fatalf("%+v, %v", e, err)
		}
		return
	}
	t.Fatal("no entry")
}
