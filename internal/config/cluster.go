package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
)

// ControlMember is one of several control nodes that hold the log together.
type ControlMember struct {
	Name string
	// Addr is its door for the others. The host is also where its other doors are.
	Addr netip.AddrPort
}

// exampleCluster is a right value of control.cluster.
const exampleCluster = `{ ctl1 = "192.0.2.1:7443", ctl2 = "192.0.2.2:7443", ctl3 = "192.0.2.3:7443" }`

// Member returns the member of that name, or nil.
func (c *Control) Member(name string) *ControlMember {
	for i := range c.Cluster {
		if c.Cluster[i].Name == name {
			return &c.Cluster[i]
		}
	}
	return nil
}

// At is a door of a member: where the door listens on all addresses, the member's own.
func (m *ControlMember) At(door netip.AddrPort) netip.AddrPort {
	if door.Addr().IsUnspecified() {
		return netip.AddrPortFrom(m.Addr.Addr(), door.Port())
	}
	return door
}

// readCluster reads control.cluster: a name and an address for each member.
func (c *Config) readCluster(t *table) {
	if t.n == nil {
		return
	}
	seen := map[netip.AddrPort]string{}
	for _, n := range t.n.list {
		name := n.key
		t.known = append(t.known, name)
		if n.kind != stringKind {
			t.fail(n.at, join(t.path, name), "expected "+stringKind.String()+", not "+n.kind.String(), "write cluster = "+exampleCluster)
			continue
		}
		ap, text, hint := listenAddress(n.text)
		switch {
		case text != "":
			t.wrong(n, name, text, hint)
			continue
		case ap.Addr().IsUnspecified() || ap.Port() == 0:
			t.wrong(n, name, "the other control nodes connect to this very address", "write the control node's own address and a port, such as 192.0.2.1:7443")
			continue
		case seen[ap] != "":
			t.wrong(n, name, fmt.Sprintf("%s is also the address of %s", ap, seen[ap]), "each control node has its own")
			continue
		case !isMemberName(name):
			t.wrong(n, name, fmt.Sprintf("%q cannot be a name", name), "use lower-case letters, digits and hyphens, at most 63")
			continue
		}
		seen[ap] = name
		c.Control.Cluster = append(c.Control.Cluster, ControlMember{name, ap})
	}
	if n := len(t.n.list); n != 0 && n != 3 && n != 5 {
		t.missing(fmt.Sprintf("%s control nodes: three or five hold a log together, so that one half is always the larger", strconv.Itoa(n)), "write cluster = "+exampleCluster)
	}
}

// isMemberName reports a name that a control node can have: a DNS label in lower case.
func isMemberName(name string) bool {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return name != "" && len(name) <= maxName && name[0] != '-' && name[len(name)-1] != '-'
}

// clusterAddresses are how commands reach the admin doors of the members.
func (c *Control) clusterAddresses() []*url.URL {
	var list []*url.URL
	for i := range c.Cluster {
		list = append(list, &url.URL{Scheme: "https", Host: c.Cluster[i].At(c.Listen).String()})
	}
	return list
}
