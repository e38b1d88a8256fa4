package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"perigee.example/dnsserver"
	"perigee.example/zones"
)

// FuzzQueryLine: whatever came, a record of it is one line of JSON, and a name in
// it is one that could be asked.
func FuzzQueryLine(f *testing.F) {
	f.Add(dnsQuery)
	f.Add(dnsQuery[:20])
	f.Add([]byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05a\n\"\x1b\xff\x00\xff\xff\x00\x01"))
	f.Fuzz(func(t *testing.T, query []byte) {
		r := queryRecord{from: netip.MustParseAddr("2001:db8:1:2::3"), transport: dnsserver.UDP, endpoint: -1}
		r.question(query)
		line := string(appendQueryLine(nil, &r))
		var got queryLine
		if err := json.Unmarshal([]byte(line), &got); err != nil || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
			t.Fatalf("%q: %v", line, err)
		}
		if got.Client != "2001:db8:1::/48" {
			t.Errorf("client %s", got.Client)
		}
		if (got.Name == "") != (got.Type == "") {
			t.Errorf("a name without a type, or the other way round: %q", line)
		}
		if got.Name != "" {
			if _, err := zones.ParseName(got.Name); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

// TestQueryLine: the question is taken as asked, with its type.
func TestQueryLine(t *testing.T) {
	r := queryRecord{from: netip.MustParseAddr("::ffff:192.0.2.77"), transport: dnsserver.TCP, endpoint: -1}
	r.question([]byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03WwW\x04test\x00\x00\x1c\x00\x01"))
	r.outcome = dnsserver.Outcome{Action: dnsserver.Reply, Rcode: 5, HasECS: true, Scope: 0}
	want := `{"time":"0001-01-01T00:00:00.000000Z","client":"192.0.2.0/24","transport":"tcp","name":"WwW.test.","type":"AAAA","rcode":"REFUSED","answers":0,"ttl":0,"scope":0}` + "\n"
	if got := string(appendQueryLine(nil, &r)); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	r = queryRecord{from: r.from, transport: dnsserver.UDP, endpoint: -1, outcome: dnsserver.Outcome{Action: dnsserver.Drop, Limit: dnsserver.Dropped}}
	if got := string(appendQueryLine(nil, &r)); !strings.Contains(got, `"reason":"over the rate: dropped"`) || strings.Contains(got, "rcode") {
		t.Errorf("a dropped one: %s", got)
	}
}
