package main

import (
	"errors"
	"fmt"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/internal/geo"
	"perigee.example/policy"
	"perigee.example/zones"
)

// world is everything of a configuration that a DNS answer needs, loaded:
// serve, check and explain make it in the same way.
type world struct {
	cfg *config.Config
	geo policy.Geography
	set *policy.Set
}

// newWorld compiles the policies of cfg over a geography.
func newWorld(cfg *config.Config, g policy.Geography) (*world, error) {
	set, err := policy.Compile(cfg.Policy, cfg.Roots(), g)
	if err != nil {
		return nil, locateErrors(cfg, err)
	}
	return &world{cfg: cfg, geo: g, set: set}, nil
}

// coarse says of which policies the latency had to be coarsened.
func (w *world) coarse() []string {
	var list []string
	for _, name := range w.cfg.Roots() {
		root, _ := w.set.Root(name)
		if step := w.set.Coarse(root); step > 0 {
			list = append(list, fmt.Sprintf("policy %s tells too many networks apart, so round trips count in steps of %v: put fewer choices into the latency policies that it leads to", name, step))
		}
	}
	return list
}

// openGeo opens the databases that cfg names, or the built-in one.
func openGeo(cfg *config.Config) (*geo.DB, error) {
	return geo.Open(geo.Files{Place: cfg.DNS.GeoIP, ASN: cfg.DNS.GeoIPASN})
}

// view puts zones under the policies.
func (w *world) view(zs []*zones.Zone) (*dnsserver.View, error) { return w.newView(zs, false) }

// servedView is view for a server that runs: where a zone with steered names
// turns out to be signed elsewhere, its own records answer.
func (w *world) servedView(zs []*zones.Zone) (*dnsserver.View, error) { return w.newView(zs, true) }

func (w *world) newView(zs []*zones.Zone, signedFallback bool) (*dnsserver.View, error) {
	c := dnsserver.ViewConfig{SignedFallback: signedFallback, Zones: zs, Policies: w.set, Endpoints: w.endpoints(), Chaos: dnsserver.Chaos{Version: w.cfg.DNS.Chaos.Version, ID: w.cfg.DNS.Chaos.ID}}
	if w.cfg.DNS.NSID != "" {
		c.NSID = []byte(w.cfg.DNS.NSID)
	}
	for _, z := range w.cfg.Zones {
		for _, s := range z.Steer {
			c.Steer = append(c.Steer, dnsserver.Binding{Zone: z.Origin, Name: s.Name, Policy: s.To, Mixed: s.Mixed})
		}
	}
	v, err := dnsserver.NewView(c)
	if err != nil {
		return nil, locateErrors(w.cfg, err)
	}
	return v, nil
}

// endpoints is what DNS hands out for each endpoint of the policies.
func (w *world) endpoints() []dnsserver.Endpoint {
	var list []dnsserver.Endpoint
	for _, e := range w.cfg.Edges {
		list = append(list, dnsserver.Endpoint{Addresses: e.Addresses})
	}
	for _, e := range w.cfg.Endpoints {
		list = append(list, dnsserver.Endpoint{Addresses: e.Addresses, Target: e.Target})
	}
	return list
}

// loadZones loads every zone of cfg once. Findings that are errors are the
// error; warnings are returned.
func loadZones(cfg *config.Config) ([]*zones.Zone, []zones.Finding, error) {
	var list []*zones.Zone
	var warnings []zones.Finding
	var errs []error
	for _, c := range cfg.Zones {
		z, findings := zones.Load(c.File, zones.Options{Origin: c.Origin})
		for _, f := range findings {
			if f.Warning {
				warnings = append(warnings, f)
				continue
			}
			errs = append(errs, findingError(f))
		}
		if z != nil {
			list = append(list, z)
		} else if len(findings) == 0 {
			errs = append(errs, fmt.Errorf("zone %s: %s could not be loaded", c.Origin, c.File))
		}
	}
	return list, warnings, errors.Join(errs...)
}

// findingError is a finding as an error with its cure.
func findingError(f zones.Finding) error {
	where := f.File
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	err := fmt.Errorf("%s: %s", where, f.Text)
	if f.Hint == "" {
		return err
	}
	return withHint(err, f.Hint)
}

// locateErrors gives each mistake that names a place in perigee.toml that
// place, so that it is shown with a caret.
func locateErrors(cfg *config.Config, err error) error {
	var list []error
	for _, e := range flatten(err) {
		var ce *policy.ConfigError
		var be *dnsserver.BindingError
		switch {
		case errors.As(e, &ce):
			e = cfg.ErrorAt(ce.Path, ce.Text, ce.Hint)
		case errors.As(e, &be):
			e = cfg.SteerError(be.Binding.Zone, be.Binding.Name, be.Text, be.Hint)
		}
		list = append(list, e)
	}
	return errors.Join(list...)
}

// flatten is the leaves of a tree of joined errors.
func flatten(err error) []error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range many.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}
