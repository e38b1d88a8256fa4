package geo

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"perigee.example/policy"
)

func TestDescribe(t *testing.T) {
	both := openFixtures(t, "city.mmdb", "asn.mmdb")
	databases := "database     GeoLite2-City (" + fixture("city.mmdb") + "), built 2026-01-02, 11 networks\n" +
		"database     GeoLite2-ASN (" + fixture("asn.mmdb") + "), built 2026-01-02, 6 networks\n"
	for _, c := range []struct{ addr, want string }{
		{"192.0.2.1", `address      192.0.2.1
block        192.0.2.0/25
continent    EU
country      DE
subdivision  HE
city         Frankfurt am Main
as           AS64500 Example One
coordinates  50.1155, 8.6842 (the network)
keys         AS64500 DE/Frankfurt am Main DE-HE DE europe default
` + databases},
		{"::ffff:198.51.100.200", `address      ::ffff:198.51.100.200
block        198.51.100.128/25
continent    NA
country      US
subdivision  CA
city         Los Angeles
coordinates  34.0522, -118.2437 (the network)
keys         US/Los Angeles US-CA US north-america default
` + databases},
		{"10.0.0.1", `address      10.0.0.1
block        10.0.0.0/8
as           AS64510 Example Inside
keys         AS64510 default
` + databases},
		{"192.0.3.1", `address      192.0.3.1
block        192.0.3.0/24
known        nothing: only the default of a geo map is for this address
keys         default
` + databases},
	} {
		got := both.Describe(netip.MustParseAddr(c.addr)).String()
		// Columns are as wide as the longest name that is there.
		if squeeze(got) != squeeze(c.want) {
			t.Errorf("got\n%swant\n%s", got, c.want)
		}
	}
}

// squeeze makes one space of many.
func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}

func TestDescribeBuiltin(t *testing.T) {
	d := builtinDB(t).Describe(netip.MustParseAddr("8.8.8.8"))
	text := d.String()
	for _, want := range []string{"41.8500, -87.6500 (centroid of US)", "US north-america default", "GeoIP2-Country (built in), built 2026-", "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"address":"8.8.8.8"`, `"country":"US"`, `"of":"centroid of US"`, `"keys":["US","north-america","default"]`, `"attribution":"IP Geolocation by DB-IP`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is missing in %s", want, data)
		}
	}
	if strings.Contains(string(data), `"asn"`) || strings.Contains(string(data), `"city"`) {
		t.Errorf("what is not known is there: %s", data)
	}
}

// Every key that is shown can be written into perigee.toml.
func TestKeysAreSelectors(t *testing.T) {
	for _, loc := range []policy.Location{in(64500, frankfurt), angeles, oxford, norway, singapore, nothing} {
		for _, key := range keys(loc) {
			if selector, err := policy.ParseSelector(key); err != nil || selector.String() != key {
				t.Errorf("%+v: key %q: %+v, %v", loc, key, selector, err)
			}
		}
	}
}
