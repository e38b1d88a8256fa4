package control

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// as is a client of control node i that calls with a secret.
func (f *trio) as(t *testing.T, i int, secret string) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(ClientConfig{Address: "https://" + f.admins[i].Addr().String(), TokenFile: path, CAFile: f.servers[i].CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A token that is made at one control node is good at all, and one that is removed at
// one at none, also in a backup that is taken at once and after a restart; the secret
// is kept nowhere. A name is given away once. What each has noted of who did what,
// and of when tokens were used, is read at any.
func TestTokensOfThreeControlNodes(t *testing.T) {
	f := newTrio(t)
	ctx := patient(t)
	made, err := f.clients[0].TokenAdd(ctx, TokenRequest{Name: "ci", Can: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	f.everywhere(t, "ci is known", func(s *Server) bool { return s.tokens.of(made.Secret) != nil })
	if _, err := f.as(t, 2, made.Secret).Status(ctx); err != nil {
		t.Errorf("at ctl3: %v", err)
	}
	for i, dir := range f.dirs {
		if where := filesWith(t, dir, made.Secret); where != nil {
			t.Errorf("ctl%d keeps the secret in %v", i+1, where)
		}
	}
	f.usesAndLines(t)
	f.oneName(t)

	if _, err := f.clients[1].TokenRemove(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	if tokens := tokensInBackup(t, f.servers[2]); strings.Contains(tokens, `"ci"`) {
		t.Errorf("a backup taken at ctl3 after the removal has it: %s", tokens)
	}
	f.everywhere(t, "ci is removed", func(s *Server) bool { return s.tokens.of(made.Secret) == nil })
	for i := range 3 {
		_, err := f.as(t, i, made.Secret).Status(ctx)
		wantStatus(t, err, 401, "valid token")
	}
	// One that does not answer is named.
	f.blobs[1].Close()
	f.servers[0].peers.http.CloseIdleConnections()
	if out, err := f.clients[0].Audit(ctx, 100); err != nil || !slices.Equal(out.Silent, []string{"ctl2"}) || len(out.Lines) == 0 {
		t.Errorf("audit log without ctl2: %+v, %v", out, err)
	}
	if list, err := f.clients[0].Tokens(ctx); err != nil || !slices.Equal(list.Silent, []string{"ctl2"}) {
		t.Errorf("tokens without ctl2: %+v, %v", list, err)
	}
	// The administrator's token has a file at ctl1, and goes away with it.
	if _, err := f.clients[2].TokenRemove(ctx, "admin"); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(clusterPatience)
	for _, err := os.Stat(f.servers[0].TokenFile()); err == nil; _, err = os.Stat(f.servers[0].TokenFile()) {
		if time.Now().After(end) {
			t.Fatal("admin.token is still there")
		}
		time.Sleep(time.Millisecond)
	}
}

// usesAndLines: every control node tells what all have noted.
func (f *trio) usesAndLines(t *testing.T) {
	t.Helper()
	ctx := patient(t)
	for i := range 3 {
		out, err := f.clients[i].Audit(ctx, 100)
		if err != nil || out.Silent != nil {
			t.Fatalf("%+v, %v", out, err)
		}
		if !slices.ContainsFunc(out.Lines, func(l AuditLine) bool {
			return l.Node == "ctl1" && l.Who == "admin" && l.What == "POST /v1/tokens" && l.Which == "token ci"
		}) {
			t.Errorf("ctl%d does not show who made ci: %+v", i+1, out.Lines)
		}
		if !slices.IsSortedFunc(out.Lines, func(a, b AuditLine) int { return a.Time.Compare(b.Time) }) {
			t.Errorf("ctl%d: not in order: %+v", i+1, out.Lines)
		}
		list, err := f.clients[i].Tokens(ctx)
		if err != nil || list.Silent != nil {
			t.Fatalf("%+v, %v", list, err)
		}
		if !slices.ContainsFunc(list.Tokens, func(k Token) bool { return k.Name == "ci" && k.Used != nil }) {
			t.Errorf("ctl%d does not know that ci was used at ctl3: %+v", i+1, list.Tokens)
		}
	}
	if out, err := f.clients[1].Audit(ctx, 1); err != nil || len(out.Lines) != 1 {
		t.Errorf("one line: %+v, %v", out, err)
	}
	node := &http.Client{Transport: &http.Transport{TLSClientConfig: f.servers[1].ca.peerTLS()}}
	for path, want := range map[string]int{auditPath + "?limit=0": 400, auditPath: 400, tokenUsePath: 200, auditPath + "?limit=5": 200} {
		resp, err := node.Get("https://" + f.blobs[0].Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	cred := f.node(t, "fra9")
	node = &http.Client{Transport: &http.Transport{TLSClientConfig: cred.TLS()}}
	resp, err := node.Get("https://" + f.blobs[0].Addr().String() + auditPath + "?limit=5")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 404 {
		t.Errorf("a node reads the audit log: %d", resp.StatusCode)
	}
}

func (f *trio) node(t *testing.T, name string) *Credentials {
	t.Helper()
	added, err := f.clients[0].NodeAdd(patient(t), name, false)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ParseCredentials([]byte(added.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// oneName: of three that give one name away at the same time one succeeds, and its
// secret is the one that counts.
func (f *trio) oneName(t *testing.T) {
	t.Helper()
	type outcome struct {
		secret string
		err    error
	}
	got := make(chan outcome, 3)
	for i := range 3 {
		go func() {
			made, err := f.clients[i].TokenAdd(t.Context(), TokenRequest{Name: "twin", Can: []string{"read"}})
			got <- outcome{made.Secret, err}
		}()
	}
	secret, won := "", 0
	for range 3 {
		o := <-got
		if o.err == nil {
			secret, won = o.secret, won+1
			continue
		}
		var e *Error
		if !errors.As(o.err, &e) || e.Status != http.StatusConflict {
			t.Errorf("%v, want 409", o.err)
		}
	}
	if won != 1 {
		t.Fatalf("%d of three tokens of one name were made", won)
	}
	f.everywhere(t, "twin is known", func(s *Server) bool { return s.tokens.of(secret) != nil })
}

// filesWith are the files below dir that hold text.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a file of the log that went away meanwhile
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func tokensInBackup(t *testing.T, s *Server) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(patient(t), &b, false); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == tokensName {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
}
