package control

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"perigee.example/origin"
)

// relay passes connections on to a control node, until so many bytes have gone to
// it; then it does what the test says to all of them.
type relay struct {
	net.Listener
	to    string
	left  atomic.Int64
	fail  chan struct{} // closed when the bytes are used up
	once  sync.Once
	reset bool // connections are closed; else they stand still, and new ones too
}

func newRelay(t *testing.T, to string, bytes int64, reset bool) *relay {
	r := &relay{Listener: listen(t, "tcp", "127.0.0.1:0"), to: to, fail: make(chan struct{}), reset: reset}
	r.left.Store(bytes)
	t.Cleanup(func() { r.Close() })
	go func() {
		for {
			c, err := r.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go r.pass(c)
		}
	}()
	return r
}

func (r *relay) pass(c net.Conn) {
	s, err := net.Dial("tcp", r.to)
	if err != nil {
		c.Close()
		return
	}
	go func() { // answers, as long as all is well
		b := make([]byte, 16<<10)
		for {
			n, err := s.Read(b)
			if r.over() || err != nil {
				break
			}
			if _, err := c.Write(b[:n]); err != nil {
				break
			}
		}
	}()
	b := make([]byte, 16<<10)
	for {
		n, err := c.Read(b)
		if r.left.Add(-int64(n)) < 0 {
			r.once.Do(func() { close(r.fail) })
		}
		if r.over() || err != nil {
			break
		}
		if _, err := s.Write(b[:n]); err != nil {
			break
		}
	}
	s.Close()
	if r.reset {
		c.Close()
	}
}

func (r *relay) over() bool {
	select {
	case <-r.fail:
		return true
	default:
		return false
	}
}

// TestPushOutlivesItsControlNode: the control node that a push talks to is cut off
// without a word, or dies, while files are on their way. The push goes to the next
// one, which has nothing of it, sends again what that one lacks, and ends well.
func TestPushOutlivesItsControlNode(t *testing.T) {
	a := newFleet(t)
	b := &fleet{dir: t.TempDir()}
	for _, name := range []string{caCertName, caKeyName, tokensName, tokenName} {
		text, err := os.ReadFile(filepath.Join(a.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(b.dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.start(t)
	for _, c := range []struct {
		name  string
		after int64 // bytes to the first control node, of some 900,000
		reset bool
	}{{"cut off in the middle", 400_000, false}, {"dead in the middle", 400_000, true}, {"cut off at the manifest", 3000, false}} {
		dir := t.TempDir()
		files := map[string]string{}
		for i := range 8 {
			files[fmt.Sprint(i, ".bin")] = c.name + string(bytes.Repeat([]byte{byte(i), 0xff, 0, byte(i * 7)}, 25_000))
		}
		writeSite(t, dir, files)
		first := newRelay(t, a.admin, c.after, c.reset)
		client, err := NewClient(ClientConfig{Address: "https://" + first.Addr().String() + ",https://" + b.admin, TokenFile: a.TokenFile(), CAFile: a.CAFile()})
		if err != nil {
			t.Fatal(err)
		}
		client.stall = 2 * time.Second
		out, err := client.Push(bounded(t), PushOptions{Site: "www", Dir: dir})
		if err != nil || !first.over() {
			t.Errorf("%s: %v; the first was lost: %v", c.name, err, first.over())
			continue
		}
		m, err := b.manifest(out.Release)
		if err != nil || len(m.Files) != len(files) || out.Seq != b.head() {
			t.Errorf("%s: %+v, %v", c.name, out, err)
		}
		b.mu.Lock()
		active := b.state.Sites["www"].Active
		b.mu.Unlock()
		if active != out.Release {
			t.Errorf("%s: active is %s", c.name, active)
		}
		checkWhole(t, b, out.Release)
	}
}

// TestActivationWithoutAnAnswer: the control node dies after it took the
// activation and before it said so. The push looks, and does not activate again.
func TestActivationWithoutAnAnswer(t *testing.T) {
	f := newFleet(t)
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "once"})
	if _, err := f.client.Push(bounded(t), PushOptions{Site: "www", Dir: dir, KeepInactive: true}); err != nil {
		t.Fatal(err)
	}
	// A door that takes one request to activate, passes it on, and hangs up.
	first := listen(t, "tcp", "127.0.0.1:0")
	activated := make(chan error, 1)
	go func() {
		c, err := first.Accept()
		if err == nil {
			io.ReadFull(c, make([]byte, 100)) // of the client's TLS: it is under way
			var list ReleaseList
			if list, err = f.client.Releases(bounded(t), "www"); err == nil {
				_, err = f.client.Activate(bounded(t), "www", "", list.Releases[0].Release, nil)
			}
			c.Close()
		}
		first.Close()
		activated <- err
	}()
	client, err := NewClient(ClientConfig{Address: "https://" + first.Addr().String() + ",https://" + f.admin, TokenFile: f.TokenFile(), CAFile: f.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	folder, err := origin.ManifestOf(bounded(t), dir, origin.FolderOptions{Progress: func(origin.FolderProgress) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	_, id, err := folder.Manifest.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	p := &pushing{c: client, o: PushOptions{Site: "www"}}
	out, err := p.activate(bounded(t), id)
	if err != nil || out.Seq != 2 || f.head() != 2 {
		t.Errorf("%+v, %v; the log ends at %d", out, err, f.head())
	}
	if err := <-activated; err != nil {
		t.Error(err)
	}
}
