package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
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
	s      *server
	server *dnsserver.Server
	store  *zones.Store
	geo    *geo.Store
	checks *health.Checker
	follow *follower     // nil: no control node
	again  chan struct{} // a zone or the geography changed: build the View again

	mu       sync.Mutex // guards what follows; one builder at a time
	w        *world
	view     *dnsserver.View
	drains   node.Drains
	problems map[string]string // by zone or "perigee.toml": what keeps a new version out
}

// startDNS starts the DNS node of this process.
func (s *server) startDNS(local *localFeed) error {
	cfg := s.cfg.Load()
	if len(cfg.DNS.Listen) == 0 {
		return withHint(fmt.Errorf("%s has no address for DNS", s.o.config), `add to [dns]: listen = ["192.0.2.53:53"]`)
	}
	p := &dnsPart{s: s, again: make(chan struct{}, 1), problems: map[string]string{}}
	seed, err := loadSeed(filepath.Join(s.dir, "dns", "seed"))
	if err != nil {
		return err
	}
	p.server = dnsserver.NewServer(dnsserver.ServerConfig{Seed: seed, Log: s.log})
	if p.geo, err = geo.Watch(geoFiles(cfg), func(_ *geo.DB, err error) { p.geoChanged(err) }); err != nil {
		return err
	}
	s.tasks.start("geo", func(ctx context.Context) error { <-ctx.Done(); return p.geo.Close() })
	if err := p.openZones(); err != nil {
		return err
	}
	if p.w, err = newWorld(cfg, p.geo.DB()); err != nil {
		return err
	}
	if p.view, err = p.w.view(p.store.Zones()); err != nil {
		return err
	}
	p.server.SetView(p.view)
	p.setState()
	if p.follow, err = s.openFollower("dns", local, followerParts{
		hooks:  node.Hooks{Drains: p.setDrains},
		report: p.report,
	}); err != nil {
		return err
	}
	if err := p.startChecks(); err != nil {
		return err
	}
	if err := p.listen(); err != nil {
		return err
	}
	s.tasks.start("zones", p.watchZones)
	s.tasks.start("view", p.rebuildLoop)
	s.admin.parts = append(s.admin.parts, p)
	s.admin.accept = p.accept
	return nil
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
	if err := p.store.Reload(p.s.tasks.ctx); err != nil {
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
		list = append(list, zones.Source{Origin: z.Origin, Path: z.File})
	}
	return list, cfg.DNS.ZoneFiles
}

func (p *dnsPart) watchZones(ctx context.Context) error {
	if err := p.store.Watch(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// rebuild asks for a new View. It never blocks.
func (p *dnsPart) rebuild() {
	select {
	case p.again <- struct{}{}:
	default: // one is asked for already
	}
}

func (p *dnsPart) rebuildLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.again:
			p.swapZones()
		}
	}
}

// swapZones puts the store's zones under the policies. A zone whose new
// version cannot be steered as perigee.toml says keeps its old one.
func (p *dnsPart) swapZones() {
	p.mu.Lock()
	defer p.mu.Unlock()
	served := p.store.Zones()
	v := p.view
	known := true
	for _, z := range served {
		old := v.Zone(z.Origin())
		if old == nil {
			known = false
		}
		if old == nil || old == z {
			delete(p.problems, z.Origin())
			continue
		}
		next, err := v.With(z)
		if err != nil {
			p.problem(z.Origin(), locateErrors(p.s.cfg.Load(), err))
			continue
		}
		delete(p.problems, z.Origin())
		p.s.log.Info("zone reloaded", "zone", z.Origin(), "serial", z.Serial(), "names", z.Len())
		v = next
	}
	if !known { // a zone came: its steered names are bound now
		next, err := p.w.view(served)
		if err != nil {
			p.problem("perigee.toml", err)
			return
		}
		v = next
	}
	p.view = v
	p.server.SetView(v)
}

// problem notes what keeps a new version out; status shows it until cured.
func (p *dnsPart) problem(of string, err error) {
	if p.problems[of] != err.Error() {
		p.s.log.Error("the old version goes on", "of", of, "err", err)
	}
	p.problems[of] = err.Error()
}

// geoChanged follows a new database: every Atlas is built anew.
func (p *dnsPart) geoChanged(err error) {
	if err != nil {
		p.s.log.Error("geo database: the old one goes on", "err", err)
		return
	}
	p.s.log.Info("geo database changed")
	if err := p.configure(p.s.cfg.Load()); err != nil {
		p.s.log.Error("geo database: the old one goes on", "err", err)
	}
}

// configure builds everything from cfg and swaps it in, or changes nothing.
func (p *dnsPart) configure(cfg *config.Config) error {
	if p.geo == nil {
		return nil // still starting
	}
	w, err := newWorld(cfg, p.geo.DB())
	if err != nil {
		return err
	}
	v, err := w.view(p.store.Zones())
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.w, p.view = w, v
	delete(p.problems, "perigee.toml")
	p.server.SetView(v)
	p.mu.Unlock()
	p.setState()
	return nil
}

// reload implements part.
func (p *dnsPart) reload(ctx context.Context, cfg *config.Config) error {
	err := errors.Join(p.geo.Reload(), p.reloadZones(ctx, cfg))
	if err == nil {
		err = p.configure(cfg)
	}
	if err == nil {
		err = p.checks.SetTargets(checkTargets(cfg))
	}
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problem("perigee.toml", err)
		return err
	}
	if !slices.Equal(cfg.DNS.Listen, p.s.cfg.Load().DNS.Listen) {
		p.s.log.Warn("dns.listen has changed: restart this node to open other addresses")
	}
	return nil
}

func (p *dnsPart) reloadZones(ctx context.Context, cfg *config.Config) error {
	if err := p.store.Configure(zoneSources(cfg)); err != nil {
		return err
	}
	return p.store.Reload(ctx)
}

// accept serves what the shrink guard held back.
func (p *dnsPart) accept(zone string) error {
	name, err := zones.ParseName(zone)
	if err != nil {
		return err
	}
	return p.store.Accept(zones.FormatName(name))
}

// listen opens UDP and TCP on every address.
func (p *dnsPart) listen() error {
	for _, addr := range p.s.cfg.Load().DNS.Listen {
		udp, err := net.ListenPacket(config.Network("udp", addr), addr.String())
		if err != nil {
			return addressInUse(err, "udp", addr)
		}
		tcp, err := net.Listen(config.Network("tcp", addr), addr.String())
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
		return p.server.Shutdown(end)
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

// startChecks probes every edge and endpoint that has a check.
func (p *dnsPart) startChecks() error {
	h := p.s.cfg.Load().Health
	var err error
	p.checks, err = health.New(health.Options{Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall,
		OnChange: func(s health.Snapshot) { p.healthChanged(s) }})
	if err != nil {
		return err
	}
	p.s.tasks.start("health", func(ctx context.Context) error { <-ctx.Done(); p.checks.Close(); return nil })
	return p.checks.SetTargets(checkTargets(p.s.cfg.Load()))
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

func (p *dnsPart) healthChanged(s health.Snapshot) {
	for name, st := range s {
		p.s.log.Info("endpoint", "name", name, "health", st.State.String(), "why", st.Why, "failures", st.Failures)
	}
	p.setState()
}

func (p *dnsPart) setDrains(d node.Drains) {
	p.mu.Lock()
	p.drains = d
	p.mu.Unlock()
	p.setState()
}

// setState makes the picture of the fleet from health and drains, and swaps it.
func (p *dnsPart) setState() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return // still starting
	}
	st := p.w.set.NewState()
	st.Stale = !p.follow.lostSince().IsZero()
	var probes health.Snapshot
	if p.checks != nil {
		probes = p.checks.Snapshot()
	}
	for i := range st.Endpoints {
		name := p.w.set.Endpoint(i).Name
		st.Endpoints[i] = endpointState(probes[name], p.drains.Drained[name], p.drains.Forced[name])
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
	r := control.NodeReport{Config: p.s.cfg.Load().Hash(), Version: version(), Health: map[string]control.EdgeHealth{}}
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
		if z.Problem != "" {
			list = append(list, fmt.Sprintf("zone %s: %s", z.Origin, z.Problem))
		}
	}
	if err := p.geo.Err(); err != nil {
		list = append(list, err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for of, why := range p.problems {
		list = append(list, of+": "+why)
	}
	slices.Sort(list)
	return list
}

// status implements part.
func (p *dnsPart) status(s *localStatus) {
	s.Role = joinRole(s.Role, "dns")
	s.Config = p.s.cfg.Load().Hash()
	s.Problems = append(s.Problems, p.troubles()...)
	for _, z := range p.store.Status() {
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
