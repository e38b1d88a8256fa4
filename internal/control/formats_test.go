package control

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"perigee.example/feed"
	"perigee.example/internal/txtest"
)

// golden reads a file of testdata: a format as it was when it was fixed. It is
// only written anew for a version that is new.
func golden(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if txtest.Updating() && now != nil {
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReportFormats: what nodes of this version say is read back whole, what a
// newer one says besides is passed over, and what is no report is refused.
func TestReportFormats(t *testing.T) {
	w, err := parseWatermark(golden(t, "report-watermark.json", nil))
	if err != nil || w.Epoch != 2 || w.Seq != 41 || len(w.Pending) != 1 || w.Pending[0].Channel != "preview-menu" || w.Pending[0].Since != 39 || w.Pending[0].Missing != 7 || w.Pending[0].Why == "" {
		t.Errorf("watermark %+v, %v", w, err)
	}
	r, err := parseNodeReport(golden(t, "report-node.json", nil))
	if err != nil || r.Role != "dns" || r.Health["fra1"].Why != "connection refused" || r.LostSince != 1795500001000 || len(r.Trouble) != 1 || r.Version != "v0.1.0" {
		t.Errorf("node report %+v, %v", r, err)
	}
	for name, v := range map[string]any{"report-watermark.json": w, "report-node.json": r} {
		b, err := json.Marshal(v)
		if want := bytes.TrimSpace(golden(t, name, nil)); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s is written as\n%s, %v, want\n%s", name, b, err, want)
		}
	}
	newer := strings.Replace(string(golden(t, "report-node.json", nil)), `"role":`, `"load":{"cpu":0.5},"role":`, 1)
	if got, err := parseNodeReport([]byte(newer)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("with a field of a newer node: %+v, %v", got, err)
	}
	for _, bad := range []string{``, `[]`, `{"role":1}`, `{} {}`, `{"kind":"drain","body":{}}`} {
		if _, err := parseNodeReport([]byte(bad)); err == nil {
			t.Errorf("%q is taken as a report", bad)
		}
	}
}

// TestCommandFormats: every kind of entry as it was fixed. A field that is not
// known may change what a command means: such an entry is refused, and nodes
// skip it and say so; so are kinds that are not known.
func TestCommandFormats(t *testing.T) {
	kinds := map[string]bool{}
	for line := range bytes.Lines(golden(t, "../../../feed/testdata/entries-v1.jsonl", nil)) {
		e, err := feed.Decode(bytes.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		kinds[e.Kind] = true
		command, err := DecodeCommand(e)
		if err != nil {
			t.Errorf("%s: %v", e.Kind, err)
			continue
		}
		if b, err := json.Marshal(command); err != nil || !bytes.Equal(b, e.Body) {
			t.Errorf("%s is written as %s, %v, want %s", e.Kind, b, err, e.Body)
		}
		e.Body = json.RawMessage(strings.Replace(string(e.Body), "{", `{"on_mars":true,`, 1))
		if _, err := DecodeCommand(e); err == nil || !strings.Contains(err.Error(), "on_mars") {
			t.Errorf("%s with a field that is not known: %v", e.Kind, err)
		}
	}
	for _, kind := range []string{KindRelease, KindActivate, KindChannel, KindForget, KindPurge, KindPurges, KindDrain, KindUndrain, KindForce, KindNode, feed.KindEpoch} {
		if !kinds[kind] {
			t.Errorf("entries-v1.jsonl has no %s", kind)
		}
	}
	if _, err := DecodeCommand(feed.Entry{Kind: "teleport", Body: []byte(`{}`)}); err == nil {
		t.Error("a kind that is not known is taken")
	}
}

// TestNodeFileFormat: a node.pem of the first version is read; a line that is not
// known is refused, since it might be an address to go by.
func TestNodeFileFormat(t *testing.T) {
	var fresh []byte
	if txtest.Updating() {
		_, fresh = newCredentials(t, "fra1")
	}
	b := golden(t, "node-v1.pem", fresh)
	c, err := ParseCredentials(b)
	if err != nil || c.Name != "fra1" || c.Feed != "192.0.2.1:7441" || c.Blobs != "[2001:db8::1]:7442" || len(c.Control) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("it is written anew as\n%s, %v", again, err)
	}
	if _, err := ParseCredentials(bytes.Replace(b, []byte("Name: fra1\n"), []byte("Name: fra1\nRegion: mars\n"), 1)); err == nil {
		t.Error("a line that is not known is taken")
	}
}

// TestBackupFormat: a backup of the first version is restored, with its log,
// lists and blobs.
func TestBackupFormat(t *testing.T) {
	var fresh []byte
	if txtest.Updating() {
		f := newFleet(t)
		dir := t.TempDir()
		writeSite(t, dir, map[string]string{"index.html": "the first edition"})
		if _, err := f.client.Push(bounded(t), PushOptions{Site: "www", Dir: dir}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.client.NodeAdd(bounded(t), "fra1", false); err != nil {
			t.Fatal(err)
		}
		fresh = backupOf(t, f)
	}
	dir := filepath.Join(t.TempDir(), "control")
	head, err := Restore(bounded(t), dir, bytes.NewReader(golden(t, "backup-v1.tar", fresh)), true)
	if err != nil || head.Version != 1 || head.Head.Seq != 2 || head.Entries != 2 || head.Blobs == 0 {
		t.Fatalf("%+v, %v", head, err)
	}
	s, err := Open(bounded(t), Config{Dir: dir, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := s.Status()
	if st.Head.Epoch != 2 || st.Sites["www"].Releases != 1 || len(st.Nodes) != 1 || st.Nodes[0].Name != "fra1" || st.Restored != nil {
		t.Errorf("%+v", st)
	}
}
