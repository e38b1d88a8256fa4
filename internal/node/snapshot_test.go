package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// snapshot folds the log up to its head, stores that, and trims the log behind it.
func (r *rig) snapshot() control.Snapshot {
	r.t.Helper()
	var snap control.Snapshot
	for e, err := range r.srv().Log().Entries(bounded(r.t), 1) {
		if err == nil {
			err = snap.State.Apply(e)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		command, err := control.DecodeCommand(e)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, p := range control.PurgesOf(command) {
			snap.Purges = append(snap.Purges, control.SeqPurge{Seq: e.Seq, Purge: p})
		}
		snap.At = e.Position()
	}
	var b bytes.Buffer
	if err := snap.Write(&b); err != nil {
		r.t.Fatal(err)
	}
	d := origin.DigestOf(b.Bytes())
	if err := errors.Join(
		r.blobs.Put(d, int64(b.Len()), bytes.NewReader(b.Bytes())),
		r.srv().SetSnapshot(feed.Snapshot{At: snap.At, Digest: d.String(), Size: int64(b.Len())}),
	); err != nil {
		r.t.Fatal(err)
	}
	r.purge(100) // the log never ends with a snapshot's place
	if err := r.srv().Log().Trim(bounded(r.t), snap.At.Seq+1); err != nil {
		r.t.Fatal(err)
	}
	return snap
}

// A node that was away for longer than the log reaches back begins with a snapshot:
// everything it stored is stale, purges that it missed are applied though their
// entries are gone, what it knows of drains and releases is the snapshot's, and it
// says how far it is only when it is there. A new node has nothing to revalidate.
func TestBeginsWithASnapshot(t *testing.T) {
	r := newRig(t)
	first, _ := r.release("first")
	second, _ := r.release("second")
	r.append(control.KindActivate, control.Activate{Site: "www", Release: first})
	r.purge(1)
	r.append(control.KindDrain, control.Drain{Edge: "iad1"})
	r.start()
	r.await(mark(3))
	r.stop()

	r.purge(2) // seq 4
	r.append(control.KindUndrain, control.Drain{Edge: "iad1"})
	r.append(control.KindForce, control.Force{Edge: "sin1", Force: "down"})
	r.append(control.KindActivate, control.Activate{Site: "www", Release: second}) // seq 7
	r.snapshot()

	for len(r.events) > 0 {
		<-r.events
	}
	r.setGate(func(origin.Digest) error { return errors.New("the blob door is closed") })
	r.start()
	r.await("drains map[iad1:true] map[]", "revalidate")
	if r.node.Position().Seq != 3 {
		t.Errorf("without the snapshot the node is at %+v", r.node.Position())
	}
	r.setGate(func(origin.Digest) error { return nil })
	r.await("revalidate this node was away for longer than the log reaches back", mark(7), mark(8))
	r.await("behind true", mark(7), mark(8))
	r.await("purge 4 http://www.example.com/2", mark(7), mark(8), "behind false")
	r.await("drains map[] map[sin1:down]", mark(7), mark(8))
	r.await("behind false")
	for strings.Contains(r.await(mark(8)), "pending") { // the release's blobs are on their way
	}
	if site := r.releases.Site("www"); site == nil || site.Active != second || site.Generation != 7 {
		t.Errorf("the site is at %+v", site)
	}
	r.stop()
	r.start() // from the journal, which holds all of it
	r.await("purge 4 http://www.example.com/2", "revalidate")
	r.await("behind false", "revalidate")
	r.stop()

	if err := os.RemoveAll(filepath.Join(r.dir, "edge")); err != nil {
		t.Fatal(err)
	}
	for len(r.events) > 0 {
		<-r.events
	}
	r.start()
	r.await("purge 4 http://www.example.com/2", "revalidate", mark(7), mark(8))
	r.await("behind false", "revalidate")
}

// A snapshot that is not what was named changes nothing.
func TestWrongSnapshotIsNotTaken(t *testing.T) {
	r := newRig(t)
	r.purge(1)
	r.append(control.KindDrain, control.Drain{Edge: "iad1"})
	snap := r.snapshot()
	var b bytes.Buffer
	snap.State.Drained["fra1"] = 1
	if err := snap.Write(&b); err != nil {
		t.Fatal(err)
	}
	d := origin.DigestOf(b.Bytes())
	for name, s := range map[string]feed.Snapshot{
		"no blob":       {At: snap.At, Digest: origin.DigestOf([]byte("none")).String(), Size: 4},
		"another size":  {At: snap.At, Digest: d.String(), Size: int64(b.Len()) + 1},
		"another place": {At: feed.Position{Epoch: 1, Seq: 1, Chain: snap.At.Chain}, Digest: d.String(), Size: int64(b.Len())},
	} {
		if err := r.blobs.Put(d, int64(b.Len()), bytes.NewReader(b.Bytes())); err != nil {
			t.Fatal(err)
		}
		r.start()
		n := r.node
		if l, err := n.snapshot(bounded(t), &s); err == nil {
			t.Errorf("%s: taken: %+v", name, l.drains())
		}
		r.stop()
	}
}
