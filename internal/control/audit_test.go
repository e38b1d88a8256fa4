package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryChangeIsAudited: each call that writes leaves a line with who, what,
// which, where from and how it ended, those that were refused too; no line has a
// secret; a restart adds to what is there.
func TestEveryChangeIsAudited(t *testing.T) {
	f := newFleet(t)
	ctx := bounded(t)
	secret, c := f.withToken(t, TokenRequest{Name: "ci", Can: []string{"push", "purge"}, Sites: []string{"a"}})
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one"})
	pushed, err := c.Push(ctx, PushOptions{Site: "a", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Purge(ctx, Purge{URL: "http://a.test/x"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Drain(ctx, "fra1"); err == nil {
		t.Fatal("ci drains")
	}
	f.restart(t)
	f.raw(t, "POST", "/v1/drain", `{"edge":"fra1"}`, bearer("perigee_GUESS"))
	f.raw(t, "POST", "/v1/teleport", `{}`, nil)
	f.raw(t, "POST", "/v1/purge", `{"url":"http://a.test/\u001b[2J\u009b\n`+strings.Repeat("x", 4*maxRemarkBytes)+`"}`, nil)
	f.raw(t, "GET", "/v1/status", ``, nil)
	f.raw(t, "GET", "/v1/status", ``, bearer("perigee_GUESS"))
	if _, err := f.client.Force(ctx, "fra1", "down"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.NodeAdd(ctx, "fra1", false); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.NodeRemove(ctx, "fra1"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.TokenRemove(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	out, err := f.client.Audit(ctx, 1000)
	if err != nil || out.Damaged != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	id := pushed.Release.String()
	want := []string{
		"socket POST /v1/tokens [token ci] 200",
		"ci POST /v1/sites/a/releases [release " + id + "] 200",
		"ci PUT /v1/sites/a/blobs/… [] 200",
		"ci POST /v1/sites/a/releases/" + id + "/seal [] 200",
		"ci POST /v1/sites/a/activate [release " + id + "] 200",
		"ci POST /v1/purge [http://a.test/x] 200",
		"ci POST /v1/drain [] 403",
		" POST /v1/drain [] 401",
		"admin POST /v1/teleport [] 404",
		"admin POST /v1/purge [http://a.test/�[2J��" + strings.Repeat("x", maxRemarkBytes-len("http://a.test/\x1b[2J\u009b\n")) + "…] 400",
		" GET /v1/status [] 401",
		"admin POST /v1/force [edge fra1 down] 200",
		"admin POST /v1/nodes [node fra1] 200",
		"admin DELETE /v1/nodes/fra1 [] 200",
		"admin DELETE /v1/tokens/ci [] 200",
	}
	var got []string
	for _, l := range out.Lines {
		if strings.HasPrefix(l.What, "PUT ") {
			l.What = l.What[:strings.LastIndexByte(l.What, '/')] + "/…"
		}
		got = append(got, fmt.Sprintf("%s %s [%s] %d", l.Who, l.What, l.Which, l.Status))
		if l.Time.IsZero() || l.From == "" || (l.Status != 200) != (l.Why != "") {
			t.Errorf("line without time, place or reason: %+v", l)
		}
		if l.Who != "socket" && !strings.HasPrefix(l.From, "127.0.0.1:") {
			t.Errorf("from %q", l.From)
		}
	}
	// Files are sent beside one another, and the compressed variants of a page with it.
	got = compactPuts(got)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text, err := os.ReadFile(filepath.Join(f.dir, auditName))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := os.ReadFile(f.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	for what, part := range map[string]string{"the token": secret, "the admin's token": strings.TrimSpace(string(admin)), "a guess": "GUESS", "a key": "PRIVATE KEY"} {
		if strings.Contains(string(text), part) {
			t.Errorf("the audit log holds %s", what)
		}
	}
}

func compactPuts(lines []string) (out []string) {
	for _, l := range lines {
		if len(out) > 0 && out[len(out)-1] == l && strings.Contains(l, "PUT") {
			continue
		}
		out = append(out, l)
	}
	return out
}

// TestAuditLogIsBounded: it goes on in a new file when one is full, and reads
// over the seam; a line that a crash cut short spoils no other.
func TestAuditLogIsBounded(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	a, err := openAudit(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	const most = 512 << 10
	a.most = most
	long := strings.Repeat("x", 2*maxRemarkBytes)
	line := func(i int) AuditLine {
		return AuditLine{Who: fmt.Sprint(i), What: "POST /v1/purge", Which: long, From: "socket", Status: 200}
	}
	n := 0
	for ; n < (maxAuditFiles+1)*most/maxRemarkBytes; n++ {
		a.add(line(n), false)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, auditName+"*"))
	if err != nil || len(files) != maxAuditFiles {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > most+maxRemarkBytes*2 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, auditName), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = io.WriteString(f, `{"time":"2026-`)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if a, err = openAudit(dir, log); err != nil {
		t.Fatal(err)
	}
	defer a.close()
	a.add(line(n), true)
	const shown = 3 * most / maxRemarkBytes
	out, err := a.newest(shown)
	if err != nil || len(out.Lines) != shown || out.Damaged != 1 {
		t.Fatalf("%d lines, %d damaged, %v", len(out.Lines), out.Damaged, err)
	}
	for i, l := range out.Lines {
		if l.Who != fmt.Sprint(n-shown+1+i) || len(l.Which) > maxRemarkBytes+len("…") {
			t.Fatalf("line %d is of %s, with %d bytes", i, l.Who, len(l.Which))
		}
	}
}

// TestNothingChangesUnwritten: when the audit log cannot be written, what would
// have to be written there is refused; it goes on by itself when it can.
func TestNothingChangesUnwritten(t *testing.T) {
	f := newFleet(t)
	f.audit.mu.Lock()
	dead, err := os.Open(filepath.Join(f.dir, auditName)) // not for writing
	if err != nil {
		t.Fatal(err)
	}
	_ = f.audit.f.Close()
	f.audit.f = dead
	good := f.audit.path
	f.audit.mu.Unlock()
	if _, err := f.client.Drain(bounded(t), "fra1"); err != nil {
		t.Fatalf("the call that meets the dead file is made already: %v", err)
	}
	f.audit.mu.Lock()
	f.audit.path = filepath.Join(f.dir, "nowhere", auditName)
	f.audit.mu.Unlock()
	_, err = f.client.Drain(bounded(t), "iad1")
	wantStatus(t, err, 500, "audit log cannot be written")
	if f.head() != 1 {
		t.Fatalf("the log has %d entries", f.head())
	}
	if _, err := f.client.Status(bounded(t)); err != nil {
		t.Errorf("reading goes on: %v", err)
	}
	f.audit.mu.Lock()
	f.audit.path = good
	f.audit.mu.Unlock()
	if _, err := f.client.Drain(bounded(t), "iad1"); err != nil {
		t.Fatal(err)
	}
	out, err := f.client.Audit(bounded(t), 100)
	if err != nil || len(out.Lines) != 1 || !strings.Contains(out.Lines[0].Which, "iad1") {
		b, _ := json.Marshal(out)
		t.Errorf("%s, %v", b, err)
	}
}
