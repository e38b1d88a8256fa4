package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/internal/durable"
	"perigee.example/internal/geo"
	"perigee.example/internal/health"
	"perigee.example/internal/node"
	"perigee.example/policy"
	"perigee.example/zones"
)

// dnsPart is a DNS node: zones, geography, health and drains come together in
// a View and a State, which the server reads.
type dnsPart struct {
	s       *server
	server  *dnsserver.Server
	guards  *dnsGuards
	store   *zones.Store
	checks  *health.Checker
	follow  *follower               // nil: no control node
	queries *queryLog               // nil: off
	again   chan struct{}           // a zone or the geography changed: build the View again
	geoNew  atomic.Bool             // it was the geography
	told    map[string]health.State // what the log has of each endpoint; healthChanged's own

	zonesTold map[string]string // what the log has of each zone; rebuildLoop's own

	building sync.Mutex      // one builder of Views at a time
	served   map[string]bool // by origin: the zones of view; building guards it

	mu       sync.Mutex // guards what follows; a builder holds building as well
	geo      *geo.Store
	w        *world
	view     *dnsserver.View
	drains   node.Drains
	lost     time.Time         // since when the feed is lost
	problems map[string]string // by what is wrong: why an old version goes on
}

// startDNS starts the DNS node of this process. Nothing calls back into it
// before it is whole: what the databases and zones tell meanwhile waits in
// again; probes and the feed begin last.
func (s *server) startDNS(local *localFeed) error {
	cfg := s.cfg.Load()
	if len(cfg.DNS.Listen) == 0 {
		return withHint(fmt.Errorf("%s has no address for DNS", s.o.config), `add to [dns]: listen = ["192.0.2.53:53"]`)
	}
	p := &dnsPart{s: s, again: make(chan struct{}, 1), problems: map[string]string{}}
	if err := p.open(cfg); err != nil {
		return err
	}
	var err error
	if p.follow, err = s.openFollower("dns", local, followerParts{
		hooks:  node.Hooks{Drains: p.setDrains, Lost: p.setLost},
		report: p.report,
	}); err != nil {
		return err
	}
	if p.follow != nil {
		p.setLost(p.follow.node.LostSince())
	}
	if err := p.listen(); err != nil {
		return err
	}
	if err := p.checks.SetTargets(checkTargets(cfg)); err != nil {
		return err
	}
	s.tasks.start("cookies", func(ctx context.Context) error { return p.guards.roll(ctx, s.log) })
	s.tasks.start("zones", p.watchZones)
	s.tasks.start("view", p.rebuildLoop)
	s.startFollower(p.follow)
	s.admin.parts = append(s.admin.parts, p)
	s.admin.accept, s.admin.zone = p.accept, p.zone
	return nil
}

// open loads everything that an answer needs.
func (p *dnsPart) open(cfg *config.Config) error {
	seed, err := loadSeed(filepath.Join(p.s.dir, "dns", "seed"))
	if err != nil {
		return err
	}
	if p.queries, err = openQueryLog(cfg.Log); err != nil {
		return err
	}
	c := dnsserver.ServerConfig{Seed: seed, Log: p.s.log}
	if p.queries != nil {
		c.OnOutcome = p.queries.outcome
	}
	p.server = dnsserver.NewServer(c)
	if p.guards, err = openGuards(p.server, p.s.dir, cfg); err != nil {
		return err
	}
	if p.geo, err = geo.Watch(geoFiles(cfg), p.geoChanged); err != nil {
		return err
	}
	p.s.tasks.start("geo", func(ctx context.Context) error {
		<-ctx.Done()
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.geo.Close()
	})
	if err := p.openZones(); err != nil {
		return err
	}
	if err := p.openChecks(cfg); err != nil {
		return err
	}
	w, err := newWorld(cfg, p.geo.DB())
	if err != nil {
		return err
	}
	return p.install(w)
}

func geoFiles(cfg *config.Config) geo.Files {
	return geo.Files{Place: cfg.DNS.GeoIP, ASN: cfg.DNS.GeoIPASN}
}

// loadSeed reads the secret that draws are made from, and makes it at the
// first start: a restart then gives every resolver the answers that it had.
func loadSeed(path string) (seed [16]byte, err error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == len(seed) {
		return [16]byte(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return seed, err
	}
	if _, err := rand.Read(seed[:]); err != nil {
		return seed, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return seed, err
	}
	return seed, durable.WriteFile(path, seed[:], 0o600)
}

// openZones loads the zones. One that cannot be loaded is left out and said,
// loudly, until it is cured; without any the node does not start.
func (p *dnsPart) openZones() error {
	sources, globs := zoneSources(p.s.cfg.Load())
	var err error
	if p.store, err = zones.NewStore(zones.StoreConfig{Zones: sources, Globs: globs, State: filepath.Join(p.s.dir, "dns"), Changed: p.rebuild}); err != nil {
		return err
	}
	if err := p.store.Load(p.s.tasks.ctx); err != nil {
		if len(p.store.Zones()) == 0 {
			return err
		}
		p.s.log.Error("zones are not as they should be; the others are served", "err", err)
	}
	return nil
}

func zoneSources(cfg *config.Config) ([]zones.Source, []string) {
	var list []zones.Source
	for _, z := range cfg.Zones {
		list = append(list, zones.Source{Origin: z.Origin, Path: z.File, AutoSerial: z.Auto})
	}
	return list, cfg.DNS.ZoneFiles
}

func (p *dnsPart) watchZones(ctx context.Context) error {
	if err := p.store.Watch(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// listen opens UDP and TCP on every address.
func (p *dnsPart) listen() error {
	for _, addr := range p.s.cfg.Load().DNS.Listen {
		udp, err := p.s.sockets.ListenPacket(config.Network("udp", addr), addr.String())
		if err != nil {
			return addressInUse(err, "udp", addr)
		}
		tcp, err := p.s.sockets.Listen(config.Network("tcp", addr), addr.String())
		if err != nil {
			udp.Close()
			return addressInUse(err, "tcp", addr)
		}
		p.s.tasks.start("dns udp", func(context.Context) error { return ignoreClosed(p.server.ServeUDP(udp)) })
		p.s.tasks.start("dns tcp", func(context.Context) error { return ignoreClosed(p.server.ServeTCP(tcp)) })
		p.s.log.Info("dns listens", "addr", addr)
	}
	p.s.tasks.start("dns", func(ctx context.Context) error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), dnsShutdown)
		defer cancel()
		err := p.server.Shutdown(end)
		if p.queries != nil && err == nil { // else somebody may still log
			p.queries.Close()
		}
		return err
	})
	return nil
}

// dnsShutdown is how long replies under way may take at the end.
const dnsShutdown = 3 * time.Second

func ignoreClosed(err error) error {
	if errors.Is(err, dnsserver.ErrServerClosed) {
		return nil
	}
	return err
}

// openChecks prepares the probes of edges and endpoints. They begin with
// SetTargets.
func (p *dnsPart) openChecks(cfg *config.Config) error {
	h := cfg.Health
	var err error
	p.checks, err = health.New(health.Options{Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall, OnChange: p.healthChanged})
	if err != nil {
		return err
	}
	p.s.tasks.start("health", func(ctx context.Context) error { <-ctx.Done(); p.checks.Close(); return nil })
	return nil
}

func checkTargets(cfg *config.Config) []health.Target {
	var list []health.Target
	for _, e := range cfg.Edges {
		if e.Check != "" {
			list = append(list, health.Target{Name: e.Name, URL: e.Check})
		}
	}
	for _, e := range cfg.Endpoints {
		if e.Check != "" {
			list = append(list, health.Target{Name: e.Name, URL: e.Check})
		}
	}
	return list
}

// healthChanged logs what changed, and swaps the State.
func (p *dnsPart) healthChanged(now health.Snapshot) {
	for name, st := range now {
		if was := p.told[name]; st.State != was {
			p.s.log.Info("endpoint", "name", name, "health", st.State.String(), "was", was.String(), "why", st.Why, "failures", st.Failures)
		}
	}
	p.told = map[string]health.State{}
	for name, st := range now {
		p.told[name] = st.State
	}
	p.setState()
}

func (p *dnsPart) setDrains(d node.Drains) {
	p.mu.Lock()
	p.drains = d
	p.mu.Unlock()
	p.setState()
}

// setLost notes since when the feed is lost; zero: it is there.
func (p *dnsPart) setLost(since time.Time) {
	p.mu.Lock()
	p.lost = since
	p.mu.Unlock()
	p.setState()
}

// drain implements ender: the edge that ends with this process leaves the
// answers first. Resolvers are told nothing: they ask another server.
func (p *dnsPart) drain(bool) bool {
	p.setState()
	return false
}

// undrain implements ender.
func (p *dnsPart) undrain() { p.setState() }

// setState makes the picture of the fleet from health and drains, and swaps it.
func (p *dnsPart) setState() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swapState()
}

// swapState is setState with mu held.
func (p *dnsPart) swapState() {
	st := p.w.set.NewState()
	st.Stale = !p.lost.IsZero()
	probes := p.checks.Snapshot()
	for i := range st.Endpoints {
		name := p.w.set.Endpoint(i).Name
		leaving := p.s.ending.Load() && name == p.s.edgeName // it is in this process
		st.Endpoints[i] = endpointState(probes[name], p.drains.Drained[name] || leaving, p.drains.Forced[name])
	}
	p.server.SetState(st)
}

// endpointState joins what probes and operators say of one endpoint.
func endpointState(probe health.Status, drained bool, forced string) policy.EndpointState {
	e := policy.EndpointState{Draining: drained}
	switch probe.State {
	case health.Up:
		e.Health = policy.Up
	case health.Down:
		e.Health, e.Why = policy.Down, probe.Why
	}
	switch forced {
	case "up":
		e.Force = policy.ForceUp
	case "down":
		e.Force = policy.ForceDown
	}
	return e
}

// report is what this node tells the control node once a second.
func (p *dnsPart) report() control.NodeReport {
	r := control.NodeReport{Health: map[string]control.EdgeHealth{}}
	for name, st := range p.checks.Snapshot() {
		r.Health[name] = control.EdgeHealth{Health: st.State.String(), Why: st.Why}
	}
	r.Trouble = p.troubles()
	return r
}

// troubles is everything that waits for a cure.
func (p *dnsPart) troubles() []string {
	var list []string
	for _, z := range p.store.Status() {
		switch {
		case z.Problem == "":
		case z.Origin == "": // of the store itself
			list = append(list, z.Problem)
		default:
			list = append(list, fmt.Sprintf("zone %s: %s", z.Origin, z.Problem))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.geo.Err(); err != nil {
		list = append(list, err.Error())
	}
	for of, why := range p.problems {
		list = append(list, of+": "+why)
	}
	slices.Sort(list)
	return list
}

// status implements part.
func (p *dnsPart) status(s *localStatus) {
	s.Role = joinRole(s.Role, "dns")
	s.Problems = append(s.Problems, p.troubles()...)
	for _, z := range p.store.Status() {
		if z.Origin == "" {
			continue // trouble of the store itself, which is among the problems
		}
		s.Zones = append(s.Zones, zoneStatus{Origin: z.Origin, Serial: z.Serial, Names: z.Names, Problem: z.Problem})
	}
	probes := p.checks.Snapshot()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.w.set.NewState().Endpoints {
		name := p.w.set.Endpoint(i).Name
		e := endpointStatus{Name: name, Health: "unknown", Draining: p.drains.Drained[name], Force: p.drains.Forced[name]}
		if st, ok := probes[name]; ok {
			e.Health, e.Why = st.State.String(), st.Why
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	s.Feed = p.follow.status()
}

func joinRole(roles, role string) string {
	if roles == "" {
		return role
	}
	return roles + "+" + role
}
