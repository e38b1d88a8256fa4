package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"text/template"
)

var (
	//go:embed starter.toml
	starterTOML string
	//go:embed starter.zone
	starterZone string

	starterTemplates = template.Must(template.Must(template.New("toml").Parse(starterTOML)).New("zone").Parse(starterZone))
)

// Where a starter listens unless it is told otherwise: on loopback and on ports
// that need no root.
const (
	StarterDNSListen  = "127.0.0.1:5300"
	StarterEdgeListen = "127.0.0.1:8080"
	StarterZone       = "example.test" // reserved for tests (RFC 6761 §6.2)
	StarterEdge       = "local"
)

// StarterOptions say what the first configuration is for. The zero value is one
// machine that serves example.test to itself.
type StarterOptions struct {
	Zone       string         // the zone's name; empty: StarterZone
	DNSListen  netip.AddrPort // zero: StarterDNSListen
	EdgeListen netip.AddrPort // zero: StarterEdgeListen
	// Address is what DNS hands out for the edge. Zero: that of EdgeListen, or
	// the loopback address of its family if that is a wildcard.
	Address netip.Addr
	Edge    string // the edge's name; empty: StarterEdge
	Serial  uint32 // of the zone's SOA, by custom the date and two digits; 0: 1
}

func (o StarterOptions) withDefaults() StarterOptions {
	if o.Zone == "" {
		o.Zone = StarterZone
	}
	o.Zone = strings.ToLower(strings.TrimSuffix(o.Zone, "."))
	if !o.DNSListen.IsValid() {
		o.DNSListen = netip.MustParseAddrPort(StarterDNSListen)
	}
	if !o.EdgeListen.IsValid() {
		o.EdgeListen = netip.MustParseAddrPort(StarterEdgeListen)
	}
	if !o.Address.IsValid() {
		o.Address = reachable(o.EdgeListen.Addr())
	}
	if o.Edge == "" {
		o.Edge = StarterEdge
	}
	if o.Serial == 0 {
		o.Serial = 1
	}
	return o
}

// reachable is a, or the loopback address of its family for a wildcard.
func reachable(a netip.Addr) netip.Addr {
	switch {
	case !a.IsUnspecified():
		return a.WithZone("")
	case a.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// ZoneFile is where the zone file belongs, relative to perigee.toml's folder.
func (o StarterOptions) ZoneFile() string {
	return path.Join("zones", o.withDefaults().Zone+zoneSuffix)
}

// Starter returns the perigee.toml and the zone file of a first configuration,
// commented for someone new; "perigee init" writes them. They are accepted by
// Parse as they are; the error is Parse's, when the options are not good.
func Starter(o StarterOptions) (toml, zone []byte, err error) {
	o = o.withDefaults()
	if _, wrong := domainName(o.Zone, false); wrong != "" {
		return nil, nil, fmt.Errorf("the zone: %s", wrong)
	}
	if strings.Contains(o.Zone, "/") {
		return nil, nil, fmt.Errorf("the zone: %q cannot be the name of a file", o.Zone)
	}
	data := struct {
		StarterOptions
		WWW, Type, NSType string
		NSAddress         netip.Addr
	}{
		StarterOptions: o, WWW: "www." + o.Zone,
		Type: addressType(o.Address), NSAddress: reachable(o.DNSListen.Addr()),
	}
	data.NSType = addressType(data.NSAddress)
	var t, z bytes.Buffer
	if err := starterTemplates.ExecuteTemplate(&t, "toml", data); err != nil {
		return nil, nil, err
	}
	if err := starterTemplates.ExecuteTemplate(&z, "zone", data); err != nil {
		return nil, nil, err
	}
	if _, err := Parse("perigee.toml", t.Bytes(), "."); err != nil {
		return nil, nil, err
	}
	return t.Bytes(), z.Bytes(), nil
}

// addressType is the record type that holds an address.
func addressType(a netip.Addr) string {
	if a.Is4() {
		return "A   "
	}
	return "AAAA"
}
