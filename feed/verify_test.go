package feed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// chainOf makes n entries of an epoch, the first with number seq.
func chainOf(t testing.TB, epoch, seq uint64, n int) []Entry {
	t.Helper()
	var out []Entry
	prev := noChain
	for i := range n {
		e := Entry{Version: 1, Epoch: epoch, Seq: seq + uint64(i), Kind: "purge", At: 1_700_000_000_000, Body: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}
		if i == 0 && epoch > 1 {
			e.Kind = KindEpoch
		}
		if _, err := e.seal(prev); err != nil {
			t.Fatal(err)
		}
		prev, _ = parseChain(e.Chain)
		out = append(out, e)
	}
	return out
}

func TestVerify(t *testing.T) {
	one, two := chainOf(t, 1, 1, 5), chainOf(t, 2, 9, 3)
	other := chainOf(t, 1, 1, 5)
	other[2].Body = json.RawMessage(`{"n":99}`)
	changed := one[2]
	changed.Body = json.RawMessage(`{"n":7}`)
	later := one[2]
	later.At++
	badStart := one[0]
	badStart.At++
	reused := one[1]
	reused.Chain = one[3].Chain
	badEpoch := two[0]
	badEpoch.Body = json.RawMessage(`{"n":7}`)
	for _, c := range []struct {
		name string
		last Position
		e    Entry
		want VerdictKind
		why  string
	}{
		{"first", Position{}, one[0], Next, ""},
		{"first of a trimmed log", Position{}, one[3], Next, ""},
		{"first is changed", Position{}, badStart, Break, "does not start"},
		{"first of epoch is changed", Position{}, badEpoch, Break, "does not start"},
		{"next", one[0].Position(), one[1], Next, ""},
		{"same again", one[1].Position(), one[1], Duplicate, ""},
		{"older again", one[3].Position(), one[1], Duplicate, ""},
		{"gap", one[0].Position(), one[2], Break, "2 to 2 are missing"},
		{"body changed", one[1].Position(), changed, Break, "does not follow"},
		{"time changed", one[1].Position(), later, Break, "does not follow"},
		{"number used again", one[1].Position(), reused, Break, "used twice"},
		{"new epoch", one[4].Position(), two[0], Break, "new epoch 2"},
		{"within the new epoch", two[0].Position(), two[1], Next, ""},
		{"back to the old epoch", two[0].Position(), one[4], Break, "old copy"},
		{"unreadable own chain", Position{1, 1, "zz"}, one[1], Break, "unreadable"},
	} {
		got := Verify(c.last, c.e)
		if got.Kind != c.want || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %v %q, want %v with %q", c.name, got.Kind, got.Why, c.want, c.why)
		}
	}
}

// Every field is under the chain: changing any one breaks it.
func TestChainCoversEveryField(t *testing.T) {
	es := chainOf(t, 1, 1, 2)
	for name, edit := range map[string]func(*Entry){
		"version": func(e *Entry) { e.Version = 2 }, "epoch": func(e *Entry) { e.Epoch = 3 }, "seq": func(e *Entry) { e.Seq = 7 },
		"kind": func(e *Entry) { e.Kind = "drain" }, "at": func(e *Entry) { e.At = 1 }, "body": func(e *Entry) { e.Body = json.RawMessage(`{}`) },
	} {
		e := es[0]
		if !e.intact() {
			t.Fatal("the first entry is not intact to begin with")
		}
		if edit(&e); e.intact() {
			t.Errorf("%s is not under the chain", name)
		}
	}
}

func TestEncodeDecodeKeepsEveryByteOfTheBody(t *testing.T) {
	e := chainOf(t, 1, 1, 1)[0]
	e.Body = json.RawMessage(`{"url":"http://a.example/<b>&\u003c ü","n":1e3}`)
	b, err := e.seal(noChain)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Body, e.Body) || !back.intact() {
		t.Fatalf("body came back as %s", back.Body)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range chainOf(f, 1, 1, 2) {
		b, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1,"epoch":1,"seq":1,"chain":"","kind":"purge","at":0,"body":{}}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"v":1,"epoch":01,"seq":1,"chain":"","kind":"pu\u0072ge","at":-1,"body":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		// The short way says what a JSON decoder says.
		var long Entry
		if longErr := decodeStrict(b, &long); longErr == nil && long.check() == nil != (err == nil) || longErr != nil && err == nil || err == nil && !reflect.DeepEqual(e, long) {
			t.Fatalf("%s: %+v, %v; by the decoder %+v, %v", b, e, err, long, longErr)
		}
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatalf("decoded %+v, which does not encode: %v", e, err)
		}
		back, err := Decode(again)
		if err != nil || back.Position() != e.Position() || !bytes.Equal(back.Body, e.Body) || back.Kind != e.Kind || back.At != e.At {
			t.Fatalf("%s came back as %s: %v", b, again, err)
		}
		// Whatever came in, it is a duplicate of itself, and never the next after itself.
		if v := Verify(e.Position(), e); v.Kind != Duplicate {
			t.Fatalf("an entry after itself: %v %s", v.Kind, v.Why)
		}
		if v := Verify(Position{Epoch: e.Epoch, Seq: e.Seq - 1}, e); v.Kind == Next && !e.intact() && e.Seq > 1 {
			t.Fatal("an entry with a wrong chain was taken as the next")
		}
	})
}

// storedLog makes a log of n entries, closes it, and returns its folder and entries.
func storedLog(t *testing.T, n int) (*fleet, []Entry) {
	t.Helper()
	f := newFleet(t, "fra1")
	es := f.append(t, n)
	return f, es
}

func TestLostTailStartsANewEpochAboveEveryNumber(t *testing.T) {
	f, es := storedLog(t, 6)
	f.Close()
	// The whole store is gone, the position that was acknowledged is not.
	if err := os.RemoveAll(filepath.Join(f.dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if why := f.Log().EpochWhy(); !strings.Contains(why, "seq 6 was acknowledged") {
		t.Fatalf("why: %q", why)
	}
	if err := f.AddNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	if h := f.Log().Head(); h.Epoch != 2 || h.Seq != 7 {
		t.Fatalf("head %+v, want epoch 2 seq 7", h)
	}
	// A node that had read all of it learns that its position is no more.
	fo := f.dial(t, "fra1", es[5].Position())
	if !fo.Diverged() {
		t.Fatal("the node was not told")
	}
	e, err := fo.Next(bounded(t))
	if err != nil || e.Kind != KindEpoch {
		t.Fatalf("first entry %+v, %v; want an epoch", e, err)
	}
	if v := Verify(es[5].Position(), e); v.Kind != Break {
		t.Fatalf("the epoch after the old position: %v", v.Kind)
	}
	// It is said once: a further start goes on with the new epoch.
	f.append(t, 1)
	fo.Close()
	f.Close()
	f.open(t)
	if h, why := f.Log().Head(), f.Log().EpochWhy(); h.Epoch != 2 || h.Seq != 8 || why != "" {
		t.Fatalf("after another start: %+v, why %q; want epoch 2 seq 8", h, why)
	}
	var got []uint64
	for e, err := range f.Log().Entries(bounded(t), 8) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Seq)
	}
	if len(got) != 1 || got[0] != 8 {
		t.Fatalf("entries from 8 in epoch 2: %v", got)
	}
}

func TestMissingMiddleStartsANewEpoch(t *testing.T) {
	f, es := storedLog(t, 6)
	ctx := bounded(t)
	cfg := f.stream.CachedInfo().Config
	if !cfg.DenyDelete {
		t.Fatal("messages can be deleted from the log")
	}
	// What a flipped bit does: a message in the middle is not there any more.
	if err := f.stream.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	for i, e := range es {
		if i == 3 {
			continue
		}
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.js.Publish(ctx, f.Log().ingest, b); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	f.open(t)
	if why := f.Log().EpochWhy(); !strings.Contains(why, "4 to 4 are missing") {
		t.Fatalf("why: %q", why)
	}
	if h := f.Log().Head(); h.Epoch != 2 || h.Seq != 7 {
		t.Fatalf("head %+v, want epoch 2 seq 7", h)
	}
	if err := f.AddNode(ctx, "fra1"); err != nil {
		t.Fatal(err)
	}
	// A node at entry 5, which is still there, goes on and meets the epoch.
	fo := f.dial(t, "fra1", es[4].Position())
	if fo.Diverged() {
		t.Fatal("entry 5 is on the log, but the node was told that it is not")
	}
	at := read(t, fo, es[4].Position(), 1)
	e, err := fo.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if v := Verify(at, e); v.Kind != Break || e.Kind != KindEpoch {
		t.Fatalf("then %v (%s), kind %s; want a break by an epoch", v.Kind, v.Why, e.Kind)
	}
}

func TestUnreadableMessageStartsANewEpochAndIsSkipped(t *testing.T) {
	f, es := storedLog(t, 2)
	if _, err := f.js.Publish(bounded(t), f.Log().ingest, []byte("not an entry")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.open(t)
	if why := f.Log().EpochWhy(); !strings.Contains(why, "message 3 of the stream is unreadable") {
		t.Fatalf("why: %q", why)
	}
	if err := f.AddNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	fo := f.dial(t, "fra1", es[1].Position())
	e, err := fo.Next(bounded(t))
	if err != nil || e.Kind != KindEpoch || e.Seq != 3 {
		t.Fatalf("after the unreadable message: %+v, %v", e, err)
	}
}

func TestUnreadableKnownPositionRefusesToStart(t *testing.T) {
	f, _ := storedLog(t, 1)
	f.Close()
	path := filepath.Join(f.dir, knownName)
	if err := os.WriteFile(path, []byte(`{"epoch":1`), 0o600); err != nil { // of a version before
		t.Fatal(err)
	}
	srv, err := OpenServer(bounded(t), ServerConfig{Dir: f.dir})
	if err == nil {
		srv.Close()
		t.Fatal("started without knowing what was acknowledged")
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move this file away") {
		t.Fatalf("error without file or cure: %v", err)
	}
}

// A node that is ahead of the log (an old copy was restored) is told so, and
// the log itself goes on.
func TestNodeAheadOfTheLogIsToldAndReadsAnew(t *testing.T) {
	f, es := storedLog(t, 3)
	ahead := es[2].Position()
	ahead.Seq = 900
	fo := f.dial(t, "fra1", ahead)
	if !fo.Diverged() || fo.Head().Seq != 3 {
		t.Fatalf("diverged %v, head %+v", fo.Diverged(), fo.Head())
	}
	read(t, fo, Position{}, 3)
}

func TestStreamSeq(t *testing.T) {
	segments := []segment{{1, 1}, {10, 6}, {20, 9}}
	for _, c := range []struct{ seq, want uint64 }{
		{0, 1}, {1, 1}, {5, 5}, {9, 6}, {10, 6}, {12, 8}, {13, 9}, {19, 9}, {20, 9}, {25, 14},
	} {
		if got := streamSeq(segments, c.seq); got != c.want {
			t.Errorf("seq %d: message %d, want %d", c.seq, got, c.want)
		}
	}
	if got := streamSeq(nil, 5); got != 1 {
		t.Errorf("empty log: message %d, want 1", got)
	}
}

func TestReadKnownBounds(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := readKnown(dir); ok || err != nil {
		t.Fatalf("no file: %v, %v", ok, err)
	}
	want := chainOf(t, 1, 1, 1)[0].Position()
	if err := writeKnown(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := readKnown(dir); got != want || !ok || err != nil {
		t.Fatalf("%+v, %v, %v", got, ok, err)
	}
	if err := os.WriteFile(filepath.Join(dir, knownName), make([]byte, knownBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readKnown(dir); err == nil {
		t.Fatal("a file over the limit was read")
	}
}
