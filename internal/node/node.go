// Package node is what a node of the fleet does with the feed: it follows the
// log, checks epoch, sequence and chain, applies entries through callbacks,
// keeps its place and what must survive a restart in a journal, fetches blobs,
// and reports.
//
// It serves nothing and decides nothing: that is the edge's and the DNS
// node's. With control gone it changes nothing.
//
//	n, err := node.Open(node.Config{Dir: dir, Credentials: cred, Role: "edge",
//		Releases: releases, Blobs: blobs, Hooks: node.Hooks{Purge: …, Behind: …}})
//	err = n.Run(ctx) // until ctx is done; reconnects by itself
//
// # Order
//
// Entries are applied in the order of the log, but that the purges of a batch come
// first, before it is synced. A drain, a force is applied when it is synced. An activation is noted durably and
// made when every blob is here, in the background: later purges do not wait for
// it, and the old release is served whole until then. A receipt for the
// activation counts only once it is made (control.Watermark.Pending). A later
// activation of the same site takes the place of one still waiting.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// Hooks are how a node's parts hear of the log. Each may be nil: then entries
// of its kind mean nothing here. All are called from one goroutine at a time,
// must not block for long, and must not call the Node.
type Hooks struct {
	// Purge applies a purge. It is called again for old purges after a restart
	// and after a break of the log: doing it twice must be harmless.
	Purge func(at feed.Position, p control.Purge)
	// Applied says that every purge up to at is applied and synced here: a fetch
	// that starts now has seen it (the asOf of its response). It is told each entry.
	Applied func(at feed.Position)
	// Behind says whether the log is known to hold entries that are not applied
	// here yet. While true every stored response counts as stale.
	Behind func(behind bool)
	// Revalidate says that the log broke: purges may have been missed, so every
	// stored response counts as stale from now until it is validated.
	Revalidate func(why string)
	// Drains says which edges are drained or forced, whole, at the start (from
	// the journal) and whenever it changes.
	Drains func(d Drains)
	// Nodes says which nodes were removed ("") or have another certificate (its
	// hex SHA-256, the only good one), whole, at the start and whenever it changes.
	Nodes func(certs map[string]string)
	// Lost says since when the feed is lost; zero: it is there.
	Lost func(since time.Time)
}

// Drains is the operators' word on edges.
type Drains struct {
	Drained map[string]bool
	Forced  map[string]string // "up" or "down"
}

// Config is what a Node is made from.
type Config struct {
	// Dir is where feed.journal is kept. One process only.
	Dir string
	// Credentials say who this node is and where to connect.
	Credentials *control.Credentials
	// Dial and Fetch replace the doors of Credentials, when control runs in this
	// process (control.Server.Follow and control.Server.FetchBlob).
	Dial  func(ctx context.Context, from feed.Position) (*feed.Follower, error)
	Fetch Fetch

	Role string // "edge" or "dns": for status
	// Releases and Blobs take releases; nil on a node that serves none.
	Releases *origin.Releases
	Blobs    *origin.Blobs
	Hooks    Hooks
	// Report gives what a node says once a second; Role, Started, LostSince and
	// the node's own troubles are filled in. Nil: only those.
	Report func() control.NodeReport
	Log    *slog.Logger // nil discards
}

const (
	// retryMin and retryMax bound the wait before connecting again; each try
	// doubles it, and the real wait is a random part of it above half, so that
	// 300 nodes do not come back in one instant.
	retryMin = 200 * time.Millisecond
	retryMax = 5 * time.Second
	// steady is how long a connection must have held for the wait to start at
	// retryMin again.
	steady = 10 * time.Second
	// stillBehind is when a node says that it has not caught up.
	stillBehind = 5 * time.Second
	// batch bounds the entries that share one sync of the journal.
	batch = 256
)

// Node is a follower of the feed with its durable place.
type Node struct {
	c       Config
	log     *slog.Logger
	started time.Time
	act     *activator // nil without Releases

	mu        sync.Mutex
	journal   *journal
	position  feed.Position
	lostSince time.Time
	behind    bool
	judged    bool   // behind has been told
	elsewhere bool   // position is on another log than the one that is read
	trouble   string // the journal cannot be written
	tooOld    string // the log goes on in a later version
	dirty     chan struct{}
}

// Open reads the journal and tells the hooks what it holds: purges, drains, the
// place on the log. It needs no control node. A journal with a bad end is cut
// there, which is said, and everything is revalidated.
func Open(c Config) (*Node, error) {
	if c.Credentials == nil && c.Dial == nil {
		return nil, errors.New("node: neither credentials nor a control node in this process")
	}
	if c.Dial == nil {
		cred := c.Credentials
		c.Dial = func(ctx context.Context, from feed.Position) (*feed.Follower, error) {
			return feed.Dial(ctx, feed.DialConfig{ID: cred.Name, Addr: cred.Feed, TLS: cred.TLS(), From: from, Log: c.Log})
		}
	}
	if c.Fetch == nil && c.Credentials != nil {
		c.Fetch = HTTPFetch(c.Credentials)
	}
	n := &Node{c: c, log: c.Log, started: time.Now(), lostSince: time.Now(), dirty: make(chan struct{}, 1)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	j, cut, err := openJournal(c.Dir, n.keep())
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	n.journal = j
	if c.Releases != nil {
		n.act = newActivator(n)
	}
	if cut != "" {
		n.log.Error("the node's journal has a bad end and was cut there: everything is revalidated, and what is missing is read from control again",
			"file", j.path, "why", cut, "seq", j.position.Seq)
		n.revalidate("the node's journal was damaged: " + cut)
	}
	n.replay(j.position)
	return n, nil
}

// keep says which kinds of entries must survive a restart here.
func (n *Node) keep() keep {
	return keep{purges: n.c.Hooks.Purge != nil, releases: n.c.Releases != nil, drains: n.c.Hooks.Drains != nil, nodes: n.c.Hooks.Nodes != nil}
}

// replay tells the hooks what the journal holds, up to position.
func (n *Node) replay(position feed.Position) {
	for _, l := range n.journal.live.sorted() {
		if p, ok := l.command.(*control.Purge); ok && n.c.Hooks.Purge != nil {
			n.c.Hooks.Purge(l.entry.Position(), *p)
		}
		if n.act != nil {
			n.act.apply(l.command, l.entry.Seq)
		}
	}
	n.tellDrains()
	n.tellNodes()
	n.applied([]feed.Position{position})
}

func (n *Node) tellDrains() {
	if n.c.Hooks.Drains != nil {
		n.c.Hooks.Drains(n.journal.live.drains())
	}
}

func (n *Node) tellNodes() {
	if n.c.Hooks.Nodes != nil {
		n.c.Hooks.Nodes(n.journal.live.nodes())
	}
}

// applied makes the last of places this node's: every entry up to it is journalled,
// and the hooks and the activator have heard of it. Not before: a report is sent
// at any moment, and counts as the receipt.
func (n *Node) applied(places []feed.Position) {
	n.mu.Lock()
	n.position = places[len(places)-1]
	n.mu.Unlock()
	if n.c.Hooks.Applied != nil {
		for _, at := range places {
			n.c.Hooks.Applied(at)
		}
	}
}

func (n *Node) setElsewhere(is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.elsewhere = is
}

func (n *Node) revalidate(why string) {
	if n.c.Hooks.Revalidate != nil {
		n.c.Hooks.Revalidate(why)
	}
}

// Close ends the background work and closes the journal. Call it after Run has returned.
func (n *Node) Close() error {
	if n.act != nil {
		n.act.close()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.journal.close()
}

// Position is this node's place on the log.
func (n *Node) Position() feed.Position {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.position
}

// LostSince is when the feed was lost, or zero while it is there.
func (n *Node) LostSince() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lostSince
}

// Behind reports whether the log is known to hold entries not applied here.
func (n *Node) Behind() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.behind
}

// Pending returns the activations that wait for blobs, by site.
func (n *Node) Pending() []control.PendingRelease {
	if n.act == nil {
		return nil
	}
	return n.act.pending()
}

// Run follows the log until ctx is done, connecting again whenever the feed is
// lost. The error is that of ctx.
func (n *Node) Run(ctx context.Context) error {
	wait := retryMin
	n.setLost(true, nil)
	for {
		begun := time.Now()
		err := n.connect(ctx)
		if ctx.Err() != nil { // the end, not a loss
			return ctx.Err()
		}
		n.setLost(true, err)
		if time.Since(begun) > steady {
			wait = retryMin
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, retryMax)
	}
}

// setLost notes that the feed went or came, once each.
func (n *Node) setLost(lost bool, why error) {
	n.mu.Lock()
	was := n.lostSince
	switch {
	case lost && was.IsZero():
		n.lostSince = time.Now()
	case !lost:
		n.lostSince = time.Time{}
	}
	now := n.lostSince
	n.mu.Unlock()
	if lost && was.IsZero() {
		n.log.Warn("feed lost: serving what is here", "why", why)
	} else if lost && why != nil {
		n.log.Debug("feed not reached", "why", why)
	}
	if !lost && !was.IsZero() {
		n.log.Info("feed there", "lost_for", time.Since(was).Round(time.Millisecond))
	}
	if was != now && n.c.Hooks.Lost != nil {
		n.c.Hooks.Lost(now)
	}
}

// setBehind notes whether entries are known to be missing here. They are as long as
// the log goes on in a version that cannot be read.
func (n *Node) setBehind(behind bool) {
	n.mu.Lock()
	behind = behind || n.tooOld != ""
	news := n.behind != behind || !n.judged // whoever opened the node may hold itself for behind
	n.behind, n.judged = behind, true
	n.mu.Unlock()
	if news && n.c.Hooks.Behind != nil {
		n.c.Hooks.Behind(behind)
	}
}

// changed wakes the reporter.
func (n *Node) changed() {
	select {
	case n.dirty <- struct{}{}:
	default:
	}
}
