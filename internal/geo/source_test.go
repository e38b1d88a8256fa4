//go:build geosource

package geo

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/oschwald/maxminddb-golang/v2"
)

// TestBuiltinAgainstSource compares 100,000 random addresses of the built-in
// data with the database that it was converted from. "make geo-data-check"
// fetches that and runs this test; each run draws other addresses.
func TestBuiltinAgainstSource(t *testing.T) {
	source, err := maxminddb.Open(os.Getenv("PERIGEE_GEO_SOURCE"))
	if err != nil {
		t.Fatalf("%v: run make geo-data-check", err)
	}
	defer source.Close()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	db := builtinDB(t)
	var networks []netip.Prefix
	for network := range source.Networks() {
		if p := network.Prefix(); p.Addr().Is6() {
			networks = append(networks, p)
		}
	}
	if len(networks) < 500_000 {
		t.Fatalf("the source has %d IPv6 networks only", len(networks))
	}
	asked, known := 0, 0
	for asked < 100_000 {
		addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, random.Uint32())))
		if asked%2 == 1 {
			addr = drawAddr(networks[random.IntN(len(networks))], random)
		}
		if notConverted(addr) {
			continue
		}
		asked++
		var want struct {
			Country string `maxminddb:"country_code"`
		}
		if err := source.Lookup(addr).Decode(&want); err != nil {
			t.Fatal(err)
		}
		loc, _ := db.Lookup(addr)
		if loc.Country != want.Country {
			t.Errorf("seed %d: %s is in %q, in the source %q", seed, addr, loc.Country, want.Country)
		}
		if loc.Country != "" {
			known++
		}
	}
	t.Logf("seed %d: asked %d, known %d", seed, asked, known)
	if known < 80_000 {
		t.Errorf("seed %d: only %d of %d known", seed, known, asked)
	}
}

// notConverted says whether addr is in a range that the source places and the
// converter leaves out; builtin-country.txt lists them ("lost").
func notConverted(addr netip.Addr) bool {
	for _, p := range []string{"2001::/23", "2002::/16"} {
		if netip.MustParsePrefix(p).Contains(addr) {
			return true
		}
	}
	return false
}
