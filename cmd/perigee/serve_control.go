package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"

	"perigee.example/feed"
	"perigee.example/internal/bucket"
	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

// controlPart is the control node: API, feed, blobs and keys. Its log has one
// owner: in an upgrade the old process closes it, and the new one opens it then;
// DNS and HTTP go on meanwhile.
type controlPart struct {
	s     *server
	doors bool
	name  []string

	mu   sync.Mutex // guards what follows
	srv  *control.Server
	ends chan error    // how a listener of srv ended
	hold chan struct{} // closed when another process is to have it, or nil
	held chan struct{} // closed when it can
	cont chan struct{} // closed when it is to be opened again
	back chan struct{} // closed when it is, or cannot be
}

// errNoControl is what callers hear while another process has the control node.
var errNoControl = errors.New("the control node is being handed over to another process")

// startControl starts the control node, or, in the place of an old process,
// prepares that: openControl follows. With doors it opens the node doors for
// other machines; without, every node is in this process. name is which of
// several control nodes this is.
func (s *server) startControl(doors bool, name ...string) error {
	if _, err := memberOf(s.o.config, s.cfg.Load(), name); err != nil {
		return err
	}
	p := &controlPart{s: s, doors: doors, name: name}
	s.control = p
	s.admin.control = p
	s.admin.parts = append(s.admin.parts, p)
	if s.parent != nil {
		return nil
	}
	return s.openControl()
}

// openControl opens the control node, unless it is open, or there is none here.
func (s *server) openControl() error {
	p := s.control
	if p == nil || p.now() != nil {
		return nil
	}
	if err := p.open(); err != nil {
		return err
	}
	s.tasks.start("control", p.run)
	return nil
}

// now is the control node, or nil while this process has none.
func (p *controlPart) now() *control.Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.srv
}

func (p *controlPart) open() error {
	s := p.s
	cfg := s.cfg.Load()
	member, err := memberOf(s.o.config, cfg, p.name)
	if err != nil {
		return err
	}
	c := control.Config{Dir: filepath.Join(s.dir, controlDir), Known: known(cfg), Log: s.log}
	for _, u := range cfg.Control.Addresses {
		c.Addresses = append(c.Addresses, u.String())
	}
	if p.doors {
		c.FeedListen = cfg.Control.FeedListen.String()
		c.FeedAddress, c.BlobAddress = reachable(cfg, cfg.Control.FeedListen), reachable(cfg, cfg.Control.BlobListen)
	}
	c.Bucket = bucketOf(cfg)
	if member != nil {
		joinCluster(cfg, member, &c)
		s.log.Info("one of several control nodes: waiting for most of them", "name", member.Name, "all", memberNames(cfg))
	}
	if err := joinNATS(cfg, &c); err != nil {
		return err
	}
	srv, err := control.Open(s.tasks.ctx, c)
	if err != nil {
		return err
	}
	if srv.MadeToken != "" {
		s.log.Info("first start: the admin token is in this file", "file", srv.MadeToken)
	}
	admin, blobs := cfg.Control.Listen, cfg.Control.BlobListen
	if member != nil {
		admin, blobs = member.At(admin), member.At(blobs)
	}
	ends := make(chan error, 2)
	err = p.listen("admin", admin, srv.ServeAdmin, ends)
	if err == nil && p.doors {
		err = p.listen("blobs", blobs, srv.ServeBlobs, ends)
	}
	if err != nil {
		srv.Close()
		return err
	}
	if p.doors {
		s.log.Info("control listens", "door", "feed", "addr", srv.FeedAddr())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.srv, p.ends = srv, ends
	p.hold, p.held, p.cont, p.back = make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	return nil
}

func (p *controlPart) listen(door string, addr netip.AddrPort, serve func(net.Listener) error, ends chan<- error) error {
	ln, err := net.Listen(config.Network("tcp", addr), addr.String())
	if err != nil {
		return addressInUse(err, "tcp", addr)
	}
	p.s.log.Info("control listens", "door", door, "addr", addr)
	go func() {
		if err := serve(ln); err != nil {
			ends <- fmt.Errorf("%s: %w", door, err)
		}
	}()
	return nil
}

// run keeps the control node until ctx ends, but for the time that another
// process has it.
func (p *controlPart) run(ctx context.Context) error {
	for {
		p.mu.Lock()
		srv, ends, hold, held, cont, back := p.srv, p.ends, p.hold, p.held, p.cont, p.back
		p.mu.Unlock()
		var err error
		select {
		case <-ctx.Done():
		case err = <-ends:
		case <-hold:
		}
		p.mu.Lock()
		p.srv = nil
		p.mu.Unlock()
		srv.Close()
		close(held)
		if err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-cont:
		}
		err = p.open()
		close(back)
		if err != nil {
			return err
		}
	}
}

// pause closes the control node, so that another process can open it; resume
// opens it again.
func (p *controlPart) pause() (resume func()) {
	p.mu.Lock()
	hold, held, cont, back := p.hold, p.held, p.cont, p.back
	p.hold = nil
	p.mu.Unlock()
	if hold == nil {
		return func() {} // it has ended, or is being taken back
	}
	close(hold)
	<-held
	return func() {
		close(cont)
		select {
		case <-back:
		case <-p.s.tasks.ctx.Done():
		}
	}
}

// ServeHTTP is the control API by the admin socket.
func (p *controlPart) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	srv := p.now()
	if srv == nil {
		writeError(w, http.StatusServiceUnavailable, errNoControl)
		return
	}
	srv.LocalHandler().ServeHTTP(w, r)
}

// reachable is how another machine reaches a door: by the host of
// control.addresses when the door listens on a wildcard.
func reachable(cfg *config.Config, door netip.AddrPort) string {
	if !door.Addr().IsUnspecified() || len(cfg.Control.Addresses) == 0 {
		return door.String()
	}
	return net.JoinHostPort(cfg.Control.Addresses[0].Hostname(), fmt.Sprint(door.Port()))
}

// bucketOf is where blobs are; nil: in the state folder.
func bucketOf(cfg *config.Config) *bucket.Config {
	b := cfg.Control.Bucket
	if b.Name == "" {
		return nil
	}
	c := &bucket.Config{Name: b.Name, Region: b.Region, Prefix: b.Prefix, Credentials: b.Credentials}
	if b.Endpoint != nil {
		c.Endpoint = b.Endpoint.String()
	}
	return c
}

// known is what the control API checks names against.
func known(cfg *config.Config) control.Known {
	k := control.Known{Limits: control.Limits(cfg.Control.Limit)}
	for _, s := range cfg.Sites {
		k.Sites = append(k.Sites, control.KnownSite{Name: s.Name, Hosts: s.Hosts, Push: s.Push, PreviewsBelow: s.PreviewsBelow(), Expiry: expiryRules(&s),
			Quota: control.Quota{Files: s.MaxFiles, Stored: s.MaxStored}, Retain: control.Retain{Releases: s.Keep, For: s.KeepFor}})
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
	if srv := p.now(); srv != nil {
		srv.SetKnown(known(cfg))
	}
	old := p.s.cfg.Load().Control
	if c := cfg.Control; old.Listen != c.Listen || old.FeedListen != c.FeedListen || old.BlobListen != c.BlobListen || fmt.Sprint(old.Addresses, old.Cluster) != fmt.Sprint(c.Addresses, c.Cluster) || fmt.Sprint(p.s.cfg.Load().Feed) != fmt.Sprint(cfg.Feed) || fmt.Sprint(bucketOf(p.s.cfg.Load())) != fmt.Sprint(bucketOf(cfg)) {
		p.s.log.Warn("[control] or [feed] has changed: restart the control node to take it up")
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
			srv := s.control.now()
			if srv == nil {
				return nil, errNoControl
			}
			if err := srv.AddLocal(ctx, name); err != nil {
				return nil, err
			}
			return srv.Follow(ctx, name, from)
		},
		fetch: func(ctx context.Context, d origin.Digest) (io.ReadCloser, int64, error) {
			srv := s.control.now()
			if srv == nil {
				return nil, 0, errNoControl
			}
			return srv.FetchBlob(ctx, d)
		},
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
