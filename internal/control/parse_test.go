package control

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// newCredentials makes a node's file with a CA of its own.
func newCredentials(t testing.TB, name string) (*Credentials, []byte) {
	t.Helper()
	ca, err := openCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return credentialsOf(t, ca, name)
}

func credentialsOf(t testing.TB, ca *ca, name string) (*Credentials, []byte) {
	t.Helper()
	der, key, err := ca.issueNode(name)
	if err != nil {
		t.Fatal(err)
	}
	c := &Credentials{Name: name, Feed: "192.0.2.1:7441", Blobs: "[2001:db8::1]:7442", Control: []string{"https://ctl.example.net:7440"}, Key: key, CA: ca.cert}
	if c.Cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

func TestCredentialsReadBack(t *testing.T) {
	want, b := newCredentials(t, "fra1")
	path := filepath.Join(t.TempDir(), "node.pem")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadCredentials(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != want.Name || got.Feed != want.Feed || got.Blobs != want.Blobs || strings.Join(got.Control, " ") != strings.Join(want.Control, " ") || !got.Key.Equal(want.Key) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCredentials(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Fatalf("a key that others may read: %v", err)
	}
}

func TestCredentialsThatDoNotBelongTogetherAreRefused(t *testing.T) {
	ca, err := openCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, fra := credentialsOf(t, ca, "fra1")
	_, iad := credentialsOf(t, ca, "iad1")
	_, alien := newCredentials(t, "fra1")
	blocks := func(b []byte) (out [][]byte) {
		for len(b) > 0 {
			var p *pem.Block
			p, b = pem.Decode(b)
			out = append(out, pem.EncodeToMemory(p))
		}
		return out
	}
	f, i, a := blocks(fra), blocks(iad), blocks(alien)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	if _, err := ParseCredentials(join(f...)); err != nil {
		t.Fatalf("the blocks put together again: %v", err)
	}
	for name, b := range map[string][]byte{
		"empty":                    nil,
		"other's key":              join(f[0], f[1], i[2], f[3]),
		"other's certificate":      join(f[0], i[1], i[2], f[3]),
		"other's name":             join(i[0], f[1], f[2], f[3]),
		"other fleet's CA":         join(f[0], f[1], f[2], a[3]),
		"other fleet's node":       join(f[0], a[1], a[2], f[3]),
		"other fleet's sum":        join(a[0], f[1], f[2], f[3]),
		"CA first":                 join(f[0], f[3], f[2], f[1]),
		"part missing":             join(f[0], f[1], f[2]),
		"part twice":               join(f[0], f[1], f[2], f[3], f[3]),
		"text before":              append([]byte("hello\n"), fra...),
		"text after":               append(bytes.Clone(fra), "hello\n"...),
		"line missing":             bytes.Replace(fra, []byte("Feed: 192.0.2.1:7441\n"), nil, 1),
		"line unknown":             bytes.Replace(fra, []byte("Feed: "), []byte("Food: "), 1),
		"name with a dot":          bytes.Replace(fra, []byte("Name: fra1"), []byte("Name: fra.1"), 1),
		"feed without a port":      bytes.Replace(fra, []byte("192.0.2.1:7441"), []byte("192.0.2.1"), 1),
		"control without https":    bytes.Replace(fra, []byte("https://ctl"), []byte("http://ctl"), 1),
		"larger than any":          append(bytes.Clone(fra), make([]byte, maxCredentialBytes)...),
		"the CA's own as a node's": join(f[0], f[3], f[2], f[3]),
	} {
		if c, err := ParseCredentials(b); err == nil {
			t.Errorf("%s: taken as node %s", name, c.Name)
		}
	}
}

func TestCredentialsWarnBeforeTheyEnd(t *testing.T) {
	c, _ := newCredentials(t, "fra1")
	for _, x := range []struct {
		at   time.Time
		want string
	}{
		{c.Cert.NotBefore.Add(-time.Second), "clock"},
		{c.Cert.NotBefore, ""},
		{c.Cert.NotAfter.Add(-warnBefore), ""},
		{c.Cert.NotAfter.Add(-warnBefore + time.Second), "ends on"},
		{c.Cert.NotAfter.Add(time.Second), "ended on"},
	} {
		if got := c.Warning(x.at); (x.want == "") != (got == "") || !strings.Contains(got, x.want) {
			t.Errorf("at %s: %q, want %q", x.at, got, x.want)
		}
	}
	if got := (&Credentials{Name: "dns"}).Warning(time.Now()); got != "" {
		t.Errorf("credentials without a certificate, of a part beside control: %q", got)
	}
}

// The control node's certificate is renewed when a third of its life is left,
// and is for servers only.
func TestServerCertificateIsRenewed(t *testing.T) {
	now := time.Now()
	ca, err := openCA(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	ca.names = []string{"192.0.2.1", "ctl.example.net"}
	first, err := ca.serverCert(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Leaf.VerifyHostname("ctl.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := first.Leaf.VerifyHostname("192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(serverLife*2/3 - time.Minute)
	if again, _ := ca.serverCert(nil); again != first {
		t.Fatal("renewed too early")
	}
	now = now.Add(2 * time.Minute)
	next, err := ca.serverCert(nil)
	if err != nil || next == first || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Fatalf("not renewed: %v", err)
	}
	if _, _, err := feed.PeerID(&tls.ConnectionState{HandshakeComplete: true, VerifiedChains: [][]*x509.Certificate{{next.Leaf}}}); err == nil {
		t.Fatal("the control node's certificate counts as a node's")
	}
}

func TestNormalURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://a.test":                "http://a.test/",
		"HTTPS://A.test:443/B?C=%2f#d": "https://a.test/B?C=%2f",
		"http://a.test:443/":           "http://a.test:443/",
		"http://[2001:DB8::1]:80/x":    "http://[2001:db8::1]/x",
		"http://[2001:db8::1]:81/x":    "http://[2001:db8::1]:81/x",
		"http://a.test/?":              "http://a.test/?",
		"http://a.test/a%2Fb/c?ü":      "http://a.test/a%2Fb/c?%C3%BC",
		// What cannot stand there is encoded, and nothing else is written anew:
		// each of these is the key of what a browser asks for.
		"http://a.test/Zürich_(Stadt)!": "http://a.test/Z%C3%BCrich_(Stadt)!",
		"http://a.test/a%2Fb|%2c~\\[]":  "http://a.test/a%2Fb%7C%2c~%5C[]",
		"http://a.test?/#/?":            "http://a.test/?/",
		"http://a.test/a%2Fb/../c":      "", // no edge answers it
		"http://user@a.test/":           "",
		"//a.test/":                     "",
		"a.test/":                       "",
		"http:///x":                     "",
		"http://a.test/ b":              "",
		"http:a.test":                   "",
	} {
		got, _, err := NormalURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
		if again, _, err := NormalURL(got); want != "" && (again != got || err != nil) {
			t.Errorf("%s: its normal form %q becomes %q, %v", in, got, again, err)
		}
	}
}

func TestStateForgetsTheOldestReleaseThatIsNotActive(t *testing.T) {
	var st State
	apply := func(seq uint64, kind string, body any) {
		t.Helper()
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Apply(feed.Entry{Version: 1, Epoch: 1, Seq: seq, Kind: kind, Body: b}); err != nil {
			t.Fatal(err)
		}
	}
	id := func(i int) origin.Digest { return origin.DigestOf(fmt.Append(nil, i)) }
	apply(1, KindRelease, Release{Site: "www", Release: id(0)})
	apply(2, KindActivate, Activate{Site: "www", Release: id(0)})
	for i := 1; i <= maxReleases; i++ {
		apply(uint64(i+2), KindRelease, Release{Site: "www", Release: id(i)})
	}
	s := st.Sites["www"]
	if len(s.Releases) != maxReleases || s.find(id(0)) == nil || s.find(id(1)) != nil || s.find(id(2)) == nil || s.Generation != 2 {
		t.Fatalf("%d releases, active there: %v, oldest other there: %v", len(s.Releases), s.find(id(0)) != nil, s.find(id(1)) != nil)
	}
}

// A node that asks for its messages to be sent to another's report subject
// makes control see an entry there: it must not read as a report.
func TestEntryIsNoReport(t *testing.T) {
	b := []byte(`{"v":1,"epoch":1,"seq":1,"chain":"` + strings.Repeat("0", 64) + `","kind":"purge","at":0,"body":{}}`)
	if _, err := feed.Decode(b); err != nil {
		t.Fatal(err)
	}
	if w, err := parseWatermark(b); err == nil {
		t.Errorf("read as a watermark: %+v", w)
	}
	if r, err := parseNodeReport(b); err == nil {
		t.Errorf("read as a node report: %+v", r)
	}
}

func TestReceiptNeedsTheActivationItself(t *testing.T) {
	e := feed.Entry{Epoch: 1, Seq: 5}
	act := &Activate{Site: "www"}
	for _, c := range []struct {
		name string
		w    Watermark
		cmd  any
		want bool
	}{
		{"not read", Watermark{Position: feed.Position{Epoch: 1, Seq: 4}}, act, false},
		{"made", Watermark{Position: feed.Position{Epoch: 1, Seq: 5}}, act, true},
		{"waiting", Watermark{Position: feed.Position{Epoch: 1, Seq: 9}, Pending: []PendingRelease{{Site: "www", Since: 5, Seq: 5}}}, act, false},
		{"a later one waits in its place", Watermark{Position: feed.Position{Epoch: 1, Seq: 9}, Pending: []PendingRelease{{Site: "www", Since: 5, Seq: 8}}}, act, false},
		{"a later one waits by itself", Watermark{Position: feed.Position{Epoch: 1, Seq: 9}, Pending: []PendingRelease{{Site: "www", Since: 8, Seq: 8}}}, act, true},
		{"another site waits", Watermark{Position: feed.Position{Epoch: 1, Seq: 9}, Pending: []PendingRelease{{Site: "a", Since: 1, Seq: 1}}}, act, true},
		{"a purge does not wait", Watermark{Position: feed.Position{Epoch: 1, Seq: 9}, Pending: []PendingRelease{{Site: "www", Since: 1, Seq: 1}}}, &Purge{Site: "www"}, true},
		{"an older epoch", Watermark{Position: feed.Position{Epoch: 0, Seq: 9}}, act, false},
	} {
		if got := c.w.applied(e, c.cmd); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	_, b := newCredentials(f, "fra1")
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte("-----BEGIN PERIGEE NODE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCredentials(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("taken, and not written again: %v", err)
		}
		back, err := ParseCredentials(again)
		if err != nil || back.Name != c.Name || back.Feed != c.Feed || !back.Key.Equal(c.Key) {
			t.Fatalf("written again it reads as %+v, %v", back, err)
		}
	})
}

func FuzzCommand(f *testing.F) {
	for kind, body := range map[string]string{
		KindPurge: `{"site":"www","url":"http://a.test/"}`, KindDrain: `{"edge":"fra1"}`, KindForce: `{"edge":"fra1","force":"up"}`,
		KindActivate: `{"site":"www","release":"sha256-` + strings.Repeat("0", 63) + `1"}`, KindRelease: `{}`, feed.KindEpoch: `{"why":"x"}`,
	} {
		f.Add(kind, []byte(body))
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		e := feed.Entry{Version: 1, Epoch: 1, Seq: 7, Kind: kind, Body: body}
		c, err := DecodeCommand(e)
		var st State
		if applied := st.Apply(e); (applied == nil) != (err == nil) {
			t.Fatalf("decode says %v, the fold %v", err, applied)
		}
		if err != nil {
			return
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		e.Body = b
		if _, err := DecodeCommand(e); err != nil {
			t.Fatalf("%s written again: %v", b, err)
		}
	})
}

// FuzzAPIBody throws bodies at every call that takes JSON: the answer is JSON
// with a status below 500, and a refusal leaves nothing on the log.
func FuzzAPIBody(f *testing.F) {
	srv, err := Open(f.Context(), Config{Dir: f.TempDir(), Known: known})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(srv.Close)
	h := srv.LocalHandler()
	paths := []string{"/v1/purge", "/v1/drain", "/v1/undrain", "/v1/force", "/v1/nodes", "/v1/sites/www/activate", "/v1/sites/www/releases"}
	for i, body := range []string{`{"url":"http://a.test/"}`, `{"edge":"fra1"}`, `{"edge":"x"}`, `{"edge":"fra1","force":"up"}`, `{"name":"fra1"}`, `{"release":"sha256-0"}`, `{"version":1,"files":{}}`} {
		f.Add(uint8(i), []byte(body))
	}
	f.Add(uint8(0), []byte("{\"url\":\"http://a.test/\xff\"}"))
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		before := srv.feed.Log().Head()
		r := httptest.NewRequest(http.MethodPost, paths[int(which)%len(paths)], bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %q: %d %s", r.URL.Path, body, w.Code, w.Body)
		}
		if after := srv.feed.Log().Head(); w.Code != 200 && after != before {
			t.Fatalf("%s %q: refused with %d, and the log went from %d to %d", r.URL.Path, body, w.Code, before.Seq, after.Seq)
		}
	})
}
