package config

import (
	"fmt"
	"net/netip"
	"slices"
)

const (
	// DefaultRate is what a network gets by UDP in a second and a class of
	// answers: many times what the resolvers of a /24 ask one zone for, and a
	// trickle for who is the target of forged queries.
	DefaultRate = 500
	// DefaultSlip lets every second one over the rate come back by TCP.
	DefaultSlip = 2

	// DefaultConnections is room for some eighty browsers behind one address.
	DefaultConnections = 512
	// DefaultMisses a second is more than any page has; ten times as many may
	// come at once. Who asks for more that nobody has asked for makes it up.
	DefaultMisses = 100

	// DefaultCalls a second of one token: scripts ask less, and a loop gone wild
	// asks more.
	DefaultCalls = 50
	// DefaultPurges a second of one token are a site of 6,000 pages in a minute. A
	// loop gone wild would push everybody's scopes out of the edges' tables.
	DefaultPurges = 100
	// DefaultFailures a minute of one address: a person errs less often, and who
	// guesses gets nowhere.
	DefaultFailures = 10

	maxConnections = 16_384 // what an edge's listener has in all
	maxMisses      = 1_000_000

	maxRate   = 1_000_000 // a second: more than one network is ever sent
	maxSlip   = 100
	maxExempt = 64
	maxChaos  = 255 // octets; one character-string (RFC 1035 §3.3)
)

// defaultExempt is loopback: who is on this machine forges no address.
func defaultExempt() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

func (c *Config) readChaos(t *table) {
	c.DNS.Chaos.Version = t.chaosText("version")
	c.DNS.Chaos.ID = t.chaosText("id")
	t.done()
}

func (t *table) chaosText(key string) string {
	s := t.string(key, "", "ns1")
	if len(s) > maxChaos {
		t.wrong(t.n.child(key), key, fmt.Sprintf("is longer than %d octets", maxChaos), "")
		return ""
	}
	return s
}

func (c *Config) readLimit(t *table) {
	c.DNS.Limit.Rate = t.int("rate", DefaultRate, 0, maxRate)
	c.DNS.Limit.Slip = t.int("slip", DefaultSlip, 0, maxSlip)
	c.DNS.Limit.Exempt = t.prefixes("exempt", defaultExempt())
	t.done()
}

func (c *Config) readControlLimit(t *table) {
	c.Control.Limit.Calls = t.int("calls", DefaultCalls, 0, maxRate)
	c.Control.Limit.Purges = t.int("purges", DefaultPurges, 0, maxRate)
	c.Control.Limit.Failures = t.int("failures", DefaultFailures, 0, maxRate)
	t.done()
}

func (c *Config) readClientLimit(t *table) {
	c.Limit.Connections = t.int("connections", DefaultConnections, 0, maxConnections)
	c.Limit.Misses = t.int("misses", DefaultMisses, 0, maxMisses)
	c.Limit.Exempt = t.prefixes("exempt", defaultExempt())
	c.Limit.Proxies = t.prefixes("proxies", nil)
	c.Limit.Told = t.prefixes("full_status", nil)
	t.done()
}

// prefixes is a list of networks, each at its first address.
func (t *table) prefixes(key string, def []netip.Prefix) []netip.Prefix {
	if !t.has(key) {
		t.known = append(t.known, key)
		return def
	}
	var list []netip.Prefix
	for _, item := range t.strings(key, "192.0.2.0/24") {
		p, err := netip.ParsePrefix(item.text)
		switch {
		case err != nil || p.Addr().Is4In6():
			hint := `write an address and a length: "192.0.2.0/24", "2001:db8::/32"`
			if a, err := netip.ParseAddr(item.text); err == nil && a.Zone() == "" {
				hint = fmt.Sprintf("write \"%s/%d\"", a, a.BitLen())
			}
			t.wrong(item, key, fmt.Sprintf("%q is not a network", item.text), hint)
		case p != p.Masked():
			t.wrong(item, key, fmt.Sprintf("%s has bits set beyond its length", p), fmt.Sprintf("write %q", p.Masked()))
		case slices.Contains(list, p):
			t.wrong(item, key, p.String()+" stands here twice", "")
		case len(list) == maxExempt:
			t.wrong(item, key, fmt.Sprintf("at most %d networks may stand here", maxExempt), "take larger ones")
			return list
		default:
			list = append(list, p)
		}
	}
	return list
}
