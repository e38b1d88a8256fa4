package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"perigee.example/internal/control"
	"perigee.example/internal/node"
	"perigee.example/origin"
)

// nodeFile is the credentials file in a node's state folder.
const nodeFile = "node.pem"

// follower is a node's place on the feed. A nil *follower is a node without a
// control node.
type follower struct {
	name string
	open func() (*node.Node, error)

	mu   sync.Mutex // guards what follows
	node *node.Node
	hold chan struct{} // closed when the follower is to pause, or nil
	held chan struct{} // closed when it does
	cont chan struct{} // closed when it is to go on
}

// followerParts is what a node gives to the one that follows for it.
type followerParts struct {
	releases *origin.Releases
	blobs    *origin.Blobs
	hooks    node.Hooks
	report   func() control.NodeReport
}

// openFollower opens this part's place on the feed: of the control node in
// this process, or of the one that node.pem names. Without either the part
// runs alone, with what is on its disk.
//
// The hooks hear at once, in this goroutine, what the journal holds.
func (s *server) openFollower(role string, local *localFeed, parts followerParts) (*follower, error) {
	c := node.Config{Dir: filepath.Join(s.dir, role), Role: role, Releases: parts.releases, Blobs: parts.blobs, Hooks: parts.hooks, Log: s.log}
	c.Report = func() control.NodeReport {
		r := parts.report()
		r.Config, r.Version = s.cfg.Load().Hash(), version()
		if w := s.trouble(); w != "" {
			r.Trouble = append(r.Trouble, w)
		}
		return r
	}
	f := &follower{}
	if local != nil {
		f.name, c.Credentials, c.Dial, c.Fetch = local.name, local.credentials, local.dial, local.fetch
	} else {
		path := filepath.Join(s.dir, nodeFile)
		cred, err := control.LoadCredentials(path)
		if errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("no credentials: this node follows no control node", "file", path, "hint", "perigee node add NAME --out "+path)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if w := cred.Warning(time.Now()); w != "" {
			s.log.Warn("node credentials", "file", path, "warning", w)
		}
		f.name, c.Credentials = cred.Name, cred
	}
	f.open = func() (*node.Node, error) { return node.Open(c) }
	var err error
	if f.node, err = f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// startFollower has f follow once every part is started. Then its hooks and
// report are called from other goroutines: the part must be whole.
func (s *server) startFollower(f *follower) {
	if f != nil {
		s.followers = append(s.followers, f)
	}
}

// follow follows the feed until ctx ends, with a pause whenever pause says so.
func (f *follower) follow(ctx context.Context) error {
	for {
		f.mu.Lock()
		n, hold, held, cont := f.node, make(chan struct{}), make(chan struct{}), make(chan struct{})
		f.hold, f.held, f.cont = hold, held, cont
		f.mu.Unlock()
		run, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-hold:
				cancel()
			case <-run.Done():
			}
		}()
		err := n.Run(run)
		ended := run.Err() != nil
		cancel()
		if ended {
			err = nil
		}
		err = errors.Join(err, n.Close())
		close(held)
		if err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-cont:
		}
		if n, err = f.open(); err != nil {
			return err
		}
		f.mu.Lock()
		f.node = n
		f.mu.Unlock()
	}
}

// pause lets go of the journal and of the place on the feed, so that another
// process can have them; resume takes them back. It is nil when there is nothing
// to let go of yet.
func (f *follower) pause() (resume func()) {
	f.mu.Lock()
	hold, held, cont := f.hold, f.held, f.cont
	f.hold = nil
	f.mu.Unlock()
	if hold == nil {
		return nil
	}
	close(hold)
	<-held
	return func() { close(cont) }
}

// now is the node as it is.
func (f *follower) now() *node.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.node
}

func (f *follower) status() *feedStatus {
	if f == nil {
		return nil
	}
	n := f.now()
	lost := n.LostSince()
	return &feedStatus{Connected: lost.IsZero(), LostSince: lost, Applied: n.Position().Seq}
}
