package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"

	"perigee.example/feed"
	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// controlPart is the control node: API, feed, blobs and keys.
type controlPart struct {
	s   *server
	srv *control.Server
}

// startControl starts the control node. With doors it opens the node doors for
// other machines; without, every node is in this process. name is which of
// several control nodes this is.
func (s *server) startControl(doors bool, name ...string) error {
	cfg := s.cfg.Load()
	member, err := memberOf(s.o.config, cfg, name)
	if err != nil {
		return err
	}
	c := control.Config{Dir: filepath.Join(s.dir, controlDir), Known: known(cfg), Log: s.log}
	for _, u := range cfg.Control.Addresses {
		c.Addresses = append(c.Addresses, u.String())
	}
	if doors {
		c.FeedListen = cfg.Control.FeedListen.String()
		c.FeedAddress, c.BlobAddress = reachable(cfg, cfg.Control.FeedListen), reachable(cfg, cfg.Control.BlobListen)
	}
	if member != nil {
		joinCluster(cfg, member, &c)
		s.log.Info("one of several control nodes: waiting for most of them", "name", member.Name, "all", memberNames(cfg))
	}
	srv, err := control.Open(s.tasks.ctx, c)
	if err != nil {
		return err
	}
	p := &controlPart{s: s, srv: srv}
	s.control = srv
	s.tasks.start("control end", func(ctx context.Context) error { <-ctx.Done(); srv.Close(); return nil })
	if srv.MadeToken != "" {
		s.log.Info("first start: the admin token is in this file", "file", srv.MadeToken)
	}
	admin, blobs := cfg.Control.Listen, cfg.Control.BlobListen
	if member != nil {
		admin, blobs = member.At(admin), member.At(blobs)
	}
	if err := p.listen("admin", admin, srv.ServeAdmin); err != nil {
		return err
	}
	if doors {
		if err := p.listen("blobs", blobs, srv.ServeBlobs); err != nil {
			return err
		}
		s.log.Info("control listens", "door", "feed", "addr", srv.FeedAddr())
	}
	s.admin.control = srv.LocalHandler()
	s.admin.parts = append(s.admin.parts, p)
	return nil
}

func (p *controlPart) listen(door string, addr netip.AddrPort, serve func(net.Listener) error) error {
	ln, err := net.Listen(config.Network("tcp", addr), addr.String())
	if err != nil {
		return addressInUse(err, "tcp", addr)
	}
	p.s.log.Info("control listens", "door", door, "addr", addr)
	p.s.tasks.start("control "+door, func(context.Context) error { return serve(ln) })
	return nil
}

// reachable is how another machine reaches a door: by the host of
// control.addresses when the door listens on a wildcard.
func reachable(cfg *config.Config, door netip.AddrPort) string {
	if !door.Addr().IsUnspecified() || len(cfg.Control.Addresses) == 0 {
		return door.String()
	}
	return net.JoinHostPort(cfg.Control.Addresses[0].Hostname(), fmt.Sprint(door.Port()))
}

// known is what the control API checks names against.
func known(cfg *config.Config) control.Known {
	k := control.Known{Limits: control.Limits(cfg.Control.Limit)}
	for _, s := range cfg.Sites {
		k.Sites = append(k.Sites, control.KnownSite{Name: s.Name, Hosts: s.Hosts, Push: s.Push, PreviewsBelow: s.PreviewsBelow(), Expiry: expiryRules(&s),
			Quota: control.Quota{Files: s.MaxFiles, Stored: s.MaxStored}})
	}
	for _, e := range cfg.Edges {
		k.Edges = append(k.Edges, e.Name)
	}
	return k
}

// status implements part.
func (p *controlPart) status(s *localStatus) { s.Role = joinRole(s.Role, "control") }

// configure implements part.
func (p *controlPart) configure(_ context.Context, cfg *config.Config) error {
	p.srv.SetKnown(known(cfg))
	old := p.s.cfg.Load().Control
	if c := cfg.Control; old.Listen != c.Listen || old.FeedListen != c.FeedListen || old.BlobListen != c.BlobListen || fmt.Sprint(old.Addresses, old.Cluster) != fmt.Sprint(c.Addresses, c.Cluster) {
		p.s.log.Warn("[control] has changed: restart the control node to take it up")
	}
	return nil
}

// reload implements part. Control has no other files of the operator's.
func (p *controlPart) reload(context.Context) error { return nil }

// localDNS is the node name of the DNS part beside control in one process.
const localDNS = "dns"

// localFeed is the feed within a process that runs control itself.
type localFeed struct {
	name        string
	credentials *control.Credentials
	dial        func(ctx context.Context, from feed.Position) (*feed.Follower, error)
	fetch       func(ctx context.Context, d origin.Digest) (io.ReadCloser, int64, error)
}

func (s *server) localFeed(name string) *localFeed {
	return &localFeed{
		name:        name,
		credentials: &control.Credentials{Name: name},
		dial: func(ctx context.Context, from feed.Position) (*feed.Follower, error) {
			if err := s.control.AddLocal(ctx, name); err != nil {
				return nil, err
			}
			return s.control.Follow(ctx, name, from)
		},
		fetch: s.control.FetchBlob,
	}
}

// addressInUse explains why an address could not be opened.
func addressInUse(err error, network string, addr netip.AddrPort) error {
	hint := ""
	switch {
	case errors.Is(err, errAddressInUse):
		hint = "another process listens there"
		if who := holder(network, addr); who != "" {
			hint += ": " + who
		}
		if addr.Port() == 53 {
			hint += `; systemd-resolved holds 127.0.0.53:53: name the public address instead of a wildcard, or set DNSStubListener=no in resolved.conf`
		}
	case errors.Is(err, errPermission):
		hint = "a port below 1024 needs root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
	case errors.Is(err, errAddressNotHere):
		hint = "this machine has no such address: `ip addr` lists those that it has"
	default:
		return err
	}
	return withHint(err, hint)
}
