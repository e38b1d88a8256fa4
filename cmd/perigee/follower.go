package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
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
	node *node.Node
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
	var err error
	if f.node, err = node.Open(c); err != nil {
		return nil, err
	}
	return f, nil
}

// startFollower begins to follow. From now on the hooks and report of f are
// called from other goroutines: the part must be whole.
func (s *server) startFollower(f *follower) {
	if f == nil {
		return
	}
	s.tasks.start("feed", func(ctx context.Context) error {
		err := f.node.Run(ctx)
		if ctx.Err() != nil {
			err = nil
		}
		return errors.Join(err, f.node.Close())
	})
}

func (f *follower) status() *feedStatus {
	if f == nil {
		return nil
	}
	lost := f.node.LostSince()
	return &feedStatus{Connected: lost.IsZero(), LostSince: lost, Applied: f.node.Position().Seq}
}
