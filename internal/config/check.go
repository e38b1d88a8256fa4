package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"perigee.example/policy"
)

// check is every rule that takes more than one table to see.
func (c *Config) check(r *reader) {
	for _, e := range c.Edges {
		c.Policy.Endpoints = append(c.Policy.Endpoints, policy.Endpoint{Name: e.Name, Lat: e.Lat, Lon: e.Lon, Located: e.Located})
	}
	for _, e := range c.Endpoints {
		c.Policy.Endpoints = append(c.Policy.Endpoints, policy.Endpoint{Name: e.Name, Lat: e.Lat, Lon: e.Lon, Located: e.Located})
	}
	for _, z := range c.Zones {
		for i := range z.Steer {
			z.Steer[i].Mixed = c.mixed[z.Steer[i].To]
		}
	}
	c.checkUnique(r)
	c.checkChoices(r)
	c.checkSteer(r)
	c.checkAddresses(r)
	c.checkHosts(r)
	c.checkDefaultCert(r)
	c.checkShields(r)
	c.checkListen(r)
	c.checkDoors(r)
	if len(r.errors) == 0 {
		c.checkPolicies(r)
	}
}

// checkPolicies compiles the policies, for what only policy can see: loops,
// nesting too deep, a map without default. No geography is needed for that.
func (c *Config) checkPolicies(r *reader) {
	_, err := policy.Compile(c.Policy, c.Roots(), nil)
	if err == nil {
		return
	}
	found, ok := c.policyErrors(err, 0)
	if !ok {
		found = []*Error{c.ErrorAt("policy", err.Error(), "")}
	}
	r.errors = append(r.errors, found...)
}

// choosers are the tables whose names share one name space.
var choosers = []string{"edge", "endpoint", "policy"}

func (c *Config) checkUnique(r *reader) {
	first := map[string]string{}
	at := map[string]*node{}
	for _, kind := range choosers {
		for _, n := range c.tablesOf(kind) {
			if other, twice := first[n.key]; twice {
				later, earlier, laterKind := n, at[n.key], kind
				if later.keyAt.from < earlier.keyAt.from {
					later, earlier, laterKind, other = earlier, later, other, kind
				}
				r.fail(later.keyAt, join(laterKind, n.key), fmt.Sprintf("%s is the name of an %s already, in line %d", n.key, other, c.src.position(earlier.keyAt).Line), "edges, endpoints and policies share one set of names: choose another")
				continue
			}
			first[n.key], at[n.key] = kind, n
		}
	}
}

func (c *Config) tablesOf(kind string) []*node {
	n := c.root.child(kind)
	if n == nil || n.kind != tableKind {
		return nil
	}
	return n.list
}

// names returns every name that a choice may have. Tables that were refused
// count: what is wrong with them is reported once, where they stand.
func (c *Config) names() []string {
	var names []string
	for _, kind := range choosers {
		for _, n := range c.tablesOf(kind) {
			names = append(names, n.key)
		}
	}
	return names
}

func set(words []string) map[string]bool {
	m := make(map[string]bool, len(words))
	for _, w := range words {
		m[w] = true
	}
	return m
}

// unknown reports a name that no edge, endpoint or policy has.
func (r *reader) unknown(at span, path, name string, names []string) {
	hint := didYouMean(name, names)
	switch {
	case hint != "":
	case len(names) == 0:
		hint = "write [edge.NAME] and what belongs to it"
	case len(names) <= 8:
		hint = "there are: " + strings.Join(names, ", ")
	}
	r.fail(at, path, fmt.Sprintf("no edge or policy is called %s", name), hint)
}

func (c *Config) checkChoices(r *reader) {
	names := c.names()
	known := set(names)
	for _, p := range c.tablesOf("policy") {
		if p.kind != tableKind {
			continue
		}
		path := join("policy", p.key)
		for _, key := range []string{"among", "order"} {
			list := p.child(key)
			if list == nil || list.kind != arrayKind {
				continue
			}
			for _, item := range list.list {
				if item.kind == stringKind && !known[item.text] {
					r.unknown(item.at, join(path, key), item.text, names)
				}
			}
		}
		if w := p.child("weights"); w != nil && w.kind == tableKind {
			for _, n := range w.list {
				if !known[n.key] {
					r.unknown(n.keyAt, join(path+".weights", n.key), n.key, names)
				}
			}
		}
		if m := p.child("map"); m != nil && m.kind == tableKind {
			for _, n := range m.list {
				if n.kind == stringKind && !known[n.text] {
					r.unknown(n.at, join(path+".map", n.key), n.text, names)
				}
			}
		}
	}
}

func (c *Config) checkSteer(r *reader) {
	names := c.names()
	known := set(names)
	for _, z := range c.tablesOf("zone") {
		steer := z.child("steer")
		if z.kind != tableKind || steer == nil || steer.kind != tableKind {
			continue
		}
		for _, n := range steer.list {
			if n.kind == stringKind && !known[n.text] {
				r.unknown(n.at, join(join("zone", z.key)+".steer", n.key), n.text, names)
			}
		}
	}
}

// checkAddresses refuses one address at two edges or endpoints: steering could
// not tell them apart, and it is mostly a line that was copied.
func (c *Config) checkAddresses(r *reader) {
	first := map[netip.Addr]string{}
	look := func(kind, name string, addrs []netip.Addr) {
		path := join(kind, name)
		for _, a := range addrs {
			if other, twice := first[a]; twice {
				r.fail(c.locate(path+".addresses."+a.String()), path+".addresses", fmt.Sprintf("%s is an address of %s already", a, other), "")
				continue
			}
			first[a] = path
		}
	}
	for _, e := range c.Edges {
		look("edge", e.Name, e.Addresses)
	}
	for _, e := range c.Endpoints {
		look("endpoint", e.Name, e.Addresses)
	}
}

func (c *Config) checkHosts(r *reader) {
	first := map[string]string{}
	for _, s := range c.Sites {
		path := join("site", s.Name)
		list := c.root.child("site").child(s.Name).child("hosts")
		for _, h := range s.Hosts {
			other, twice := first[h]
			if !twice {
				first[h] = path
				continue
			}
			text := fmt.Sprintf("%s is a host of %s already", h, other)
			if other == path {
				text = h + " stands here twice"
			}
			r.fail(lastItem(list, h), path+".hosts", text, "a host belongs to one site")
		}
	}
	for _, s := range c.Sites {
		path, h := join("site", s.Name), s.PreviewsBelow()
		list := c.root.child("site").child(s.Name).child("hosts")
		switch other, ok := first["*."+h]; {
		case !s.Previews:
		case h == "" && len(s.Hosts) > 0:
			r.fail(list.at, path+".hosts", "previews are served below a host of the site, and these are wildcards or addresses", "add a host by its name")
		case ok && other != path:
			r.fail(lastItem(list, h), path+".hosts", fmt.Sprintf("the previews of this site are below %s, and *.%s is a host of %s: one of them would get the other's certificate", h, h, other),
				"take previews = true out, or the wildcard")
		}
	}
}

// checkDefaultCert refuses a second certificate for clients that name no host.
func (c *Config) checkDefaultCert(r *reader) {
	first := ""
	for _, s := range c.Sites {
		path := join("site", s.Name) + ".tls.default"
		if s.TLS.Default && first != "" {
			r.fail(c.locate(path), path, "the certificate of "+first+" is the default already", "a client that names no host can be given one")
		} else if s.TLS.Default {
			first = join("site", s.Name)
		}
	}
}

// lastItem is the place of the last item of a list that reads as a host.
func lastItem(list *node, host string) span {
	at := list.at
	for _, item := range list.list {
		if strings.EqualFold(strings.TrimSuffix(item.text, "."), host) {
			at = item.at
		}
	}
	return at
}

// door is one listener: which of the three kinds it is, and where it is written.
type door struct {
	kind string // "public", "node" or "admin"
	path string // of its key
	ap   netip.AddrPort
	at   span
}

func (c *Config) doors() []door {
	var doors []door
	add := func(kind string, t *node, path, key string, ap netip.AddrPort) {
		d := door{kind: kind, path: path + "." + key, ap: ap}
		if t != nil && t.child(key) != nil {
			n := t.child(key)
			d.at = n.at
			if item := n.find(ap.String()); item != nil {
				d.at = item.at
			}
		}
		doors = append(doors, d)
	}
	for _, ap := range c.DNS.Listen {
		add("public", c.root.child("dns"), "dns", "listen", ap)
	}
	for _, e := range c.Edges {
		t, path := c.root.child("edge").child(e.Name), join("edge", e.Name)
		for _, ap := range e.Listen {
			add("public", t, path, "listen", ap)
		}
		for _, ap := range e.ListenTLS {
			add("public", t, path, "listen_tls", ap)
		}
		if e.Peer.IsValid() {
			add("node", t, path, "peer", e.Peer)
		}
	}
	t := c.root.child("control")
	add("admin", t, "control", "listen", c.Control.Listen)
	add("node", t, "control", "feed_listen", c.Control.FeedListen)
	add("node", t, "control", "blob_listen", c.Control.BlobListen)
	for _, m := range c.Control.Cluster {
		add("node", t.child("cluster"), "control.cluster", m.Name, m.Addr)
	}
	return doors
}

// checkDoors: public, node and admin listeners never share a port, whatever the
// address: what is opened to the world by port in a firewall is then public.
func (c *Config) checkDoors(r *reader) {
	byPort := map[uint16]door{} // the first of each port
	for _, d := range c.doors() {
		port := d.ap.Port()
		o, taken := byPort[port]
		if port == 0 || !taken {
			byPort[port] = d
			continue
		}
		late, early := d, o
		if o.at.from > d.at.from {
			late, early = o, d
		}
		switch {
		case d.kind != o.kind:
			r.fail(late.at, late.path, fmt.Sprintf("port %d is also that of %s: %s and %s listeners never share a port", port, early.path, late.kind, early.kind), "choose another port")
		case d.kind == "node" && !alike(d.path, o.path):
			r.fail(late.at, late.path, fmt.Sprintf("port %d is also that of %s", port, early.path), "choose another port")
		}
	}
}

// alike reports doors of one kind on machines of their own: of two edges, or of
// two control nodes to each other.
func alike(a, b string) bool {
	for _, of := range []string{"edge.", "control.cluster."} {
		if strings.HasPrefix(a, of) && strings.HasPrefix(b, of) {
			return true
		}
	}
	return false
}

// checkShields: a shield is an edge with a peer door.
func (c *Config) checkShields(r *reader) {
	for i := range c.Sites {
		s := &c.Sites[i]
		n := c.root.child("site").child(s.Name).child("shield")
		path := join(join("site", s.Name), "shield")
		for j, name := range s.Shield {
			e := c.Edge(name)
			switch {
			case e == nil:
				var names []string
				for _, have := range c.Edges {
					names = append(names, have.Name)
				}
				r.fail(n.list[j].at, path, fmt.Sprintf("no edge is called %s", name), didYouMean(name, names))
			case slices.Index(s.Shield, name) != j:
				r.fail(n.list[j].at, path, name+" stands here twice", "")
			case !e.Peer.IsValid():
				r.fail(n.list[j].at, path, fmt.Sprintf("edge %s has no peer door, by which other edges reach it", name), fmt.Sprintf(`add to [edge.%s]: peer = "192.0.2.10:7444"`, name))
			}
		}
	}
}

// checkListen refuses what cannot be opened: one address and port twice in one
// process, or beside the wildcard of its family; and one public address of two
// edges, which run on machines of their own.
func (c *Config) checkListen(r *reader) {
	byPort := map[uint16][]door{}
	for _, d := range c.doors() {
		port := d.ap.Port()
		if port == 0 || d.kind != "public" {
			continue
		}
		for _, o := range byPort[port] {
			if text, hint := clash(d, o); text != "" {
				r.fail(d.at, d.path, text, hint)
				break
			}
		}
		byPort[port] = append(byPort[port], d)
	}
}

// clash says why two public listeners of one port cannot both be opened, or "".
func clash(d, o door) (text, hint string) {
	dns := d.path == "dns.listen" || o.path == "dns.listen"
	same := owner(d.path) == owner(o.path)
	switch {
	case d.ap == o.ap && (same || dns || global(d.ap.Addr())):
		return fmt.Sprintf("%s is also in %s", d.ap, o.path), "each listener needs an address or a port of its own"
	case same && d.ap != o.ap && (covers(d.ap, o.ap) || covers(o.ap, d.ap)):
		return fmt.Sprintf("%s and %s cannot both be opened", o.ap, d.ap), "write the wildcard address alone, or every address one by one"
	}
	return "", ""
}

// owner is the table of a path: "edge.fra1" of "edge.fra1.listen".
func owner(path string) string { return path[:strings.LastIndexByte(path, '.')] }

func covers(wild, ap netip.AddrPort) bool {
	return wild.Addr().IsUnspecified() && wild.Addr().Is4() == ap.Addr().Is4()
}

func global(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsPrivate() && !a.IsLinkLocalUnicast()
}
