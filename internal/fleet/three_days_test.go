package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/edge"
	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/internal/memnet"
	follows "perigee.example/internal/node"
	"perigee.example/origin"
	"perigee.example/policy"
	"perigee.example/zones"
)

// gone is how a control node that is not there is met: the line is dead for a while,
// or the connection is refused.
func gone(ctx context.Context, _ feed.Position) (*feed.Follower, error) {
	select {
	case <-time.After(5 * time.Second):
		return nil, errors.New("no control node")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// threeDays is an edge and a DNS node over their folders.
type threeDays struct {
	t        *testing.T
	dir      string
	dial     func(ctx context.Context, from feed.Position) (*feed.Follower, error)
	fetch    follows.Fetch
	upstream *atomic.Int64 // what the origin was asked for

	edge     *edge.Edge
	releases *origin.Releases
	blobs    *origin.Blobs
	dns      *dnsserver.Server
	nodes    map[string]*follows.Node
	stop     func()
}

// start opens both as cmd/perigee does: the hooks hear what the journals hold, and
// then follow.
func (d *threeDays) start() {
	d.t.Helper()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	var err error
	d.blobs, err = origin.OpenBlobs(filepath.Join(d.dir, "edge", "blobs"))
	must(err)
	d.releases, err = origin.OpenReleases(filepath.Join(d.dir, "edge", "releases"), d.blobs)
	must(err)
	d.edge, err = edge.New(edge.Config{Name: "fra1", Releases: d.releases, Blobs: d.blobs, MemoryBytes: 16 << 20, Sites: []edge.Site{
		{Name: "www", Hosts: []string{pushed}, Push: true},
		{Name: "shop", Hosts: []string{pulled[0]}, Origin: roundTrip(func(r *http.Request) (*http.Response, error) {
			d.upstream.Add(1)
			body := bodyOf(r.Host+r.URL.Path, 1)
			return &http.Response{StatusCode: 200, Header: http.Header{"Cache-Control": {"max-age=345600"}, "Etag": {`"1"`}}, // four days
				Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}, nil
		})},
	}})
	must(err)
	set, err := policy.Compile(policy.Config{
		Endpoints: []policy.Endpoint{{Name: "fra1"}, {Name: "iad1"}},
		Policies:  []policy.Policy{{Name: "home", Kind: policy.Failover, TTL: 30 * time.Second, Choices: []policy.Choice{{To: "fra1"}, {To: "iad1"}}}},
	}, []string{"home"}, nil)
	must(err)
	z, findings := zones.Parse("x", []byte("@ 300 IN SOA ns1 h 1 2 3 4 5\n@ 300 IN NS ns1\nns1 300 IN A 192.0.2.53\nwww 300 IN A 192.0.2.1\n"), zones.Options{Origin: zone})
	if z == nil {
		d.t.Fatal(findings)
	}
	view, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{z}, Policies: set, Steer: []dnsserver.Binding{{Zone: zone + ".", Name: pushed + ".", Policy: "home"}},
		Endpoints: []dnsserver.Endpoint{{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, {Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}}})
	must(err)
	d.dns = dnsserver.NewServer(dnsserver.ServerConfig{})
	d.dns.SetView(view)

	var drains atomic.Pointer[follows.Drains]
	var lost atomic.Bool
	drains.Store(&follows.Drains{})
	set2state := func() {
		st := set.NewState()
		st.Stale = lost.Load()
		for i := range st.Endpoints {
			st.Endpoints[i].Draining = drains.Load().Drained[set.Endpoint(i).Name]
		}
		d.dns.SetState(st)
	}
	d.nodes = map[string]*follows.Node{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for name, c := range map[string]follows.Config{
		"fra1": {Role: "edge", Releases: d.releases, Blobs: d.blobs, Hooks: follows.Hooks{
			Purge: func(at feed.Position, p control.Purge) {
				must(d.edge.Purge(edge.Purge{Seq: at.Seq, Log: at.Chain, Site: p.Site, URL: p.URL, All: p.All}))
			},
			Applied: func(at feed.Position) { d.edge.SetApplied(at.Seq, at.Chain) },
			Behind:  d.edge.SetBehind, Revalidate: func(why string) { d.t.Errorf("revalidates: %s", why) },
		}},
		"dns1": {Role: "dns", Hooks: follows.Hooks{
			Drains: func(now follows.Drains) { drains.Store(&now); set2state() },
			Lost:   func(since time.Time) { lost.Store(!since.IsZero()); set2state() },
		}},
	} {
		c.Dir, c.Fetch = filepath.Join(d.dir, c.Role), d.fetch
		c.Dial = func(ctx context.Context, from feed.Position) (*feed.Follower, error) { return d.dial(ctx, from) }
		if strings.HasPrefix(name, "dns") {
			follow := d.dial
			c.Dial = func(ctx context.Context, from feed.Position) (*feed.Follower, error) {
				return follow(context.WithValue(ctx, asNode{}, "dns1"), from)
			}
		}
		n, err := follows.Open(c)
		must(err)
		if d.nodes[name] = n; c.Role == "dns" {
			c.Hooks.Lost(n.LostSince()) // until it has connected
		}
		go func() { done <- n.Run(ctx) }()
	}
	d.stop = func() {
		cancel()
		for range d.nodes {
			<-done
		}
		for _, n := range d.nodes {
			must(n.Close())
		}
		d.edge.Close()
		must(errors.Join(d.releases.Close(), d.blobs.Close(), d.dns.Shutdown(context.Background())))
	}
}

// asNode says who dials.
type asNode struct{}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// seen is all that clients get: of the push site, of the cache, and by DNS; stale is
// whether the DNS answer says that it is from what was last known (RFC 8914 §4.4).
func (d *threeDays) seen(n *memnet.Network) (text string, stale bool) {
	d.t.Helper()
	var b strings.Builder
	client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext, DisableKeepAlives: true}, Timeout: time.Minute}
	for _, url := range []string{pushed + "/", pushed + "/app.js", pulledURL(pulled[0], 0), pulledURL(pulled[0], 1)} {
		host, path, _ := strings.Cut(url, "/")
		q, err := http.NewRequest(http.MethodGet, "http://192.0.2.1/"+path, nil)
		if err != nil {
			d.t.Fatal(err)
		}
		q.Host = host
		resp, err := client.Do(q)
		if err != nil {
			d.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		version, wrong := readBody(url, body)
		fmt.Fprintf(&b, "%s %d %d %q %v %s %s\n", url, resp.StatusCode, version, wrong, err, resp.Header.Get("Cache-Control"), resp.Header.Get("Perigee-Release"))
	}
	m := d.ask(n)
	for _, rr := range m.Answer {
		fmt.Fprintln(&b, rr)
	}
	for _, o := range m.IsEdns0().Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode == dns.ExtendedErrorCodeStaleAnswer {
			stale = true
		}
	}
	return b.String(), stale
}

// ask asks the DNS node for the steered name.
func (d *threeDays) ask(n *memnet.Network) *dns.Msg {
	d.t.Helper()
	pc, err := n.ListenPacket("udp", "192.0.2.99:0")
	if err != nil {
		d.t.Fatal(err)
	}
	defer pc.Close()
	q := new(dns.Msg)
	q.SetQuestion(pushed+".", dns.TypeA)
	q.SetEdns0(1232, false)
	wire, err := q.Pack()
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := pc.WriteTo(wire, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.53:53"))); err != nil {
		d.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	got, _, err := pc.ReadFrom(buf)
	m := new(dns.Msg)
	if err == nil {
		err = m.Unpack(buf[:got])
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

// F19, F20: an edge and a DNS node hear of a push, a purge and a drain. Then the control
// node is gone for 72 hours: clients get what they got, nothing is fetched again, and the
// nodes say that the feed is lost and since when. Half way both are restarted.
func TestThreeDaysWithoutControl(t *testing.T) {
	d := &threeDays{t: t, dir: t.TempDir(), upstream: &atomic.Int64{}}
	d.hear()
	synctest.Test(t, func(t *testing.T) {
		d.t, d.dial, d.fetch = t, gone, nil
		n := memnet.New()
		open := func() (since time.Time) {
			d.start()
			since = time.Now()
			ln, err := n.Listen("tcp", "192.0.2.1:80")
			if err != nil {
				t.Fatal(err)
			}
			pc, err := n.ListenPacket("udp", "192.0.2.53:53")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: d.edge}
			go srv.Serve(ln)
			go d.dns.ServeUDP(pc)
			stop := d.stop
			d.stop = func() { srv.Close(); stop(); pc.Close() }
			synctest.Wait()
			return since
		}
		since := open()
		defer func() { d.stop() }()
		first, _ := d.seen(n)
		t.Logf("what clients get:\n%s", first)
		if !strings.Contains(first, pushed+"/ 200 2 ") || !strings.Contains(first, "192.0.2.2") || strings.Contains(first, "192.0.2.1\n") {
			t.Errorf("want release 2, and not fra1, which is drained")
		}
		asked := d.upstream.Load()
		for hour := 1; hour <= 72; hour++ {
			time.Sleep(time.Hour)
			if hour == 36 {
				d.stop()
				since = open()
				d.seen(n) // the memory is empty
				asked = d.upstream.Load()
			}
			now, stale := d.seen(n)
			if now != first {
				t.Fatalf("after %d hours clients get:\n%swant:\n%s", hour, now, first)
			}
			if !stale {
				t.Fatalf("after %d hours a DNS answer does not say that it is stale", hour)
			}
			if got := d.upstream.Load(); got != asked {
				t.Errorf("after %d hours the origin was asked %d times more", hour, got-asked)
			}
			for name, node := range d.nodes {
				if lost := node.LostSince(); !lost.Equal(since) {
					t.Fatalf("after %d hours %s says that the feed is lost since %v, want %v", hour, name, lost, since)
				}
			}
		}
	})
}

// hear has both nodes follow a real log for as long as it takes to read it.
func (d *threeDays) hear() {
	ctx, cancel := context.WithTimeout(d.t.Context(), readyWithin)
	defer cancel()
	srv, err := feed.OpenServer(ctx, feed.ServerConfig{Dir: filepath.Join(d.dir, "feed")})
	if err != nil {
		d.t.Fatal(err)
	}
	defer srv.Close()
	for _, name := range []string{"fra1", "dns1"} {
		if err := srv.AddNode(ctx, name); err != nil {
			d.t.Fatal(err)
		}
	}
	d.dial = func(ctx context.Context, from feed.Position) (*feed.Follower, error) {
		name, _ := ctx.Value(asNode{}).(string)
		if name == "" {
			name = "fra1"
		}
		return srv.Follow(ctx, name, from)
	}
	stored := map[origin.Digest][]byte{}
	d.fetch = func(_ context.Context, digest origin.Digest) (io.ReadCloser, int64, error) {
		b, ok := stored[digest]
		if !ok {
			return nil, 0, errors.New("no such blob")
		}
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
	for version := 1; version <= 2; version++ {
		m := &origin.Manifest{Version: origin.ManifestVersion, Files: map[string]origin.File{}}
		for name, class := range map[string]string{"index.html": origin.Document, "app.js": origin.Asset} {
			b := bodyOf(pushed+"/"+strings.TrimPrefix(name, "index.html"), version)
			digest := origin.DigestOf(b)
			stored[digest] = b
			m.Files[name] = origin.File{Digest: digest, Size: int64(len(b)), Type: "text/plain", Class: class}
		}
		b, id, err := m.Canonical()
		if err != nil {
			d.t.Fatal(err)
		}
		stored[id] = b
		if _, err := srv.Log().Append(ctx, control.KindActivate, control.Activate{Site: "www", Release: id}); err != nil {
			d.t.Fatal(err)
		}
	}
	var last feed.Entry
	for kind, body := range map[string]any{control.KindDrain: control.Drain{Edge: "fra1"}, control.KindPurge: control.Purge{Site: "shop", All: true}} {
		if last, err = srv.Log().Append(ctx, kind, body); err != nil {
			d.t.Fatal(err)
		}
	}
	d.start()
	for ; ctx.Err() == nil; time.Sleep(lookEvery) {
		if d.nodes["fra1"].Position() == last.Position() && d.nodes["dns1"].Position() == last.Position() && len(d.nodes["fra1"].Pending()) == 0 {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		d.t.Fatal(err)
	}
	d.stop()
}
