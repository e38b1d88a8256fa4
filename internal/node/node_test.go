package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
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

// rig is a control node's feed and one node that follows it, in one process.
type rig struct {
	t        *testing.T
	dir      string
	server   atomic.Pointer[feed.Server]
	blobs    *origin.Blobs                               // control's
	gate     atomic.Pointer[func(d origin.Digest) error] // asked before each blob is given out
	events   chan string
	node     *Node
	onPurge  func(seq uint64) // called before a purge is noted; nil: not
	releases *origin.Releases
	stop     func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), events: make(chan string, 1000)}
	r.setGate(func(origin.Digest) error { return nil })
	var err error
	if r.blobs, err = origin.OpenBlobs(filepath.Join(r.dir, "control-blobs")); err != nil {
		t.Fatal(err)
	}
	r.openFeed("feed")
	return r
}

func (r *rig) srv() *feed.Server { return r.server.Load() }

func (r *rig) setGate(f func(d origin.Digest) error) { r.gate.Store(&f) }

func (r *rig) openFeed(name string) {
	r.t.Helper()
	srv, err := feed.OpenServer(bounded(r.t), feed.ServerConfig{Dir: filepath.Join(r.dir, name)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(srv.Close)
	r.server.Store(srv)
	if err := srv.AddNode(bounded(r.t), "fra1"); err != nil {
		r.t.Fatal(err)
	}
	srv.Reports(func(_, kind string, payload []byte) {
		if kind == control.ReportWatermark {
			r.events <- "mark " + string(payload)
		}
	})
}

// start opens the node over its folder and runs it.
func (r *rig) start() {
	r.t.Helper()
	edge := filepath.Join(r.dir, "edge")
	blobs, err := origin.OpenBlobs(filepath.Join(edge, "blobs"))
	if err != nil {
		r.t.Fatal(err)
	}
	if r.releases, err = origin.OpenReleases(filepath.Join(edge, "releases"), blobs); err != nil {
		r.t.Fatal(err)
	}
	say := func(format string, args ...any) { r.events <- fmt.Sprintf(format, args...) }
	r.node, err = Open(Config{
		Dir: edge, Role: "edge", Releases: r.releases, Blobs: blobs,
		Dial: func(ctx context.Context, from feed.Position) (*feed.Follower, error) {
			return r.srv().Follow(ctx, "fra1", from)
		},
		Fetch: func(_ context.Context, d origin.Digest) (io.ReadCloser, int64, error) {
			if err := (*r.gate.Load())(d); err != nil {
				return nil, 0, err
			}
			size, ok := r.blobs.Has(d)
			if !ok {
				return nil, 0, os.ErrNotExist
			}
			f, err := r.blobs.Open(d)
			return f, size, err
		},
		Hooks: Hooks{
			Purge: func(at feed.Position, p control.Purge) {
				if r.onPurge != nil {
					r.onPurge(at.Seq)
				}
				say("purge %d %s soft %v", at.Seq, p.String(), p.Soft)
			},
			Behind:     func(b bool) { say("behind %v", b) },
			Revalidate: func(why string) { say("revalidate %s", why) },
			Drains:     func(d Drains) { say("drains %v %v", d.Drained, d.Forced) },
			Nodes:      func(certs map[string]string) { say("nodes %v", certs) },
			Lost:       func(since time.Time) { say("lost %v", !since.IsZero()) },
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.node.Run(ctx) }()
	r.stop = func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				r.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			r.t.Error("Run did not end")
		}
		if err := r.node.Close(); err != nil {
			r.t.Error(err)
		}
		if err := errors.Join(r.releases.Close(), blobs.Close()); err != nil {
			r.t.Error(err)
		}
		r.stop = func() {}
	}
	r.t.Cleanup(func() { r.stop() })
}

// await waits for an event that contains want, and fails if one of never comes first.
func (r *rig) await(want string, never ...string) string {
	r.t.Helper()
	deadline := time.After(patience)
	var seen []string
	for {
		select {
		case e := <-r.events:
			if strings.Contains(e, want) {
				return e
			}
			for _, n := range never {
				if strings.Contains(e, n) {
					r.t.Fatalf("%q came before %q", e, want)
				}
			}
			seen = append(seen, e)
		case <-deadline:
			r.t.Fatalf("no %q; saw %q", want, seen)
		}
	}
}

func (r *rig) append(kind string, body any) feed.Entry {
	r.t.Helper()
	e, err := r.srv().Log().Append(bounded(r.t), kind, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func (r *rig) purge(n int) feed.Entry {
	return r.append(control.KindPurge, control.Purge{Site: "www", URL: fmt.Sprintf("http://www.example.com/%d", n)})
}

// release stores a release of one page at control.
func (r *rig) release(page string) (origin.Digest, origin.Digest) {
	r.t.Helper()
	d := origin.DigestOf([]byte(page))
	m := &origin.Manifest{Version: origin.ManifestVersion, Files: map[string]origin.File{
		"index.html": {Digest: d, Size: int64(len(page)), Type: "text/html; charset=utf-8", Class: origin.Document},
	}}
	b, id, err := m.Canonical()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(r.blobs.Put(d, int64(len(page)), strings.NewReader(page)), r.blobs.Put(id, int64(len(b)), bytes.NewReader(b))); err != nil {
		r.t.Fatal(err)
	}
	return id, d
}

func mark(seq uint64) string { return fmt.Sprintf(`"seq":%d,`, seq) }

func TestEntriesAreAppliedInOrderAndReported(t *testing.T) {
	r := newRig(t)
	r.purge(1)
	r.append(control.KindDrain, control.Drain{Edge: "iad1"})
	r.start()
	r.await("drains map[] map[]", "purge")
	r.await("behind true", "purge")
	r.await("purge 1 ")
	r.await("drains map[iad1:true] map[]")
	r.await("behind false")
	r.await(mark(2))
	r.append(control.KindForce, control.Force{Edge: "sin1", Force: "down"})
	r.await("drains map[iad1:true] map[sin1:down]")
	r.append(control.KindUndrain, control.Drain{Edge: "iad1"})
	r.await("drains map[] map[sin1:down]")
	r.await(mark(4))
}

// A report may go out at any moment: a node's place is behind what it is
// about to apply until that is done.
func TestPlaceMovesOnceAllBeforeItIsApplied(t *testing.T) {
	r := newRig(t)
	r.onPurge = func(seq uint64) {
		if at := r.node.Position(); at.Seq >= seq {
			t.Errorf("the node stands at seq %d while it applies the purge of seq %d", at.Seq, seq)
		}
	}
	r.start()
	r.await("lost false")
	r.purge(1)
	r.await("purge 1 ")
	r.await(mark(1))
}

// Restarted with control gone, a node knows its drains and purges, and its place.
func TestRestartWithoutControlKeepsWhatWasAcknowledged(t *testing.T) {
	r := newRig(t)
	r.start()
	r.purge(1)
	r.append(control.KindDrain, control.Drain{Edge: "iad1"})
	r.append(control.KindPurge, control.Purge{Site: "www", Tag: "summer sale"})
	r.append(control.KindPurge, control.Purge{Site: "www", Tag: "summer", Soft: true})
	r.append(control.KindPurge, control.Purge{Site: "www", Prefix: "http://www.example.com/img/"})
	e := r.purge(2)
	r.await(mark(6))
	r.stop()
	r.srv().Close()
	r.start() // Dial fails from now on
	r.await("purge 1 ")
	r.await(`purge 3 tag "summer sale" of site www soft false`)
	r.await(`purge 4 tag "summer" of site www soft true`)
	r.await("purge 5 http://www.example.com/img/ and all below it soft false")
	r.await("purge 6 ")
	r.await("drains map[iad1:true] map[]")
	if got := r.node.Position(); got != e.Position() {
		t.Fatalf("position %+v, want %+v", got, e.Position())
	}
	if r.node.LostSince().IsZero() {
		t.Fatal("the feed counts as there")
	}
}

// Which nodes are out, and which have another certificate, outlasts a restart
// with control gone.
func TestRemovedNodesAreRemembered(t *testing.T) {
	r := newRig(t)
	r.start()
	r.await("nodes map[]")
	first, second := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	r.append(control.KindNode, control.NodeCert{Node: "far", Cert: first})
	r.await("nodes map[far:" + first + "]")
	r.append(control.KindNode, control.NodeCert{Node: "far", Cert: second})
	r.append(control.KindNode, control.NodeCert{Node: "iad1"})
	r.append(control.KindNode, map[string]string{"node": "sin1", "cert": "rot"}) // no node reads it as something else
	r.await("nodes map[far:" + second + " iad1:]")
	r.await(mark(4))
	r.stop()
	r.srv().Close()
	r.start()
	r.await("nodes map[far:" + second + " iad1:]")
}

// Purges that share an entry are applied one after the other, with its number.
func TestSharedPurgesAreAppliedInTheirOrder(t *testing.T) {
	r := newRig(t)
	r.start()
	r.append(control.KindPurges, control.Purges{Purges: []control.Purge{{Site: "www", Tag: "b"}, {Site: "www", Tag: "a", Soft: true}}})
	r.await(`purge 1 tag "b" of site www soft false`, `purge 1 tag "a"`, mark(1))
	r.await(`purge 1 tag "a" of site www soft true`, mark(1))
	r.await(mark(1))
	r.append("purge-by-moon", map[string]string{"phase": "new"})
	r.await("revalidate a purge of a kind that is not known here (purge-by-moon, seq 2)", mark(2))
	r.await(mark(2))
}

// A purge that this version cannot read may have been for anything.
func TestPurgeThatCannotBeReadRevalidatesEverything(t *testing.T) {
	r := newRig(t)
	r.start()
	r.append(control.KindPurge, map[string]string{"site": "www", "planet": "mars"})
	r.await("revalidate a purge could not be read (seq 1)")
	r.purge(1)
	r.await("purge 2 ")
	r.await(mark(2))
}

func TestAbsentNodeIsBehindUntilItHasCaughtUp(t *testing.T) {
	r := newRig(t)
	r.start()
	r.purge(1)
	r.await(mark(1))
	r.stop()
	r.purge(2)
	r.purge(3)
	r.start()
	r.await("purge 1 ", "behind")
	r.await("behind true", "purge 2")
	r.await("purge 2 ", "behind false")
	r.await("purge 3 ", "behind false")
	r.await("behind false")
}

func TestReconnectsWhenControlComesBack(t *testing.T) {
	r := newRig(t)
	r.start()
	r.purge(1)
	r.await(mark(1))
	r.srv().Close()
	r.await("lost true")
	r.openFeed("feed")
	r.await("lost false")
	r.purge(2)
	r.await("purge 2 ", "revalidate", "purge 1")
}

// A slow release holds up neither later purges nor their receipts.
func TestActivationWaitsForBlobsAndHoldsUpNothing(t *testing.T) {
	r := newRig(t)
	id, page := r.release("one")
	open := make(chan struct{})
	asked := make(chan struct{}, 10)
	r.setGate(func(d origin.Digest) error {
		if d == page {
			asked <- struct{}{}
			<-open
		}
		return nil
	})
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: id})
	<-asked
	r.purge(1)
	r.await("purge 2 ")
	m := r.await(mark(2))
	if !strings.Contains(m, `"pending":[{"site":"www","since":1,"seq":1`) {
		t.Fatalf("watermark without the pending release: %s", m)
	}
	if r.releases.Site("www") != nil {
		t.Fatal("active before its blobs are here")
	}
	close(open)
	for {
		if m := r.await("mark "); !strings.Contains(m, "pending") && strings.Contains(m, mark(2)) {
			break
		}
	}
	if s := r.releases.Site("www"); s == nil || s.Active != id || s.Generation != 1 {
		t.Fatalf("site %+v, want release %s generation 1", s, id)
	}
}

func TestLaterActivationTakesThePlaceOfOneWaiting(t *testing.T) {
	r := newRig(t)
	bad, badPage := r.release("never arrives")
	good, _ := r.release("arrives")
	tried := make(chan struct{}, 100)
	r.setGate(func(d origin.Digest) error {
		if d == badPage {
			select {
			case tried <- struct{}{}:
			default:
			}
			return errors.New("disk of control is broken here")
		}
		return nil
	})
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: bad})
	<-tried
	r.await("disk of control is broken here") // the report says why it waits
	r.append(control.KindActivate, control.Activate{Site: "www", Release: good})
	for {
		if m := r.await("mark "); !strings.Contains(m, "pending") && strings.Contains(m, mark(2)) {
			break
		}
	}
	if s := r.releases.Site("www"); s == nil || s.Active != good || s.Generation != 2 {
		t.Fatalf("site %+v, want release %s generation 2", s, good)
	}
	// Rollback to what is here needs no fetch.
	r.setGate(func(origin.Digest) error { return errors.New("control is gone") })
	r.append(control.KindActivate, control.Activate{Site: "www", Release: good})
	r.await(mark(3))
	if s := r.releases.Site("www"); s.Generation != 3 {
		t.Fatalf("generation %d after activating what is here, want 3", s.Generation)
	}
}

// An activation that was waiting when the node stopped is made after its restart.
func TestActivationSurvivesRestart(t *testing.T) {
	r := newRig(t)
	id, _ := r.release("one")
	r.setGate(func(origin.Digest) error { return errors.New("not now") })
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: id})
	r.await("not now")
	r.stop()
	r.setGate(func(origin.Digest) error { return nil })
	r.start()
	for {
		if m := r.await("mark "); !strings.Contains(m, "pending") {
			break
		}
	}
	if s := r.releases.Site("www"); s == nil || s.Active != id {
		t.Fatalf("site %+v, want release %s", s, id)
	}
}

// Followed another log: everything is revalidated, and the picture of drains
// becomes that of the new log in one step.
func TestAnotherLogIsReadFromTheStart(t *testing.T) {
	r := newRig(t)
	r.start()
	r.append(control.KindDrain, control.Drain{Edge: "old"})
	r.await(mark(1))
	r.srv().Close()
	r.await("lost true")
	// Both entries are there before the node can see the first: it would be told of
	// one after the other else.
	other, err := feed.OpenServer(bounded(t), feed.ServerConfig{Dir: filepath.Join(r.dir, "other")})
	if err != nil {
		t.Fatal(err)
	}
	for _, edge := range []string{"new", "new2"} {
		if _, err := other.Log().Append(bounded(t), control.KindDrain, control.Drain{Edge: edge}); err != nil {
			t.Fatal(err)
		}
	}
	other.Close()
	r.openFeed("other")
	r.await("revalidate what this node read (epoch 1, seq 1) is not on the log", "drains")
	r.await("behind true", "drains")
	r.await("drains map[new:true new2:true] map[]", "map[old", "map[]", "behind false")
	r.await("behind false")
	r.stop()
	r.start()
	r.await("drains map[new:true new2:true] map[]")
}

// A log that was restored from an older copy gives out numbers again. A release
// with a lower one than that which is active is activated, and a receipt for a
// number is for that log's entry.
func TestLowerNumbersOfARestoredLogAreTaken(t *testing.T) {
	r := newRig(t)
	one, _ := r.release("one")
	two, _ := r.release("two")
	r.start()
	r.purge(1)
	r.purge(2)
	r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	r.await(mark(3))
	for s := r.releases.Site("www"); s == nil || s.Generation != 3; s = r.releases.Site("www") {
		r.await("mark ")
	}
	r.srv().Close()
	r.await("lost true")
	r.openFeed("older") // which has nothing yet
	r.append(control.KindActivate, control.Activate{Site: "www", Release: two})
	r.await("behind false", mark(3))
	for s := r.releases.Site("www"); s.Active != two || s.Generation != 1; s = r.releases.Site("www") {
		if m := r.await("mark "); strings.Contains(m, mark(3)) {
			t.Fatalf("a place on the old log is reported to the new one: %s", m)
		}
	}
	r.stop()
	r.start()
	if s := r.releases.Site("www"); s.Active != two || s.Generation != 1 {
		t.Errorf("after a restart: %+v", s)
	}
}

func TestUnknownKindIsSkippedAndTheLogGoesOn(t *testing.T) {
	r := newRig(t)
	r.start()
	r.append("teleport", map[string]string{"to": "moon"})
	r.append(control.KindDrain, map[string]string{"edge": "fra1", "why": "a field of a later version"})
	r.purge(1)
	r.await("purge 3 ")
	r.await(mark(3))
}
