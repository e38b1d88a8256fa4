package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/txtest"
	"perigee.example/origin"
)

// picture is all that a snapshot must bring back.
func (f *fleet) picture(t *testing.T) string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := json.MarshalIndent(map[string]any{"state": f.state, "purges": f.purged.sorted(), "folded": f.folded, "blobs": len(f.referenced)}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// later has f snapshot its log, and trim it as it would in four days.
func (f *fleet) later(t *testing.T) {
	t.Helper()
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.local.Force(bounded(t), "iad1", "up"); err != nil {
		t.Fatal(err)
	}
	f.now = func() time.Time { return time.Now().Add(96 * time.Hour) }
	if err := f.trim(bounded(t)); err != nil {
		t.Fatal(err)
	}
	f.now = time.Now
}

// fill gives f something of every kind.
func (f *fleet) fill(t *testing.T) (release string) {
	t.Helper()
	_, release = writeRelease(t, f)
	ctx := bounded(t)
	for i := range 3 {
		if _, err := f.local.Purge(ctx, Purge{URL: fmt.Sprintf("http://shop.example.com/%d", i), Soft: i == 1}, false); err != nil {
			t.Fatal(err)
		}
	}
	d, err := origin.ParseDigest(release)
	if err == nil {
		_, err = f.local.Activate(ctx, "www", "preview-menu", d, nil)
	}
	if err == nil {
		_, err = f.local.Drain(ctx, "fra1")
	}
	if err == nil {
		_, err = f.local.NodeAdd(ctx, "fra1", false)
	}
	if err == nil {
		_, err = f.local.NodeAdd(ctx, "fra1", true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// TestStartsFromASnapshot: behind a snapshot the log is trimmed, and the next start,
// and a restore, find the same state, from the newest snapshot that can be read.
func TestStartsFromASnapshot(t *testing.T) {
	f := newFleet(t)
	release := f.fill(t)
	f.later(t)
	seam := f.feed.Log().First()
	st, err := f.client.Status(bounded(t))
	if err != nil || st.First != seam || st.Snapshot == nil || st.Snapshot.Seq+1 != seam || st.Snapshot.Size == 0 {
		t.Errorf("status: first %d, snapshot %+v, %v", st.First, st.Snapshot, err)
	}
	if at := f.state.Snapshots[0].At.Seq; seam != at+1 {
		t.Fatalf("the log begins at %d, the snapshot ends at %d", seam, at)
	}
	want := f.picture(t)
	f.restart(t)
	if got := f.picture(t); got != want {
		t.Fatalf("after a restart\n%s\nbefore\n%s", got, want)
	}
	d, err := origin.ParseDigest(release)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.local.Activate(bounded(t), "www", "", d, nil); err != nil {
		t.Errorf("a release of before the snapshot cannot be activated: %v", err)
	}
	wantStatus(t, func() error { _, err := f.local.Receipts(bounded(t), 2, 0); return err }(), 404, "begins with seq")

	want = f.picture(t)
	var short bytes.Buffer
	if err := f.local.Backup(bounded(t), &short, false); err != nil { // without the releases' blobs
		t.Fatal(err)
	}
	saved := backupOf(t, f)
	f.Close()
	if head := f.restore(t, saved, false); head.Version != trimmedVersion {
		t.Errorf("a backup that needs its snapshot has version %d", head.Version)
	}
	if got := f.picture(t); got != want {
		t.Fatalf("restored\n%s\nbefore\n%s", got, want)
	}
	if _, err := Restore(bounded(t), filepath.Join(t.TempDir(), "control"), &short, false); err != nil {
		t.Errorf("without blobs: %v", err)
	}

	// Old snapshots go, and the only one that reaches to the log is needed.
	f.heard("fra1") // which has seen no more than the backup
	f.later(t)
	f.later(t)
	f.mu.Lock()
	list := f.snapshotBlobs()
	gone := f.state.Snapshots[0].Digest
	f.mu.Unlock()
	if _, ok := f.Server.blobs.Has(gone); ok || len(list) != keptSnapshots {
		t.Errorf("the blob of the oldest snapshot is there still; %d are kept", len(list))
	}
	f.Close()
	if err := spoil(f.dir, list[1]); err != nil {
		t.Fatal(err)
	}
	_, err = Open(bounded(t), Config{Dir: f.dir, Known: known})
	if err == nil || !strings.Contains(err.Error(), "no snapshot is left") || !strings.Contains(err.Error(), "perigee restore") {
		t.Fatalf("the only snapshot that reaches to the log is rotten: %v", err)
	}
}

// spoil changes a bit of a stored blob.
func spoil(dir string, d origin.Digest) error {
	return filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, e os.DirEntry, err error) error {
		if err != nil || !strings.Contains(strings.ReplaceAll(path, "/", ""), strings.TrimPrefix(d.String(), "sha256-")[4:]) {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			b[len(b)/2] ^= 1
			err = os.WriteFile(path, b, 0o600)
		}
		return err
	})
}

// TestTrimWaits: entries stay that are young, that a node which is there has not
// applied, or that no snapshot has, and all stay for the first minute.
func TestTrimWaits(t *testing.T) {
	f := newFleet(t)
	f.fill(t)
	first := func(want uint64, what string, now time.Duration) {
		t.Helper()
		f.now = func() time.Time { return time.Now().Add(now) }
		if err := f.trim(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if got := f.feed.Log().First(); got != want {
			t.Errorf("%s: the log begins at %d, want %d", what, got, want)
		}
	}
	first(1, "without a snapshot", 96*time.Hour)
	f.now = time.Now
	if err := f.snapshot(bounded(t)); err != nil {
		t.Fatal(err)
	}
	at := f.state.Snapshots[0].At.Seq
	first(1, "too young", 71*time.Hour)
	f.report("fra1", ReportWatermark, []byte(fmt.Sprintf(`{"epoch":1,"seq":%d,"chain":""}`, at-1)))
	first(1, "a node is behind", 71*time.Hour)
	f.now = func() time.Time { return time.Now().Add(73 * time.Hour) }
	f.report("fra1", ReportWatermark, []byte(fmt.Sprintf(`{"epoch":1,"seq":%d,"chain":""}`, at-1)))
	first(1, "a node is behind", 73*time.Hour)
	first(at+1, "that node is gone", 74*time.Hour)
}

// TestSnapshotDue: once an hour, and only if there is anything new.
func TestSnapshotDue(t *testing.T) {
	f := newFleet(t)
	made := func(want int, now time.Duration) {
		t.Helper()
		f.now = func() time.Time { return time.Now().Add(now) }
		if err := f.snapshotDue(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if len(f.state.Snapshots) != want {
			t.Errorf("after %s: %d snapshots, want %d", now, len(f.state.Snapshots), want)
		}
	}
	made(0, 2*time.Hour)
	if _, err := f.local.Drain(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	made(0, 59*time.Minute)
	made(1, 61*time.Minute)
	made(1, 3*time.Hour)
}

// TestPurgedFold: the last purge of each scope; one of a site covers those before
// it; when there are too many the oldest become one of their site, as hard as they were.
func TestPurgedFold(t *testing.T) {
	m := purged{}
	m.put(1, Purge{Site: "a", URL: "http://a.test/1"})
	m.put(2, Purge{Site: "b", Tag: "x"})
	m.put(3, Purge{Site: "a", All: true, Soft: true})
	m.put(4, Purge{Site: "a", URL: "http://a.test/1"})
	if s := m.sorted(); len(s) != 3 || s[0].Seq != 2 || s[1].Seq != 3 || s[2].Seq != 4 {
		t.Errorf("%+v", s)
	}
	m.put(5, Purge{Site: "a", All: true})
	if s := m.sorted(); len(s) != 2 || s[0].Seq != 2 || s[1].Seq != 5 {
		t.Errorf("%+v", s)
	}
	for i := range uint64(maxScopes) {
		m.put(10+i, Purge{Site: "c", URL: fmt.Sprintf("http://c.test/%d", i), Soft: i%2 == 0})
	}
	if hard, soft := m[Purge{Site: "c", All: true}], m[Purge{Site: "c", All: true, Soft: true}]; len(m) > maxScopes || hard == 0 || soft == 0 || m[Purge{Site: "b", All: true}] != 2 {
		t.Errorf("%d scopes; all of c since %d, soft %d; of b %d", len(m), hard, soft, m[Purge{Site: "b", All: true}])
	}
}

// TestSnapshotFormat: a snapshot of the first version is read whole. Of one that has
// more in it a node takes what it knows, and a control node nothing; a purge that is
// not known is refused by both.
func TestSnapshotFormat(t *testing.T) {
	const name = "snapshot-v1.jsonl"
	var fresh []byte
	if txtest.Updating() {
		f := newFleet(t)
		f.fill(t)
		if err := f.snapshot(bounded(t)); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := f.writeSnapshot(bounded(t), &b); err != nil {
			t.Fatal(err)
		}
		fresh = b.Bytes()
	}
	b := golden(t, name, fresh)
	s, err := ReadSnapshot(bytes.NewReader(b), origin.DigestOf(b), true)
	if err != nil {
		t.Fatal(err)
	}
	www := s.State.Sites["www"]
	if s.At.Epoch != 1 || s.At.Seq != 9 || len(s.Purges) != 3 || !s.Purges[1].Purge.Soft || www.Generation != 2 || www.Previews["preview-menu"].Generation != 6 ||
		s.State.Drained["fra1"] != 7 || len(s.State.Nodes["fra1"]) != 64 || len(s.State.Snapshots) != 1 || s.State.Snapshots[0].At.Seq != 8 {
		t.Errorf("%+v", s)
	}
	var again bytes.Buffer
	if err := s.Write(&again); err != nil || again.String() != string(b) {
		t.Errorf("it is written anew as\n%s, %v", again.String(), err)
	}
	for what, c := range map[string]struct {
		old, new      string
		strict, plain bool
	}{
		"a newer state":     {`"state":{`, `"state":{"Moons":[],`, false, true},
		"a newer purge":     {`{"seq":3,"purge":{`, `{"seq":3,"purge":{"on_mars":true,`, false, false},
		"a newer version":   {`{"v":1`, `{"v":2`, false, false},
		"a purge too few":   {`"purges":3`, `"purges":4`, false, false},
		"a purge too many":  {`"purges":3`, `"purges":2`, false, false},
		"a purge from then": {`{"seq":3,`, `{"seq":333,`, false, false},
	} {
		changed := []byte(strings.Replace(string(b), c.old, c.new, 1))
		if bytes.Equal(changed, b) {
			t.Fatalf("%s: nothing is changed", what)
		}
		if _, err := ReadSnapshot(bytes.NewReader(changed), origin.DigestOf(changed), true); (err == nil) != c.strict {
			t.Errorf("%s, by a control node: %v", what, err)
		}
		if _, err := ReadSnapshot(bytes.NewReader(changed), origin.DigestOf(changed), false); (err == nil) != c.plain {
			t.Errorf("%s, by a node: %v", what, err)
		}
		if _, err := ReadSnapshot(bytes.NewReader(changed), origin.DigestOf(b), false); err == nil {
			t.Errorf("%s is taken under the digest of another", what)
		}
	}
	made := SnapshotMade{At: s.At, Digest: origin.DigestOf(b), Size: int64(len(b))}
	body, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := DecodeCommand(feed.Entry{Kind: KindSnapshot, Body: body}); err != nil || !reflect.DeepEqual(c, &made) {
		t.Errorf("%s is read as %+v, %v", body, c, err)
	}
}

// killedSnapshotsEnv makes TestMain of a second process snapshot and trim until it is killed.
const killedSnapshotsEnv = "PERIGEE_TEST_CONTROL_SNAPSHOT_IN"

func snapshotUntilKilled(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir, Known: known, byHand: true})
	if err == nil {
		s.now = func() time.Time { return time.Now().Add(96 * time.Hour) }
	}
	for i := 0; err == nil; i++ {
		var e feed.Entry
		p := Purge{Site: "shop", URL: fmt.Sprintf("http://shop.example.com/%d/%d", os.Getpid(), i)}
		if e, err = s.command(ctx, KindPurge, p, free); err == nil {
			fmt.Printf("%d %s .\n", e.Seq, p.URL) // one write: whole, or cut by the kill
			err = s.snapshot(ctx)
		}
		if err == nil {
			err = s.trim(ctx)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Killed without warning while it makes snapshots and trims the log, again and
// again over the same folder: no purge that was acknowledged is lost, though its
// entry is gone, and no start takes what was trimmed for lost.
func TestKilledAmongSnapshots(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]uint64{}
	for round := range 3 {
		untilKilled(t, killedSnapshotsEnv+"="+dir, 4+2*round, func(line string) {
			var seq uint64
			var url, end string
			if _, err := fmt.Sscan(line, &seq, &url, &end); err == nil && end == "." {
				acked[url] = seq
			}
		})
	}
	s, err := Open(bounded(t), Config{Dir: dir, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if why := s.feed.Log().EpochWhy(); why != "" {
		t.Fatalf("a new epoch was needed: %s", why)
	}
	if len(acked) < 12 || s.feed.Log().First() < 12 {
		t.Fatalf("%d purges, the log begins at %d: this tests nothing", len(acked), s.feed.Log().First())
	}
	for url, seq := range acked {
		if got := s.purged[Purge{Site: "shop", URL: url}]; got != seq {
			t.Errorf("%s was acknowledged in entry %d, the state has it in %d", url, seq, got)
		}
	}
}
