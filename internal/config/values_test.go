package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"perigee.example/policy"
)

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		text, back string
		want       time.Duration
	}{
		{"30s", "30s", 30 * time.Second}, {"1m30s", "1m30s", 90 * time.Second}, {"60s", "1m", time.Minute}, {"24h", "24h", 24 * time.Hour},
		{"90m", "1h30m", 90 * time.Minute}, {"250ms", "250ms", 250 * time.Millisecond}, {"0", "0s", 0}, {"1h0m10s", "1h0m10s", time.Hour + 10*time.Second},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(c.text)); err != nil || time.Duration(d) != c.want || d.String() != c.back {
			t.Errorf("%q is %v (%v), shown as %s", c.text, time.Duration(d), err, d)
		}
	}
	for _, text := range []string{"", "30", "s", "-1s", "+1s", "1 s", "1d", "99999999h"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %v", text, time.Duration(d))
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text, back string
		want       int64
	}{
		{"256MiB", "256MiB", 256 << 20}, {"1GiB", "1GiB", 1 << 30}, {"1024 MiB", "1GiB", 1 << 30}, {"1.5KiB", "1536B", 1536}, {"0", "0", 0}, {"7B", "7B", 7}, {"2TiB", "2TiB", 2 << 40},
	} {
		var s Size
		if err := s.UnmarshalText([]byte(c.text)); err != nil || int64(s) != c.want || s.String() != c.back {
			t.Errorf("%q is %d (%v), shown as %s", c.text, int64(s), err, s)
		}
	}
	for _, text := range []string{"", "256", "256MB", "256M", "MiB", "-1MiB", "+1MiB", "1e3MiB", "0x10MiB", "infB", ".MiB", "0.3B", "8388608TiB", "99999999999999999999B"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d", text, int64(s))
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"fra1", "iad1", "home-first", "by-country"}
	for _, c := range []struct{ word, want string }{
		{"fra9", "fra1"}, {"far1", "fra1"}, {"FRA1", "fra1"}, {"fra", "fra1"}, {"iad", "iad1"}, {"home_frist", "home-first"}, {"bycountry", "by-country"},
		{"sin1", ""}, {"x", ""}, {"", ""}, {strings.Repeat("f", maxSuggestWord+1), ""},
	} {
		if got := nearest(c.word, names); got != c.want {
			t.Errorf("nearest to %q is %q, want %q", c.word, got, c.want)
		}
	}
}

func TestNetwork(t *testing.T) {
	for listen, want := range map[string]string{"0.0.0.0:80": "tcp4", "[::]:80": "tcp6", "[::1]:80": "tcp6"} {
		if got := Network("tcp", netip.MustParseAddrPort(listen)); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}

// TestEncodings: line ends of Windows are fine; a byte order mark and other
// encodings are named.
func TestEncodings(t *testing.T) {
	c := mustParse(t, strings.ReplaceAll(fleetText, "\n", "\r\n"))
	if len(c.Edges) != 2 {
		t.Errorf("with CRLF: %d edges", len(c.Edges))
	}
	for text, want := range map[string]string{
		"\xef\xbb\xbfversion = 1\n":       "perigee.toml:1: the file begins with a byte order mark",
		"version = 1\nstate = \"\xe4\"\n": "perigee.toml:2: this is not UTF-8",
	} {
		_, err := Parse("perigee.toml", []byte(text), ".")
		var e *Error
		if !errors.As(err, &e) || e.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	_, err := Parse("perigee.toml", []byte("version = 1\r\nx = 1\r\n"), ".")
	if got := Render(err); strings.Contains(got, "\r") || !strings.Contains(got, "    2 | x = 1\n") {
		t.Errorf("%q", got)
	}
}

func TestPolicyErrors(t *testing.T) {
	c := mustParse(t, fleetText+"[policy.canary]\nby = \"weighted\"\nweights = { fra1 = 90, iad1 = 10 }\n[zone.\"example.com\"]\nfile = \"z\"\nsteer.www = \"canary\"\n")
	err := errors.Join(
		&policy.ConfigError{Path: "policy.canary.weights.iad1", Text: "is odd", Hint: "make it even"},
		errors.Join(&policy.ConfigError{Path: "endpoint.fra1.location", Text: "is nowhere"}),
	)
	want := `perigee.toml:2: edge.fra1.location: is nowhere
    2 | [edge.fra1]
      |       ^^^^
perigee.toml:10: policy.canary.weights.iad1: is odd
   10 | weights = { fra1 = 90, iad1 = 10 }
      |                        ^^^^
hint: make it even
`
	if got := Render(c.PolicyErrors(err)); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	other := errors.New("the geography broke")
	if got := c.PolicyErrors(fmt.Errorf("compiling: %w", other)); !errors.Is(got, other) {
		t.Errorf("another error became %v", got)
	}
	if c.PolicyErrors(nil) != nil {
		t.Error("no error became one")
	}
	want = `perigee.toml:13: zone."example.com".steer.www: its zone has no such name
   13 | steer.www = "canary"
      |       ^^^
`
	if got := c.SteerError("example.com.", "www.example.com.", "its zone has no such name", "").Render(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if got := c.SteerError("example.com.", "gone.example.com.", "is gone", ""); got.Line != 11 {
		t.Errorf("%v", got)
	}
}

// TestExpandZones: called again, it sees what the folder holds now, whatever
// characters the folder's name has.
func TestExpandZones(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*?")
	if err := os.MkdirAll(filepath.Join(dir, "zones"), 0o777); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("perigee.toml", fleetText+"[dns]\nzone_files = [\"zones/*.zone\"]\n[zone.\"example.com\".steer]\nwww = \"fra1\"\n")
	write("zones/example.com.zone", "")
	write("zones/.#example.com.zone", "")
	c, err := Load(filepath.Join(dir, "perigee.toml"))
	if err != nil {
		t.Fatal(Render(err))
	}
	if len(c.Zones) != 1 || c.Zones[0].File != filepath.Join(dir, "zones/example.com.zone") || len(c.Zones[0].Steer) != 1 {
		t.Fatalf("%+v", c.Zones)
	}
	write("zones/example.net.zone", "")
	zones, err := c.ExpandZones()
	if err != nil || len(zones) != 2 || zones[1].Origin != "example.net." || len(c.Zones) != 1 {
		t.Errorf("%+v, %v", zones, err)
	}
	if err := os.Remove(filepath.Join(dir, "zones/example.com.zone")); err != nil {
		t.Fatal(err)
	}
	if zones, err := c.ExpandZones(); err == nil || !strings.Contains(err.Error(), "zone_files finds none called example.com.zone") {
		t.Errorf("%+v, %v", zones, err)
	}
}
