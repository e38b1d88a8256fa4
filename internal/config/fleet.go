package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"perigee.example/policy"
)

// maxWeight bounds one weight, so that the sum of policy.MaxChoices of them
// stays within 32 bits.
const maxWeight = 1_000_000

// maxName bounds the name of an edge, endpoint, policy or site: one DNS label.
const maxName = 63

// reserved are words that mean something else where names of edges and policies
// stand: in a map, on the command line, as a node of the control node's list.
var reserved = []string{"default", "all", "dns", "control"}

// nameOK checks the name of a table that users name.
func (t *table) nameOK(name string) bool {
	bad := name == "" || len(name) > maxName || name[0] == '-' || name[0] == '_'
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			bad = true
		}
	}
	if bad {
		hint := "use lower-case letters, digits, hyphens and underscores, at most 63"
		t.fail(t.n.keyAt, t.path, fmt.Sprintf("%q cannot be a name", name), hint)
	}
	return !bad
}

func (t *table) choiceNameOK(name string) bool {
	if slices.Contains(reserved, name) || slices.Contains(continents, name) {
		t.fail(t.n.keyAt, t.path, fmt.Sprintf("%q is a word of perigee's own", name), "choose another name")
		return false
	}
	return t.nameOK(name)
}

func (c *Config) readEdge(name string, t *table) {
	if !t.choiceNameOK(name) {
		return
	}
	e := Edge{Name: name, Pos: c.src.position(t.n.keyAt)}
	e.Lat, e.Lon, e.Located = t.location()
	e.Addresses = t.addrs("addresses")
	e.Listen = t.addrPorts("listen", "0.0.0.0:80")
	e.ListenTLS = t.addrPorts("listen_tls", "0.0.0.0:443")
	e.Peer = t.peerDoor()
	if len(e.Addresses) == 0 && t.emptyOrAbsent("addresses") {
		t.missing("an edge needs addresses, which DNS hands out", `write addresses = ["192.0.2.10"]`)
	}
	if len(e.Listen)+len(e.ListenTLS) == 0 && t.emptyOrAbsent("listen") && t.emptyOrAbsent("listen_tls") {
		t.missing("an edge needs listen or listen_tls", `write listen = ["0.0.0.0:80"]; what is not an edge of yours is an [endpoint.NAME]`)
	}
	switch {
	case t.has("check"):
		e.Check = t.checkURL("check")
	case len(e.Listen) > 0 && len(e.Addresses) > 0:
		t.take("check")
		e.Check = "http://" + netip.AddrPortFrom(e.Addresses[0], e.Listen[0].Port()).String() + c.Health.Path
	case len(e.ListenTLS) > 0 && len(e.Addresses) > 0:
		t.take("check")
		t.missing("an edge with listen_tls alone needs check", `write check = "https://a-host-of-a-site/-/ready", or check = "" for no probes`)
	default:
		t.take("check")
	}
	cache := t.table("cache")
	e.CacheMemory = cache.size("memory", c.Cache.Memory, minCacheMemory, maxCacheMemory)
	e.CacheDisk = cache.sizeOrNone("disk", c.Cache.Disk, minCacheDisk, maxCacheDisk)
	e.Eviction = cache.word("eviction", c.Cache.Eviction, []string{EvictionS3FIFO, EvictionLRU}, nil)
	cache.done()
	t.done()
	c.Edges = append(c.Edges, e)
}

// peerDoor is where an edge is reached by the others: one address, which is
// opened and dialled alike, so none of all addresses.
func (t *table) peerDoor() netip.AddrPort {
	n := t.want("peer", stringKind, strconv.Quote("192.0.2.10:7444"))
	if n == nil || n.text == "" {
		return netip.AddrPort{}
	}
	ap, text, hint := listenAddress(n.text)
	switch {
	case text != "":
		t.wrong(n, "peer", text, hint)
	case ap.Addr().IsUnspecified() || ap.Port() == 0:
		t.wrong(n, "peer", "other edges connect to this very address", "write the edge's own address and a port, such as 192.0.2.10:7444")
	default:
		return ap
	}
	return netip.AddrPort{}
}

// emptyOrAbsent reports whether a list is not there or empty: that its items
// were wrong is then not the reason.
func (t *table) emptyOrAbsent(key string) bool {
	n := t.n.child(key)
	return n == nil || n.kind == arrayKind && len(n.list) == 0
}

func (t *table) checkURL(key string) string {
	n := t.want(key, stringKind, strconv.Quote("http://192.0.2.10/-/ready"))
	if n == nil || n.text == "" {
		return ""
	}
	u, text, hint := checkURL(n.text)
	if text != "" {
		t.wrong(n, key, text, hint)
	}
	return u
}

func (c *Config) readEndpoint(name string, t *table) {
	if !t.choiceNameOK(name) {
		return
	}
	e := Endpoint{Name: name, Pos: c.src.position(t.n.keyAt)}
	e.Lat, e.Lon, e.Located = t.location()
	e.Addresses = t.addrs("addresses")
	if n := t.want("target", stringKind, strconv.Quote("site.cdn.example.net")); n != nil && n.text != "" {
		var wrong string
		if e.Target, wrong = domainName(n.text, false); wrong != "" {
			t.wrong(n, "target", wrong, "")
		} else if len(e.Addresses) > 0 {
			t.wrong(n, "target", "an endpoint has addresses or a target, not both", "take one out")
		}
	}
	if t.emptyOrAbsent("addresses") && (!t.has("target") || t.n.child("target").text == "") {
		t.missing("an endpoint needs addresses or a target", `write addresses = ["198.51.100.7"], or target = "site.cdn.example.net" for names that own a CNAME`)
	}
	e.Check = t.checkURL("check")
	t.done()
	c.Endpoints = append(c.Endpoints, e)
}

// kinds are the words of by, and the keys that each kind has beside by and ttl.
// To add one: a line here, a case in readPolicy, template.toml, a conversation.
var kinds = []struct {
	word string
	kind policy.Kind
	keys []string
}{
	{"latency", policy.Latency, []string{"among", "rtt"}},
	{"weighted", policy.Weighted, []string{"weights"}},
	{"geo", policy.Geo, []string{"map"}},
	{"failover", policy.Failover, []string{"order"}},
	{"multivalue", policy.Multivalue, []string{"among", "answers"}},
}

func (c *Config) readPolicy(name string, t *table) {
	if !t.choiceNameOK(name) {
		return
	}
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = k.word
	}
	p := policy.Policy{Name: name}
	p.TTL = t.ttl()
	if t.word("families", FamiliesSame, []string{FamiliesSame, FamiliesMixed}, nil) == FamiliesMixed {
		c.mixed[name] = true
	}
	by := t.word("by", "", words, nil)
	i := slices.Index(words, by)
	if i < 0 {
		if !t.has("by") {
			t.missing("a policy needs by", "write by = and one of: "+strings.Join(words, ", "))
		}
		c.Policy.Policies = append(c.Policy.Policies, p) // its name exists: do not report it again where it is chosen
		return
	}
	p.Kind = kinds[i].kind
	t.foreignKeys(by, kinds[i].keys)
	switch p.Kind {
	case policy.Latency:
		p.Choices = t.choices("among")
		p.RTT = t.rtt(p.Choices)
	case policy.Weighted:
		p.Choices = t.weights()
	case policy.Geo:
		p.Map = t.geoMap()
	case policy.Failover:
		p.Choices = t.choices("order")
	case policy.Multivalue:
		p.Choices = t.choices("among")
		p.Answers = t.int("answers", 0, 1, policy.MaxAnswers)
	}
	t.done()
	c.Policy.Policies = append(c.Policy.Policies, p)
}

func (t *table) ttl() time.Duration {
	d := t.duration("ttl", 0, time.Second, policy.MaxTTL)
	if d%time.Second != 0 {
		t.wrong(t.n.child("ttl"), "ttl", "a TTL is whole seconds (RFC 2181 §8)", "")
		return 0
	}
	return d
}

// foreignKeys reports keys that belong to another kind of policy.
func (t *table) foreignKeys(by string, own []string) {
	for _, k := range kinds {
		for _, key := range k.keys {
			if slices.Contains(own, key) || slices.Contains(t.known, key) {
				continue
			}
			if n := t.take(key); n != nil {
				t.fail(n.keyAt, join(t.path, key), fmt.Sprintf("%s goes with by = %q; this policy is by = %q", key, k.word, by), "")
			}
		}
	}
}

func (t *table) choices(key string) []policy.Choice {
	items := t.strings(key, "fra1")
	var list []policy.Choice
	for _, item := range items {
		if slices.ContainsFunc(list, func(c policy.Choice) bool { return c.To == item.text }) {
			t.wrong(item, key, item.text+" stands here twice", "")
			continue
		}
		list = append(list, policy.Choice{To: item.text})
	}
	if t.emptyOrAbsent(key) {
		t.missing("a policy needs something to choose from", fmt.Sprintf("write %s = [\"fra1\", \"iad1\"]", key))
	}
	return list
}

func (t *table) weights() []policy.Choice {
	w := t.table("weights")
	var list []policy.Choice
	var sum uint64
	if w.n != nil {
		for _, n := range w.n.list {
			weight, ok := 0, n.kind == integerKind
			if ok {
				weight, ok = integer(n, 0, maxWeight)
			}
			if !ok {
				t.fail(n.at, join(w.path, n.key), fmt.Sprintf("a weight is a whole number between 0 and %d", maxWeight), "")
				weight = 1
			}
			sum += uint64(weight)
			list = append(list, policy.Choice{To: n.key, Weight: uint32(weight)})
		}
	}
	switch {
	case len(list) == 0 && (w.n != nil || !t.has("weights")):
		t.missing("a policy needs something to choose from", "write weights = { fra1 = 90, iad1 = 10 }")
	case len(list) > policy.MaxChoices:
		t.fail(w.n.at, w.path, fmt.Sprintf("%d choices; at most %d are allowed", len(list), policy.MaxChoices), "nest policies")
	case len(list) > 0 && sum == 0:
		t.fail(w.n.at, w.path, "every weight is 0, so nothing is ever chosen", "give at least one a positive weight")
	}
	return list
}

func (t *table) geoMap() []policy.Rule {
	m := t.table("map")
	var rules []policy.Rule
	seen := selectors{}
	if m.n != nil {
		for _, n := range m.n.list {
			path := join(m.path, n.key)
			sel, ok := t.selector(n, path, seen)
			if !ok {
				continue
			}
			if n.kind != stringKind {
				t.fail(n.at, path, "expected a name, not "+n.kind.String(), "write the name of a policy, an edge or an endpoint in quotes")
				continue
			}
			rules = append(rules, policy.Rule{Match: sel, To: n.text})
		}
	}
	if len(rules) == 0 && (m.n == nil && !t.has("map") || m.n != nil && len(m.n.list) == 0) {
		t.missing("a geo policy needs a map", fmt.Sprintf("write [%s] and below it default = \"fra1\"", m.path))
	}
	return rules
}

func (t *table) rtt(among []policy.Choice) []policy.RTTRow {
	m := t.table("rtt")
	if m.n == nil {
		return nil
	}
	var names []string
	for _, c := range among {
		names = append(names, c.To)
	}
	var rows []policy.RTTRow
	seen := selectors{}
	for _, n := range m.n.list {
		path := join(m.path, n.key)
		sel, ok := t.selector(n, path, seen)
		if !ok {
			continue
		}
		if n.kind != tableKind || len(n.list) == 0 {
			t.fail(n.at, path, "expected a table of round trips", "write "+n.key+` = { fra1 = "8ms", iad1 = "95ms" }`)
			continue
		}
		row := policy.RTTRow{Match: sel, RTT: map[string]time.Duration{}}
		for _, v := range n.list {
			d, text, hint := durationOf(v, 0, policy.MaxRTT)
			if text != "" {
				t.fail(v.at, join(path, v.key), text, hint)
				continue
			}
			if !slices.Contains(names, v.key) {
				t.fail(v.keyAt, join(path, v.key), fmt.Sprintf("%s is not among the choices of this policy", v.key), didYouMean(v.key, names))
				continue
			}
			row.RTT[v.key] = d
		}
		rows = append(rows, row)
	}
	return rows
}
