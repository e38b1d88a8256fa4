package feed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// plainNATS is one NATS server, of whose account the test may do anything, to put the
// log into every state that an operator's mistakes can put it into.
type plainNATS struct {
	*server.Server
	js jetstream.JetStream
	x  *External
}

func newPlainNATS(t *testing.T) *plainNATS {
	t.Helper()
	ns, err := server.NewServer(&server.Options{ServerName: "nats", Host: "127.0.0.1", Port: server.RANDOM_PORT, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(ns.Shutdown)
	if !ns.ReadyForConnections(patience) {
		t.Fatal("NATS is not ready")
	}
	nc, err := nats.Connect(ns.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return &plainNATS{ns, js, &External{Servers: []string{ns.ClientURL()}, Replicas: 1, Fleet: "0123", Name: "control"}}
}

// refuses demands that a control node does not start over dir, and says why.
func (p *plainNATS) refuses(t *testing.T, dir, why string) {
	t.Helper()
	s, err := OpenServer(bounded(t), ServerConfig{Dir: dir, External: p.x})
	if err == nil {
		s.Close()
		t.Fatalf("it starts; want %q", why)
	}
	if !errors.Is(err, ErrElsewhere) || !strings.Contains(err.Error(), why) {
		t.Fatalf("%v; want %q", err, why)
	}
}

// create makes the stream. NATS may still be busy with removing the one before.
func (p *plainNATS) create(t *testing.T, what string, c jetstream.StreamConfig) {
	t.Helper()
	ctx := bounded(t)
	for {
		_, err := p.js.CreateStream(ctx, c)
		if err == nil {
			return
		}
		if wait(ctx, 50*time.Millisecond) != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// The stream that a control node finds must be its own, and lose nothing.
func TestExternalStreamIsChecked(t *testing.T) {
	p := newPlainNATS(t)
	good := externalStream(p.x)
	for why, edit := range map[string]func(*jetstream.StreamConfig){
		"another fleet":   func(c *jetstream.StreamConfig) { c.Description = fleetMark + "4567" },
		"max_age":         func(c *jetstream.StreamConfig) { c.MaxMsgs = 1000 },
		"subjects":        func(c *jetstream.StreamConfig) { c.Subjects = []string{"feed.>"} },
		"storage":         func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"discard policy":  func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"retention":       func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
		"max_msg_size":    func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 },
		"deny_delete":     func(c *jetstream.StreamConfig) { c.DenyDelete = false },
		"takes no messag": func(c *jetstream.StreamConfig) { c.NoAck = true },
	} {
		c := good
		edit(&c)
		p.create(t, why, c)
		p.refuses(t, t.TempDir(), why)
		if err := p.js.DeleteStream(bounded(t), streamName); err != nil {
			t.Fatal(err)
		}
	}
	p.x.Replicas = 3
	p.create(t, "replicas", good)
	p.refuses(t, t.TempDir(), "replicas 1, it must have 3")
}

// open opens a control node over dir.
func (p *plainNATS) open(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := OpenServer(bounded(t), ServerConfig{Dir: dir, External: p.x})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.AddNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	return s
}

func appendTo(t *testing.T, s *Server, n int) (es []Entry) {
	t.Helper()
	for i := range n {
		e, err := s.Log().Append(bounded(t), "purge", map[string]int{"n": i})
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, e)
	}
	return es
}

// The log of a control node alone goes to NATS as it is, however often that is cut off,
// and nodes read on where they were. It does not come back by itself.
func TestLogMovesToNATS(t *testing.T) {
	p := newPlainNATS(t)
	dir := t.TempDir()
	s, err := OpenServer(bounded(t), ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	es := appendTo(t, s, 5)
	s.Close()
	before := filepath.Join(t.TempDir(), "before")
	if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	// Cut off after two of five.
	if _, err := p.js.CreateStream(bounded(t), externalStream(p.x)); err != nil {
		t.Fatal(err)
	}
	for _, e := range es[:2] {
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.js.Publish(bounded(t), storedSubject, b); err != nil {
			t.Fatal(err)
		}
	}
	s = p.open(t, dir)
	if s.Log().Head() != es[4].Position() || s.Log().EpochWhy() != "" {
		t.Fatalf("the log ends at %+v, new epoch %q; it ended at %+v", s.Log().Head(), s.Log().EpochWhy(), es[4].Position())
	}
	f, err := s.Follow(bounded(t), "fra1", es[2].Position())
	if err != nil || f.Diverged() {
		t.Fatalf("a node of before: diverged %v, %v", f != nil && f.Diverged(), err)
	}
	read(t, f, es[2].Position(), 2)
	more := appendTo(t, s, 2)
	s.Close()

	if _, err := OpenServer(bounded(t), ServerConfig{Dir: dir}); !errors.Is(err, ErrElsewhere) {
		t.Fatalf("without NATS: %v", err)
	}
	// A backup of before, restored: NATS has lost nothing, and goes on.
	s = p.open(t, before)
	if s.Log().Head() != more[1].Position() || s.Log().EpochWhy() != "" {
		t.Fatalf("the log ends at %+v, new epoch %q", s.Log().Head(), s.Log().EpochWhy())
	}
	s.Close()

	// Another log is not mixed with it.
	other := t.TempDir()
	if s, err = OpenServer(bounded(t), ServerConfig{Dir: other}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, s, 3)
	s.Close()
	p.refuses(t, other, "differs at seq 1")
}

// What the operator may do to the stream is noticed: one that is gone is not made anew,
// and one that has gone back begins an epoch.
func TestExternalStreamIsLost(t *testing.T) {
	p := newPlainNATS(t)
	dir := t.TempDir()
	s := p.open(t, dir)
	es := appendTo(t, s, 4)
	old := func(n int) {
		if err := p.js.DeleteStream(bounded(t), streamName); err != nil {
			t.Fatal(err)
		}
		if _, err := p.js.CreateStream(bounded(t), externalStream(p.x)); err != nil {
			t.Fatal(err)
		}
		for _, e := range es[:n] {
			b, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.js.Publish(bounded(t), storedSubject, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	old(2)
	if err := s.Log().Refresh(bounded(t)); err == nil || !strings.Contains(err.Error(), "ends at message 2, and 4 were acknowledged") {
		t.Fatalf("an old copy of the stream: %v", err)
	}
	if _, err := s.Log().Append(bounded(t), "purge", map[string]int{}); err == nil {
		t.Fatal("appended to an old copy of the stream")
	}
	s.Close()
	s = p.open(t, dir)
	if s.Log().EpochWhy() == "" || s.Log().Head().Epoch != 2 || s.Log().Head().Seq != 5 {
		t.Fatalf("over an old copy it stands at %+v, new epoch %q", s.Log().Head(), s.Log().EpochWhy())
	}
	f, err := s.Follow(bounded(t), "fra1", es[3].Position())
	if err != nil || !f.Diverged() {
		t.Fatalf("a node that has seen more: %v", err)
	}
	s.Close()
	if err := p.js.DeleteStream(bounded(t), streamName); err != nil {
		t.Fatal(err)
	}
	p.refuses(t, dir, "no stream FEED in this account, but entries up to seq 5 were acknowledged")
}

// Trimmed by one control node, the log begins later at the other, and for nodes at either.
func TestExternalTrim(t *testing.T) {
	p := newPlainNATS(t)
	p.x.Several = true
	one, two := p.open(t, t.TempDir()), p.open(t, t.TempDir())
	es := appendTo(t, one, 10)
	if err := one.Log().Trim(bounded(t), 7); err != nil {
		t.Fatal(err)
	}
	want := slices.Collect(func(yield func(string) bool) {
		for _, e := range es[6:] {
			if !yield(string(e.Body)) {
				return
			}
		}
	})
	for name, s := range map[string]*Server{"ctl1": one, "ctl2": two} {
		if err := s.SetSnapshot(Snapshot{At: es[7].Position(), Digest: "sha256-" + strings.Repeat("0", 64), Size: 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.Log().Refresh(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if got := s.Log().First(); got != 7 {
			t.Errorf("%s: the log begins at %d", name, got)
		}
		var got []string
		for e, err := range s.Log().Entries(bounded(t), 1) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.Body))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		f, err := s.Follow(bounded(t), "fra1", es[1].Position())
		if err != nil || f.Snapshot() == nil {
			t.Fatalf("%s: a node from before: %v", name, err)
		}
		read(t, f, es[7].Position(), 2)
	}
}

// Durability is what the servers' monitoring says, and no more.
func TestDurability(t *testing.T) {
	p := newPlainNATS(t)
	monitoring := "http://" + p.MonitorAddr().String()
	for want, urls := range map[string][]string{
		"set at NATS, not verified": nil, "NOT synced before it is acknowledged at": {monitoring},
		"set at NATS, not verified (http://127.0.0.1:1": {"http://127.0.0.1:1"},
	} {
		if got := Durability(context.Background(), urls); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %q, want %q", urls, got, want)
		}
	}
}
