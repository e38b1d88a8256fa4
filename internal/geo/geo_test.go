package geo

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/policy"
)

// fixture returns the path of a database made by tools/geodata/fixtures.go.
func fixture(name string) string { return filepath.Join("..", "..", "testdata", "geo", name) }

func openFixtures(t *testing.T, place, asn string) *DB {
	t.Helper()
	files := Files{Place: fixture(place)}
	if asn != "" {
		files.ASN = fixture(asn)
	}
	db, err := Open(files)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// The places of testdata/geo/city.mmdb.
var (
	frankfurt = policy.Location{Continent: "EU", Country: "DE", Subdivision: "HE", City: "Frankfurt am Main", Lat: 50.1155, Lon: 8.6842, Located: true}
	berlin    = policy.Location{Continent: "EU", Country: "DE", Subdivision: "BE", City: "Berlin", Lat: 52.5244, Lon: 13.4105, Located: true}
	ashburn   = policy.Location{Continent: "NA", Country: "US", Subdivision: "VA", City: "Ashburn", Lat: 39.0437, Lon: -77.4875, Located: true}
	angeles   = policy.Location{Continent: "NA", Country: "US", Subdivision: "CA", City: "Los Angeles", Lat: 34.0522, Lon: -118.2437, Located: true}
	oxford    = policy.Location{Continent: "EU", Country: "GB", Subdivision: "ENG", City: "Oxford", Lat: 51.7522, Lon: -1.256, Located: true}
	norway    = policy.Location{Continent: "EU", Country: "NO", Lat: 59.9167, Lon: 10.75, Located: true, Centroid: true}
	singapore = policy.Location{Continent: "AS", Country: "SG", Lat: 1.2833, Lon: 103.85, Located: true, Centroid: true}
	nothing   = policy.Location{}
)

func in(asn uint32, loc policy.Location) policy.Location {
	loc.ASN = asn
	return loc
}

func TestLookup(t *testing.T) {
	db := openFixtures(t, "city.mmdb", "asn.mmdb")
	for _, c := range []struct {
		addr, block string
		want        policy.Location
	}{
		{"192.0.2.1", "192.0.2.0/25", in(64500, frankfurt)},
		{"192.0.2.127", "192.0.2.0/25", in(64500, frankfurt)},
		{"192.0.2.128", "192.0.2.128/25", in(64500, berlin)},
		{"::ffff:192.0.2.128", "192.0.2.128/25", in(64500, berlin)}, // mapped counts as IPv4
		{"198.51.100.1", "198.51.100.0/26", in(64501, angeles)},
		{"198.51.100.64", "198.51.100.64/26", in(64501, ashburn)},
		{"198.51.100.128", "198.51.100.128/25", angeles},       // a place without an AS
		{"203.0.113.1", "203.0.113.0/26", norway},              // country only: its centroid
		{"203.0.113.64", "203.0.113.64/26", in(64502, norway)}, // the AS block is the smaller
		{"203.0.113.200", "203.0.113.128/25", singapore},       // continent from our own table
		{"100.64.0.1", "100.64.0.0/10", nothing},               // where it is registered says nothing
		{"10.1.2.3", "10.0.0.0/8", in(64510, nothing)},         // an AS without a place
		{"192.0.3.1", "192.0.3.0/24", nothing},                 // a gap is as large as in the tree
		{"2001:db8::1", "2001:db8::/34", frankfurt},
		{"2001:db8::1%eth0", "2001:db8::/34", frankfurt},
		{"2001:db8:4000::1", "2001:db8:4000::/34", in(64503, frankfurt)},
		{"2001:db8:8000::1", "2001:db8:8000::/48", in(4200000000, singapore)},
		{"3fff:0:1::", "3fff::/20", oxford},         // the largest subdivision
		{"2002:c000:201::", "2002::/16", nothing},   // 6to4 of 192.0.2.1
		{"2001:0:c000:201::", "2001::/32", nothing}, // Teredo
		{"::192.0.2.1", "::/96", nothing},           // where the file keeps IPv4
	} {
		loc, block := db.Lookup(netip.MustParseAddr(c.addr))
		if loc != c.want || block.String() != c.block {
			t.Errorf("Lookup(%s)\n got %+v %s\nwant %+v %s", c.addr, loc, block, c.want, c.block)
		}
	}
	if loc, block := db.Lookup(netip.Addr{}); loc != nothing || block.IsValid() {
		t.Errorf("Lookup of no address is %+v %s", loc, block)
	}
}

func TestLookupIPv4OnlyASN(t *testing.T) {
	db := openFixtures(t, "city.mmdb", "asn-ipv4.mmdb")
	if loc, block := db.Lookup(netip.MustParseAddr("192.0.2.1")); loc != in(64500, frankfurt) || block.String() != "192.0.2.0/25" {
		t.Errorf("got %+v %s", loc, block)
	}
	if loc, block := db.Lookup(netip.MustParseAddr("2001:db8::1")); loc != frankfurt || block.String() != "2001:db8::/33" {
		t.Errorf("got %+v %s", loc, block)
	}
}

// A range that other databases fill with a copy of IPv4 is as good as any
// other in a database that does not.
func TestLookupUnaliased(t *testing.T) {
	db := openFixtures(t, "unaliased.mmdb", "")
	if loc, block := db.Lookup(netip.MustParseAddr("2002:c000:201::")); loc.Country != "IT" || block.String() != "2002:c000:200::/40" {
		t.Errorf("got %+v %s", loc, block)
	}
	if loc, _ := db.Lookup(netip.MustParseAddr("192.0.2.1")); loc.Country != "FR" {
		t.Errorf("got %+v", loc)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	city := read(t, fixture("city.mmdb"))
	damaged := append([]byte(nil), city...)
	for i := range 60 { // the first ten nodes of the tree
		damaged[i] = 0x41
	}
	write(t, filepath.Join(dir, "half.mmdb"), city[:len(city)/2])
	write(t, filepath.Join(dir, "garbage.mmdb"), []byte(strings.Repeat("garbage ", 1000)))
	write(t, filepath.Join(dir, "nothing.mmdb"), nil)
	write(t, filepath.Join(dir, "damaged.mmdb"), damaged)
	const wantPlace = "a GeoIP2 or GeoLite2 City, Country or Enterprise database is wanted"
	for _, c := range []struct {
		name  string
		files Files
		want  []string
	}{
		{"truncated", Files{Place: filepath.Join(dir, "half.mmdb")}, []string{"half.mmdb", "not a whole MaxMind DB file", wantPlace}},
		{"garbage", Files{Place: filepath.Join(dir, "garbage.mmdb")}, []string{"garbage.mmdb", "not a whole MaxMind DB file (8000 octets)", wantPlace}},
		{"empty file", Files{Place: filepath.Join(dir, "nothing.mmdb")}, []string{"(0 octets)", wantPlace}},
		{"damaged", Files{Place: filepath.Join(dir, "damaged.mmdb")}, []string{"damaged.mmdb: damaged: ", "fetch the file again"}},
		{"missing", Files{Place: filepath.Join(dir, "gone.mmdb")}, []string{"gone.mmdb", "no such file"}},
		{"a folder", Files{Place: dir}, []string{dir + ": not a file"}},
		{"another kind", Files{Place: fixture("wrong-kind.mmdb")}, []string{`of kind "GeoIP2-Domain"`, wantPlace}},
		{"unknown kind", Files{Place: fixture("unknown-kind.mmdb")}, []string{`of kind "country ipvAll"`, wantPlace}},
		{"ASN as place", Files{Place: fixture("asn.mmdb")}, []string{`of kind "GeoLite2-ASN"`, wantPlace}},
		{"place as ASN", Files{Place: fixture("city.mmdb"), ASN: fixture("city.mmdb")},
			[]string{`of kind "GeoLite2-City"`, "a GeoLite2 ASN or GeoIP2 ISP database is wanted"}},
		{"wrong schema", Files{Place: fixture("wrong-schema.mmdb")}, []string{"192.0.2.0/24 has a record that", "cannot have"}},
		{"no network", Files{Place: fixture("empty.mmdb")}, []string{"empty.mmdb", "not one network"}},
		{"both", Files{Place: filepath.Join(dir, "half.mmdb"), ASN: filepath.Join(dir, "gone.mmdb")}, []string{"half.mmdb", "gone.mmdb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := Open(c.files)
			if err == nil {
				t.Fatalf("opened: %v", db.Databases())
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestDatabases(t *testing.T) {
	list := openFixtures(t, "city.mmdb", "asn.mmdb").Databases()
	if len(list) != 2 {
		t.Fatalf("%d databases", len(list))
	}
	city, asn := list[0], list[1]
	if city.Kind != "GeoLite2-City" || city.File != fixture("city.mmdb") || city.Built.Format("2006-01-02") != "2026-01-02" {
		t.Errorf("got %+v", city)
	}
	// 198.51.100.0/24 is in three parts: 0/26, 64/26, 128/25; so eleven of ten rows.
	if city.Networks != 11 || asn.Networks != 6 {
		t.Errorf("%d and %d networks", city.Networks, asn.Networks)
	}
	want := "GeoLite2-ASN (" + fixture("asn.mmdb") + "), built 2026-01-02, 6 networks"
	if asn.String() != want {
		t.Errorf("got %q, want %q", asn, want)
	}
}
