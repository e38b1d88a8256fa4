package geo

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"

	"perigee.example/policy"
)

// Description is everything that is known of one address, in words and as
// JSON: what "perigee geo lookup" shows.
type Description struct {
	Addr         netip.Addr   `json:"address"`
	Block        netip.Prefix `json:"block"` // all of it has this description
	Continent    string       `json:"continent,omitempty"`
	Country      string       `json:"country,omitempty"`
	Subdivision  string       `json:"subdivision,omitempty"` // without the country
	City         string       `json:"city,omitempty"`
	ASN          uint32       `json:"asn,omitempty"`
	Organization string       `json:"organization,omitempty"` // that holds the ASN
	Coordinates  *Coordinates `json:"coordinates,omitempty"`  // nil: not known
	Keys         []string     `json:"keys"`                   // what a geo map may say for this address, the most specific first
	Databases    []Database   `json:"databases"`
}

// Coordinates is a point, and how near to the client it is likely to be.
type Coordinates struct {
	Lat float64 `json:"lat"` // degrees north
	Lon float64 `json:"lon"` // degrees east
	Of  string  `json:"of"`  // "the network", or "centroid of US"
}

// Describe returns everything that is known of addr.
func (db *DB) Describe(addr netip.Addr) Description {
	loc, block := db.Lookup(addr)
	d := Description{
		Addr:        addr,
		Block:       block,
		Continent:   loc.Continent,
		Country:     loc.Country,
		Subdivision: loc.Subdivision,
		City:        loc.City,
		ASN:         loc.ASN,
		Keys:        keys(loc),
		Databases:   db.Databases(),
	}
	if loc.Located {
		d.Coordinates = &Coordinates{Lat: loc.Lat, Lon: loc.Lon, Of: "the network"}
		if loc.Centroid {
			d.Coordinates.Of = "centroid of " + loc.Country
		}
	}
	if loc.ASN != 0 {
		at, _ := db.asn.lookup(addr.Unmap().WithZone(""))
		d.Organization = db.asn.system(at).name
	}
	return d
}

// keys returns the selectors that match loc, the most specific first: the
// order in which a geo map is searched. Prefixes are left out; there is no end
// to them.
func keys(loc policy.Location) []string {
	list := []string{}
	add := func(known bool, s policy.Selector) {
		if known {
			list = append(list, s.String())
		}
	}
	add(loc.ASN != 0, policy.Selector{ASN: loc.ASN})
	add(loc.City != "" && loc.Country != "", policy.Selector{City: loc.Country + "/" + loc.City})
	add(loc.Subdivision != "" && loc.Country != "", policy.Selector{Subdivision: loc.Country + "-" + loc.Subdivision})
	add(loc.Country != "", policy.Selector{Country: loc.Country})
	add(loc.Continent != "", policy.Selector{Continent: loc.Continent})
	add(true, policy.Selector{})
	return list
}

// String is the description as text, a line for each thing known, with a line
// break at the end.
func (d Description) String() string {
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	line("address", d.Addr.String())
	line("block", d.Block.String())
	line("continent", d.Continent)
	line("country", d.Country)
	line("subdivision", d.Subdivision)
	line("city", d.City)
	if d.ASN != 0 {
		line("as", strings.TrimSpace(fmt.Sprintf("AS%d %s", d.ASN, d.Organization)))
	}
	if c := d.Coordinates; c != nil {
		line("coordinates", fmt.Sprintf("%.4f, %.4f (%s)", c.Lat, c.Lon, c.Of))
	}
	if len(d.Keys) == 1 {
		line("known", "nothing: only the default of a geo map is for this address")
	}
	line("keys", strings.Join(d.Keys, " "))
	for _, database := range d.Databases {
		line("database", database.String())
	}
	table.Flush()
	return out.String()
}
