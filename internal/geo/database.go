package geo

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"

	"perigee.example/policy"
)

// Database says what a database is and from when, for status and for
// "perigee geo lookup".
type Database struct {
	File        string    `json:"file,omitempty"`        // its name as configured; "" is the built-in data
	Kind        string    `json:"kind"`                  // as the file says: "GeoLite2-City"
	Built       time.Time `json:"built"`                 // when its publisher made it
	Networks    int       `json:"networks"`              // blocks with data, both families
	Attribution string    `json:"attribution,omitempty"` // words that its licence asks to be shown
}

// String is one line for an operator.
func (d Database) String() string {
	from := d.File
	if from == "" {
		from = "built in"
	}
	s := fmt.Sprintf("%s (%s), built %s, %d networks", d.Kind, from, d.Built.Format(time.DateOnly), d.Networks)
	if d.Attribution != "" {
		s += ". " + d.Attribution
	}
	return s
}

// role is what a database is wanted for.
type role uint8

const (
	forPlace role = iota + 1
	forASN
)

func (r role) String() string {
	if r == forASN {
		return "a GeoLite2 ASN or GeoIP2 ISP database"
	}
	return "a GeoIP2 or GeoLite2 City, Country or Enterprise database"
}

// database is one MaxMind DB file in memory, checked.
type database struct {
	reader  *maxminddb.Reader
	aliases []netip.Prefix // IPv6 ranges that are a copy of its IPv4 part, or hold it
	// aliasEnd is the last address of the last alias.
	aliasEnd netip.Addr
	about    Database
}

// offset tells data records of one database apart: equal offsets, equal
// records. It is nowhere where the database knows nothing.
type offset uintptr

const nowhere = ^offset(0)

// country is a row of the table of countries.
type country struct {
	continent string
	lat, lon  float64 // degrees north and east
}

// system is an autonomous system.
type system struct {
	number uint32
	name   string // of the organization
}

// Where an IPv6 tree has IPv4: in alwaysIPv4 it is kept, or looked for under
// its own name (RFC 4291 §2.5.5); the ranges of maybeIPv4 are filled with a
// copy of it by some writers of MaxMind DB files: NAT64 (RFC 6052), Teredo
// (RFC 4380) and 6to4 (RFC 3056).
var (
	alwaysIPv4 = []netip.Prefix{
		netip.MustParsePrefix("::/96"),
		netip.MustParsePrefix("::ffff:0:0/96"),
	}
	maybeIPv4 = []netip.Prefix{
		netip.MustParsePrefix("64:ff9b::/96"),
		netip.MustParsePrefix("2001::/32"),
		netip.MustParsePrefix("2002::/16"),
	}
)

// parse checks the octets of a MaxMind DB file: its structure, its kind and
// every record. The octets must not change afterwards.
func parse(data []byte, want role) (*database, error) {
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("not a whole MaxMind DB file (%d octets): %w; %s is wanted", len(data), err, want)
	}
	if err := checkKind(data, reader.Metadata.DatabaseType, want); err != nil {
		return nil, err
	}
	if err := reader.Verify(); err != nil {
		return nil, fmt.Errorf("damaged: %w; fetch the file again", err)
	}
	d := newDatabase(reader)
	if err := d.count(want); err != nil {
		return nil, err
	}
	return d, nil
}

func newDatabase(reader *maxminddb.Reader) *database {
	d := &database{reader: reader, about: Database{
		Kind:  reader.Metadata.DatabaseType,
		Built: reader.Metadata.BuildTime().UTC(),
	}}
	if reader.Metadata.IPVersion != 6 {
		return d
	}
	d.aliases = slices.Clone(alwaysIPv4)
	for _, p := range maybeIPv4 {
		// The walk leaves aliases out unless it is told otherwise.
		if !yields(reader, p) && yields(reader, p, maxminddb.IncludeAliasedNetworks()) {
			d.aliases = append(d.aliases, p)
		}
	}
	for _, p := range d.aliases {
		if last := lastAddr(p); d.aliasEnd.Less(last) {
			d.aliasEnd = last
		}
	}
	return d
}

// yields says whether the walk of p yields a network at all.
func yields(reader *maxminddb.Reader, p netip.Prefix, how ...maxminddb.NetworksOption) bool {
	for range reader.NetworksWithin(p, append(how, maxminddb.IncludeNetworksWithoutData())...) {
		return true
	}
	return false
}

// checkKind asks geoip2, which knows the names of all kinds, whether the
// database answers the questions of its role.
func checkKind(data []byte, kind string, want role) error {
	reader, err := geoip2.OpenBytes(data)
	var unknown geoip2.UnknownDatabaseTypeError
	if errors.As(err, &unknown) {
		return fmt.Errorf("a database of kind %q; %s is wanted", kind, want)
	}
	if err != nil {
		return fmt.Errorf("not a MaxMind DB file: %w", err)
	}
	if want == forASN {
		_, err = reader.ASN(netip.IPv4Unspecified())
	} else {
		_, err = reader.City(netip.IPv4Unspecified())
	}
	var method geoip2.InvalidMethodError
	if errors.As(err, &method) {
		return fmt.Errorf("a database of kind %q; %s is wanted", kind, want)
	}
	return nil // a damaged record is found, and named, by the checks that follow
}

// maxShared is how many times over a search tree may use its nodes. A tree of
// n nodes has n+1 leaves, more only if branches are shared; a few ranges that
// alias others are fine, a tree that unfolds without end is not.
const maxShared = 8

// count walks the whole database, decodes every record once and counts the
// networks.
func (d *database) count(want role) error {
	seen := make(map[uintptr]struct{})
	leaves, maxLeaves := uint(0), maxShared*(d.reader.Metadata.NodeCount+1)
	for network := range d.reader.Networks(maxminddb.IncludeNetworksWithoutData()) {
		if err := network.Err(); err != nil {
			return fmt.Errorf("damaged at %s: %w", network.Prefix(), err)
		}
		if leaves++; leaves > maxLeaves {
			return fmt.Errorf("damaged: its search tree of %d nodes has over %d leaves", d.reader.Metadata.NodeCount, maxLeaves)
		}
		if !network.Found() {
			continue
		}
		d.about.Networks++
		if _, ok := seen[network.Offset()]; ok {
			continue
		}
		seen[network.Offset()] = struct{}{}
		var err error
		if want == forASN {
			err = network.Decode(new(geoip2.ASN))
		} else {
			err = network.Decode(new(geoip2.City))
		}
		if err != nil {
			return fmt.Errorf("%s has a record that a database of kind %q cannot have: %w", network.Prefix(), d.about.Kind, err)
		}
	}
	if d.about.Networks == 0 {
		return errors.New("there is not one network in it")
	}
	return nil
}

// lookup returns where the record of addr is, and the block around addr that
// has it. addr is not mapped.
func (d *database) lookup(addr netip.Addr) (offset, netip.Prefix) {
	whole := netip.PrefixFrom(addr, 0).Masked()
	if addr.Is6() && d.reader.Metadata.IPVersion != 6 {
		return nowhere, whole
	}
	result := d.reader.Lookup(addr)
	block := cut(result.Prefix(), whole)
	for d.overlaps(block) && block.Bits() < addr.BitLen() { // as in walk
		block = netip.PrefixFrom(addr, block.Bits()+1).Masked()
	}
	if !result.Found() {
		return nowhere, block
	}
	return offset(result.Offset()), block
}

// cut returns the part of block that lies in p, where one contains the other.
// A block of the database's IPv6 tree that holds all of IPv4 becomes p.
func cut(block, p netip.Prefix) netip.Prefix {
	if block.Addr().Is4() != p.Addr().Is4() || block.Bits() < p.Bits() {
		return p
	}
	return block
}

// place decodes the record at an offset of a database of places. Its error
// can only be a damaged record, which count has ruled out.
func (d *database) place(at offset) policy.Location {
	var loc policy.Location
	if at == nowhere {
		return loc
	}
	var record geoip2.City
	if d.reader.LookupOffset(uintptr(at)).Decode(&record) != nil {
		return loc
	}
	loc.Continent = record.Continent.Code
	loc.Country = record.Country.ISOCode
	loc.City = record.City.Names.English
	if len(record.Subdivisions) > 0 {
		loc.Subdivision = record.Subdivisions[0].ISOCode // the largest comes first
	}
	if at := record.Location; at.HasCoordinates() && onEarth(*at.Latitude, *at.Longitude) {
		loc.Lat, loc.Lon, loc.Located = *at.Latitude, *at.Longitude, true
	}
	if row, ok := countries[loc.Country]; ok {
		if loc.Continent == "" {
			loc.Continent = row.continent
		}
		if !loc.Located {
			loc.Lat, loc.Lon, loc.Located, loc.Centroid = row.lat, row.lon, true, true
		}
	}
	return loc
}

// onEarth is false for coordinates that a great circle cannot be drawn to;
// NaN is among them.
func onEarth(lat, lon float64) bool {
	return lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180
}

// system decodes the record at an offset of a database of AS numbers.
func (d *database) system(at offset) system {
	if at == nowhere {
		return system{}
	}
	var record geoip2.ASN
	if d.reader.LookupOffset(uintptr(at)).Decode(&record) != nil {
		return system{}
	}
	if uint64(record.AutonomousSystemNumber) > math.MaxUint32 {
		return system{} // RFC 6793: an AS number has four octets
	}
	return system{number: uint32(record.AutonomousSystemNumber), name: record.AutonomousSystemOrganization}
}
