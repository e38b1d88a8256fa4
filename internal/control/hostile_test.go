package control

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"perigee.example/feed"
)

// TestDoorsOutliveRandomBytes: a million random octets at each door, in the clear, as
// TLS, and inside of a node's own session: nothing is let in, and all doors go on.
func TestDoorsOutliveRandomBytes(t *testing.T) {
	f := newFleet(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	added, err := f.client.NodeAdd(bounded(t), "fra1", false)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ParseCredentials([]byte(added.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	head := f.head()
	for name, addr := range map[string]string{"admin": f.admin, "blobs": f.blobs, "feed": f.FeedAddr().String()} {
		for _, way := range []string{"in the clear", "as TLS", "as a node"} {
			for sent := 0; sent < 1_000_000; {
				b := make([]byte, 1+random.IntN(64<<10))
				for i := range b {
					b[i] = byte(random.Uint32())
				}
				if way == "as TLS" { // a record of a handshake, by its head
					copy(b, []byte{22, 3, 1, byte(len(b) >> 8), byte(len(b)), 1})
				}
				sent += throw(t, addr, b, way == "as a node", cred.TLS())
			}
			if _, err := f.client.Status(bounded(t)); err != nil {
				t.Fatalf("after octets %s at the door %s: %v", way, name, err)
			}
		}
	}
	if f.head() != head {
		t.Errorf("the log has %d entries, %d before", f.head(), head)
	}
	node, err := feed.Dial(bounded(t), feed.DialConfig{ID: "fra1", Addr: cred.Feed, TLS: cred.TLS()})
	if err != nil {
		t.Fatalf("the feed's door: %v", err)
	}
	node.Close()
}

// throw sends b to a door and reads until it is shut; it returns how much it counts for.
func throw(t *testing.T, addr string, b []byte, inside bool, config *tls.Config) int {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if inside {
		config = config.Clone()
		config.ServerName = feed.ServerName
		s := tls.Client(c, config)
		if err := s.Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(b) // it may be shut meanwhile
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
		return len(b)
	}
	_, _ = c.Write(b)
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	return len(b)
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestSecretsAreShownNowhere: what a token or a node's key is stands in no log, at the
// finest level, in no answer that lists or reports, and in no file of the control node
// but the one that is for it.
func TestSecretsAreShownNowhere(t *testing.T) {
	f := newFleet(t)
	f.Close()
	var log syncBuffer
	dir := t.TempDir()
	srv, err := Open(bounded(t), Config{Dir: dir, Known: known, FeedListen: "127.0.0.1:0", BlobAddress: f.blobs,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	ln := listen(t, "tcp", "127.0.0.1:0")
	go func() { _ = srv.ServeAdmin(ln) }() // ends with the server
	c, err := NewClient(ClientConfig{Address: "https://" + ln.Addr().String(), TokenFile: srv.TokenFile(), CAFile: srv.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	secrets := secretsOf(t, srv, c)
	if _, err := c.Purge(bounded(t), Purge{URL: "http://a.test/"}, false); err != nil {
		t.Fatal(err)
	}
	var shown []any
	for _, read := range []func() (any, error){
		func() (any, error) { return c.Status(bounded(t)) }, func() (any, error) { return c.Tokens(bounded(t)) },
		func() (any, error) { return c.Audit(bounded(t), 100) }, func() (any, error) { return c.Receipts(bounded(t), 1, 0) },
	} {
		v, err := read()
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, v)
	}
	answers, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "level=") || !strings.Contains(string(answers), "POST /v1/tokens") {
		t.Fatalf("log %d octets, answers %d: there is nothing to look at", len(log.String()), len(answers))
	}
	for name, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %s", name)
		}
		if bytes.Contains(answers, []byte(secret)) {
			t.Errorf("an answer has %s", name)
		}
		found := filesWith(t, dir, secret)
		if own := map[string]string{"the administrator's token": tokenName, "the CA's key": caKeyName}[name]; own == "" && found != nil || own != "" && (len(found) != 1 || filepath.Base(found[0]) != own) {
			t.Errorf("%s is in %v", name, found)
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (info.Name() == tokenName || info.Name() == caKeyName) && info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// secretsOf makes a token and a node, tries a token that is none, and returns what must be shown nowhere.
func secretsOf(t *testing.T, srv *Server, c *Client) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	b, err := os.ReadFile(srv.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	secrets["the administrator's token"] = strings.TrimSpace(string(b))
	made, err := c.TokenAdd(bounded(t), TokenRequest{Name: "ci", Can: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	secrets["the token ci"] = made.Secret
	added, err := c.NodeAdd(bounded(t), "fra1", false)
	if err != nil {
		t.Fatal(err)
	}
	secrets["the key of fra1"] = keyLine(t, []byte(added.Credentials))
	if b, err = os.ReadFile(filepath.Join(srv.c.Dir, caKeyName)); err != nil {
		t.Fatal(err)
	}
	secrets["the CA's key"] = keyLine(t, b)
	wrong := filepath.Join(t.TempDir(), "wrong")
	secrets["a token that is none"] = "perigee_ALMOSTONEBUTNOTQUITE"
	if err := os.WriteFile(wrong, []byte(secrets["a token that is none"]), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := NewClient(ClientConfig{Address: c.base, TokenFile: wrong, CAFile: srv.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.Status(bounded(t))
	wantStatus(t, err, 401, "valid token")
	return secrets
}

// keyLine is a line of the private key in a PEM file.
func keyLine(t *testing.T, file []byte) string {
	t.Helper()
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return strings.Split(string(pem.EncodeToMemory(block)), "\n")[1]
		}
	}
	t.Fatal("no private key")
	return ""
}
