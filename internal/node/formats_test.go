package node

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/feed"
	"perigee.example/internal/control"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

// TestJournalFormat: a journal of the first version is read whole. One of a newer
// version is not read in part: it is said, kept beside it, and the node begins
// anew, which a node may always do.
func TestJournalFormat(t *testing.T) {
	golden := filepath.Join("testdata", "feed-v1.journal")
	everything := keep{purges: true, releases: true, drains: true, nodes: true}
	if *updateGolden {
		b, err := os.ReadFile("../../feed/testdata/entries-v1.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		j, _, err := openJournal(dir, everything)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			e, err := feed.Decode(bytes.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			c, err := control.DecodeCommand(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := j.append([]feed.Entry{e}, []any{c}); err != nil {
				t.Fatal(err)
			}
			if e.Seq == 9 { // from here on, with records of a rewritten one before it
				if err := j.rewrite(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		if b, err = os.ReadFile(filepath.Join(dir, journalName)); err == nil {
			err = os.WriteFile(golden, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	open := func(b []byte) (*journal, string, string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, cut, err := openJournal(dir, everything)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = j.close() })
		return j, cut, dir
	}
	j, cut, _ := open(b)
	d := j.live.drains()
	if cut != "" || j.position.Epoch != 2 || j.position.Seq != 23 || d.Forced["iad1"] != "down" || len(d.Drained) != 0 || j.live.purges != 3 {
		t.Errorf("cut %q, position %+v, drains %+v, %d purges", cut, j.position, d, j.live.purges)
	}
	if cert, told := j.live.nodes()["sin1"]; !told || cert != "" {
		t.Errorf("nodes %v", j.live.nodes())
	}
	if got := liveSeqs(j); got != "2 3 7 8 8 11 13" {
		t.Errorf("entries that still matter: %s", got)
	}
	newer := bytes.Clone(b)
	newer[len(journalMagic)-1]++
	j, cut, dir := open(newer)
	if !strings.Contains(cut, "not a journal of this version") || j.position != (feed.Position{}) || len(j.live.records) != 0 {
		t.Errorf("a newer version: cut %q, position %+v", cut, j.position)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, journalName+".bad")); err != nil || !bytes.Equal(kept, newer) {
		t.Errorf("it is not kept: %v", err)
	}
}
