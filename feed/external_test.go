package feed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// operator runs a NATS cluster of three, as docs/operating.md says: its text of a
// configuration, and the account that `perigee feed account` prints.
type operator struct {
	dir   string
	ca    *authority
	key   string // the file of the nkey
	hosts [3]string
	ns    [3]*server.Server
}

// natsBlock is the configuration in the documentation.
var natsBlock = regexp.MustCompile("(?s)```nats\n(.*?)```")

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{dir: t.TempDir(), ca: newAuthority(t)}
	o.key = filepath.Join(o.dir, "feed.nk")
	public, made, err := ControlKey(o.key)
	if err != nil || !made {
		t.Fatalf("key made %v: %v", made, err)
	}
	o.write(t, "perigee.conf", Account(public))
	o.write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.ca.cert.Raw})))
	doc, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	block := natsBlock.FindStringSubmatch(string(doc))
	if block == nil {
		t.Fatal("docs/operating.md has no block of nats-server's configuration")
	}
	net := fmt.Sprintf("127.%d.%d.", 1+rand.N(254), rand.N(256)) // of loopback, and of no other test
	for i := range o.hosts {
		o.hosts[i] = fmt.Sprint(net, 21+i)
		name := fmt.Sprint("nats", i+1)
		var lines []string
		for line := range strings.Lines(block[1]) {
			if !strings.Contains(line, "routes") { // what is this server's own
				line = strings.ReplaceAll(line, "nats1", name)
				line = strings.ReplaceAll(line, "192.0.2.21", fmt.Sprint("192.0.2.", 21+i))
			}
			lines = append(lines, line)
		}
		text := strings.ReplaceAll(strings.Join(lines, ""), "192.0.2.", net)
		text = strings.ReplaceAll(text, "/etc/nats", o.dir)
		text = strings.ReplaceAll(text, "/var/lib/nats", filepath.Join(o.dir, name))
		o.write(t, name+".conf", text)
		o.certificate(t, name, o.hosts[i])
	}
	for i := range o.hosts {
		o.start(t, i)
	}
	return o
}

func (o *operator) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate makes one that a server shows to clients and to other servers.
func (o *operator) certificate(t *testing.T, name, host string) {
	t.Helper()
	cert := o.ca.issue(t, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.ParseIP(host)}
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	})
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	o.write(t, name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	o.write(t, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

func (o *operator) start(t *testing.T, i int) {
	t.Helper()
	opts, err := server.ProcessConfigFile(filepath.Join(o.dir, fmt.Sprintf("nats%d.conf", i+1)))
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog = true, true
	ns, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(ns.Shutdown)
	o.ns[i] = ns
}

func (o *operator) stop(i int) {
	o.ns[i].Shutdown()
	o.ns[i].WaitForShutdown()
}

// external is the setting of a control node.
func (o *operator) external(name string) *External {
	x := &External{Credentials: o.key, TLS: &tls.Config{RootCAs: o.ca.pool}, Replicas: 3, Fleet: "0123", Name: name, Several: true}
	for _, host := range o.hosts {
		x.Servers = append(x.Servers, "tls://"+host+":4222")
	}
	return x
}

// control opens a control node whose log is at the operator's.
func (o *operator) control(t *testing.T, ca *authority, name string) *fleet {
	t.Helper()
	f := &fleet{ca: ca, dir: filepath.Join(o.dir, name)}
	f.reopen(t, o.external(name))
	return f
}

func (f *fleet) reopen(t *testing.T, x *External) {
	t.Helper()
	var err error
	f.Server, err = OpenServer(patient(t), ServerConfig{
		Dir: f.dir, Listen: "127.0.0.1:0", TLS: f.ca.server(t), Admit: func(string, *x509.Certificate) bool { return true }, External: x,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Server.Close)
	for _, n := range []string{"fra1", "iad1"} {
		if err := f.AddNode(patient(t), n); err != nil {
			t.Fatal(err)
		}
	}
}

// until waits for what takes NATS a while.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(clusterPatience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// Two control nodes, a NATS cluster of three that an operator runs: each appends,
// nodes follow through either, reports reach both. The server that leads is lost and
// nothing stops; with two lost nothing is acknowledged, and what was is there when they
// are back.
func TestOperatorsCluster(t *testing.T) {
	o := newOperator(t)
	ca := newAuthority(t)
	one, two := o.control(t, ca, "ctl1"), o.control(t, ca, "ctl2")
	es := one.append(t, 3)
	near, far := one.dial(t, "fra1", Position{}), two.dial(t, "iad1", Position{})
	at := [2]Position{read(t, near, Position{}, 3), read(t, far, Position{}, 3)}
	if at[0] != es[2].Position() || at[1] != at[0] {
		t.Fatalf("they stand at %+v and %+v, the log at %+v", at[0], at[1], es[2].Position())
	}
	reports := make(chan string, 8)
	one.Reports(func(node, kind string, _ []byte) { reports <- node + " " + kind })
	if err := far.Report("watermark", []byte("{}")); err != nil { // to the other one
		t.Fatal(err)
	}
	select {
	case got := <-reports:
		if got != "iad1 watermark" {
			t.Fatalf("a report of %s", got)
		}
	case <-time.After(patience):
		t.Fatal("a report to one control node does not reach the other")
	}
	e := two.append(t, 1)[0] // and both nodes hear of it
	at[0], at[1] = read(t, near, at[0], 1), read(t, far, at[1], 1)
	if at[0] != e.Position() || at[1] != at[0] {
		t.Fatalf("they stand at %+v and %+v", at[0], at[1])
	}
	t.Run("rights", func(t *testing.T) { o.triesEverythingElse(t, one) })
	o.loses(t, one, two, near, at[0])

	// A control node that comes back has the same log.
	head := one.Log().Head()
	one.Close()
	one.reopen(t, o.external("ctl1"))
	if one.Log().Head() != head || one.Log().EpochWhy() != "" {
		t.Fatalf("after a restart: %+v, new epoch %q; before: %+v", one.Log().Head(), one.Log().EpochWhy(), head)
	}
	for i, host := range o.hosts {
		if !o.ns[i].JetStreamConfig().SyncAlways {
			t.Errorf("%s does not sync before it acknowledges", host)
		}
	}
}

// loses takes servers away, and brings them back.
func (o *operator) loses(t *testing.T, one, two *fleet, near *Follower, at Position) {
	leader := ""
	until(t, "no leader", func() bool {
		var current int
		var err error
		leader, current, err = one.Log().Leader(t.Context())
		return err == nil && current == 3
	})
	lost := int(leader[len("nats")] - '1')
	o.stop(lost)
	body := map[string]int{"n": 1}
	e, err := one.Log().Append(patient(t), "purge", body)
	for errors.Is(err, ErrNoQuorum) { // while they agree on another
		e, err = one.Log().Append(patient(t), "purge", body)
	}
	if err != nil {
		t.Fatalf("with one of three lost: %v", err)
	}
	until(t, "the other control node does not read it", func() bool { return two.Log().Refresh(t.Context()) == nil && two.Log().Head() == e.Position() })
	if e, err := near.Next(patient(t)); err != nil || Verify(at, e).Kind != Next {
		t.Fatalf("a node after the loss: %+v, %v", e, err)
	}

	other := (lost + 1) % 3
	o.stop(other)
	short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := one.Log().Append(short, "purge", body); !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("with two of three lost: %v", err)
	}
	o.start(t, lost)
	o.start(t, other)
	var back Entry
	until(t, "no append after the servers are back", func() bool {
		var err error
		back, err = one.Log().Append(patient(t), "purge", body)
		return err == nil
	})
	if back.Seq <= e.Seq {
		t.Fatalf("seq %d after %d", back.Seq, e.Seq)
	}
	for _, f := range []*fleet{one, two} {
		until(t, "the log cannot be read", func() bool { return f.Log().Refresh(t.Context()) == nil && f.Log().Head().Seq >= back.Seq })
	}
	all := entriesOf(t, one.Server)
	if uint64(len(all)) != back.Seq {
		t.Fatalf("%d entries, the last is seq %d", len(all), back.Seq)
	}
	if other := entriesOf(t, two.Server); !slices.Equal(all, other) {
		t.Fatalf("ctl1 has\n%v\nctl2\n%v", all, other)
	}
}

// triesEverythingElse is a thief with the control nodes' NATS key: it may do what a
// control node does, and nothing beyond.
func (o *operator) triesEverythingElse(t *testing.T, one *fleet) {
	head := one.Log().Head()
	key, err := nats.NkeyOptionFromSeed(o.key)
	if err != nil {
		t.Fatal(err)
	}
	violations := make(chan error, 64)
	nc, err := nats.Connect("tls://"+o.hosts[0]+":4222", key, nats.Secure(&tls.Config{RootCAs: o.ca.pool}), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{
		"$JS.API.STREAM.DELETE.FEED", "$JS.API.STREAM.UPDATE.FEED", "$JS.API.STREAM.CREATE.EVIL", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.API.STREAM.MSG.DELETE.FEED", "$JS.API.STREAM.SNAPSHOT.FEED", "$JS.API.STREAM.RESTORE.FEED", "$JS.API.STREAM.PEER.REMOVE.FEED",
		"$JS.API.STREAM.LEADER.STEPDOWN.FEED", "$JS.API.STREAM.INFO.OTHER", "$JS.API.STREAM.PURGE.OTHER", "$JS.API.STREAM.MSG.GET.OTHER",
		"$JS.API.DIRECT.GET.FEED", "$JS.API.INFO", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.CONSUMER.CREATE.FEED", "$JS.API.CONSUMER.CREATE.FEED.x",
		"$JS.API.CONSUMER.DURABLE.CREATE.FEED.x", "$JS.API.CONSUMER.MSG.NEXT.FEED.x", "$JS.API.CONSUMER.DELETE.FEED.x", "$JS.ACK.FEED.x.1.1.1.1.0",
		"feed.in.guess", "feed.cmd.more", "report.fra1", "report.fra1.a.b", "_INBOX.perigee.x", "$SYS.REQ.SERVER.PING", "anything",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, violations, "publish to "+subject)
	}
	for _, subject := range []string{">", "feed.>", "feed.cmd", "report.>", "_INBOX.>", "_INBOX.x.>", "$JS.>", "$SYS.>", "$JS.EVENT.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, violations, "subscribe to "+subject)
	}
	if nc, err := nats.Connect("tls://"+o.hosts[0]+":4222", nats.Secure(&tls.Config{RootCAs: o.ca.pool}), nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("a stranger without a key is let in")
	}
	if got := one.Log().Head(); got != head {
		t.Fatalf("the log changed: %+v, was %+v", got, head)
	}
}
