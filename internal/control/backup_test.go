package control

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"perigee.example/feed"
)

// backupOf saves a backup of f through the API.
func backupOf(t *testing.T, f *fleet) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f.client.Backup(bounded(t), &b, true); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restore makes f's state from a backup and starts over it, with the admin token
// that the operator has kept.
func (f *fleet) restore(t *testing.T, saved []byte, accept bool) BackupHead {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(f.dir, tokenName))
	if err != nil {
		t.Fatal(err)
	}
	f.dir = filepath.Join(t.TempDir(), "control")
	head, err := Restore(bounded(t), f.dir, bytes.NewReader(saved), accept)
	if err == nil {
		err = os.WriteFile(filepath.Join(f.dir, tokenName), secret, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.start(t)
	return head
}

// TestBackupIsWholeWhileCommandsGoOn: what comes back has the same log up to the
// backup's head, the same keys, tokens, nodes and releases, and goes on from there.
func TestBackupIsWholeWhileCommandsGoOn(t *testing.T) {
	f := newFleet(t)
	ctx := bounded(t)
	_, id := writeRelease(t, f)
	secret, _ := f.withToken(t, TokenRequest{Name: "ci", Can: []string{"push"}, Sites: []string{"www"}})
	if _, err := f.client.Drain(ctx, "fra1"); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			if _, err := f.local.Force(ctx, "iad1", "down"); err != nil {
				t.Error(err)
			}
			n++
		}
	}()
	saved := backupOf(t, f)
	close(stop)
	if n := <-done; n == 0 {
		t.Error("no command was given meanwhile")
	}
	before, err := os.ReadFile(f.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	head := f.restore(t, saved, false)
	after, err := os.ReadFile(f.CAFile())
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the CA is another one: %v", err)
	}
	if f.feed.Log().Head() != head.Head {
		t.Errorf("head %+v, backed up %+v", f.feed.Log().Head(), head.Head)
	}
	st, err := f.local.Status(ctx)
	if err != nil || st.Restored != nil || len(st.Drained) != 1 || st.Sites["www"].Active.String() != id {
		t.Errorf("status %+v, %v", st, err)
	}
	if tk := f.tokens.of(secret); tk == nil || tk.Name != "ci" {
		t.Error("the token is not there")
	}
	if err := filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || strings.Contains(path, "jetstream") {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.local.Activate(ctx, "www", "", st.Sites["www"].Active, nil); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
}

// TestDamagedBackupIsRefused: wherever it is cut off or changed, and whatever
// else stands in it, and nothing is left behind.
func TestDamagedBackupIsRefused(t *testing.T) {
	f := newFleet(t)
	writeRelease(t, f)
	saved := backupOf(t, f)
	dir := filepath.Join(t.TempDir(), "control")
	refused := func(what string, b []byte, want string) {
		t.Helper()
		_, err := Restore(bounded(t), dir, bytes.NewReader(b), false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s: %v, want %q", what, err, want)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 0 {
			t.Fatalf("%s: left behind: %v, %v", what, left, err)
		}
	}
	end := bytes.LastIndex(saved, []byte(backupSumsName)) + 512 + 100 // within the sums
	for i := range 40 {
		refused("cut off", saved[:i*end/40], "cut off")
	}
	members := map[string]string{}
	var order []*tar.Header
	for in := tar.NewReader(bytes.NewReader(saved)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		text, err2 := io.ReadAll(in)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		members[h.Name] = string(text)
		order = append(order, h)
	}
	pack := func(edit func(h *tar.Header, text string) (*tar.Header, string)) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, old := range order {
			copied := *old
			h, text := edit(&copied, members[old.Name])
			if h == nil {
				continue
			}
			h.Size = int64(len(text))
			if h.Typeflag != tar.TypeReg {
				h.Size, text = 0, ""
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	for name, text := range members {
		for _, at := range []int{0, len(text) / 2, len(text) - 1} {
			_, err := Restore(bounded(t), dir, bytes.NewReader(pack(func(h *tar.Header, s string) (*tar.Header, string) {
				if h.Name == name {
					s = s[:at] + string(s[at]^1) + s[at+1:]
				}
				return h, s
			})), false)
			if err == nil {
				t.Fatalf("%s has another byte at %d of %d, and is taken", name, at, len(text))
			}
		}
		if name == backupSumsName {
			continue
		}
		refused(name+" missing", pack(func(h *tar.Header, s string) (*tar.Header, string) {
			if h.Name == name {
				return nil, ""
			}
			return h, s
		}), "")
	}
	on := func(name string, do func(h *tar.Header)) []byte {
		return pack(func(h *tar.Header, s string) (*tar.Header, string) {
			if h.Name == name {
				do(h)
			}
			return h, s
		})
	}
	refused("a name that leads out", on(backupLogName, func(h *tar.Header) { h.Name = "../../log.jsonl" }), "no such member")
	refused("an absolute name", on(backupLogName, func(h *tar.Header) { h.Name = "/etc/passwd" }), "no such member")
	refused("a blob that leads out", on(backupLogName, func(h *tar.Header) { h.Name = backupBlobDir + "../x" }), "digest")
	refused("a link", on(backupLogName, func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc/passwd" }), "does not belong")
	refused("a name twice", on(backupLogName, func(h *tar.Header) { h.Name = tokensName }), "does not belong")
	refused("another archive", on(backupHeadName, func(h *tar.Header) { h.Name = "README" }), "is no backup")
	refused("a newer version", pack(func(h *tar.Header, s string) (*tar.Header, string) {
		if h.Name == backupHeadName {
			s = strings.Replace(s, `"version": 1`, `"version": 3`, 1)
		}
		return h, s
	}), "version 3 is not known here")
}

// TestRestoredNodeWaitsForADecision: commands are refused while a node has not
// been heard of or is ahead; nodes that are ahead are refused and not set back.
func TestRestoredNodeWaitsForADecision(t *testing.T) {
	f := newFleet(t)
	ctx := bounded(t)
	for _, n := range []string{"n1", "n2"} {
		if err := f.AddLocal(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.client.Drain(ctx, "fra1"); err != nil {
		t.Fatal(err)
	}
	saved := backupOf(t, f)
	at := f.feed.Log().Head()
	if _, err := f.client.Drain(ctx, "iad1"); err != nil {
		t.Fatal(err)
	}
	later := f.feed.Log().Head()
	f.Close()
	restore := func(accept bool) { f.restore(t, saved, accept) }
	follow := func(node string, from feed.Position) error {
		fo, err := f.Follow(ctx, node, from)
		if err != nil {
			return err
		}
		defer fo.Close()
		b, err := json.Marshal(Watermark{Position: from})
		if err != nil {
			t.Fatal(err)
		}
		return fo.Report(ReportWatermark, b)
	}
	waiting := func(want string) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			st := f.Status()
			got := ""
			if st.Restored != nil {
				got = strings.Join(st.Restored.Waiting, " ") + "/" + strings.Join(st.Restored.Ahead, " ")
			}
			if got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("waiting for %q, want %q", got, want)
			}
		}
	}

	restore(false)
	_, err := f.local.Undrain(ctx, "fra1")
	wantStatus(t, err, http.StatusServiceUnavailable, "is not known yet of n1, n2")
	if err := follow("n1", at); err != nil {
		t.Fatal(err)
	}
	waiting("n2/")
	if err := follow("n2", feed.Position{}); err != nil { // a new one has seen nothing
		t.Fatal(err)
	}
	waiting("")
	if _, err := f.local.Undrain(ctx, "fra1"); err != nil {
		t.Fatal(err)
	}
	f.restart(t) // and it stays so
	if f.Status().Restored != nil {
		t.Error("after a restart it waits again")
	}
	f.Close()

	restore(false)
	if err := follow("n1", later); err == nil || !strings.Contains(err.Error(), "stays as it is") {
		t.Fatalf("a node that has seen more: %v", err)
	}
	waiting("n2/n1")
	_, err = f.local.Undrain(ctx, "fra1")
	wantStatus(t, err, http.StatusServiceUnavailable, "n1 has seen seq 2")
	f.Close()
	if _, err := AcceptRollback(ctx, f.dir); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	for range 2 {
		waiting("")
		head := f.feed.Log().Head()
		if head.Epoch != later.Epoch+1 || head.Seq <= later.Seq {
			t.Errorf("head %+v after %+v was given out", head, later)
		}
		if err := follow("n1", later); err != nil {
			t.Errorf("a node that has seen more: %v", err)
		}
		if _, err := f.local.Undrain(ctx, "fra1"); err != nil {
			t.Error(err)
		}
		f.Close()
		restore(true) // at once has the same outcome
	}
}
