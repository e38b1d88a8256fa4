package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go4.org/netipx"
)

// fixtureEpoch is the build time of every database for tests: 2026-01-02.
const fixtureEpoch = 1_767_312_000

// fixture is one small database, over prefixes kept for documentation.
type fixture struct {
	kind      string
	version   int  // 4 or 6; 6 if 0
	unaliased bool // the IPv6 tree has no copies of the IPv4 tree
	rows      []fixtureRow
}

// fixtureRow is one network; a later row replaces part of an earlier one.
type fixtureRow struct {
	network string
	record  mmdbtype.Map
}

// spot is the record of a place in the City schema.
type spot struct {
	continent, country string
	divisions          []string // from the largest to the smallest
	city               string
	lat, lon           float64 // both 0: not known
}

func (s spot) record() mmdbtype.Map {
	m := mmdbtype.Map{}
	if s.continent != "" {
		m["continent"] = mmdbtype.Map{"code": mmdbtype.String(s.continent)}
	}
	if s.country != "" {
		m["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(s.country)}
	}
	if s.city != "" {
		m["city"] = mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String(s.city), "de": mmdbtype.String("Stadt " + s.city)}}
	}
	if s.lat != 0 || s.lon != 0 {
		m["location"] = mmdbtype.Map{"latitude": mmdbtype.Float64(s.lat), "longitude": mmdbtype.Float64(s.lon)}
	}
	var divisions mmdbtype.Slice
	for _, d := range s.divisions {
		divisions = append(divisions, mmdbtype.Map{"iso_code": mmdbtype.String(d)})
	}
	if len(divisions) > 0 {
		m["subdivisions"] = divisions
	}
	return m
}

func system(number uint32, name string) mmdbtype.Map {
	return mmdbtype.Map{
		"autonomous_system_number":       mmdbtype.Uint32(number),
		"autonomous_system_organization": mmdbtype.String(name),
	}
}

var (
	frankfurt = spot{"EU", "DE", []string{"HE"}, "Frankfurt am Main", 50.1155, 8.6842}
	berlin    = spot{"EU", "DE", []string{"BE"}, "Berlin", 52.5244, 13.4105}
	ashburn   = spot{"NA", "US", []string{"VA"}, "Ashburn", 39.0437, -77.4875}
	angeles   = spot{"NA", "US", []string{"CA"}, "Los Angeles", 34.0522, -118.2437}
	oxford    = spot{"EU", "GB", []string{"ENG", "OXF"}, "Oxford", 51.7522, -1.256}
)

// fixtures are the databases that internal/geo's tests read.
var fixtures = map[string]fixture{
	"city.mmdb": {kind: "GeoLite2-City", rows: []fixtureRow{
		{"192.0.2.0/25", frankfurt.record()},
		{"192.0.2.128/25", berlin.record()},
		{"198.51.100.0/24", angeles.record()},
		{"198.51.100.64/26", ashburn.record()},
		{"203.0.113.0/25", spot{continent: "EU", country: "NO"}.record()},
		{"203.0.113.128/25", spot{country: "SG"}.record()},
		{"100.64.0.0/10", mmdbtype.Map{"registered_country": mmdbtype.Map{"iso_code": mmdbtype.String("US")}}},
		{"2001:db8::/33", frankfurt.record()},
		{"2001:db8:8000::/33", spot{continent: "AS", country: "SG"}.record()},
		{"3fff::/20", oxford.record()},
	}},
	"asn.mmdb": {kind: "GeoLite2-ASN", rows: []fixtureRow{
		{"10.0.0.0/8", system(64510, "Example Inside")},
		{"192.0.2.0/24", system(64500, "Example One")},
		{"198.51.100.0/25", system(64501, "Example Two")},
		{"203.0.113.64/26", system(64502, "Example Three")},
		{"2001:db8:4000::/34", system(64503, "Example Four")},
		{"2001:db8:8000::/48", system(4200000000, "Example Five")},
	}},
	"asn-ipv4.mmdb": {kind: "GeoLite2-ASN", version: 4, rows: []fixtureRow{
		{"192.0.2.0/24", system(64500, "Example One")},
	}},
	"country-new.mmdb": {kind: "GeoLite2-Country", rows: []fixtureRow{
		{"192.0.2.0/24", spot{continent: "EU", country: "FR"}.record()},
	}},
	"unaliased.mmdb": {kind: "GeoIP2-Country", unaliased: true, rows: []fixtureRow{
		{"192.0.2.0/24", spot{continent: "EU", country: "FR"}.record()},
		{"2002:c000:200::/40", spot{continent: "EU", country: "IT"}.record()},
	}},
	"wrong-kind.mmdb": {kind: "GeoIP2-Domain", rows: []fixtureRow{
		{"192.0.2.0/24", mmdbtype.Map{"domain": mmdbtype.String("example.com")}},
	}},
	"unknown-kind.mmdb": {kind: "country ipvAll", rows: []fixtureRow{
		{"192.0.2.0/24", mmdbtype.Map{"country_code": mmdbtype.String("DE")}},
	}},
	"wrong-schema.mmdb": {kind: "GeoLite2-Country", rows: []fixtureRow{
		{"192.0.2.0/24", mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.Uint32(49)}}},
	}},
	"empty.mmdb": {kind: "GeoLite2-Country"},
}

// writeFixtures writes every fixture into dir.
func writeFixtures(dir string) error {
	for name, f := range fixtures {
		data, err := f.build()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (f fixture) build() ([]byte, error) {
	version := f.version
	if version == 0 {
		version = 6
	}
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		BuildEpoch:              fixtureEpoch,
		DatabaseType:            f.kind,
		Description:             map[string]string{"en": "made up for the tests of perigee"},
		DisableIPv4Aliasing:     f.unaliased,
		IncludeReservedNetworks: true,
		IPVersion:               version,
		RecordSize:              24,
	})
	if err != nil {
		return nil, err
	}
	for _, row := range f.rows {
		network, err := netip.ParsePrefix(row.network)
		if err != nil {
			return nil, err
		}
		if err := tree.Insert(netipx.PrefixIPNet(network), row.record); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	_, err = tree.WriteTo(&out)
	return out.Bytes(), err
}
