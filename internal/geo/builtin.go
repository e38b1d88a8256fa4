package geo

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"
)

// packed is the built-in country database. builtin-country.txt beside it says
// where it is from and under what terms; "make geo-data" makes it anew.
//
//go:embed builtin-country.mmdb.gz
var packed []byte

// Attribution is what the licence of the built-in data asks to be shown where
// its results are.
const Attribution = builtinAttribution + ", " + builtinLicense

// Builtin returns the country data that perigee carries along: country and
// continent, with the centroid of the country for coordinates. The first call
// unpacks it, which takes about 80 ms and 8 MB of memory that are kept; all
// calls return the same DB.
func Builtin() (*DB, error) { return unpackOnce() }

var unpackOnce = sync.OnceValues(unpack)

// unpack does not check the data as parse does: it cannot change after the
// build, gzip checks its CRC, and a test holds it against parse.
func unpack() (*DB, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("geo: built-in data: %w", err)
	}
	data := make([]byte, builtinOctets)
	if _, err := io.ReadFull(unzipped, data); err != nil {
		return nil, fmt.Errorf("geo: built-in data: %w", err)
	}
	if n, err := unzipped.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return nil, fmt.Errorf("geo: built-in data: not %d octets long: %w", builtinOctets, err)
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("geo: built-in data: %w", err)
	}
	place := newDatabase(reader)
	place.about.Networks = builtinNetworks
	place.about.Attribution = Attribution
	return &DB{place: place}, nil
}
