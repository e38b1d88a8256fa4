package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/internal/geo"
	"perigee.example/zones"
)

// Here a DNS node takes in what is new: zones, geography and perigee.toml. Each
// builds a whole View beside the one in use and swaps it, or keeps the old one.

// rebuild asks for a new View. It never blocks.
func (p *dnsPart) rebuild() {
	select {
	case p.again <- struct{}{}:
	default: // one is asked for already
	}
}

func (p *dnsPart) rebuildLoop(ctx context.Context) error {
	takeIn(ctx, p.again, &p.geoNew, p.swapGeo, func() {
		p.swapZones()
		p.tellZones()
	})
	return nil
}

// geoEvery is how often at most every Atlas is built anew: a core is busy with
// it for a second or more, and places do not change by the minute.
const geoEvery = time.Minute

// takeIn calls zones, or geography when geoNew says so, each time that again
// tells of something new, until ctx ends. A geography that comes too soon after
// the one before waits, and zones do not.
func takeIn(ctx context.Context, again <-chan struct{}, geoNew *atomic.Bool, geography, zones func()) {
	var last time.Time
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
			due, last = nil, time.Now()
			geography()
		case <-again:
			if geoNew.Swap(false) {
				wait := geoEvery - time.Since(last)
				if due == nil && (last.IsZero() || wait <= 0) {
					last = time.Now()
					geography() // over the zones as they are now
					continue
				}
				if due == nil {
					due = time.After(wait)
				}
			}
			zones() // they may have changed as well
		}
	}
}

// tellZones logs what is wrong with zones, each once until it is cured.
func (p *dnsPart) tellZones() {
	now := map[string]string{}
	for _, z := range p.store.Status() {
		if z.Problem == "" {
			continue
		}
		now[z.Origin+" "+z.File] = z.Problem
		if p.zonesTold[z.Origin+" "+z.File] != z.Problem {
			p.s.log.Error("zone is not as it should be", "zone", z.Origin, "err", z.Problem, "hint", z.Hint)
		}
	}
	for of := range p.zonesTold {
		if _, ok := now[of]; !ok {
			p.s.log.Info("zone is as it should be again", "zone", strings.TrimSpace(of))
		}
	}
	p.zonesTold = now
}

// geoChanged follows a new database. It is called from the database's own
// goroutine, so that it only asks for the work.
func (p *dnsPart) geoChanged(_ *geo.DB, err error) {
	if err != nil {
		p.s.log.Error("geo database: the old one goes on", "err", err)
		return
	}
	p.s.log.Info("geo database changed")
	p.geoNew.Store(true)
	p.rebuild()
}

// swapGeo builds every Atlas anew, over the zones as they are now.
func (p *dnsPart) swapGeo() {
	p.building.Lock()
	defer p.building.Unlock()
	w, err := newWorld(p.w.cfg, p.geo.DB())
	if err == nil {
		err = p.install(w)
	}
	if err != nil {
		p.problem("geo", err)
		return
	}
	p.cured("geo")
}

// install puts the store's zones under w and swaps the View in, or changes
// nothing. The caller holds building.
func (p *dnsPart) install(w *world) error {
	now := p.store.Zones()
	v, err := w.servedView(now)
	if err != nil {
		return err
	}
	p.served = map[string]bool{}
	for _, z := range now {
		p.served[z.Origin()] = true
		p.cured("zone " + z.Origin())
	}
	p.tellUnsteered(w, v)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range w.coarse() {
		p.s.log.Warn("steering is coarse", "why", text)
	}
	p.w, p.view = w, v
	p.server.SetView(v)
	p.swapState() // of the new policies, at once
	return nil
}

// unsteered begins the problems of zones whose steering rests.
const unsteered = "steering in "

// tellUnsteered notes which names are not steered because their zone is signed
// elsewhere, until that is cured.
func (p *dnsPart) tellUnsteered(w *world, v *dnsserver.View) {
	now := map[string]string{}
	for _, err := range v.Unsteered() {
		var be *dnsserver.BindingError
		if errors.As(err, &be) {
			now[unsteered+be.Binding.Name] = fmt.Sprintf("%v; the zone's own records answer", locateErrors(w.cfg, err))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for of := range p.problems {
		if strings.HasPrefix(of, unsteered) && now[of] == "" {
			delete(p.problems, of)
			p.s.log.Info("steering goes on", "name", strings.TrimPrefix(of, unsteered))
		}
	}
	for of, why := range now {
		if p.problems[of] != why {
			p.s.log.Error("steering rests", "name", strings.TrimPrefix(of, unsteered), "err", why)
		}
		p.problems[of] = why
	}
}

// swapZones puts the store's zones under the policies. A zone whose new
// version cannot be steered as perigee.toml says keeps its old one.
func (p *dnsPart) swapZones() {
	p.building.Lock()
	defer p.building.Unlock()
	now := p.store.Zones()
	v := p.withoutGone(now)
	var changed []*zones.Zone
	for _, z := range now {
		if v.Zone(z.Origin()) != z {
			changed = append(changed, z)
		} else {
			p.cured("zone " + z.Origin())
		}
	}
	if next, err := v.With(changed...); err == nil {
		p.swapView(next, changed)
		return
	}
	var taken []*zones.Zone
	for _, z := range changed { // one by one, so that a bad one stops no other
		next, err := v.With(z)
		if err != nil {
			p.problem("zone "+z.Origin(), locateErrors(p.w.cfg, err))
			continue
		}
		v, taken = next, append(taken, z)
	}
	p.swapView(v, taken)
}

// withoutGone is the View in use without the zones that the store holds no
// more.
func (p *dnsPart) withoutGone(now []*zones.Zone) *dnsserver.View {
	left := map[string]bool{}
	for _, z := range now {
		left[z.Origin()] = true
	}
	v := p.view
	for origin := range p.served {
		if left[origin] {
			continue
		}
		next, err := v.Without(origin)
		if err != nil {
			p.problem("zone "+origin, locateErrors(p.w.cfg, err))
			continue
		}
		p.s.log.Info("zone taken out", "zone", origin)
		p.cured("zone " + origin)
		delete(p.served, origin)
		v = next
	}
	return v
}

// swapView puts v in use, which has these zones for the first time.
func (p *dnsPart) swapView(v *dnsserver.View, taken []*zones.Zone) {
	for _, z := range taken {
		p.served[z.Origin()] = true
		p.cured("zone " + z.Origin())
		p.s.log.Info("zone reloaded", "zone", z.Origin(), "serial", z.Serial(), "names", z.Len())
	}
	p.tellUnsteered(p.w, v)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view = v
	p.server.SetView(v)
}

// problem notes what keeps a new version out; status shows it until cured.
func (p *dnsPart) problem(of string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problems[of] != err.Error() {
		p.s.log.Error("the old version goes on", "of", of, "err", err)
	}
	p.problems[of] = err.Error()
}

func (p *dnsPart) cured(of string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.problems, of)
}

// configure implements part.
func (p *dnsPart) configure(ctx context.Context, cfg *config.Config) error {
	p.building.Lock()
	defer p.building.Unlock()
	old := p.w.cfg
	g, err := p.geoFor(old, cfg)
	if err != nil {
		return err
	}
	w, err := newWorld(cfg, g.DB())
	if err == nil {
		if err = p.configureZones(ctx, cfg); err == nil {
			err = p.install(w)
		}
		if err != nil {
			err = errors.Join(err, p.configureZones(ctx, old))
		}
	}
	if g != p.geo {
		unused := g
		if err == nil {
			p.mu.Lock()
			unused, p.geo = p.geo, g
			p.mu.Unlock()
		}
		err = errors.Join(err, unused.Close())
	}
	if err != nil {
		return err
	}
	p.guards.configure(cfg)
	p.warnOfRestart(old, cfg)
	return p.checks.SetTargets(checkTargets(cfg))
}

// geoFor is the databases in use, or those of cfg when it names others.
func (p *dnsPart) geoFor(old, cfg *config.Config) (*geo.Store, error) {
	if geoFiles(old) == geoFiles(cfg) {
		return p.geo, nil
	}
	return geo.Watch(geoFiles(cfg), p.geoChanged)
}

// configureZones has the store load the zones of cfg. One that is not as it
// should be keeps its last good version: that is reload's to say.
func (p *dnsPart) configureZones(ctx context.Context, cfg *config.Config) error {
	if err := p.store.Configure(zoneSources(cfg)); err != nil {
		return err
	}
	_ = p.store.Reload(ctx)
	return ctx.Err()
}

// warnOfRestart names the changes that only a new process takes up.
func (p *dnsPart) warnOfRestart(old, cfg *config.Config) {
	if !slices.Equal(old.DNS.Listen, cfg.DNS.Listen) {
		p.s.log.Warn("dns.listen has changed: upgrade or restart this node to open other addresses")
	}
	if old.Log.Queries != cfg.Log.Queries || old.Log.QueriesFile != cfg.Log.QueriesFile {
		p.s.log.Warn("[log] queries has changed: upgrade or restart this node to take it up")
	}
	a, b := old.Health, cfg.Health
	if a.Interval != b.Interval || a.Timeout != b.Timeout || a.Rise != b.Rise || a.Fall != b.Fall {
		p.s.log.Warn("[health] has changed: upgrade or restart this node to probe at another pace")
	}
}

// reload implements part.
func (p *dnsPart) reload(ctx context.Context) error {
	p.building.Lock()
	g := p.geo
	p.building.Unlock()
	err := errors.Join(g.Reload(), p.store.Reload(ctx))
	if p.queries != nil {
		err = errors.Join(err, reopen(p.queries.file))
	}
	return err
}

// accept serves what the shrink guard held back.
func (p *dnsPart) accept(zone string) error {
	name, err := zones.ParseName(zone)
	if err != nil {
		return fmt.Errorf("%q is no zone's name: %w", zone, err)
	}
	return p.store.Accept(zones.FormatName(name))
}

// zone is a zone as it is served.
func (p *dnsPart) zone(name string) (*zones.Zone, error) {
	wire, err := zones.ParseName(strings.ToLower(name))
	if err != nil {
		return nil, fmt.Errorf("%q is no zone's name: %w", name, err)
	}
	if z := p.server.View().Zone(zones.FormatName(wire)); z != nil {
		return z, nil
	}
	return nil, fmt.Errorf("no zone %s is served here", zones.FormatName(wire))
}
