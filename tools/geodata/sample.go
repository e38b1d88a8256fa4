package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/oschwald/maxminddb-golang/v2"
	"go4.org/netipx"
)

// A sample is 100,000 addresses with the country that the source gives them.
// Half are IPv4, uniform over all addresses. Of the other half most are drawn
// network by network, since an IPv6 address drawn uniformly is nearly always
// in unallocated space, and the rest uniformly from 2000::/3.
const (
	sampleIPv4     = 50_000
	sampleNetworks = 45_000
	sampleIPv6     = 5_000
)

// drawSample returns the sample as gzipped lines "address,country", sorted by
// address; the country of an unknown address is empty. Addresses in left are
// drawn again: there the result differs from the source on purpose.
func drawSample(source []byte, left *netipx.IPSet, seed uint64) ([]byte, error) {
	db, err := maxminddb.OpenBytes(source)
	if err != nil {
		return nil, err
	}
	var networks []netip.Prefix
	for network := range db.Networks() {
		if p := network.Prefix(); p.Addr().Is6() {
			networks = append(networks, p)
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	drawn := make(map[netip.Addr]bool)
	draw := func(n int, one func() netip.Addr) {
		for until := len(drawn) + n; len(drawn) < until; {
			if addr := one(); !left.Contains(addr) {
				drawn[addr] = true
			}
		}
	}
	draw(sampleIPv4, func() netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, random.Uint32())))
	})
	if len(networks) > 0 {
		draw(sampleNetworks, func() netip.Addr {
			return within(networks[random.IntN(len(networks))], random)
		})
	}
	all := netip.MustParsePrefix("2000::/3")
	draw(sampleIPv6, func() netip.Addr { return within(all, random) })

	addrs := make([]netip.Addr, 0, len(drawn))
	for addr := range drawn {
		addrs = append(addrs, addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return packSample(db, addrs, seed)
}

func packSample(db *maxminddb.Reader, addrs []netip.Addr, seed uint64) ([]byte, error) {
	var out bytes.Buffer
	packed, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(packed, "# %d addresses, seed %d: %s, CC BY 4.0\n", len(addrs), seed, attribution)
	for _, addr := range addrs {
		var record sourceRecord
		if err := db.Lookup(addr).Decode(&record); err != nil {
			return nil, fmt.Errorf("source: %s: %w", addr, err)
		}
		fmt.Fprintf(packed, "%s,%s\n", addr, record.Country)
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// within returns an address of p. Only the bits before the 64th are drawn if
// p is not longer: they say where a client is, and compress better.
func within(p netip.Prefix, random *rand.Rand) netip.Addr {
	addr := p.Addr().As16()
	high, low := binary.BigEndian.Uint64(addr[:8]), binary.BigEndian.Uint64(addr[8:])
	if p.Bits() < 64 {
		high |= random.Uint64() >> p.Bits()
	} else if p.Bits() < 128 {
		low |= random.Uint64() >> (p.Bits() - 64)
	}
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, high), low)))
}
