package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// fleet is a control node with its real doors, and nodes that come in by them.
type fleet struct {
	t         *testing.T
	dir       string
	srv       *control.Server
	client    *control.Client
	feedAddr  string
	blobAddr  string
	blobBytes atomic.Int64 // sent by the blob door
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), feedAddr: "127.0.0.1:0", blobAddr: "127.0.0.1:0"}
	f.start()
	return f
}

// start opens the control node, the second time at the addresses of the first.
func (f *fleet) start() {
	f.t.Helper()
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	blobs, err := net.Listen("tcp", f.blobAddr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.blobAddr = blobs.Addr().String()
	f.srv, err = control.Open(bounded(f.t), control.Config{
		Dir: filepath.Join(f.dir, "control"), FeedListen: f.feedAddr, BlobAddress: f.blobAddr,
		Known: control.Known{
			Sites: []control.KnownSite{{Name: "www", Hosts: []string{"www.example.com"}, Push: true}},
			Edges: []string{"fra1", "iad1"},
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	srv := f.srv
	f.feedAddr = srv.FeedAddr().String()
	f.t.Cleanup(srv.Close)
	for _, serve := range []func() error{
		func() error { return srv.ServeAdmin(admin) }, func() error { return srv.ServeBlobs(countedListener{blobs, &f.blobBytes}) },
	} {
		go func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				f.t.Errorf("serve: %v", err)
			}
		}()
	}
	f.client, err = control.NewClient(control.ClientConfig{Address: "https://" + admin.Addr().String(), TokenFile: srv.TokenFile(), CAFile: srv.CAFile()})
	if err != nil {
		f.t.Fatal(err)
	}
}

type countedListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countedConn{c, l.n}, nil
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// member is one node of the fleet.
type member struct {
	cred     *control.Credentials
	node     *Node
	releases *origin.Releases
	purges   chan uint64
	stop     func()
}

func (f *fleet) add(name string) *control.Credentials {
	f.t.Helper()
	added, err := f.client.NodeAdd(bounded(f.t), name, false)
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.dir, name+".pem")
	if err := os.WriteFile(path, []byte(added.Credentials), 0o600); err != nil {
		f.t.Fatal(err)
	}
	cred, err := control.LoadCredentials(path)
	if err != nil {
		f.t.Fatal(err)
	}
	return cred
}

// run starts a node over its folder.
func (f *fleet) run(cred *control.Credentials) *member {
	f.t.Helper()
	m := &member{cred: cred, purges: make(chan uint64, 1000)}
	dir := filepath.Join(f.dir, cred.Name)
	blobs, err := origin.OpenBlobs(filepath.Join(dir, "blobs"))
	if err != nil {
		f.t.Fatal(err)
	}
	if m.releases, err = origin.OpenReleases(filepath.Join(dir, "releases"), blobs); err != nil {
		f.t.Fatal(err)
	}
	m.node, err = Open(Config{
		Dir: dir, Credentials: cred, Role: "edge", Releases: m.releases, Blobs: blobs,
		Hooks:  Hooks{Purge: func(at feed.Position, _ control.Purge) { m.purges <- at.Seq }},
		Report: func() control.NodeReport { return control.NodeReport{Config: "cafe"} },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.node.Run(ctx) // ends with ctx
	}()
	m.stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			f.t.Error("Run did not end")
		}
		if err := errors.Join(m.node.Close(), m.releases.Close(), blobs.Close()); err != nil {
			f.t.Error(err)
		}
		m.stop = func() {}
	}
	f.t.Cleanup(func() { m.stop() })
	return m
}

// everywhere waits until all nodes have applied an entry.
func (f *fleet) everywhere(seq uint64, nodes int) control.Receipts {
	f.t.Helper()
	r, err := f.client.Receipts(bounded(f.t), seq, patience)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(r.Waiting) != 0 || len(r.Applied) != nodes || r.Nodes != nodes {
		f.t.Fatalf("receipts of %d: %+v, want %d nodes", seq, r, nodes)
	}
	return r
}

func (f *fleet) push(files map[string]string) control.Pushed {
	f.t.Helper()
	dir := f.t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	p, err := f.client.Push(bounded(f.t), control.PushOptions{Site: "www", Dir: dir})
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (m *member) active(t *testing.T) origin.Digest {
	t.Helper()
	s := m.releases.Site("www")
	if s == nil {
		t.Fatalf("%s has no release", m.cred.Name)
	}
	return s.Active
}

// Two edges by mTLS: push, push of one changed file, purge, absence, rollback.
func TestFleetTakesReleasesAndPurges(t *testing.T) {
	f := newFleet(t)
	fra, iad := f.run(f.add("fra1")), f.run(f.add("iad1"))
	big := strings.Repeat("x", 300_000)
	one := f.push(map[string]string{"index.html": "one", "big.bin": big})
	r := f.everywhere(one.Seq, 2)
	for _, a := range r.Applied {
		if a.MS < 0 || a.MS > patience.Milliseconds() {
			t.Fatalf("receipt without a time: %+v", a)
		}
	}
	if fra.active(t) != one.Release || iad.active(t) != one.Release {
		t.Fatalf("active: %s and %s, want %s", fra.active(t), iad.active(t), one.Release)
	}
	if n := f.blobBytes.Load(); n < 2*300_000 {
		t.Fatalf("the blob door sent %d bytes for two edges", n)
	}

	// iad1 is away: fra1's receipt comes, iad1's does not; the unchanged file travels no more.
	iad.stop()
	before := f.blobBytes.Load()
	two := f.push(map[string]string{"index.html": "two", "big.bin": big})
	if two.Sent != 1 {
		t.Fatalf("%d blobs were uploaded, want 1", two.Sent)
	}
	purge, err := f.client.Purge(bounded(t), control.Purge{Site: "www", All: true}, false)
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := f.client.Receipts(bounded(t), purge.Seq, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Applied) == 1 && r.Applied[0].Node == "fra1" && len(r.Waiting) == 1 && r.Waiting[0].Node == "iad1" {
			break
		}
	}
	if n := f.blobBytes.Load() - before; n > 100_000 {
		t.Fatalf("the blob door sent %d bytes for one small file", n)
	}
	if iad.active(t) != one.Release {
		t.Fatal("the absent edge changed its release")
	}

	// Back: it catches up, purge and release.
	iad = f.run(iad.cred)
	f.everywhere(purge.Seq, 2)
	f.everywhere(two.Seq, 2)
	if iad.active(t) != two.Release {
		t.Fatalf("iad1 came back with %s, want %s", iad.active(t), two.Release)
	}
	if got := <-iad.purges; got != purge.Seq {
		t.Fatalf("iad1 applied purge %d, want %d", got, purge.Seq)
	}
	_, back, err := f.client.Rollback(bounded(t), "www", "")
	if err != nil {
		t.Fatal(err)
	}
	f.everywhere(back.Seq, 2)
	if fra.active(t) != one.Release || iad.active(t) != one.Release {
		t.Fatal("the rollback did not reach both")
	}
	st, err := f.client.Status(bounded(t))
	if err != nil || len(st.Nodes) != 2 || st.Nodes[0].Silent || st.Nodes[0].Lag != 0 || st.Nodes[0].Report.Role != "edge" || st.Nodes[0].Report.Config != "cafe" {
		t.Fatalf("status %+v, %v", st, err)
	}
}

// The control node goes away and comes back: nothing is lost, nothing changes meanwhile.
func TestFleetOutlivesItsControlNode(t *testing.T) {
	f := newFleet(t)
	fra := f.run(f.add("fra1"))
	one := f.push(map[string]string{"index.html": "one"})
	f.everywhere(one.Seq, 1)
	f.srv.Close()
	fra.stop()
	fra = f.run(fra.cred) // restarted with control gone
	if fra.active(t) != one.Release {
		t.Fatalf("active without control: %s, want %s", fra.active(t), one.Release)
	}
	f.start()
	two := f.push(map[string]string{"index.html": "two"})
	f.everywhere(two.Seq, 1)
	if fra.active(t) != two.Release {
		t.Fatalf("active %s, want %s", fra.active(t), two.Release)
	}
}

// A removed node is out at both doors within 5 s, and adding the name again
// lets its old credentials in no more.
func TestRemovedNodeIsOutAtBothDoors(t *testing.T) {
	f := newFleet(t)
	old := f.add("fra1")
	m := f.run(old)
	one := f.push(map[string]string{"index.html": "one"})
	f.everywhere(one.Seq, 1)
	fetch := HTTPFetch(old)
	get := func() error {
		body, _, err := fetch(bounded(t), one.Release)
		if err == nil {
			body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.NodeRemove(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	if err := get(); err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("the blob door still answers: %v", err)
	}
	end := time.Now().Add(5 * time.Second)
	for m.node.LostSince().IsZero() {
		if time.Now().After(end) {
			t.Fatal("the feed is still there")
		}
		if _, err := f.client.Status(bounded(t)); err != nil { // passes the time by asking, not by sleeping
			t.Fatal(err)
		}
	}
	fresh := f.add("fra1")
	if err := get(); err == nil {
		t.Fatal("old credentials open the blob door again")
	}
	if fo, err := feed.Dial(bounded(t), feed.DialConfig{ID: "fra1", Addr: old.Feed, TLS: old.TLS()}); err == nil {
		fo.Close()
		t.Fatal("old credentials open the feed again")
	}
	m.stop()
	f.run(fresh)
	f.everywhere(one.Seq, 1)
}

// The blob door: nothing but blobs of sealed releases, for nodes, by GET.
func TestBlobDoorGivesOnlySealedReleases(t *testing.T) {
	f := newFleet(t)
	cred := f.add("fra1")
	one := f.push(map[string]string{"index.html": "one"})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cred.TLS()}}
	do := func(method, path, rng string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(bounded(t), method, "https://"+f.blobAddr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rng != "" {
			req.Header.Set("Range", rng)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 1000)
		n, _ := resp.Body.Read(b)
		return resp.StatusCode, string(b[:n])
	}
	page := origin.DigestOf([]byte("one")).String()
	if code, body := do("GET", "/v1/blobs/"+page, ""); code != 200 || body != "one" {
		t.Fatalf("%d %q", code, body)
	}
	if code, body := do("GET", "/v1/blobs/"+page, "bytes=1-"); code != 206 || body != "ne" {
		t.Fatalf("range: %d %q", code, body)
	}
	other := origin.DigestOf([]byte("other")).String()
	for path, want := range map[string]int{
		"/v1/blobs/" + other: 404, "/v1/blobs/": 404, "/v1/blobs/../status": 404, "/v1/status": 404, "/v1/drain": 404,
		"/v1/blobs/" + strings.ToUpper(page): 404, "/v1/blobs/" + one.Release.String() + "/": 404,
	} {
		if code, body := do("GET", path, ""); code != want {
			t.Errorf("%s: %d %q, want %d", path, code, body, want)
		}
	}
	if code, _ := do("PUT", "/v1/blobs/"+page, ""); code != 405 {
		t.Errorf("PUT: %d", code)
	}
	bare := cred.TLS()
	bare.Certificates = nil
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: bare}}
	if resp, err := stranger.Get("https://" + f.blobAddr + "/v1/blobs/" + page); err == nil {
		resp.Body.Close()
		t.Fatalf("without a certificate: %s", resp.Status)
	}
}

// A blob that rotted at control is fetched by no edge as good.
func TestRottenBlobIsNotTaken(t *testing.T) {
	f := newFleet(t)
	fra := f.run(f.add("fra1"))
	one := f.push(map[string]string{"index.html": "one"})
	f.everywhere(one.Seq, 1)
	fra.stop()
	two := f.push(map[string]string{"index.html": "two"})
	var rotten int
	err := filepath.WalkDir(filepath.Join(f.dir, "control", "blobs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && string(b) == "two" {
			rotten++
			if err := os.Chmod(path, 0o600); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("tvo"), 0o600)
		}
		return err
	})
	if err != nil || rotten != 1 {
		t.Fatalf("%d blobs made rotten, %v", rotten, err)
	}
	fra = f.run(fra.cred)
	for {
		r, err := f.client.Receipts(bounded(t), two.Seq, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Applied) != 0 {
			t.Fatalf("applied: %+v", r)
		}
		if strings.Contains(fmt.Sprint(r.Waiting), "sha256-") {
			break // it says which blob is wrong
		}
	}
	if fra.active(t) != one.Release {
		t.Fatal("the old release does not serve")
	}
}
