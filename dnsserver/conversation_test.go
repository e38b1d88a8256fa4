package dnsserver_test

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/internal/txtest"
	"perigee.example/policy"
	"perigee.example/zones"
)

// TestConversations plays testdata/dns. Files NAME.zone are zones, perigee.toml
// binds policies, and geo places networks: "192.0.2.0/24 EU DE". Commands are
// queries (txtest.ParseQuery), and:
//
//	bindings      the mistakes that NewView finds, with their hints
//	up|down|drain|force EDGE
//	              change the fleet; force is forced down
//	size QUERY    the reply's octets instead of its text
//	limited QUERY the reply to a resolver that is over its rate
//	stale         the picture of the fleet is old
func TestConversations(t *testing.T) {
	txtest.Run(t, "../testdata/dns/*.txtar", func(t testing.TB, files map[string][]byte) txtest.Session {
		return newTalk(t, files)
	})
}

type talk struct {
	view   *dnsserver.View
	err    error // of NewView
	config *config.Config
	state  *policy.State

	cookies *dnsserver.CookieSecrets
	limited bool
}

// cookieSecrets has the secret of RFC 9018, appendix A.1.
var cookieSecrets = &dnsserver.CookieSecrets{Make: [16]byte{0xe5, 0xe9, 0x73, 0xe5, 0xa6, 0xb2, 0xa4, 0x3f, 0x48, 0xe7, 0xdc, 0x84, 0x9e, 0x37, 0xbf, 0xcf}}

func newTalk(t testing.TB, files map[string][]byte) *talk {
	t.Helper()
	k := &talk{config: &config.Config{}, cookies: cookieSecrets}
	var v dnsserver.ViewConfig
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	})
	ways := map[string]signing{} // by origin
	for line := range strings.Lines(string(files["sign"])) {
		words := strings.Fields(line)
		how, err := parseSigning(words[1:])
		if err != nil {
			t.Fatal(err)
		}
		ways[words[0]] = how
	}
	for _, name := range names {
		if origin, ok := strings.CutSuffix(name, ".zone"); ok {
			if origin == "root" {
				origin = "."
			}
			text := files[name]
			if how, ok := ways[origin]; ok {
				text = signZone(t, origin, text, how)
			}
			v.Zones = append(v.Zones, parseZone(t, origin, text))
		}
	}
	if text, ok := files["perigee.toml"]; ok {
		c, err := config.Parse("perigee.toml", append([]byte("version = 1\n"), text...), t.TempDir())
		if err != nil {
			t.Fatal(config.Render(err))
		}
		k.config = c
		set, err := policy.Compile(c.Policy, c.Roots(), parseMap(t, string(files["geo"])))
		if err != nil {
			t.Fatal(err)
		}
		v.Policies = set
		v.NSID = []byte(c.DNS.NSID)
		if c.DNS.NSID == "" {
			v.NSID = nil
		}
		v.Chaos = dnsserver.Chaos{Version: c.DNS.Chaos.Version, ID: c.DNS.Chaos.ID}
		for _, e := range c.Edges {
			v.Endpoints = append(v.Endpoints, dnsserver.Endpoint{Addresses: e.Addresses})
		}
		for _, e := range c.Endpoints {
			v.Endpoints = append(v.Endpoints, dnsserver.Endpoint{Addresses: e.Addresses, Target: e.Target})
		}
		for _, z := range c.Zones {
			for _, s := range z.Steer {
				v.Steer = append(v.Steer, dnsserver.Binding{Zone: z.Origin, Name: s.Name, Policy: s.To, Mixed: s.Mixed})
			}
		}
		k.state = set.NewState()
	}
	k.view, k.err = dnsserver.NewView(v)
	return k
}

func parseZone(t testing.TB, origin string, text []byte) *zones.Zone {
	t.Helper()
	z, findings := zones.Parse(origin+".zone", text, zones.Options{Origin: origin})
	if z == nil {
		t.Fatalf("zone %s: %+v", origin, findings)
	}
	return z
}

func (k *talk) Do(cmd string) (string, error) {
	verb, arg, _ := strings.Cut(cmd, " ")
	switch verb {
	case "bindings":
		return describe(k.err), nil
	case "up", "down", "drain", "force":
		return "", k.change(verb, arg)
	case "size":
		reply, _, err := k.ask(arg)
		return fmt.Sprintf("%d octets", len(reply)), err
	case "limited":
		k.limited = true
		defer func() { k.limited = false }()
		cmd = arg
	case "stale":
		k.state = &policy.State{Endpoints: k.state.Endpoints, Stale: true}
		return "", nil
	}
	reply, out, err := k.ask(cmd)
	if err != nil {
		return "", err
	}
	if out.Action != dnsserver.Reply {
		return "no reply", nil
	}
	text, err := txtest.Print(reply)
	if err != nil {
		return "", err
	}
	return text, k.sameByTCP(cmd, text, out)
}

// sameByTCP asks again by TCP. What was not cut short by UDP must be the same
// there, but for what is of one transport alone: the size of messages,
// keepalive, transfers, limits.
func (k *talk) sameByTCP(cmd, byUDP string, out *dnsserver.Outcome) error {
	words := strings.Fields(cmd)
	own := func(w string) bool {
		return w == "+tcp" || w == "AXFR" || strings.HasPrefix(w, "+bufsize=") || strings.HasPrefix(w, "+opt=11")
	}
	if k.limited || out.TC || slices.ContainsFunc(words, own) {
		return nil
	}
	reply, _, err := k.ask(cmd + " +tcp")
	if err != nil {
		return err
	}
	byTCP, err := txtest.Print(reply)
	if err == nil && byTCP != byUDP {
		err = fmt.Errorf("by TCP the answer is\n%s", byTCP)
	}
	return err
}

func (k *talk) ask(text string) ([]byte, *dnsserver.Outcome, error) {
	if k.err != nil {
		return nil, nil, k.err
	}
	q, err := txtest.ParseQuery(text)
	if err != nil {
		return nil, nil, err
	}
	c := dnsserver.Context{From: q.From, Transport: dnsserver.UDP, Now: q.At, State: k.state, Cookies: k.cookies, Limited: k.limited, Idle: 10 * time.Second}
	if q.TCP {
		c.Transport = dnsserver.TCP
	}
	out := new(dnsserver.Outcome)
	return k.view.Answer(nil, q.Wire, &c, out), out, nil
}

// change makes a new State, as its owner does: a State is never modified.
func (k *talk) change(verb, edge string) error {
	i := slices.IndexFunc(k.config.Policy.Endpoints, func(e policy.Endpoint) bool { return e.Name == edge })
	if i < 0 {
		return fmt.Errorf("no edge or endpoint is called %s", edge)
	}
	next := &policy.State{Endpoints: slices.Clone(k.state.Endpoints)}
	switch verb {
	case "up":
		next.Endpoints[i] = policy.EndpointState{Health: policy.Up}
	case "down":
		next.Endpoints[i].Health = policy.Down
	case "force":
		next.Endpoints[i].Force = policy.ForceDown
	case "drain":
		next.Endpoints[i].Draining = true
	}
	k.state = next
	return nil
}

// describe lists joined errors, each with its hint.
func describe(err error) string {
	if err == nil {
		return "ok"
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var lines []string
		for _, e := range joined.Unwrap() {
			lines = append(lines, describe(e))
		}
		return strings.Join(lines, "\n")
	}
	var b *dnsserver.BindingError
	if errors.As(err, &b) {
		return err.Error() + "\n  hint: " + b.Hint
	}
	return err.Error()
}

// worldMap is a Geography for tests: disjoint networks in address order.
type worldMap []placed

type placed struct {
	prefix netip.Prefix
	loc    policy.Location
}

func parseMap(t testing.TB, text string) policy.Geography {
	t.Helper()
	var w worldMap
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			t.Fatalf("geo: %q is not PREFIX CONTINENT COUNTRY", line)
		}
		w = append(w, placed{netip.MustParsePrefix(f[0]), policy.Location{Continent: f[1], Country: f[2]}})
	}
	slices.SortFunc(w, func(a, b placed) int { return a.prefix.Addr().Compare(b.prefix.Addr()) })
	return w
}

// from returns the index of the first network that does not end before addr.
func (w worldMap) from(addr netip.Addr) int {
	return sort.Search(len(w), func(i int) bool {
		return w[i].prefix.Contains(addr) || addr.Less(w[i].prefix.Addr())
	})
}

func (w worldMap) Lookup(addr netip.Addr) (policy.Location, netip.Prefix) {
	if i := w.from(addr); i < len(w) && w[i].prefix.Contains(addr) {
		return w[i].loc, w[i].prefix
	}
	return policy.Location{}, netip.PrefixFrom(addr, addr.BitLen())
}

func (w worldMap) Within(p netip.Prefix) iter.Seq2[netip.Prefix, policy.Location] {
	return func(yield func(netip.Prefix, policy.Location) bool) {
		for _, e := range w[w.from(p.Masked().Addr()):] {
			if !e.prefix.Overlaps(p) {
				return
			}
			q := e.prefix
			if q.Bits() < p.Bits() {
				q = p
			}
			if !yield(q, e.loc) {
				return
			}
		}
	}
}
