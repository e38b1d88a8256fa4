package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/bucket"
	"perigee.example/origin"
)

// patience bounds every wait in these tests; it is only reached on failure.
const patience = time.Minute

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

var known = Known{
	Sites: []KnownSite{
		{Name: "www", Hosts: []string{"www.example.com", "*.www.example.com"}, Push: true, PreviewsBelow: "www.example.com"},
		{Name: "a", Hosts: []string{"a.test"}, Push: true},
		{Name: "shop", Hosts: []string{"shop.example.com"}},
	},
	Edges: []string{"fra1", "iad1"},
}

// fleet is a control node with all its doors open, and a client for each way in.
type fleet struct {
	*Server
	dir    string
	admin  string // host:port
	blobs  string
	client *Client // by TCP and token
	local  *Client // by socket
	bucket *bucket.Config
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{dir: t.TempDir()}
	f.start(t)
	return f
}

// start opens the control node over its folder, again if it was closed.
func (f *fleet) start(t *testing.T) {
	t.Helper()
	admin, blobs := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	f.admin, f.blobs = admin.Addr().String(), blobs.Addr().String()
	socket := filepath.Join(t.TempDir(), "s")
	local := listen(t, "unix", socket)
	var err error
	f.Server, err = Open(bounded(t), Config{
		Dir: f.dir, Known: known, FeedListen: "127.0.0.1:0", Addresses: []string{"https://ctl.example.net:7440"}, BlobAddress: f.blobs, byHand: true, Bucket: f.bucket,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := f.Server
	t.Cleanup(srv.Close)
	for _, serve := range []func() error{
		func() error { // ServeAdmin, with every answer held against openapi.json
			return srv.serve(tls.NewListener(admin, http1(srv.ca.tlsConfig())), described(t, srv.AdminHandler()))
		}, func() error { return srv.ServeBlobs(blobs) }, func() error { return srv.ServeLocal(local) },
	} {
		go func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("serve: %v", err)
			}
		}()
	}
	if f.client, err = NewClient(ClientConfig{Address: "https://" + f.admin, TokenFile: srv.TokenFile(), CAFile: srv.CAFile()}); err != nil {
		t.Fatal(err)
	}
	if f.local, err = NewClient(ClientConfig{Socket: socket}); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) restart(t *testing.T) {
	t.Helper()
	f.Close()
	f.start(t)
}

func (f *fleet) head() uint64 { return f.feed.Log().Head().Seq }

// status of an *Error, or 0.
func statusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

func wantStatus(t *testing.T, err error, status int, part string) {
	t.Helper()
	if statusOf(err) != status || !strings.Contains(err.Error(), part) {
		t.Fatalf("got %v (status %d), want status %d with %q", err, statusOf(err), status, part)
	}
}

func writeSite(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFirstStartMakesKeysThatOthersCannotRead(t *testing.T) {
	f := newFleet(t)
	if f.MadeToken != f.TokenFile() {
		t.Fatalf("MadeToken is %q", f.MadeToken)
	}
	secret, err := os.ReadFile(f.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "jetstream") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		b, err := os.ReadFile(path)
		if path != f.TokenFile() && strings.Contains(string(b), strings.TrimSpace(string(secret))) {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	if f.MadeToken != "" {
		t.Fatal("the second start made a token")
	}
	again, err := os.ReadFile(f.TokenFile())
	if err != nil || string(again) != string(secret) {
		t.Fatalf("the token changed: %v", err)
	}
}

func TestUnreadableSecretsRefuseToStart(t *testing.T) {
	for _, name := range []string{tokensName, nodesName, caKeyName, caCertName} {
		f := newFleet(t)
		if _, err := f.client.NodeAdd(bounded(t), "fra1", false); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte("rot"), 0o600); err != nil {
			t.Fatal(err)
		}
		srv, err := Open(bounded(t), Config{Dir: f.dir})
		if err == nil {
			srv.Close()
			t.Errorf("%s is rotten, and the control node started", name)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is rotten, and the error is %v", name, err)
		}
	}
}

// raw makes a request to the admin door as edit left it.
func (f *fleet) raw(t *testing.T, method, path, body string, edit func(*http.Request)) (int, string) {
	t.Helper()
	pem, err := os.ReadFile(f.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: feed.ServerName}, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(bounded(t), method, "https://"+f.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(f.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	req.Header.Set("Content-Type", "application/json")
	if edit != nil {
		edit(req)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Errorf("%s %s: answer %q is not JSON", method, path, b)
	}
	return resp.StatusCode, string(b)
}

// Nothing that lacks a right leaves a trace on the log.
func TestRefusedRequestsLeaveNothingOnTheLog(t *testing.T) {
	f := newFleet(t)
	const drain = `{"edge":"fra1"}`
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	for _, c := range []struct {
		name, method, path, body string
		edit                     func(*http.Request)
		want                     int
	}{
		{"no token", "POST", "/v1/drain", drain, func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		{"wrong token", "POST", "/v1/drain", drain, header("Authorization", "Bearer perigee_WRONG"), 401},
		{"empty token", "POST", "/v1/drain", drain, header("Authorization", "Bearer "), 401},
		{"basic", "POST", "/v1/drain", drain, header("Authorization", "Basic YWRtaW46"), 401},
		{"two tokens", "POST", "/v1/drain", drain, func(r *http.Request) { r.Header.Add("Authorization", "Bearer x") }, 401},
		{"no token, unknown path", "GET", "/v2", "", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		{"a page's request", "POST", "/v1/drain", drain, header("Origin", "http://evil.example"), 403},
		{"a page's null origin", "POST", "/v1/drain", drain, header("Origin", "null"), 403},
		{"a browser", "GET", "/v1/status", "", header("Sec-Fetch-Mode", "no-cors"), 403},
		{"rebound name", "POST", "/v1/drain", drain, func(r *http.Request) { r.Host = "evil.example" }, 403},
		{"form type", "POST", "/v1/drain", drain, header("Content-Type", "text/plain"), 415},
		{"no type", "POST", "/v1/drain", drain, func(r *http.Request) { r.Header.Del("Content-Type") }, 415},
		{"unknown field", "POST", "/v1/drain", `{"edge":"fra1","x":1}`, nil, 400},
		{"two values", "POST", "/v1/drain", drain + drain, nil, 400},
		{"empty body", "POST", "/v1/drain", "", nil, 400},
		{"too large", "POST", "/v1/drain", `{"edge":"` + strings.Repeat("x", maxJSONBytes) + `"}`, nil, 413},
		{"unknown edge", "POST", "/v1/drain", `{"edge":"fra9"}`, nil, 404},
		{"bad force", "POST", "/v1/force", `{"edge":"fra1","force":"sideways"}`, nil, 400},
		{"unknown call", "POST", "/v1/teleport", drain, nil, 404},
		{"wrong method", "GET", "/v1/drain", "", nil, 405},
		{"dot segments", "POST", "/v1/sites/a/../www/activate", "{}", nil, 400},
		{"encoded name", "POST", "/v1/sites/%77ww/activate", "{}", nil, 400},
		{"double slash", "POST", "/v1//drain", drain, nil, 400},
		{"unknown site", "POST", "/v1/sites/ab/releases", "{}", nil, 404},
		{"site without push", "POST", "/v1/sites/shop/releases", "{}", nil, 409},
		{"manifest that is none", "POST", "/v1/sites/www/releases", "{}", nil, 400},
		{"purge of nothing", "POST", "/v1/purge", `{}`, nil, 400},
		{"purge of two things", "POST", "/v1/purge", `{"site":"www","url":"http://www.example.com/","all":true}`, nil, 400},
		{"purge of another's host", "POST", "/v1/purge", `{"url":"http://aa.test/"}`, nil, 404},
		{"purge of a host's parent", "POST", "/v1/purge", `{"url":"http://test/"}`, nil, 404},
		{"purge two labels below a wildcard", "POST", "/v1/purge", `{"url":"http://x.y.www.example.com/"}`, nil, 404},
		{"purge under the wrong site", "POST", "/v1/purge", `{"site":"a","url":"http://www.example.com/"}`, nil, 409},
		{"purge of a NUL", "POST", "/v1/purge", `{"url":"http://a.test/\u0000"}`, nil, 400},
		{"purge of a long URL", "POST", "/v1/purge", `{"url":"http://a.test/` + strings.Repeat("x", maxURLBytes) + `"}`, nil, 400},
		{"purge by ftp", "POST", "/v1/purge", `{"url":"ftp://a.test/"}`, nil, 400},
		{"invalid UTF-8", "POST", "/v1/purge", "{\"url\":\"http://a.test/\xff\"}", nil, 400},
		{"bad node name", "POST", "/v1/nodes", `{"name":"*"}`, nil, 400},
		{"remove unknown node", "DELETE", "/v1/nodes/none", "", nil, 404},
		{"receipt of nothing", "GET", "/v1/receipts?seq=0", "", nil, 400},
		{"receipt of the future", "GET", "/v1/receipts?seq=9", "", nil, 404},
		{"endless wait", "GET", "/v1/receipts?seq=1&wait=9h", "", nil, 400},
		{"unknown parameter", "GET", "/v1/receipts?seq=1&x=1", "", nil, 400},
	} {
		if got, answer := f.raw(t, c.method, c.path, c.body, c.edit); got != c.want || !strings.Contains(answer, `"error":`) {
			t.Errorf("%s: %d %s, want %d with an error", c.name, got, answer, c.want)
		}
	}
	if f.head() != 0 {
		t.Fatalf("the log has %d entries", f.head())
	}
	if got, answer := f.raw(t, "POST", "/v1/drain", drain, nil); got != 200 || f.head() != 1 {
		t.Fatalf("the honest request: %d %s, head %d", got, answer, f.head())
	}
}

func TestErrorsNameWhatExists(t *testing.T) {
	f := newFleet(t)
	_, err := f.client.Drain(bounded(t), "fra9")
	wantStatus(t, err, 404, "edges: fra1, iad1")
	_, err = f.client.Purge(bounded(t), Purge{Site: "ww", All: true}, false)
	wantStatus(t, err, 404, "sites: www, a, shop")
	_, err = f.client.NodeRemove(bounded(t), "fra1")
	wantStatus(t, err, 404, "no nodes")
}

func TestSocketNeedsNoTokenAndTCPAlwaysDoes(t *testing.T) {
	f := newFleet(t)
	if _, err := f.local.Drain(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "none"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.token")
	if err := os.WriteFile(bad, []byte("perigee_guess\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(ClientConfig{Address: "https://" + f.admin, TokenFile: bad, CAFile: f.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Drain(bounded(t), "iad1")
	wantStatus(t, err, 401, "perigee login")
	if f.head() != 1 {
		t.Fatalf("head %d, want 1", f.head())
	}
}

func TestStateIsAFoldOfTheLog(t *testing.T) {
	f := newFleet(t)
	ctx := bounded(t)
	for _, step := range []func() (Appended, error){
		func() (Appended, error) { return f.client.Drain(ctx, "fra1") },
		func() (Appended, error) { return f.client.Drain(ctx, "iad1") },
		func() (Appended, error) { return f.client.Undrain(ctx, "fra1") },
		func() (Appended, error) { return f.client.Force(ctx, "fra1", "down") },
		func() (Appended, error) { return f.client.Force(ctx, "iad1", "up") },
		func() (Appended, error) { return f.client.Force(ctx, "iad1", "obey") },
	} {
		if _, err := step(); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		st, err := f.client.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Drained) != 1 || st.Drained[0] != "iad1" || len(st.Forced) != 1 || st.Forced["fra1"] != "down" || st.Head.Seq != 6 {
			t.Fatalf("drained %v, forced %v, head %d", st.Drained, st.Forced, st.Head.Seq)
		}
	}
	check()
	f.restart(t)
	check()
}

func TestPurgeAnswersItsSiteAndNormalURL(t *testing.T) {
	f := newFleet(t)
	for in, want := range map[string]string{
		"HTTP://WWW.Example.COM":                 "www http://www.example.com/",
		"https://x.www.example.com:443/A?b#c":    "www https://x.www.example.com/A?b",
		"http://shop.example.com:8080/%41?q=%2F": "shop http://shop.example.com:8080/%41?q=%2F",
	} {
		out, err := f.client.Purge(bounded(t), Purge{URL: in, Soft: true}, false)
		if err != nil || out.Site+" "+out.URL != want || out.Seq == 0 {
			t.Errorf("%s: %+v, %v; want %s", in, out, err, want)
		}
	}
}

func TestPushSendsOnlyWhatChanged(t *testing.T) {
	f := newFleet(t)
	ctx, dir := bounded(t), t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "<h1>one</h1>", "css/a.css": "body{}", "big.bin": strings.Repeat("0123456789", 100_000), "empty": ""})
	var stages []string
	var last Progress
	first, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, Progress: func(p Progress) {
		if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
			stages = append(stages, p.Stage)
		}
		if p.Stage == "upload" {
			last = p
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	const total = 12 + 6 + 1_000_000
	if first.Sent != 4 || first.SentBytes != total || first.Bytes != total || first.Generation == 0 || first.Generation != first.Seq {
		t.Fatalf("first push: %+v", first)
	}
	if strings.Join(stages, " ") != "hash missing upload seal activate" || last.Files != 4 || last.Bytes != total || last.From != total {
		t.Fatalf("progress: %v, last %+v", stages, last)
	}

	writeSite(t, dir, map[string]string{"index.html": "<h1>two</h1>"})
	dry, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, DryRun: true})
	if err != nil || len(dry.Missing) != 1 || dry.Seq != 0 || dry.Sent != 0 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	second, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil || second.Sent != 1 || second.SentBytes != 12 || second.Release == first.Release {
		t.Fatalf("second push: %+v, %v", second, err)
	}
	same, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil || same.Sent != 0 || same.Release != second.Release {
		t.Fatalf("third push: %+v, %v", same, err)
	}
	list, err := f.client.Releases(ctx, "www")
	if err != nil || len(list.Releases) != 2 || !list.Releases[0].Active || list.Releases[1].Active || list.Generation != same.Generation {
		t.Fatalf("releases: %+v, %v", list, err)
	}

	// After a restart all of it is still known, and a rollback needs nothing sent.
	f.restart(t)
	back, out, err := f.client.Rollback(ctx, "www", "")
	if err != nil || back != first.Release || out.Generation <= same.Generation {
		t.Fatalf("rollback to %s generation %d: %v", back, out.Generation, err)
	}
	if _, _, err := f.client.Rollback(ctx, "www", back.String()); err == nil {
		t.Fatal("rolled back to what is active")
	}
}

func TestStaleGenerationIsRefused(t *testing.T) {
	f := newFleet(t)
	ctx, dir := bounded(t), t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one"})
	zero := uint64(0)
	first, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, IfGeneration: &zero})
	if err != nil {
		t.Fatal(err)
	}
	head := f.head()
	_, err = f.client.Activate(ctx, "www", "", first.Release, &zero)
	wantStatus(t, err, 409, "generation")
	unsealed := origin.DigestOf([]byte("x"))
	_, err = f.client.Activate(ctx, "www", "", unsealed, nil)
	wantStatus(t, err, 404, "not sealed")
	_, err = f.client.Activate(ctx, "a", "", first.Release, nil) // sealed, but of another site
	wantStatus(t, err, 404, "not sealed")
	if f.head() != head {
		t.Fatalf("refused activations are on the log: head %d, was %d", f.head(), head)
	}
	if _, err = f.client.Activate(ctx, "www", "", first.Release, &first.Generation); err != nil {
		t.Fatal(err)
	}
}
