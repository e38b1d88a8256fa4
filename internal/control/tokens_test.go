package control

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// withToken makes a token and returns its secret and a client that has it.
func (f *fleet) withToken(t *testing.T, req TokenRequest) (secret string, c *Client) {
	t.Helper()
	added, err := f.local.TokenAdd(bounded(t), req)
	if err != nil {
		t.Fatal(err)
	}
	c, err = NewClient(ClientConfig{Address: "https://" + f.admin, Token: added.Secret, CAFile: f.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	return added.Secret, c
}

func bearer(secret string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }
}

// TestRightsOnOneSite: a token's rights end at its sites, its words and its
// time; what it may not do leaves nothing on the log and tells nothing of what exists.
func TestRightsOnOneSite(t *testing.T) {
	f := newFleet(t)
	_, id := writeRelease(t, f)
	head := f.head()
	push, _ := f.withToken(t, TokenRequest{Name: "push-a", Can: []string{"push"}, Sites: []string{"a"}})
	purge, _ := f.withToken(t, TokenRequest{Name: "purge-a", Can: []string{"purge"}, Sites: []string{"a"}})
	drain, _ := f.withToken(t, TokenRequest{Name: "drain", Can: []string{"drain"}})
	read, _ := f.withToken(t, TokenRequest{Name: "read", Can: []string{"read"}})
	gone, _ := f.withToken(t, TokenRequest{Name: "gone", Can: []string{"admin"}})
	if _, err := f.local.TokenRemove(bounded(t), "gone"); err != nil {
		t.Fatal(err)
	}
	activate := fmt.Sprintf(`{"release":%q}`, id)
	const everywhere = `{"site":"www","all":true}`
	all := map[string]string{"push": push, "purge": purge, "drain": drain, "read": read, "gone": gone}
	for _, c := range []struct {
		method, path, body string
		may                string // the tokens that may begin it; others get 403
		want               int    // for those that may
	}{
		{"POST", "/v1/sites/a/releases", "{}", "push", 400},
		{"POST", "/v1/sites/www/releases", "{}", "", 0},
		{"POST", "/v1/sites/ab/releases", "{}", "", 0},
		{"POST", "/v1/sites/nowhere/activate", activate, "", 0},
		{"POST", "/v1/sites/www/activate", activate, "", 0},
		{"POST", "/v1/sites/a/activate", activate, "push", 404},
		{"PUT", "/v1/sites/www/blobs/" + id, "x", "", 0},
		{"POST", "/v1/sites/www/releases/" + id + "/seal", "", "", 0},
		{"GET", "/v1/sites/a/releases", "", "push read", 200},
		{"GET", "/v1/sites/www/releases", "", "read", 200},
		{"POST", "/v1/purge", everywhere, "", 0},
		{"POST", "/v1/purge", `{"url":"http://www.example.com/","dry_run":true}`, "", 0},
		{"POST", "/v1/purge", `{"url":"http://nowhere.test/"}`, "", 0},
		{"POST", "/v1/purge", `{"site":"a","url":"http://www.example.com/"}`, "", 0},
		{"POST", "/v1/purge", `{"site":"a","all":true,"dry_run":true}`, "purge", 200},
		{"POST", "/v1/purges", `{"purges":[{"site":"a","all":true},{"site":"www","all":true}]}`, "", 0},
		{"POST", "/v1/purges", `{"purges":[{"site":"a","all":true}],"dry_run":true}`, "purge", 200},
		{"POST", "/v1/force", `{"edge":"fra9","force":"up"}`, "drain", 404},
		{"POST", "/v1/drain", `{"edge":"fra9"}`, "drain", 404},
		{"GET", "/v1/status", "", "read", 200},
		{"GET", "/v1/receipts?seq=1", "", "push purge drain read", 200},
		{"GET", "/v1/token", "", "push purge drain read", 200},
		{"POST", "/v1/nodes", `{"name":"x"}`, "", 0},
		{"DELETE", "/v1/nodes/fra1", "", "", 0},
		{"GET", "/v1/tokens", "", "", 0},
		{"POST", "/v1/tokens", `{"name":"x","can":["admin"]}`, "", 0},
		{"DELETE", "/v1/tokens/admin", "", "", 0},
		{"GET", "/v1/audit", "", "", 0},
	} {
		for name, secret := range all {
			want := http.StatusForbidden
			switch {
			case name == "gone":
				want = http.StatusUnauthorized
			case slices.Contains(strings.Fields(c.may), name):
				want = c.want
			}
			got, answer := f.raw(t, c.method, c.path, c.body, bearer(secret))
			if got != want {
				t.Errorf("%s: %s %s %s: %d %s, want %d", name, c.method, c.path, c.body, got, answer, want)
			}
			if want == 403 && (strings.Contains(answer, "www.example.com") || strings.Contains(answer, "fra1")) {
				t.Errorf("%s: %s %s: the refusal tells what exists: %s", name, c.method, c.path, answer)
			}
		}
	}
	if f.head() != head {
		t.Fatalf("the log has %d entries, had %d", f.head(), head)
	}
}

// writeRelease pushes a page to www.
func writeRelease(t *testing.T, f *fleet) (dir, id string) {
	t.Helper()
	dir = t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one"})
	pushed, err := f.local.Push(bounded(t), PushOptions{Site: "www", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return dir, pushed.Release.String()
}

// TestPlacesOfPurgeRights: a right below a place ends at whole segments and
// whole labels, in whatever spelling the purge comes.
func TestPlacesOfPurgeRights(t *testing.T) {
	rights, err := Rights{Can: []string{"purge:https://a.test/img"}, Sites: []string{"a"}}.normal()
	if err != nil || rights.Can[0] != "purge:a.test/img/" {
		t.Fatalf("%+v, %v", rights, err)
	}
	f := newFleet(t)
	secret, _ := f.withToken(t, TokenRequest{Name: "img", Can: rights.Can, Sites: rights.Sites})
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"url":"https://a.test/img/x.png"}`, 200},
		{`{"url":"HTTP://A.test:8080/img/x.png?v=2"}`, 200},
		{`{"url":"https://a.test/img"}`, 200},
		{`{"url":"https://a.test/img?v=2"}`, 200},
		{`{"prefix":"https://a.test/img"}`, 200},
		{`{"prefix":"https://a.test/img/deep/"}`, 200},
		{`{"url":"https://a.test/"}`, 403},
		{`{"url":"https://a.test/imgs/x.png"}`, 403},
		{`{"url":"https://a.test/IMG/x.png"}`, 403},
		{`{"url":"https://a.test//img/x.png"}`, 403},
		{`{"url":"https://a.test/%69mg/x.png"}`, 403},
		{`{"url":"https://a.test/img%2Fx.png"}`, 403},
		{`{"url":"https://a.test/other?/img/"}`, 403},
		{`{"url":"https://a.test/img/../x.png"}`, 400},
		{`{"url":"https://a.test/img/%2e%2e/x.png"}`, 400},
		{`{"url":"https://a.test/img/..%2fx.png"}`, 400},
		{`{"url":"https://a.test/img/..%5cx.png"}`, 400},
		{`{"url":"https://a.test/img/..;/x.png"}`, 400},
		{`{"url":"https://aa.test/img/x.png"}`, 403},
		{`{"url":"https://a.test.evil.example/img/x.png"}`, 403},
		{`{"url":"https://x.a.test/img/x.png"}`, 403},
		{`{"url":"https://a.test./img/x.png"}`, 400},
		{`{"url":"https://evil@a.test/img/x.png"}`, 400},
		{`{"url":"https://www.example.com/img/x.png"}`, 403},
		{`{"prefix":"https://a.test/"}`, 403},
		{`{"prefix":"https://a.test/im"}`, 403},
		{`{"site":"a","tag":"img"}`, 403},
		{`{"site":"a","all":true}`, 403},
		{`{"site":"www","all":true}`, 403},
	} {
		if got, answer := f.raw(t, "POST", "/v1/purge", c.body, bearer(secret)); got != c.want {
			t.Errorf("%s: %d %s, want %d", c.body, got, answer, c.want)
		}
	}
	if f.head() != 6 {
		t.Errorf("the log has %d entries, want the six that the right covers", f.head())
	}
}

// TestRightsThatAreNone: nobody gets by mistake what he did not ask for.
func TestRightsThatAreNone(t *testing.T) {
	for _, r := range []Rights{
		{},
		{Sites: []string{"a"}},
		{Can: []string{""}},
		{Can: []string{"write"}},
		{Can: []string{"Push"}, Sites: []string{"a"}},
		{Can: []string{"push"}},
		{Can: []string{"push"}, Sites: []string{""}},
		{Can: []string{"push"}, Sites: []string{"a/b"}},
		{Can: []string{"purge"}},
		{Can: []string{"purge:"}, Sites: []string{"a"}},
		{Can: []string{"purge:a.test/?x"}, Sites: []string{"a"}},
		{Can: []string{"purge:a.test/../"}, Sites: []string{"a"}},
		{Can: []string{"purge:*.test/"}, Sites: []string{"a"}},
		{Can: []string{"read"}, Sites: []string{"a"}},
		{Can: []string{"admin", "read"}},
		{Can: []string{"admin"}, Sites: []string{"a"}},
		{Can: []string{"push"}, Sites: make([]string, maxRightSites+1)},
	} {
		if got, err := r.normal(); err == nil {
			t.Errorf("%+v is taken as %+v", r, got)
		}
	}
	var none Rights
	for n := needAdmin; n <= needPurge; n++ {
		if n != needToken && none.allowed(n, httptest.NewRequest("POST", "/", nil)) {
			t.Errorf("no right at all is enough for need %d", n)
		}
	}
}

// TestEveryCallNeedsARight: the table has one for each call, and those that any
// token may make change nothing.
func TestEveryCallNeedsARight(t *testing.T) {
	for pattern, rt := range new(Server).table() {
		method, path, _ := strings.Cut(pattern, " ")
		if rt.need == needToken && method != "GET" {
			t.Errorf("%s may be called with any token", pattern)
		}
		if strings.Contains(path, "{site}") && rt.need != needPush && rt.need != needReleases {
			t.Errorf("%s does not ask for a right on the site", pattern)
		}
	}
}

// TestTokenIsShownOnce: it is on no disk, in no list and in no line of a log.
func TestTokenIsShownOnce(t *testing.T) {
	f := newFleet(t)
	secret, c := f.withToken(t, TokenRequest{Name: "ci", Can: []string{"push", "purge:a.test/x"}, Sites: []string{"a"}, ExpiresIn: 3600})
	if !strings.HasPrefix(secret, tokenPrefix) || len(secret) < len(tokenPrefix)+26 {
		t.Fatalf("the token has %d characters", len(secret))
	}
	own, err := c.Token(bounded(t))
	if err != nil || own.Name != "ci" || own.Expires == nil || strings.Join(own.Can, " ") != "push purge:a.test/x/" || own.Used == nil {
		t.Fatalf("own token: %+v, %v", own, err)
	}
	_, err = f.local.TokenAdd(bounded(t), TokenRequest{Name: "ci", Can: []string{"read"}})
	wantStatus(t, err, 409, "token ci exists")
	_, err = f.local.TokenAdd(bounded(t), TokenRequest{Name: "cd", Can: []string{"push"}, Sites: []string{"aa"}})
	wantStatus(t, err, 404, "sites: www, a, shop")
	_, err = f.local.TokenAdd(bounded(t), TokenRequest{Name: socketCaller, Can: []string{"read"}})
	wantStatus(t, err, 400, "name")
	f.restart(t) // the list and the last use are kept
	list, err := f.client.Tokens(bounded(t))
	if err != nil || len(list.Tokens) != 2 || list.Tokens[1].Used == nil || !list.Tokens[1].Used.Equal(*own.Used) {
		t.Fatalf("tokens: %+v, %v", list, err)
	}
	shown, err := json.Marshal(list)
	if err != nil || strings.Contains(string(shown), secret) || strings.Contains(string(shown), "sha256") {
		t.Fatalf("the list shows it: %s %v", shown, err)
	}
	f.Close()
	err = filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), secret) {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTokenExpires: to the second, and says so to who holds it alone.
func TestTokenExpires(t *testing.T) {
	f := newFleet(t)
	secret, _ := f.withToken(t, TokenRequest{Name: "short", Can: []string{"read"}, ExpiresIn: 60})
	tk := f.tokens.of(secret)
	if tk.expired(tk.Expires.Add(-time.Second)) || !tk.expired(*tk.Expires) {
		t.Error("the end is not where it was said to be")
	}
	h, later := f.AdminHandler(), tk.Expires.Add(time.Hour)
	f.now = func() time.Time { return later }
	for _, c := range []struct{ secret, want, field string }{
		{secret, "token short expired on", `error="invalid_token"`},
		{secret + "x", "a valid token is needed", `error="invalid_token"`},
		{"", "a valid token is needed", `Bearer realm="perigee"`},
	} {
		r := httptest.NewRequest("GET", "https://127.0.0.1/v1/status", nil)
		if c.secret != "" {
			r.Header.Set("Authorization", "Bearer "+c.secret)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if field := w.Header().Get("WWW-Authenticate"); w.Code != 401 || !strings.Contains(w.Body.String(), c.want) || !strings.Contains(field, c.field) || c.secret == "" && strings.Contains(field, "error") {
			t.Errorf("%d %s %q, want 401 %s %s", w.Code, w.Body, field, c.want, c.field)
		}
	}
}

// TestInsufficientScope: a refusal for want of a right names it (RFC 6750 §3.1).
func TestInsufficientScope(t *testing.T) {
	f := newFleet(t)
	secret, _ := f.withToken(t, TokenRequest{Name: "r", Can: []string{"read"}})
	r := httptest.NewRequest("POST", "https://127.0.0.1/v1/drain", strings.NewReader(`{"edge":"fra1"}`))
	bearer(secret)(r)
	w := httptest.NewRecorder()
	f.AdminHandler().ServeHTTP(w, r)
	if want := `Bearer realm="perigee", error="insufficient_scope", scope="drain"`; w.Code != 403 || w.Header().Get("WWW-Authenticate") != want {
		t.Errorf("%d %q, want 403 %q", w.Code, w.Header().Get("WWW-Authenticate"), want)
	}
}

// TestGuessingIsSlowedDown: an address that fails too often has to wait, with
// the right token too; another goes on, and the socket.
func TestGuessingIsSlowedDown(t *testing.T) {
	f := newFleet(t)
	k := known
	k.Limits.Failures = 10
	f.SetKnown(k)
	frozen := time.Now()
	f.now = func() time.Time { return frozen }
	secret, err := os.ReadFile(f.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	h := f.AdminHandler()
	ask := func(from, secret, origin string) (int, string) {
		r := httptest.NewRequest("GET", "https://127.0.0.1/v1/status", nil)
		r.RemoteAddr = from
		bearer(strings.TrimSpace(secret))(r)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Header().Get("Retry-After")
	}
	for i := range 10 * failureBurst {
		page, want := "", 401
		if i%2 == 0 {
			page, want = "http://evil.example", 403
		}
		if got, _ := ask(fmt.Sprintf("[2001:db8::%x]:4711", i), "perigee_GUESS", page); got != want {
			t.Fatalf("guess %d: %d, want %d", i, got, want)
		}
	}
	if got, after := ask("[2001:db8::1]:4711", string(secret), ""); got != 429 || after != "7" {
		t.Errorf("the right token after all the guesses: %d, Retry-After %q; want 429 in 6 s and a bit", got, after)
	}
	lines, err := f.local.Audit(bounded(t), maxAuditShown)
	if err != nil || len(lines.Lines) != 10*failureBurst {
		t.Errorf("%d lines, want one for each guess and none for who has to wait: %v", len(lines.Lines), err)
	}
	if got, _ := ask("[2001:db8:0:1::1]:4711", string(secret), ""); got != 200 {
		t.Errorf("another /64: %d", got)
	}
	if got, _ := ask("192.0.2.1:4711", "perigee_GUESS", ""); got != 401 {
		t.Errorf("an IPv4 address: %d", got)
	}
	frozen = frozen.Add(7 * time.Second)
	if got, _ := ask("[2001:db8::1]:4711", string(secret), ""); got != 200 {
		t.Errorf("after the wait: %d", got)
	}
}

// TestTooManyCallsAnswer429: by token; uploads of files are not counted.
func TestTooManyCallsAnswer429(t *testing.T) {
	f := newFleet(t)
	k := known
	k.Limits.Calls = 1
	f.SetKnown(k)
	frozen := time.Now()
	f.now = func() time.Time { return frozen }
	_, c := f.withToken(t, TokenRequest{Name: "loop", Can: []string{"read", "push"}, Sites: []string{"a"}})
	for range callBurst {
		if _, err := c.Status(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Status(bounded(t))
	wantStatus(t, err, 429, "more than 1 calls a second")
	err = c.do(bounded(t), "PUT", "/v1/sites/a/blobs/"+origin.DigestOf(nil).String(), nil, nil)
	wantStatus(t, err, 400, "Content-Digest")
	if _, err := f.client.Status(bounded(t)); err != nil {
		t.Errorf("another token: %v", err)
	}
}

// TestTokenFileVersions: the first form of tokens.json is read, ours reads back
// what it wrote, and a newer one or a field that is not known refuses to start.
func TestTokenFileVersions(t *testing.T) {
	for name, want := range map[string]string{"tokens-v0.json": "admin: admin", "tokens-v1.json": "admin: admin; ci: push purge:www.example.com/img/ on www"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		list, err := parseTokens(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, tk := range list {
			line := tk.Name + ": " + strings.Join(tk.Can, " ")
			if len(tk.Sites) > 0 {
				line += " on " + strings.Join(tk.Sites, " ")
			}
			got = append(got, line)
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	one := `{"name":"a","sha256":"` + sum + `","created":"2026-01-02T03:04:05Z","can":["read"]}`
	if _, err := parseTokens([]byte(`{"version":1,"tokens":[` + one + `]}`)); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"version":2,"tokens":[],"more":1}`:                                                     "version 2",
		`{"tokens":[` + one + `]}`:                                                               "version 0",
		`{"version":1,"tokens":[` + one + `],"more":1}`:                                          "unknown field",
		`{"version":1,"tokens":[` + one + `,` + one + `]}`:                                       "twice",
		`{"version":1,"tokens":[` + strings.Replace(one, `"can"`, `"only_on":1,"can"`, 1) + `]}`: "unknown field",
		`{"version":1,"tokens":[` + strings.Replace(one, `"read"`, `"teleport"`, 1) + `]}`:       "no right",
		`{"version":1,"tokens":[` + strings.Replace(one, sum, "00", 1) + `]}`:                    "sha256",
		`[` + one + `]x`: "data after",
		``:               "end of JSON",
	} {
		if _, err := parseTokens([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestRemovedAdminTokenTakesItsFileAlong.
func TestRemovedAdminTokenTakesItsFileAlong(t *testing.T) {
	f := newFleet(t)
	if _, err := f.local.TokenRemove(bounded(t), "admin"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.TokenFile()); !os.IsNotExist(err) {
		t.Errorf("admin.token is still there: %v", err)
	}
	_, err := f.client.Status(bounded(t))
	wantStatus(t, err, 401, "valid token")
	_, err = f.local.TokenRemove(bounded(t), "admin")
	wantStatus(t, err, 404, "no token")
}

// TestDoorsDoNotMix: a token opens no door for nodes, and a node's certificate
// is no token.
func TestDoorsDoNotMix(t *testing.T) {
	f := newFleet(t)
	added, err := f.client.NodeAdd(bounded(t), "fra1", false)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ParseCredentials([]byte(added.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(f.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(addr, path string, c *tls.Config, token string) (int, error) {
		r, err := http.NewRequestWithContext(bounded(t), "GET", "https://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			bearer(token)(r)
		}
		resp, err := (&http.Transport{TLSClientConfig: c, DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	node, anybody := cred.TLS(), cred.TLS()
	node.ServerName, anybody.ServerName, anybody.Certificates = feed.ServerName, feed.ServerName, nil
	admin := strings.TrimSpace(string(secret))
	if code, err := ask(f.admin, "/v1/status", node, ""); err != nil || code != 401 {
		t.Errorf("a node at the admin door: %d, %v", code, err)
	}
	if code, err := ask(f.blobs, "/v1/status", anybody, admin); err == nil {
		t.Errorf("a token at the blob door: %d", code)
	}
	if code, err := ask(f.FeedAddr().String(), "/v1/status", anybody, admin); err == nil {
		t.Errorf("a token at the feed's door: %d", code)
	}
	if code, err := ask(f.blobs, "/v1/status", node, admin); err != nil || code != 404 {
		t.Errorf("a node with a token at the blob door: %d, %v", code, err)
	}
	if code, err := ask(f.admin, "/v1/status", node, admin); err != nil || code != 200 {
		t.Errorf("a token at the admin door: %d, %v", code, err)
	}
}
