package geo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func builtinDB(t *testing.T) *DB {
	t.Helper()
	db, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// The addresses that the demo asks about, and some that everyone knows.
func TestBuiltinKnownAddresses(t *testing.T) {
	db := builtinDB(t)
	for _, c := range []struct{ addr, continent, country string }{
		{"193.99.144.80", "EU", "DE"}, // a German publisher
		{"85.13.128.1", "EU", "DE"},   // a German web host
		{"87.128.0.1", "EU", "DE"},    // a German provider
		{"2a00:1398::1", "EU", "DE"},  // a German university
		{"8.8.8.8", "NA", "US"},
		{"128.32.0.1", "NA", "US"},   // an American university
		{"2600:1700::1", "NA", "US"}, // an American provider
		{"137.132.0.1", "AS", "SG"},  // a university of Singapore
		{"165.21.0.1", "AS", "SG"},   // a provider of Singapore
		{"2401:7400::1", "AS", "SG"},
		{"129.240.0.1", "EU", "NO"},   // a Norwegian university
		{"193.213.112.4", "EU", "NO"}, // a Norwegian provider
		{"2001:700::1", "EU", "NO"},   // Norway's research network
	} {
		loc, block := db.Lookup(netip.MustParseAddr(c.addr))
		if loc.Continent != c.continent || loc.Country != c.country {
			t.Errorf("%s is in %q %q, expected %q %q", c.addr, loc.Continent, loc.Country, c.continent, c.country)
		}
		if !loc.Located || !loc.Centroid {
			t.Errorf("%s: %+v is not the centroid of a country", c.addr, loc)
		}
		if !block.Contains(netip.MustParseAddr(c.addr)) || block.Bits() == 0 {
			t.Errorf("%s is not in block %s", c.addr, block)
		}
	}
	for _, unknown := range []string{"10.0.0.1", "127.0.0.1", "192.0.2.1", "fe80::1", "2001:db8::1"} {
		if loc, _ := db.Lookup(netip.MustParseAddr(unknown)); loc != nothing {
			t.Errorf("%s is in %+v, expected nowhere", unknown, loc)
		}
	}
}

// testdata/geo/sample.csv.gz has 100,000 addresses with the country that the
// source of the built-in data gives them, drawn when it was converted.
// "make geo-data-check" asks the source itself, with new addresses.
func TestBuiltinAgainstSample(t *testing.T) {
	db := builtinDB(t)
	unzipped, err := gzip.NewReader(bytes.NewReader(read(t, fixture("sample.csv.gz"))))
	if err != nil {
		t.Fatal(err)
	}
	asked, known, wrong := 0, 0, 0
	header := ""
	for lines := bufio.NewScanner(unzipped); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			header = line
			continue
		}
		addr, want, ok := strings.Cut(line, ",")
		if !ok {
			t.Fatalf("line %q", line)
		}
		asked++
		loc, _ := db.Lookup(netip.MustParseAddr(addr))
		if loc.Country != "" {
			known++
		}
		if loc.Country != want || (want != "" && loc.Continent == "") {
			if wrong++; wrong <= 10 {
				t.Errorf("%s: %s is in %q, in the source %q", header, addr, loc.Country, want)
			}
		}
	}
	t.Logf("%s: asked %d, known %d", header, asked, known)
	if asked != 100_000 || wrong > 0 || known < 80_000 {
		t.Errorf("%s: asked %d, known %d, wrong %d", header, asked, known, wrong)
	}
}

// The built-in data passes every check that a user's file must pass.
func TestBuiltinIsSound(t *testing.T) {
	unzipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	d, err := parse(data, forPlace)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d octets checked in %s", len(data), time.Since(start))
	if d.about.Networks != builtinNetworks || d.about.Kind != "GeoIP2-Country" {
		t.Errorf("%+v, expected %d networks", d.about, builtinNetworks)
	}
	about := builtinDB(t).Databases()[0]
	if about.Attribution != Attribution || about.Built.Year() < 2026 {
		t.Errorf("%+v", about)
	}
	start = time.Now()
	if _, err := unpack(); err != nil {
		t.Fatal(err)
	}
	t.Logf("unpacked in %s", time.Since(start))
}

// Every country of the data has a row in our own table, with the same continent.
func TestBuiltinCountries(t *testing.T) {
	met := make(map[string]bool)
	db := builtinDB(t)
	for _, family := range []netip.Prefix{allIPv4, allIPv6} {
		for block, loc := range db.Within(family) {
			if row, ok := countries[loc.Country]; !ok || row.continent != loc.Continent || !loc.Centroid {
				t.Fatalf("%s: %+v, our table has %+v", block, loc, row)
			}
			met[loc.Country] = true
		}
	}
	if len(met) != builtinCountries {
		t.Errorf("%d countries, expected %d", len(met), builtinCountries)
	}
	continents := []string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"}
	for code, row := range countries {
		if !slices.Contains(continents, row.continent) || row.lat < -90 || row.lat > 90 || row.lon < -180 || row.lon > 180 {
			t.Errorf("%s: %+v", code, row)
		}
	}
}

// The terms of the data are told where the data is.
func TestBuiltinTerms(t *testing.T) {
	text, err := os.ReadFile("builtin-country.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{builtinAttribution, builtinLicense, builtinPackage, builtinVersion, "changes "} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("builtin-country.txt does not say %q", want)
		}
	}
}
