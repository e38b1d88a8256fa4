package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/feed"
	"perigee.example/internal/control"
)

var all = keep{purges: true, releases: true, drains: true}

// entry makes a valid entry; its chain is not looked at by the journal.
func entry(seq uint64, kind string, body any) (feed.Entry, any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	e := feed.Entry{Version: 1, Epoch: 1, Seq: seq, Chain: fmt.Sprintf("%064x", seq), Kind: kind, At: 1, Body: b}
	c, err := control.DecodeCommand(e)
	if err != nil {
		panic(err)
	}
	return e, c
}

func purgeURL(site string, n int) control.Purge {
	return control.Purge{Site: site, URL: fmt.Sprintf("http://%s.example/%d", site, n)}
}

func mustAppend(t *testing.T, j *journal, seq uint64, kind string, body any) {
	t.Helper()
	e, c := entry(seq, kind, body)
	if _, err := j.append([]feed.Entry{e}, []any{c}); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t *testing.T, dir string) (*journal, string) {
	t.Helper()
	j, cut, err := openJournal(dir, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.close() })
	return j, cut
}

// liveSeqs lists the numbers of the entries that still matter.
func liveSeqs(j *journal) string {
	var out []string
	for _, r := range j.live.sorted() {
		out = append(out, fmt.Sprint(r.entry.Seq))
	}
	return strings.Join(out, " ")
}

// filledEntries is how many entries the journal of filled has: each byte of it
// is tried below.
const filledEntries = 3

func filled(t *testing.T) (dir string, whole []byte) {
	t.Helper()
	dir = t.TempDir()
	j, _ := mustOpen(t, dir)
	for i := range filledEntries {
		mustAppend(t, j, uint64(i+1), control.KindPurge, purgeURL("a", i))
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	return dir, whole
}

func TestJournalSurvivesReopenAndRewrite(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	mustAppend(t, j, 1, control.KindPurge, purgeURL("a", 1))
	mustAppend(t, j, 2, control.KindDrain, control.Drain{Edge: "fra1"})
	mustAppend(t, j, 3, control.KindPurge, purgeURL("a", 1)) // takes the place of 1
	mustAppend(t, j, 4, control.KindPurge, purgeURL("b", 1))
	mustAppend(t, j, 5, control.KindUndrain, control.Drain{Edge: "fra1"})
	for range 2 {
		j, cut := mustOpen(t, dir)
		if got := liveSeqs(j); got != "3 4" || j.position.Seq != 5 || cut != "" {
			t.Fatalf("live %s, position %d, cut %q; want 3 4, 5", got, j.position.Seq, cut)
		}
		if err := j.rewrite(); err != nil { // and once more from the rewritten one
			t.Fatal(err)
		}
	}
}

func TestHardSitePurgeCoversEarlierOnes(t *testing.T) {
	j, _ := mustOpen(t, t.TempDir())
	mustAppend(t, j, 1, control.KindPurge, purgeURL("a", 1))
	mustAppend(t, j, 2, control.KindPurge, purgeURL("aa", 1))
	mustAppend(t, j, 3, control.KindPurge, control.Purge{Site: "a", All: true, Soft: true})
	mustAppend(t, j, 4, control.KindPurge, control.Purge{Site: "a", All: true})
	if got := liveSeqs(j); got != "2 4" || j.live.purges != 2 {
		t.Fatalf("live %s (%d purges), want 2 4", got, j.live.purges)
	}
}

// Purges that share an entry are remembered one by one: a later purge of one of
// them takes the place of that one alone, and all come back after a restart and
// after a rewrite.
func TestSharedPurgesAreRememberedOneByOne(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	mustAppend(t, j, 1, control.KindPurge, purgeURL("a", 1))
	mustAppend(t, j, 2, control.KindPurges, control.Purges{Purges: []control.Purge{
		purgeURL("a", 1), {Site: "b", All: true}, purgeURL("b", 2), purgeURL("a", 3), {Site: "c", Tag: "x", Soft: true},
	}})
	mustAppend(t, j, 3, control.KindPurge, purgeURL("a", 3))
	for range 3 {
		j, cut := mustOpen(t, dir)
		if got := liveSeqs(j); got != "2 2 2 3" || j.live.purges != 4 || j.position.Seq != 3 || cut != "" {
			t.Fatalf("live %s (%d purges), position %d, cut %q; want 2 2 2 3", got, j.live.purges, j.position.Seq, cut)
		}
		for _, r := range j.live.sorted() {
			p, ok := r.command.(*control.Purge)
			if !ok || r.entry.Kind != control.KindPurge {
				t.Fatalf("remembered as %s %+v", r.entry.Kind, r.command)
			}
			if again, err := control.DecodeCommand(r.entry); err != nil || *again.(*control.Purge) != *p {
				t.Fatalf("%+v reads back as %+v, %v", p, again, err)
			}
		}
		if err := j.rewrite(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestScopesAreBoundedBySitePurges(t *testing.T) {
	for _, soft := range []bool{true, false} {
		scopesAreBounded(t, soft)
	}
}

func scopesAreBounded(t *testing.T, isSoft bool) {
	l := newLive(all)
	for i := range maxScopes + 1 {
		p := purgeURL("a", i)
		p.Soft = isSoft
		l.purge(feed.Entry{Version: 1, Epoch: 1, Seq: uint64(i + 1), Chain: fmt.Sprintf("%064x", i+1), Kind: control.KindPurge, Body: json.RawMessage(`{}`)}, &p)
	}
	if l.purges > maxScopes || l.purges != len(l.records) {
		t.Fatalf("%d purges counted, %d records, bound %d", l.purges, len(l.records), maxScopes)
	}
	site, ok := l.records[scope(&control.Purge{Site: "a", All: true, Soft: isSoft})]
	if !ok || site.entry.Seq != maxScopes/10 {
		t.Fatalf("soft %v: no purge of the site with the number of the newest one it stands for: %+v", isSoft, site.entry)
	}
	if c, err := control.DecodeCommand(site.entry); err != nil || c.(*control.Purge).Soft != isSoft {
		t.Fatalf("soft %v: the made-up purge does not read back: %+v, %v", isSoft, c, err)
	}
}

// A write that a crash cut short at any byte leaves every entry before it.
func TestTornTailIsCutAtEveryByte(t *testing.T) {
	dir, whole := filled(t)
	last := uint64(0)
	for n := range len(whole) + 1 {
		j := &journal{live: newLive(all)}
		good, why, torn := j.read(whole[:n])
		if good != n && !torn {
			t.Fatalf("cut at byte %d counts as damage: %s", n, why)
		}
		if j.position.Seq < last || j.position.Seq > last+1 {
			t.Fatalf("cut at byte %d: position %d after %d", n, j.position.Seq, last)
		}
		if j.position.Seq == last && n%50 != 0 {
			continue
		}
		// On the disk too, at some of them: it goes on from there.
		last = j.position.Seq
		if err := os.WriteFile(filepath.Join(dir, journalName), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		opened, cut := mustOpen(t, dir)
		if cut != "" || opened.position != j.position {
			t.Fatalf("cut at byte %d: opened at %d, cut %q", n, opened.position.Seq, cut)
		}
		mustAppend(t, opened, last+1, control.KindDrain, control.Drain{Edge: "x"})
		again, cut := mustOpen(t, dir)
		if cut != "" || again.position.Seq != last+1 {
			t.Fatalf("after one more entry: %d, cut %q", again.position.Seq, cut)
		}
	}
	if last != filledEntries {
		t.Fatalf("the whole journal ends at %d", last)
	}
}

// A flipped bit anywhere is seen, and what is before it stays.
func TestFlippedBitIsSeenAtEveryByte(t *testing.T) {
	dir, whole := filled(t)
	silent := 0
	for n := range whole {
		b := bytes.Clone(whole)
		b[n] ^= 0x10
		j := &journal{live: newLive(all)}
		good, why, torn := j.read(b)
		if good > n || why == "" || j.position.Seq >= filledEntries {
			t.Fatalf("bit flipped in byte %d: not seen (%d bytes good)", n, good)
		}
		if torn {
			silent++ // a length that now reaches beyond the end looks like a torn write
		}
	}
	if silent > 4*(filledEntries+1) {
		t.Fatalf("%d of %d flips were taken for a torn write; only those in the length fields may be", silent, len(whole))
	}
	// On the disk: said, cut, and what was cut is kept beside it.
	b := bytes.Clone(whole)
	b[len(b)-1] ^= 1
	path := filepath.Join(dir, journalName)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	j, cut := mustOpen(t, dir)
	if !strings.Contains(cut, "checksum") || j.position.Seq != filledEntries-1 {
		t.Fatalf("position %d, cut %q", j.position.Seq, cut)
	}
	if kept, err := os.ReadFile(path + ".bad"); err != nil || !bytes.HasSuffix(b, kept) || len(kept) == 0 {
		t.Fatalf("kept %d bytes of what was cut, %v", len(kept), err)
	}
	if _, cut := mustOpen(t, dir); cut != "" {
		t.Fatalf("said again at the next start: %s", cut)
	}
}

// The file is dead after a failed write; the next append writes a new one with everything.
func TestDeadFileIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	mustAppend(t, j, 1, control.KindPurge, purgeURL("a", 1))
	if err := j.f.Close(); err != nil { // writes fail from here on
		t.Fatal(err)
	}
	e, c := entry(2, control.KindPurge, purgeURL("a", 2))
	if _, err := j.append([]feed.Entry{e}, []any{c}); err == nil {
		t.Fatal("an append to a dead file was acknowledged")
	}
	if j.position.Seq != 1 {
		t.Fatalf("position %d after a failed append, want 1", j.position.Seq)
	}
	if _, err := j.append([]feed.Entry{e}, []any{c}); err != nil {
		t.Fatal(err)
	}
	j, cut := mustOpen(t, dir)
	if got := liveSeqs(j); got != "1 2" || cut != "" || j.position.Seq != 2 {
		t.Fatalf("live %s, position %d, cut %q", got, j.position.Seq, cut)
	}
}

func TestJournalIsRewrittenWhenMostOfItIsDead(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, dir)
	e, c := entry(1, control.KindPurge, control.Purge{Site: "a", URL: "http://a.example/" + strings.Repeat("x", 7000)})
	es, cs := []feed.Entry{}, []any{}
	for range 100 {
		es, cs = append(es, e), append(cs, c)
	}
	for range 20 { // 14 MB, of which 7 KB matter
		if _, err := j.append(es, cs); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(j.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 3*slackBytes || info.Size() != j.size {
		t.Fatalf("the journal has %d bytes (counted %d) for one live entry", info.Size(), j.size)
	}
}

func FuzzJournal(f *testing.F) {
	e, _ := entry(1, control.KindPurge, purgeURL("a", 1))
	b, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendRecord([]byte(journalMagic), tagEntry, b))
	f.Add(appendRecord(appendRecord([]byte(journalMagic), tagPosition, []byte(`{"epoch":1,"seq":2,"chain":""}`)), tagKept, b))
	f.Add([]byte(journalMagic + "\xff\xff\xff\xff1234"))
	f.Add([]byte("PGJ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j := &journal{live: newLive(all)}
		good, why, torn := j.read(b)
		if good < 0 || good > len(b) || (good == len(b)) != (why == "") && len(b) > 0 {
			t.Fatalf("%d of %d bytes good, why %q, torn %v", good, len(b), why, torn)
		}
		// What was good reads the same again.
		again := &journal{live: newLive(all)}
		if n, why, _ := again.read(b[:good]); good > 0 && (n != good || why != "" || again.position != j.position || len(again.live.records) != len(j.live.records)) {
			t.Fatalf("the good part reads as %d bytes, %q", n, why)
		}
	})
}

// A purge does not wait for the disk: it is applied when the journal does not hold
// it yet, and the place moves when it does.
func TestPurgeIsAppliedBeforeItIsJournalled(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.dir, "edge", journalName)
	size := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			return -1
		}
		return st.Size()
	}
	r.start()
	r.await("behind false")
	before := size()
	at := make(chan int64, 1)
	r.onPurge = func(uint64) { at <- size() }
	r.purge(1)
	r.await(mark(1))
	if got, after := <-at, size(); got != before || after <= before {
		t.Errorf("the journal had %d octets before the purge, %d when it was applied, %d when it was told", before, got, after)
	}
}
