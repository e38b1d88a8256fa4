package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// snapshotWait bounds the fetching of a snapshot: some hundred MiB at the most, over
// a slow line.
const snapshotWait = 10 * time.Minute

// snapshot fetches a snapshot and folds it into what a node here must remember.
func (n *Node) snapshot(ctx context.Context, s *feed.Snapshot) (*live, error) {
	if n.c.Fetch == nil {
		return nil, errors.New("a snapshot is needed, and there is no place to fetch it from")
	}
	d, err := origin.ParseDigest(s.Digest)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	body, size, err := n.c.Fetch(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", d, err)
	}
	defer body.Close()
	if size != s.Size {
		return nil, fmt.Errorf("snapshot %s: the control node holds %d bytes of it, the log says %d", d, size, s.Size)
	}
	snap, err := control.ReadSnapshot(body, d, false)
	if err != nil {
		return nil, err
	}
	if snap.At != s.At {
		return nil, fmt.Errorf("snapshot %s: it is of seq %d, and seq %d was told", d, snap.At.Seq, s.At.Seq)
	}
	return liveOf(snap, n.keep())
}

// liveOf is what the entries up to a snapshot would have left behind here.
func liveOf(snap *control.Snapshot, k keep) (*live, error) {
	l := newLive(k)
	var failed error
	// Their chain is the snapshot's: it is not known what it was at each of them, and
	// no edge has this one there, so none takes it for the same place.
	put := func(seq uint64, kind string, command any) {
		body, err := json.Marshal(command)
		e := feed.Entry{Version: 1, Epoch: snap.At.Epoch, Seq: seq, Chain: snap.At.Chain, Kind: kind, Body: body}
		if err == nil {
			_, err = control.DecodeCommand(e) // as strictly as if it had come by itself
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("snapshot: %w", err))
			return
		}
		l.put(e, command)
	}
	for _, name := range slices.Sorted(maps.Keys(snap.State.Sites)) {
		site := snap.State.Sites[name]
		if !site.Active.IsZero() {
			put(site.Generation, control.KindActivate, &control.Activate{Site: name, Release: site.Active})
		}
		if n := len(site.Forgotten); n > 0 {
			c := &control.Forget{Site: name}
			for _, f := range slices.Backward(site.Forgotten[max(0, n-control.MaxForgotten):]) {
				c.Releases = append(c.Releases, f.Release)
			}
			put(site.Forgotten[n-1].Seq, control.KindForget, c)
		}
		for channel, p := range site.Previews {
			put(p.Generation, control.KindChannel, &control.Channel{Site: name, Channel: channel, Release: p.Active})
		}
	}
	for edge, seq := range snap.State.Drained {
		put(seq, control.KindDrain, &control.Drain{Edge: edge})
	}
	for edge, force := range snap.State.Forced {
		put(snap.At.Seq, control.KindForce, &control.Force{Edge: edge, Force: force})
	}
	for name, cert := range snap.State.Nodes {
		put(snap.At.Seq, control.KindNode, &control.NodeCert{Node: name, Cert: cert})
	}
	for i := range snap.Purges {
		put(snap.Purges[i].Seq, control.KindPurge, &snap.Purges[i].Purge)
	}
	return l, failed
}
