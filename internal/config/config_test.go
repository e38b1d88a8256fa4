package config

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"perigee.example/policy"
)

// mustParse parses text and fails the test with all that is wrong with it.
func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("perigee.toml", []byte(text), "/etc/perigee")
	if err != nil {
		t.Fatal(Render(err))
	}
	return c
}

var exampleLine = regexp.MustCompile(`(?m)^# (\[|[A-Za-z_"][^ ]* +=)`)

// uncommented is the template with each of its commented-out examples in force.
func uncommented(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("template.toml")
	if err != nil {
		t.Fatal(err)
	}
	n := len(exampleLine.FindAll(text, -1))
	if n < 50 {
		t.Fatalf("found %d example lines only: has the template's form changed?", n)
	}
	return string(exampleLine.ReplaceAll(text, []byte("$1")))
}

func TestTemplate(t *testing.T) {
	c, err := Load("template.toml")
	if err != nil {
		t.Fatal(Render(err))
	}
	empty := mustParse(t, "version = 1\n")
	// What the template shows are the defaults: it says no more than an empty file.
	c.Control.Present = false
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"dns", c.DNS, empty.DNS}, {"control", c.Control, empty.Control}, {"health", c.Health, empty.Health},
		{"cache", c.Cache, empty.Cache}, {"limit", c.Limit, empty.Limit}, {"log", c.Log, empty.Log}, {"metrics", c.Metrics, empty.Metrics}, {"zones", len(c.Zones), 0}, {"sites", len(c.Sites), 0},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s: the template says %+v, the default is %+v", f.name, f.got, f.want)
		}
	}
}

func TestTemplateUncommented(t *testing.T) {
	c := mustParse(t, uncommented(t))
	if len(c.Edges) != 2 || len(c.Endpoints) != 1 || len(c.Policy.Policies) != 5 || len(c.Sites) != 2 || len(c.Zones) != 1 {
		t.Fatalf("%d edges, %d endpoints, %d policies, %d sites, %d zones", len(c.Edges), len(c.Endpoints), len(c.Policy.Policies), len(c.Sites), len(c.Zones))
	}
	var names []string
	for _, e := range c.Policy.Endpoints {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "fra1 iad1 other" {
		t.Errorf("endpoints %s: want edges, then endpoints, in file order", got)
	}
	fra := c.Edge("fra1")
	want := Edge{
		Name: "fra1", Lat: 50.11, Lon: 8.68, Located: true,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:1::10")},
		Listen:    []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}, ListenTLS: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443")},
		Peer: netip.MustParseAddrPort("192.0.2.10:7444"), Check: "http://192.0.2.10:80/-/ready", CacheMemory: 1 << 30, CacheDisk: 10 << 30, Eviction: EvictionS3FIFO, Pos: fra.Pos,
	}
	if !reflect.DeepEqual(*fra, want) {
		t.Errorf("edge fra1:\ngot  %+v\nwant %+v", *fra, want)
	}
	if iad := c.Edge("iad1"); iad.CacheMemory != DefaultCacheMemory || iad.CacheDisk != 0 || iad.Check != "http://192.0.2.20:80/-/ready" {
		t.Errorf("edge iad1: %+v", *iad)
	}
	shop := c.Site("shop")
	if shop.TLS != (TLS{"/etc/perigee/shop.crt", "/etc/perigee/shop.key", false}) || len(shop.Origins) != 2 || shop.Origins[1].Host != "origin-b.example.net" ||
		shop.ConnectTimeout != DefaultConnectTimeout || shop.HeaderTimeout != DefaultHeaderTimeout || shop.BetweenTimeout != DefaultBetweenTimeout || shop.Balance != RoundRobin {
		t.Errorf("site shop: %+v", *shop)
	}
	www := c.Site("www")
	if !www.Push || www.Keep != DefaultKeep || !reflect.DeepEqual(www.Expiry, []Expiry{{"feeds/*.xml", "public, max-age=300"}}) {
		t.Errorf("site www: %+v", *www)
	}
	nearest := c.Policy.Policies[0]
	wantNearest := policy.Policy{
		Name: "nearest", Kind: policy.Latency, TTL: policy.DefaultTTL, Choices: []policy.Choice{{To: "fra1"}, {To: "iad1"}},
		RTT: []policy.RTTRow{{Match: policy.Selector{Country: "DE"}, RTT: map[string]time.Duration{"fra1": 8 * time.Millisecond, "iad1": 95 * time.Millisecond}}},
	}
	if !reflect.DeepEqual(nearest, wantNearest) {
		t.Errorf("policy nearest:\ngot  %+v\nwant %+v", nearest, wantNearest)
	}
	z := c.Zones[0]
	if z.Origin != "example.com." || z.File != "/etc/perigee/zones/example.com.zone" || len(z.Steer) != 1 || z.Steer[0].Name != "www.example.com." || z.Steer[0].To != "nearest" {
		t.Errorf("zone: %+v", z)
	}
	if got := c.Roots(); !reflect.DeepEqual(got, []string{"nearest"}) {
		t.Errorf("roots %v", got)
	}
}

func TestLoadErrors(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Load(t.TempDir() + "/perigee.toml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	big := make([]byte, maxFileBytes+1)
	if _, err := Parse("perigee.toml", big, "."); err == nil || !strings.Contains(err.Error(), "at most 512KiB") {
		t.Errorf("a file too large: %v", err)
	}
}

func TestHash(t *testing.T) {
	a, b := mustParse(t, "version = 1\n"), mustParse(t, "version = 1\n\n")
	if len(a.Hash()) != 64 || a.Hash() == b.Hash() {
		t.Errorf("hashes %s and %s", a.Hash(), b.Hash())
	}
}
