package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"perigee.example/internal/bucket"
	"perigee.example/origin"
)

// clusterPatience bounds what takes an election or two.
const clusterPatience = 90 * time.Second

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	t.Cleanup(cancel)
	return ctx
}

// trio is three control nodes with their doors open, and a client of each.
type trio struct {
	dirs    [3]string
	servers [3]*Server
	clients [3]*Client
	blobs   [3]net.Listener
	admins  [3]net.Listener
	config  func(i int) Config
}

func newTrio(t *testing.T) *trio { return newTrioOver(t, func(int) *bucket.Config { return nil }) }

// newTrioOver is a trio of which each has its blobs in a bucket, or in its folder (nil).
func newTrioOver(t *testing.T, b func(i int) *bucket.Config) *trio {
	t.Helper()
	f := &trio{}
	var doors [3]string
	for i := range 3 {
		ln := listen(t, "tcp", "127.0.0.1:0") // known before the first starts
		doors[i] = ln.Addr().String()
		ln.Close()
		f.blobs[i], f.admins[i] = listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
		f.dirs[i] = filepath.Join(t.TempDir(), fmt.Sprint("ctl", i+1))
	}
	f.config = func(i int) Config {
		c := Config{Dir: f.dirs[i], Known: known, FeedListen: "127.0.0.1:0", BlobAddress: f.blobs[i].Addr().String(), Bucket: b(i)}
		c.Cluster = &Cluster{Name: fmt.Sprint("ctl", i+1), Listen: doors[i], First: "ctl1"}
		for j := range 3 {
			if j != i {
				c.Cluster.Peers = append(c.Cluster.Peers, ClusterPeer{fmt.Sprint("ctl", j+1), doors[j], f.blobs[j].Addr().String()})
			}
		}
		return c
	}
	if _, err := Open(patient(t), f.config(1)); err == nil || !strings.Contains(err.Error(), "copy ca.pem, ca.key and tokens.json from the folder control of ctl1") {
		t.Fatalf("the second without keys: %v", err)
	}
	f.giveKeys(t)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			s, err := Open(patient(t), f.config(i))
			if err != nil {
				t.Errorf("ctl%d: %v", i+1, err)
				return
			}
			f.servers[i] = s
			t.Cleanup(s.Close)
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, s := range f.servers {
		go func() { _ = s.ServeAdmin(f.admins[i]) }() // ends with the server, or by the test's own hand
		go func() { _ = s.ServeBlobs(f.blobs[i]) }()
		var err error
		f.clients[i], err = NewClient(ClientConfig{Address: "https://" + f.admins[i].Addr().String(), TokenFile: filepath.Join(f.dirs[0], tokenName), CAFile: s.CAFile()})
		if err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// giveKeys makes the fleet's keys and gives them to all three.
func (f *trio) giveKeys(t *testing.T) {
	t.Helper()
	alone := t.TempDir()
	s, err := Open(bounded(t), Config{Dir: alone, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for i, dir := range f.dirs {
		names := []string{caCertName, caKeyName, tokensName}
		if i == 0 {
			names = append(names, tokenName)
		}
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(alone, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (f *trio) push(t *testing.T, i int, text string) (Pushed, error) {
	t.Helper()
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": text})
	return f.clients[i].Push(patient(t), PushOptions{Site: "www", Dir: dir, KeepInactive: true})
}

// Three control nodes take commands side by side. What depends on the state of
// things is given to one of them, and the other hears what came before it (F43);
// what does not is given to all.
func TestCommandsAtThreeControlNodes(t *testing.T) {
	f := newTrio(t)
	pushed, err := f.push(t, 0, "one")
	if err != nil {
		t.Fatal(err)
	}
	// Uploaded and sealed means synced at a second one: the files are there now.
	for _, d := range []origin.Digest{pushed.Release, origin.DigestOf([]byte("one"))} {
		copies := 0
		for _, s := range f.servers {
			if _, ok := s.blobs.Has(d); ok {
				copies++
			}
		}
		if copies < 2 {
			t.Errorf("blob %s is stored %d times", d, copies)
		}
	}
	for i := range 3 { // each knows the release a moment later
		for {
			list, err := f.clients[i].Releases(patient(t), "www")
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Releases) == 1 {
				break
			}
		}
	}
	var wg sync.WaitGroup
	var errs [3]error
	generation := uint64(0)
	for i := range 3 {
		wg.Go(func() {
			_, errs[i] = f.clients[i].Activate(patient(t), "www", "", pushed.Release, &generation)
		})
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			continue
		}
		if statusOf(err) != http.StatusConflict || !strings.Contains(err.Error(), "generation 2") {
			t.Errorf("ctl%d: %v; want 409 with the generation that is there now", i+1, err)
		}
	}
	if won != 1 {
		t.Errorf("%d of three activations that were conditional on the same generation were made", won)
	}

	f.channelsAtOnce(t, pushed.Release)
	var purges sync.WaitGroup
	for i := range 3 {
		for n := range 4 {
			purges.Go(func() {
				if _, err := f.clients[i].Purge(patient(t), urlPurge(10*i+n, 0), false); err != nil {
					t.Errorf("purge %d at ctl%d: %v", n, i+1, err)
				}
			})
		}
	}
	purges.Wait()
	stored := map[string]int{}
	if err := f.servers[1].feed.Log().Refresh(patient(t)); err != nil {
		t.Fatal(err)
	}
	for e, err := range f.servers[1].feed.Log().Entries(patient(t), 1) {
		if err != nil {
			t.Fatal(err)
		}
		command, err := DecodeCommand(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range PurgesOf(command) {
			stored[p.URL]++
		}
	}
	if len(stored) != 12 {
		t.Errorf("%d of 12 purges are on the log", len(stored))
	}
	for url, n := range stored {
		if n != 1 {
			t.Errorf("%s is there %d times", url, n)
		}
	}

	// A node that is added at one is known to the others, and one that is removed is out.
	if _, err := f.clients[0].NodeAdd(patient(t), "fra1", false); err != nil {
		t.Fatal(err)
	}
	f.everywhere(t, "fra1 added", func(s *Server) bool { return s.nodes.has("fra1") })
	if _, err := f.clients[2].NodeRemove(patient(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	f.everywhere(t, "fra1 removed", func(s *Server) bool { return !s.nodes.has("fra1") })
	f.unknownEntry(t)
	f.blobDoor(t)
	f.noCopy(t)
}

// channelsAtOnce: who asks another control node what is active, since the answer of
// the one that made it so was lost, is told of it.
func (f *trio) channelsAtOnce(t *testing.T, release origin.Digest) {
	t.Helper()
	for i := range 3 {
		channel := fmt.Sprintf("preview-%d", i)
		if _, err := f.clients[i].Activate(patient(t), "www", channel, release, nil); err != nil {
			t.Fatal(err)
		}
		list, err := f.clients[(i+1)%3].Channels(patient(t), "www")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(list.Channels, func(c ListChannel) bool { return c.Channel == channel && c.Release == release }) {
			t.Errorf("what ctl%d has made active is not known to the next one: %+v", i+1, list.Channels)
		}
	}
}

// unknownEntry: a control node that does not have an entry says that another may: it
// may have been cut off when the others wrote it.
func (f *trio) unknownEntry(t *testing.T) {
	t.Helper()
	_, err := f.clients[0].Receipts(patient(t), 1_000_000, 0)
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusNotFound || !e.Elsewhere {
		t.Errorf("receipts of an entry that there is not: %v; want 404, and that another may have it", err)
	}
}

func (f *trio) everywhere(t *testing.T, what string, ok func(*Server) bool) {
	t.Helper()
	for i, s := range f.servers {
		for end := time.Now().Add(clusterPatience); !ok(s); {
			if time.Now().After(end) {
				t.Fatalf("%s: not at ctl%d", what, i+1)
			}
			if _, err := f.clients[i].Status(patient(t)); err != nil { // passes the time by asking
				t.Fatal(err)
			}
		}
	}
}

// blobDoor: what control nodes may ask of each other, a node may not.
func (f *trio) blobDoor(t *testing.T) {
	t.Helper()
	added, err := f.clients[0].NodeAdd(patient(t), "iad1", false)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ParseCredentials([]byte(added.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("of no release")
	d := origin.DigestOf(text)
	door := "https://" + f.blobs[0].Addr().String()
	node := &http.Client{Transport: &http.Transport{TLSClientConfig: cred.TLS()}}
	peer := &http.Client{Transport: &http.Transport{TLSClientConfig: f.servers[1].ca.peerTLS()}}
	do := func(c *http.Client, method, path string, body []byte) int {
		t.Helper()
		req, err := http.NewRequestWithContext(patient(t), method, door+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	path := "/v1/blobs/" + d.String()
	for _, c := range []struct {
		who          *http.Client
		method, path string
		body         []byte
		want         int
	}{
		{node, "PUT", path, text, 405},
		{node, "POST", "/v1/missing", []byte("[]"), 405},
		{peer, "PUT", path, []byte("of no rel3ase"), 422},
		{peer, "GET", path, nil, 404},
		{peer, "PUT", path, text, 200},
		{peer, "GET", path, nil, 200},
		{node, "GET", path, nil, 404}, // it is of no sealed release
		{peer, "POST", "/v1/missing", []byte(`[{"digest":"` + d.String() + `","size":13}]`), 200},
		{peer, "POST", "/v1/missing", []byte(`{}`), 400},
		{peer, "DELETE", path, nil, 405},
		{peer, "PUT", "/v1/blobs/sha256-00", text, 404},
		{peer, "POST", "/v1/drain", []byte(`{}`), 404},
	} {
		if got := do(c.who, c.method, c.path, c.body); got != c.want {
			who := "a node"
			if c.who == peer {
				who = "a control node"
			}
			t.Errorf("%s of %s by %s: %d, want %d", c.method, c.path, who, got, c.want)
		}
	}
}

// noCopy: with the other blob doors shut nothing counts as uploaded, though two
// control nodes still hold the log together.
func (f *trio) noCopy(t *testing.T) {
	t.Helper()
	for _, i := range []int{1, 2} {
		f.blobs[i].Close()
	}
	f.servers[0].peers.http.CloseIdleConnections()
	_, err := f.push(t, 0, "never stored twice")
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || !e.Elsewhere || !strings.Contains(e.Message, "no other control node takes a copy") {
		t.Errorf("push without a second copy: %v", err)
	}
	if list, err := f.clients[0].Releases(patient(t), "www"); err != nil || len(list.Releases) != 1 {
		t.Errorf("%d releases are sealed, %v", len(list.Releases), err)
	}
}
