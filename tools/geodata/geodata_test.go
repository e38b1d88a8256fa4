package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

// sourceOf returns a database in the source's schema.
func sourceOf(t *testing.T, rows map[string]string) []byte {
	t.Helper()
	f := fixture{kind: "country ipvAll", unaliased: true}
	for network, country := range rows {
		f.rows = append(f.rows, fixtureRow{network, mmdbtype.Map{"country_code": mmdbtype.String(country)}})
	}
	data, err := f.build()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var someCountries = map[string]country{"DE": {continent: "EU"}, "US": {continent: "NA"}}

func TestConvert(t *testing.T) {
	source := sourceOf(t, map[string]string{
		"8.0.0.0/9":     "US",
		"85.0.0.0/8":    "DE",
		"10.0.0.0/8":    "DE", // private
		"2a00::/16":     "DE",
		"2002::/16":     "US", // a copy of IPv4
		"2001:db8::/32": "US", // for documentation
	})
	c, err := convert(source, someCountries, 6)
	if err != nil {
		t.Fatal(err)
	}
	if c.read4 != 3 || c.read6 != 3 || c.wrote != 3 || len(c.refused) != 3 || len(c.countries) != 2 || c.epoch != fixtureEpoch {
		t.Errorf("%+v", c)
	}
	var left []string
	for _, p := range c.left.Prefixes() {
		left = append(left, p.String())
	}
	if want := []string{"10.0.0.0/8", "2001:db8::/32", "2002::/16"}; !slices.Equal(left, want) {
		t.Errorf("lost %q, expected %q", left, want)
	}
	made, err := maxminddb.OpenBytes(c.mmdb)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"8.8.8.8": "NA US", "85.13.128.1": "EU DE", "2a00::1": "EU DE", "10.0.0.1": " ", "9.9.9.9": " "} {
		var record struct {
			Continent struct {
				Code string `maxminddb:"code"`
			} `maxminddb:"continent"`
			resultRecord
		}
		if err := made.Lookup(netip.MustParseAddr(addr)).Decode(&record); err != nil {
			t.Fatal(err)
		}
		if got := record.Continent.Code + " " + record.Country.Code; got != want {
			t.Errorf("%s is %q, expected %q", addr, got, want)
		}
	}
	again, err := convert(source, someCountries, 6)
	if err != nil || !bytes.Equal(c.mmdb, again.mmdb) {
		t.Errorf("the same source gave other octets: %v", err)
	}
}

func TestConvertRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		source []byte
		want   string
	}{
		"few":       {sourceOf(t, map[string]string{"8.0.0.0/9": "US"}), "1 networks, expected at least 2"},
		"continent": {sourceOf(t, map[string]string{"8.0.0.0/9": "XX"}), `in "XX", which is on no continent`},
		"schema":    {mustBuild(t, "city.mmdb"), `in "", which is on no continent`},
		"garbage":   {[]byte("garbage"), "source: "},
	} {
		if _, err := convert(c.source, someCountries, 2); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", name, err, c.want)
		}
	}
}

func mustBuild(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fixtures[name].build()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What is committed in testdata/geo is what this program writes.
func TestFixturesAreCommitted(t *testing.T) {
	for name := range fixtures {
		committed, err := os.ReadFile(filepath.Join("..", "..", "testdata", "geo", name))
		if err != nil || !bytes.Equal(committed, mustBuild(t, name)) {
			t.Errorf("%s is not what make geo-fixtures writes (%v)", name, err)
		}
	}
}

func TestReadPackage(t *testing.T) {
	pack := func(manifest string) (string, string) {
		var out bytes.Buffer
		gz := gzip.NewWriter(&out)
		archive := tar.NewWriter(gz)
		for name, text := range map[string]string{packageManifest: manifest, packageDatabase: "the database"} {
			if err := archive.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := archive.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := archive.Close(); err != nil {
			t.Fatal(err)
		}
		if err := gz.Close(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "package.tgz")
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(out.Bytes())
		return file, hex.EncodeToString(sum[:])
	}
	file, sum := pack(`{"name": "` + packageName + `", "version": "1.2.3"}`)
	if data, err := readPackage(file, sum, "1.2.3"); err != nil || string(data) != "the database" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := readPackage(file, sum, "1.2.4"); err == nil || !strings.Contains(err.Error(), "1.2.3, expected") {
		t.Errorf("another version: %v", err)
	}
	if _, err := readPackage(file, strings.Repeat("0", 64), "1.2.3"); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("another digest: %v", err)
	}
}

const zoneTab = "# comment\n" +
	"DE\t+5230+01322\tEurope/Berlin\tmost of Germany\n" +
	"DE\t+4742+00841\tEurope/Busingen\n" +
	"RU\t+5443+02030\tEurope/Kaliningrad\n" +
	"RU\t+554521+0373704\tEurope/Moscow\n" +
	"AU\t-3352+15113\tAustralia/Sydney\nBR\t-2332-04637\tAmerica/Sao_Paulo\nCA\t+4339-07923\tAmerica/Toronto\n" +
	"FM\t+0658+15813\tPacific/Pohnpei\nUA\t+5026+03031\tEurope/Kyiv\nUS\t+4151-08739\tAmerica/Chicago\nUZ\t+4120+06918\tAsia/Tashkent\n"

func TestReadZoneTab(t *testing.T) {
	places, err := readZoneTab(strings.NewReader(zoneTab))
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]place{
		"DE": {52.5, 13.3667, "Europe/Berlin"},    // the first
		"RU": {55.7558, 37.6178, "Europe/Moscow"}, // the main one, though it is the second
		"AU": {-33.8667, 151.2167, "Australia/Sydney"},
	} {
		if places[code] != want {
			t.Errorf("%s is at %+v, expected %+v", code, places[code], want)
		}
	}
	for name, tab := range map[string]string{
		"no main zone": strings.Replace(zoneTab, "Europe/Moscow", "Europe/Moskau", 1),
		"no angle":     strings.Replace(zoneTab, "+5230+01322", "52.5 13.4", 1),
		"short angle":  strings.Replace(zoneTab, "+5230+01322", "+52+013", 1),
		"columns":      "DE\t+5230+01322\n",
		"nothing":      "# only a comment\n",
	} {
		if _, err := readZoneTab(strings.NewReader(tab)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestContinents(t *testing.T) {
	of, err := continentOf()
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]string{"DE": "EU", "US": "NA", "SG": "AS", "NO": "EU", "BR": "SA", "AU": "OC", "ZA": "AF", "AQ": "AN", "XK": "EU"} {
		if of[code] != want {
			t.Errorf("%s is in %q, expected %q", code, of[code], want)
		}
	}
	if len(of) != 250 { // the 249 of ISO 3166-1, and Kosovo
		t.Errorf("%d countries", len(of))
	}
	_, err = countryTable(strings.NewReader(zoneTab), strings.NewReader("DE\tGermany\n"))
	if err == nil || !strings.Contains(err.Error(), "zone.tab has no zone for") {
		t.Errorf("a zone.tab of nine countries: %v", err)
	}
}
