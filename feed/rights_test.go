package feed

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// thief connects as fra1 with its real key, but speaks NATS as it likes.
func thief(t *testing.T, f *fleet, id string) (*nats.Conn, chan error) {
	t.Helper()
	cfg := f.ca.node(t, id)
	cfg.ServerName = ServerName
	violations := make(chan error, 64)
	nc, err := nats.Connect("tls://"+f.Addr().String(), nats.Secure(cfg), nats.TLSHandshakeFirst(), nats.NoReconnect(),
		nats.CustomInboxPrefix(inboxPrefix+id),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, violations
}

func wantViolation(t *testing.T, violations chan error, what string) {
	t.Helper()
	select {
	case err := <-violations:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v, want a permissions violation", what, err)
		}
	case <-time.After(patience):
		t.Errorf("%s: allowed", what)
	}
}

// A node's rights are tested by trying everything else.
func TestNodeMayPublishNothingElse(t *testing.T) {
	f := newFleet(t, "fra1", "iad1")
	f.append(t, 2)
	head := f.Log().Head()
	nc, violations := thief(t, f, "fra1")
	for _, subject := range []string{
		"$JS.API.STREAM.DELETE.FEED", "$JS.API.STREAM.PURGE.FEED", "$JS.API.STREAM.UPDATE.FEED", "$JS.API.STREAM.CREATE.EVIL",
		"$JS.API.STREAM.INFO.FEED", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.MSG.GET.FEED", "$JS.API.STREAM.MSG.DELETE.FEED",
		"$JS.API.STREAM.SNAPSHOT.FEED", "$JS.API.STREAM.RESTORE.FEED", "$JS.API.STREAM.PEER.REMOVE.FEED", "$JS.API.STREAM.LEADER.STEPDOWN.FEED",
		"$JS.API.DIRECT.GET.FEED", "$JS.API.INFO", "$JS.API.ACCOUNT.PURGE.$G", "$JS.API.META.LEADER.STEPDOWN",
		"$JS.API.CONSUMER.CREATE.FEED", "$JS.API.CONSUMER.CREATE.FEED.fra1", "$JS.API.CONSUMER.DURABLE.CREATE.FEED.fra1",
		"$JS.API.CONSUMER.DELETE.FEED.fra1", "$JS.API.CONSUMER.DELETE.FEED.iad1", "$JS.API.CONSUMER.RESET.FEED.fra1",
		"$JS.API.CONSUMER.PAUSE.FEED.fra1", "$JS.API.CONSUMER.UNPIN.FEED.fra1", "$JS.API.CONSUMER.NAMES.FEED",
		"$JS.API.CONSUMER.MSG.NEXT.FEED.iad1", "$JS.API.CONSUMER.INFO.FEED.iad1", "$JS.ACK.FEED.iad1.1.1.1.1.0",
		"report.iad1.watermark", "report.fra1", "feed.cmd", "feed.in.guess", "_INBOX.iad1.x", "_INBOX.SELF.x", "_INBOX.fra1.x",
		"$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.$G.CONNECT", "anything",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, violations, "publish to "+subject)
	}
	for _, subject := range []string{">", "feed.>", "feed.cmd", "feed.in.*", "report.>", "report.iad1.*", "_INBOX.>", "_INBOX.*.x", "_INBOX.iad1.>", "_INBOX.SELF.>", "$JS.>", "$SYS.>", "$JS.EVENT.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, violations, "subscribe to "+subject)
	}
	if got := f.Log().Head(); got != head {
		t.Fatalf("the log changed: %+v, was %+v", got, head)
	}
	if n := len(f.append(t, 1)); n != 1 {
		t.Fatal("the log takes no more entries")
	}
}

// The server sends answers wherever the asker says, with the server's own
// rights. A stolen node key must not get anything onto the log that way, nor
// into another node's reports, nor to the JetStream API.
func TestReplySubjectsAreNoWayAround(t *testing.T) {
	f := newFleet(t, "fra1", "iad1")
	f.append(t, 3)
	reports := make(chan string, 64)
	f.Reports(func(node, kind string, payload []byte) { reports <- node + " " + kind })
	nc, violations := thief(t, f, "fra1")
	next := "$JS.API.CONSUMER.MSG.NEXT.FEED.fra1"
	for range 3 { // the place is at the end of the log then: the answers below are empty, as the API likes them
		if _, err := nc.Request(next, []byte(`{"batch":1}`), patience); err != nil {
			t.Fatal(err)
		}
	}
	for _, reply := range []string{
		storedSubject, f.Log().ingest + "x", "feed.in.guess", "$JS.API.STREAM.DELETE.FEED", "$JS.API.STREAM.PURGE.FEED",
		"$JS.API.CONSUMER.DELETE.FEED.iad1", "$JS.ACK.FEED.iad1.1.1.1.1.0", "$JS.API.CONSUMER.MSG.NEXT.FEED.iad1",
	} {
		for _, subject := range []string{next, "$JS.API.CONSUMER.INFO.FEED.fra1", "report.fra1.start"} {
			body := []byte(`{"epoch":0,"seq":0,"chain":""}`)
			if strings.Contains(subject, "MSG.NEXT") {
				body = []byte(`{"batch":1,"no_wait":true}`)
			}
			if strings.Contains(subject, "INFO") {
				body = nil
			}
			if err := nc.PublishRequest(subject, reply, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A request with an honest reply, last in line: when its answer is here, all before it were handled.
	if _, err := nc.Request("report.fra1.start", []byte(`{"epoch":0,"seq":0,"chain":""}`), patience); err != nil {
		t.Fatal(err)
	}
	info, err := f.stream.Info(bounded(t))
	if err != nil {
		t.Fatalf("the stream: %v", err)
	}
	if info.State.Msgs != 3 || info.State.LastSeq != 3 {
		t.Fatalf("the stream has %d messages up to %d, want 3: an answer was stored as an entry", info.State.Msgs, info.State.LastSeq)
	}
	if _, err := f.stream.Consumer(bounded(t), "iad1"); err != nil {
		t.Fatalf("the other node's place: %v", err)
	}
	if e := f.append(t, 1)[0]; e.Seq != 4 {
		t.Fatalf("next entry has seq %d, want 4", e.Seq)
	}
	select {
	case r := <-reports:
		t.Fatalf("a report was made: %s", r)
	case err := <-violations:
		t.Logf("refused by the server besides: %v", err)
	default:
	}
}

// A stranger is refused in the handshake or right after it, whatever is wrong.
func TestStrangersAreRefused(t *testing.T) {
	f := newFleet(t, "fra1")
	f.admit("control", true)
	other := newAuthority(t)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	leaf := func(a *authority, edit func(*x509.Certificate)) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.issue(t, edit)}, RootCAs: f.ca.pool}
	}
	ours := uri("perigee://node/fra1")
	for name, cfg := range map[string]*tls.Config{
		"no certificate": {RootCAs: f.ca.pool},
		"other CA":       leaf(other, func(c *x509.Certificate) { c.URIs = []*url.URL{ours} }),
		"no name, DN only": leaf(f.ca, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "fra1", Organization: []string{"perigee://node/fra1"}}
		}),
		"DNS name":       leaf(f.ca, func(c *x509.Certificate) { c.DNSNames = []string{"fra1"} }),
		"two names":      leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{ours, uri("perigee://node/iad1")} }),
		"extra DNS name": leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{ours}; c.DNSNames = []string{"x"} }),
		"longer path":    leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("perigee://node/fra1/x")} }),
		"upper case":     leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("perigee://node/FRA1")} }),
		"wildcard":       leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("perigee://node/*")} }),
		"other scheme":   leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https://node/fra1")} }),
		"query":          leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("perigee://node/fra1?x")} }),
		"not known":      leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("perigee://node/lax1")} }),
		"server's use too": leaf(f.ca, func(c *x509.Certificate) {
			c.URIs = []*url.URL{ours}
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		}),
		"expired": leaf(f.ca, func(c *x509.Certificate) { c.URIs = []*url.URL{ours}; c.NotAfter = time.Now().Add(-time.Minute) }),
	} {
		fo, err := Dial(bounded(t), DialConfig{ID: "fra1", Addr: f.Addr().String(), TLS: cfg})
		if err == nil {
			fo.Close()
			t.Errorf("%s: connected", name)
		}
	}
	// The inside password is no use from outside, even if it were known.
	if nc, err := nats.Connect("tls://"+f.Addr().String(), nats.Secure(&tls.Config{RootCAs: f.ca.pool, ServerName: ServerName}), nats.TLSHandshakeFirst(), nats.UserInfo(insideUser, f.secret)); err == nil {
		nc.Close()
		t.Error("the inside password let a stranger in")
	}
	// And the honest node still comes in.
	f.dial(t, "fra1", Position{})
}

// A node whose certificate says one name may not follow as another.
func TestDialAsAnotherNodeIsRefused(t *testing.T) {
	f := newFleet(t, "fra1", "iad1")
	fo, err := Dial(bounded(t), DialConfig{ID: "iad1", Addr: f.Addr().String(), TLS: f.ca.node(t, "fra1")})
	if err == nil {
		fo.Close()
		t.Fatal("fra1 follows as iad1")
	}
}

func TestNodeRefusesAnotherServer(t *testing.T) {
	f := newFleet(t, "fra1")
	cfg := f.ca.node(t, "fra1")
	cfg.RootCAs = newAuthority(t).pool
	if fo, err := Dial(bounded(t), DialConfig{ID: "fra1", Addr: f.Addr().String(), TLS: cfg}); err == nil {
		fo.Close()
		t.Fatal("followed a server of another CA")
	}
}

// The door says nothing to a client that has not proved who it is.
func TestDoorIsSilentBeforeTLS(t *testing.T) {
	f := newFleet(t)
	c, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("CONNECT {\"user\":\"" + insideUser + "\"}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	n, _ := c.Read(b)
	if s := string(b[:n]); strings.Contains(s, "INFO") || strings.Contains(s, "PONG") {
		t.Fatalf("the door answered %q in the clear", s)
	}
}

func TestCheckID(t *testing.T) {
	for _, ok := range []string{"a", "fra1", "dns-1", strings.Repeat("a", MaxIDBytes)} {
		if err := CheckID(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "a.b", "*", ">", "A", "a b", "ü", "a\n", strings.Repeat("a", MaxIDBytes+1)} {
		if CheckID(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// What must stay on and off in the embedded server. A power loss without
// SyncAlways lost every acknowledged message; the doors that are off had
// crashes before authentication.
func TestEmbeddedServerIsSyncedAndHasOneDoor(t *testing.T) {
	f := newFleet(t)
	v, err := f.ns.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !v.JetStream.Config.SyncAlways {
		t.Error("acknowledgements are not synced")
	}
	if v.Websocket.Port != 0 || v.MQTT.Port != 0 || v.LeafNode.Port != 0 || v.Cluster.Port != 0 || v.Gateway.Port != 0 || v.HTTPPort != 0 || v.HTTPSPort != 0 {
		t.Errorf("another door is open: %+v", v)
	}
	if !v.TLSRequired || !v.TLSVerify {
		t.Error("the door takes connections without TLS or without a client certificate")
	}
}
