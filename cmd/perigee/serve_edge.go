package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"perigee.example/edge"
	"perigee.example/feed"
	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/internal/logqueue"
	"perigee.example/internal/node"
	"perigee.example/origin"
)

// edgePart is an edge: sites, cache, releases and certificates.
type edgePart struct {
	s        *server
	name     string
	edge     *edge.Edge
	releases *origin.Releases
	blobs    *origin.Blobs
	certs    *edge.Certs
	access   *edge.LineLog
	logFile  *logqueue.File       // nil: stdout
	follow   *follower            // nil: no control node
	cred     *control.Credentials // for other edges; nil: there are none, or control runs in this process

	peers *peerDoor

	mu    sync.Mutex // guards pools
	pools map[string]*origin.Pool
}

// startEdge starts the edge of that name in this process.
func (s *server) startEdge(name string, local *localFeed) error {
	cfg := s.cfg.Load()
	c := cfg.Edge(name)
	if c == nil {
		var names []string
		for _, e := range cfg.Edges {
			names = append(names, e.Name)
		}
		return usagef("%s has no edge called %q; it has: %s", s.o.config, name, strings.Join(names, ", "))
	}
	s.edgeName = name
	p := &edgePart{s: s, name: name, pools: map[string]*origin.Pool{}, peers: newPeerDoor(s.log)}
	if local == nil {
		// Without, or with a damaged one, openFollower says so below.
		p.cred, _ = control.LoadCredentials(filepath.Join(s.dir, nodeFile))
	}
	if err := p.open(c); err != nil {
		return err
	}
	var err error
	p.follow, err = s.openFollower("edge", local, followerParts{
		releases: p.releases, blobs: p.blobs, report: p.report,
		hooks: node.Hooks{
			Purge: p.purge, Applied: p.applied, Behind: p.edge.SetBehind, Revalidate: p.revalidate, Nodes: p.peers.set,
		},
	})
	if err != nil {
		return err
	}
	if p.follow != nil && local == nil && p.follow.name != name {
		return withHint(fmt.Errorf("the credentials in %s are those of node %s, not of edge %s", filepath.Join(s.dir, nodeFile), p.follow.name, name),
			"each edge has its own: perigee node add "+name)
	}
	if c.CacheDisk > 0 { // after what the journal says of purges
		if err := p.edge.OpenDisk(edge.DiskConfig{Dir: filepath.Join(s.dir, "edge", "cache"), Bytes: c.CacheDisk}); err != nil {
			return err
		}
	}
	if err := p.listen(c); err != nil {
		return err
	}
	s.startFollower(p.follow)
	s.admin.parts = append(s.admin.parts, p)
	return nil
}

// open makes the edge from what is on disk and in the configuration.
func (p *edgePart) open(c *config.Edge) error {
	if err := limitHeap(p.s.cfg.Load(), c, os.DirFS("/")); err != nil {
		return err
	}
	dir := filepath.Join(p.s.dir, "edge")
	var err error
	if p.blobs, err = origin.OpenBlobs(filepath.Join(dir, "blobs")); err != nil {
		return err
	}
	if p.releases, err = origin.OpenReleases(filepath.Join(dir, "releases"), p.blobs); err != nil {
		return err
	}
	for _, d := range p.releases.Damage() {
		p.s.log.Error("a release is damaged; its site keeps what works", "site", d.Site, "release", d.Release, "why", d.Why)
	}
	sites, pools, err := p.makeSites(p.s.cfg.Load())
	if err != nil {
		return err
	}
	p.pools = pools
	limits := clientLimits(p.s.cfg.Load())
	ec := edge.Config{Limits: &limits, Name: p.name, Sites: sites, Releases: p.releases, Blobs: p.blobs, MemoryBytes: c.CacheMemory, Log: p.s.log}
	if c.Eviction == config.EvictionLRU {
		ec.Eviction = edge.LRU
	}
	if err := p.openAccess(p.s.cfg.Load().Log, &ec); err != nil {
		return err
	}
	if p.certs, err = edge.OpenCerts(certPairs(p.s.cfg.Load()), p.s.log); err != nil {
		return err
	}
	ec.Nameless = p.certs.CoversNameless
	p.edge, err = edge.New(ec)
	return err
}

// openAccess starts the access log.
func (p *edgePart) openAccess(c config.Log, ec *edge.Config) error {
	ec.Hide = c.Hide
	if c.Access == config.AccessOff {
		return nil
	}
	w, file, err := openLog(c.AccessFile)
	if err != nil {
		return err
	}
	p.logFile = file
	if c.Access == config.AccessCombined {
		p.access = edge.NewCombinedLog(w)
	} else {
		p.access = edge.NewJSONLog(w)
	}
	ec.Access = p.access
	return nil
}

// makeSites turns the configured sites into those of the edge, with a pool for
// each that has origins.
func (p *edgePart) makeSites(cfg *config.Config) (sites []edge.Site, pools map[string]*origin.Pool, err error) {
	pools = map[string]*origin.Pool{}
	for _, c := range cfg.Sites {
		s := edge.Site{
			Name: c.Name, Hosts: c.Hosts, Push: c.Push, PreviewsBelow: c.PreviewsBelow(),
			MemoryBytes: c.Memory, Heuristic: c.Heuristic, ShareSetCookie: c.ShareSetCookie, StoreClientErrors: c.StoreClientErrors, EarlyHintsAll: c.EarlyHintsAll,
			Query: edge.QueryRules{Sort: c.QuerySort, Keep: c.QueryKeep, Drop: c.QueryDrop}, KeyFields: c.KeyFields,
		}
		s.Rules = expiryRules(&c)
		if c.Push {
			if err := p.releases.SetKeep(c.Name, c.Keep); err != nil {
				closePools(pools)
				return nil, nil, err
			}
		}
		if len(c.Origins) > 0 {
			pool, err := newPool(cfg, &c)
			if err != nil {
				closePools(pools)
				return nil, nil, cfg.ErrorAt("site."+c.Name+".origins", err.Error(), "")
			}
			pools[c.Name], s.Origin = pool, pool
			if s.Shields, err = p.shields(cfg, &c, pools); err != nil {
				closePools(pools)
				return nil, nil, cfg.ErrorAt("site."+c.Name+".shield", err.Error(), "")
			}
		}
		sites = append(sites, s)
	}
	return sites, pools, nil
}

func expiryRules(c *config.Site) (rules []origin.ExpiryRule) {
	for _, r := range c.Expiry {
		rules = append(rules, origin.ExpiryRule{Glob: r.Glob, CacheControl: r.CacheControl})
	}
	return rules
}

func newPool(cfg *config.Config, c *config.Site) (*origin.Pool, error) {
	balance, err := origin.ParseBalance(c.Balance)
	if err != nil {
		return nil, err
	}
	pc := origin.PoolConfig{
		Balance: balance, AllowPrivate: c.AllowPrivate, Check: c.Check,
		ConnectTimeout: c.ConnectTimeout, HeaderTimeout: c.HeaderTimeout, BetweenTimeout: c.BetweenTimeout,
		CheckInterval: cfg.Health.Interval, CheckTimeout: cfg.Health.Timeout,
	}
	for _, u := range c.Origins {
		pc.Origins = append(pc.Origins, u.String())
	}
	for _, w := range c.Weights {
		pc.Weights = append(pc.Weights, int(w))
	}
	return origin.NewPool(pc)
}

func closePools(pools map[string]*origin.Pool) {
	for _, p := range pools {
		p.Close()
	}
}

func certPairs(cfg *config.Config) []edge.CertPair {
	var list []edge.CertPair
	for _, s := range cfg.Sites {
		if s.TLS.Cert != "" {
			list = append(list, edge.CertPair{Site: s.Name, Hosts: certHosts(&s), CertFile: s.TLS.Cert, KeyFile: s.TLS.Key, Default: s.TLS.Default})
		}
	}
	return list
}

// listen opens the edge's addresses and serves them until the end.
func (p *edgePart) listen(c *config.Edge) error {
	if len(c.Listen)+len(c.ListenTLS) == 0 {
		return withHint(fmt.Errorf("edge %s has no address to listen on", p.name), fmt.Sprintf(`add to [edge.%s]: listen = ["0.0.0.0:80"]`, p.name))
	}
	var open []net.Listener
	for i, addr := range slices.Concat(c.Listen, c.ListenTLS) {
		ln, err := p.s.sockets.Listen(config.Network("tcp", addr), addr.String())
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			return addressInUse(err, "tcp", addr)
		}
		if i >= len(c.Listen) {
			ln = p.certs.Listener(ln)
		}
		open = append(open, ln)
		p.s.log.Info("edge listens", "edge", p.name, "addr", addr, "tls", i >= len(c.Listen))
	}
	p.s.tasks.start("memory of the edge", func(ctx context.Context) error { return p.yield(ctx, c.CacheMemory, os.DirFS("/")) })
	var serving sync.WaitGroup
	for _, ln := range open {
		serving.Add(1)
		p.s.tasks.start("edge", func(ctx context.Context) error {
			defer serving.Done()
			return p.edge.Serve(ctx, ln)
		})
	}
	if err := p.listenPeers(c, &serving); err != nil {
		return err
	}
	p.s.tasks.start("certificates", func(ctx context.Context) error {
		if err := p.certs.Watch(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	p.s.tasks.start("edge end", func(ctx context.Context) error {
		<-ctx.Done()
		serving.Wait()
		p.edge.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		closePools(p.pools)
		if p.access != nil {
			p.access.Close()
		}
		return errors.Join(p.releases.Close(), p.blobs.Close())
	})
	return nil
}

// applied tells the edge a place on the feed. The chain there is over its epoch and
// all that comes before in it, so that no other log has it.
func (p *edgePart) applied(at feed.Position) { p.edge.SetApplied(at.Seq, at.Chain) }

func (p *edgePart) purge(at feed.Position, c control.Purge) {
	if err := p.edge.Purge(edge.Purge{Seq: at.Seq, Log: at.Chain, Site: c.Site, URL: c.URL, Prefix: c.Prefix, Tag: c.Tag, All: c.All, Soft: c.Soft}); err != nil {
		// A purge that cannot be understood may have been for anything.
		p.s.log.Error("purge not understood: everything is revalidated", "seq", at.Seq, "err", err)
		p.revalidate("a purge was not understood")
	}
}

// revalidate makes all that is stored stale.
func (p *edgePart) revalidate(why string) {
	p.s.log.Warn("every stored response is stale from now", "why", why)
	p.edge.Revalidate()
}

// drain implements ender: health checks see that this edge takes no more, unless
// another process serves in its place, and clients that it is about to close.
func (p *edgePart) drain(replaced bool) bool {
	if !replaced {
		p.edge.SetReady(false)
	}
	p.edge.Drain()
	return true
}

// undrain implements ender: the process that had this one's place is gone.
func (p *edgePart) undrain() {
	p.edge.TakeBack()
	p.edge.Undrain()
}

// letGo implements follows: purges are the next process's to hear, so nothing
// stored is served from here without asking the origin; and the disk is the next
// process's to write.
func (p *edgePart) letGo() {
	if p.follow != nil {
		p.edge.SetBehind(true)
	}
	p.edge.CloseDisk()
}

// report is what this edge tells the control node once a second.
func (p *edgePart) report() control.NodeReport {
	return control.NodeReport{Trouble: p.troubles()}
}

func (p *edgePart) troubles() []string {
	var list []string
	for _, c := range p.certs.Status() {
		if c.Err != nil {
			list = append(list, fmt.Sprintf("site %s: %v", c.Site, c.Err))
		}
		if left := time.Until(c.NotAfter); left < certWarning {
			list = append(list, fmt.Sprintf("site %s: %s ends at %s", c.Site, c.CertFile, c.NotAfter.Format(time.RFC3339)))
		}
	}
	list = append(list, p.peerTroubles()...)
	if d := p.edge.Stats().Disk; d.On && d.Why != "" {
		list = append(list, "disk cache: "+d.Why)
	}
	for _, d := range p.releases.Damage() {
		list = append(list, fmt.Sprintf("site %s: release %s is damaged: %s", d.Site, d.Release, d.Why))
	}
	return list
}

func clientLimits(cfg *config.Config) edge.Limits {
	return edge.Limits(cfg.Limit)
}

// certWarning is how long before its end a certificate is a trouble.
const certWarning = 14 * 24 * time.Hour

// configure implements part.
func (p *edgePart) configure(_ context.Context, cfg *config.Config) error {
	c := cfg.Edge(p.name)
	if c == nil {
		return fmt.Errorf("%s no longer has an edge called %s", p.s.o.config, p.name)
	}
	sites, pools, err := p.makeSites(cfg)
	if err != nil {
		return err
	}
	if err := p.certs.SetPairs(certPairs(cfg)); err != nil {
		closePools(pools)
		return err
	}
	if err := p.edge.SetSites(sites); err != nil {
		closePools(pools)
		return err
	}
	p.edge.SetLimits(clientLimits(cfg))
	p.mu.Lock()
	old := p.pools
	p.pools = pools
	p.mu.Unlock()
	closePools(old)
	if a, b := p.s.cfg.Load().Log, cfg.Log; a.Access != b.Access || a.AccessFile != b.AccessFile || !slices.Equal(a.Hide, b.Hide) {
		p.s.log.Warn("[log] of the edge has changed: upgrade or restart it to take that up", "edge", p.name)
	}
	if was := p.s.cfg.Load().Edge(p.name); was != nil && (!slices.Equal(was.Listen, c.Listen) || !slices.Equal(was.ListenTLS, c.ListenTLS) || was.Peer != c.Peer || was.CacheMemory != c.CacheMemory || was.CacheDisk != c.CacheDisk || was.Eviction != c.Eviction) {
		p.s.log.Warn("the edge's listen, listen_tls, peer, memory, disk or eviction has changed: upgrade or restart it to take them up", "edge", p.name)
	}
	return nil
}

// reload implements part.
func (p *edgePart) reload(context.Context) error {
	p.certs.Reload()
	errs := []error{reopen(p.logFile)}
	for _, c := range p.certs.Status() {
		if c.Err != nil {
			errs = append(errs, c.Err)
		}
	}
	return errors.Join(errs...)
}

// status implements part.
func (p *edgePart) status(s *localStatus) {
	s.Role = joinRole(s.Role, "edge")
	s.Name = p.name
	s.Problems = append(s.Problems, p.troubles()...)
	s.Feed = p.follow.status()
}
