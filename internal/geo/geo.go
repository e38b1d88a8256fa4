// Package geo tells where an address is, for steering: it reads MaxMind DB
// files (GeoIP2 and GeoLite2: City, Country, Enterprise, ASN, ISP) into
// policy.Location, holds a built-in country database so that steering by place
// works without an account anywhere, and follows the files as they change.
//
//	db, err := geo.Open(geo.Files{Place: "GeoLite2-City.mmdb", ASN: "GeoLite2-ASN.mmdb"})
//	loc, block := db.Lookup(addr)     // one address, and the block that shares its location
//	for block, loc := range db.Within(netip.MustParsePrefix("::/0")) {
//		…                         // every known block, in order
//	}
//	fmt.Print(db.Describe(addr))      // what "perigee geo lookup" prints
//
// A DB is a policy.Geography: immutable, and safe for concurrent use. A Store
// watches the files and swaps in a new DB when they change and are sound.
//
// What it is not: a way of steering (package policy), or a downloader; put
// new files in place with geoipupdate or a copy.
//
// Files are read into memory whole and never mapped, so that a file truncated
// in place cannot end the process. Limits: maxFile octets a file. IPv6 ranges
// that a database fills with a copy of IPv4 (6to4, Teredo, mapped addresses)
// are unknown: the clients there are somewhere else.
package geo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"perigee.example/policy"
)

// Files names the databases that make up a DB.
type Files struct {
	Place string // GeoIP2 or GeoLite2 City, Country or Enterprise; "" is the built-in country data
	ASN   string // GeoLite2 ASN or GeoIP2 ISP; "" means that no AS number is known
}

// DB is what is known of every address: the database of places laid over that
// of AS numbers. It implements policy.Geography.
type DB struct {
	place *database
	asn   *database // nil if there is none
}

var _ policy.Geography = (*DB)(nil)

// Open reads the files and checks them whole: a file that is truncated,
// damaged, or of another kind than its place in Files wants is an error that
// says so. Both files are looked at before it returns, so one run shows
// everything there is to cure.
func Open(f Files) (*DB, error) {
	var db DB
	var placeErr, asnErr error
	if f.Place == "" {
		var builtin *DB
		if builtin, placeErr = Builtin(); placeErr == nil {
			db.place = builtin.place
		}
	} else {
		db.place, placeErr = openFile(f.Place, forPlace)
	}
	if f.ASN != "" {
		db.asn, asnErr = openFile(f.ASN, forASN)
	}
	if err := errors.Join(placeErr, asnErr); err != nil {
		return nil, err
	}
	return &db, nil
}

// maxFile bounds a database file, in octets, since it is held in memory whole.
// The largest on offer, GeoIP2 Enterprise, has about 400 MB.
const maxFile = 1 << 30

// openFile reads one database file.
func openFile(name string, want role) (*database, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("geo: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("geo: %s: not a file; %s is wanted", name, want)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("geo: %s: %d octets, more than the %d that are allowed; %s is wanted", name, info.Size(), maxFile, want)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("geo: %w", err)
	}
	d, err := parse(data, want)
	if err != nil {
		return nil, fmt.Errorf("geo: %s: %w", name, err)
	}
	d.about.File = name
	return d, nil
}

// Lookup returns what is known of addr, and a block around addr inside which
// everything is the same. An IPv4-mapped IPv6 address counts as IPv4. The
// block of an invalid address is invalid.
func (db *DB) Lookup(addr netip.Addr) (policy.Location, netip.Prefix) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return policy.Location{}, netip.Prefix{}
	}
	if p, ok := db.aliased(addr); ok {
		return policy.Location{}, p
	}
	at, block := db.place.lookup(addr)
	loc := db.place.place(at)
	if db.asn != nil {
		at, asnBlock := db.asn.lookup(addr)
		loc.ASN = db.asn.system(at).number
		if asnBlock.Bits() > block.Bits() {
			block = asnBlock
		}
	}
	return loc, block
}

// aliased says whether one of the databases has a copy of IPv4 where addr is,
// and in which block.
func (db *DB) aliased(addr netip.Addr) (netip.Prefix, bool) {
	if addr.Is4() {
		return netip.Prefix{}, false
	}
	for _, d := range []*database{db.place, db.asn} {
		if d == nil {
			continue
		}
		for _, p := range d.aliases {
			if p.Contains(addr) {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

// Databases returns what there is to say of each database in use: places
// first, then AS numbers if there are any.
func (db *DB) Databases() []Database {
	list := []Database{db.place.about}
	if db.asn != nil {
		list = append(list, db.asn.about)
	}
	return list
}
