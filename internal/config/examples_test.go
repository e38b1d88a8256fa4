package config

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"perigee.example/internal/txtest"
	"perigee.example/policy"
	"perigee.example/zones"
)

// checkShipped loads a perigee.toml that we give to others, its zones by our
// own loader and by two other servers', and demands an RRset at each steered name.
func checkShipped(t *testing.T, path string) *Config {
	t.Helper()
	txtest.Need(t, "named-checkzone", "nsd-checkzone")
	c, err := Load(path)
	if err != nil {
		t.Fatal(Render(err))
	}
	if _, err := policy.Compile(c.Policy, c.Roots(), nil); err != nil {
		t.Error(err)
	}
	for _, z := range c.Zones {
		zone, findings := zones.Load(z.File, zones.Options{Origin: z.Origin})
		for _, f := range findings {
			t.Errorf("%s:%d: %s", f.File, f.Line, f.Text)
		}
		if zone == nil {
			continue
		}
		for _, args := range [][]string{{"named-checkzone", "-i", "local"}, {"nsd-checkzone"}} {
			args = append(args, strings.TrimSuffix(z.Origin, "."), z.File)
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil || strings.Contains(string(out), "warning") {
				t.Errorf("%s: %v\n%s", args, err, out)
			}
		}
		for _, s := range z.Steer {
			name, err := zones.ParseName(s.Name)
			if err != nil {
				t.Errorf("%s: %v", s.Name, err)
				continue
			}
			node, ok := zone.Find(name)
			if !ok {
				t.Errorf("%s: steered, and not in %s", s.Name, z.File)
				continue
			}
			_, a := zone.RRset(node, 1)
			_, aaaa := zone.RRset(node, 28)
			if !a && !aaaa {
				t.Errorf("%s: steered, and %s has no address there", s.Name, z.File)
			}
		}
	}
	return c
}

func TestExamples(t *testing.T) {
	single := checkShipped(t, "../../examples/single/perigee.toml")
	if len(single.Edges) != 1 || len(single.Zones) != 1 || len(single.Zones[0].Steer) != 3 || single.Site("app") == nil || !single.Site("www").Push {
		t.Errorf("single: %d edges, zones %+v", len(single.Edges), single.Zones)
	}
	fleet := checkShipped(t, "../../examples/fleet/perigee.toml")
	var names []string
	for _, e := range fleet.Edges {
		names = append(names, e.Name)
		if len(e.Addresses) != 2 || !e.Located || !strings.HasSuffix(e.Check, ":80/-/ready") {
			t.Errorf("edge %+v", e)
		}
	}
	if got := strings.Join(names, " "); got != "fra1 iad1 sin1" {
		t.Errorf("edges %s", got)
	}
	var kinds []policy.Kind
	for _, p := range fleet.Policy.Policies {
		kinds = append(kinds, p.Kind)
	}
	for _, k := range []policy.Kind{policy.Latency, policy.Geo, policy.Weighted, policy.Failover} {
		if !slices.Contains(kinds, k) {
			t.Errorf("the fleet has no policy of kind %v", k)
		}
	}
	if fleet.Edge("sin1").CacheMemory != 256<<20 || fleet.Edge("fra1").CacheMemory != 1<<30 {
		t.Errorf("cache sizes %d and %d", fleet.Edge("sin1").CacheMemory, fleet.Edge("fra1").CacheMemory)
	}
	documented := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), // RFC 5737
		netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"), // and RFC 3849
	}
	for _, e := range append(slices.Clone(fleet.Edges), single.Edges...) {
		for _, a := range e.Addresses {
			if !slices.ContainsFunc(documented, func(p netip.Prefix) bool { return p.Contains(a) }) {
				t.Errorf("%s is not an address for documentation", a)
			}
		}
	}
}

func TestStarter(t *testing.T) {
	for name, o := range map[string]StarterOptions{
		"zero":   {},
		"ipv6":   {EdgeListen: netip.MustParseAddrPort("[::]:80"), DNSListen: netip.MustParseAddrPort("[::1]:53")},
		"public": {Zone: "Example.COM.", DNSListen: netip.MustParseAddrPort("192.0.2.10:53"), EdgeListen: netip.MustParseAddrPort("0.0.0.0:80"), Address: netip.MustParseAddr("192.0.2.10"), Edge: "fra1", Serial: 2026112201},
	} {
		t.Run(name, func(t *testing.T) {
			toml, zone, err := Starter(o)
			if err != nil {
				t.Fatal(Render(err))
			}
			dir := t.TempDir()
			zoneFile := filepath.Join(dir, o.ZoneFile())
			if err := os.MkdirAll(filepath.Dir(zoneFile), 0o777); err != nil {
				t.Fatal(err)
			}
			for path, data := range map[string][]byte{filepath.Join(dir, "perigee.toml"): toml, zoneFile: zone} {
				if err := os.WriteFile(path, data, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			c := checkShipped(t, filepath.Join(dir, "perigee.toml"))
			full := o.withDefaults()
			if len(c.Zones) != 1 || c.Zones[0].Origin != full.Zone+"." || c.Zones[0].File != zoneFile || len(c.Zones[0].Steer) != 2 {
				t.Errorf("zones %+v", c.Zones)
			}
			if len(c.Edges) != 1 || c.Edges[0].Name != full.Edge || c.Edges[0].Addresses[0] != full.Address || c.Edges[0].Listen[0] != full.EdgeListen {
				t.Errorf("edges %+v", c.Edges)
			}
			if c.DNS.Listen[0] != full.DNSListen || !c.Site("www").Push || c.State != filepath.Join(dir, "state") {
				t.Errorf("%+v", c)
			}
			if strings.Contains(string(toml)+string(zone), "<no value>") {
				t.Errorf("%s%s", toml, zone)
			}
		})
	}
}

func TestStarterRefuses(t *testing.T) {
	for _, o := range []StarterOptions{{Zone: "exa mple"}, {Zone: "0/25.2.0.192.in-addr.arpa"}, {Edge: "Fra 1"}, {Edge: "default"}, {EdgeListen: netip.MustParseAddrPort("127.0.0.1:7440")}} {
		if toml, _, err := Starter(o); err == nil {
			t.Errorf("%+v gave\n%s", o, toml)
		}
	}
}
