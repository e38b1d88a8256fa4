package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
	"go4.org/netipx"
)

// minNetworks is how many networks the source must have, both families
// together. It had 1.37 million in June 2026; far fewer means that the package
// has changed its shape or lost half of its data, and then a person must look.
const minNetworks = 1_000_000

// description stands in the converted database.
const description = "Country by IP address. IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0; converted, continents added"

// conversion is the result of one run, and what there is to tell about it.
type conversion struct {
	mmdb         []byte
	epoch        int64 // build time of the source, seconds since 1970
	read4, read6 int   // networks in the source
	wrote        int   // networks in the result, after merging equal neighbours
	refused      []refusal
	left         *netipx.IPSet // addresses that the source knows and the result does not
	countries    map[string]bool
}

// refusal is a network of the source that mmdbwriter did not take.
type refusal struct {
	network netip.Prefix
	country string
	why     error
}

// sourceRecord is one record of the source: {"country_code": "DE"}.
type sourceRecord struct {
	Country string `maxminddb:"country_code"`
}

// resultRecord is what is compared of a record of the result.
type resultRecord struct {
	Country struct {
		Code string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
}

// convert turns the source into the schema of GeoIP2-Country: the country's
// code and the continent's, without names, which steering does not need.
func convert(source []byte, table map[string]country, least int) (*conversion, error) {
	db, err := maxminddb.OpenBytes(source)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	c := &conversion{epoch: int64(db.Metadata.BuildEpoch), countries: make(map[string]bool)}
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		BuildEpoch:   c.epoch,
		DatabaseType: "GeoIP2-Country",
		Description:  map[string]string{"en": description},
		RecordSize:   24, // 16.7 million nodes and octets of data; 1.37 million are used
	})
	if err != nil {
		return nil, err
	}
	if err := c.fill(tree, db, table); err != nil {
		return nil, err
	}
	if n := c.read4 + c.read6; n < least {
		return nil, fmt.Errorf("source: %d networks, expected at least %d: has the package changed its shape?", n, least)
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		return nil, err
	}
	c.mmdb = out.Bytes()
	return c, c.compare(db)
}

// fill inserts every network of db into tree.
func (c *conversion) fill(tree *mmdbwriter.Tree, db *maxminddb.Reader, table map[string]country) error {
	records := make(map[string]mmdbtype.Map)
	for network := range db.Networks() {
		var from sourceRecord
		if err := network.Decode(&from); err != nil {
			return fmt.Errorf("source: %s: %w", network.Prefix(), err)
		}
		if network.Prefix().Addr().Is4() {
			c.read4++
		} else {
			c.read6++
		}
		record, ok := records[from.Country]
		if !ok {
			row, known := table[from.Country]
			if !known {
				return fmt.Errorf("source: %s is in %q, which is on no continent: add it to continents", network.Prefix(), from.Country)
			}
			record = mmdbtype.Map{
				"continent": mmdbtype.Map{"code": mmdbtype.String(row.continent)},
				"country":   mmdbtype.Map{"iso_code": mmdbtype.String(from.Country)},
			}
			records[from.Country] = record
			c.countries[from.Country] = true
		}
		err := tree.Insert(netipx.PrefixIPNet(network.Prefix()), record)
		var reserved *mmdbwriter.ReservedNetworkError
		var aliased *mmdbwriter.AliasedNetworkError
		switch {
		case errors.As(err, &reserved), errors.As(err, &aliased):
			c.refused = append(c.refused, refusal{network.Prefix(), from.Country, err})
		case err != nil:
			return fmt.Errorf("%s: %w", network.Prefix(), err)
		}
	}
	return nil
}

// compare looks up every network of the source in the result. What the result
// does not have goes to left; it is an error if the two differ in a country.
func (c *conversion) compare(db *maxminddb.Reader) error {
	made, err := maxminddb.OpenBytes(c.mmdb)
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if err := made.Verify(); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	for range made.Networks() {
		c.wrote++
	}
	var left netipx.IPSetBuilder
	for network := range db.Networks() {
		whole := network.Prefix()
		if c.wasRefused(whole) {
			left.AddPrefix(whole)
			continue
		}
		var from sourceRecord
		if err := network.Decode(&from); err != nil {
			return err
		}
		for part := range made.NetworksWithin(whole, maxminddb.IncludeNetworksWithoutData()) {
			block := part.Prefix()
			var to resultRecord
			if err := part.Decode(&to); err != nil {
				return fmt.Errorf("result: %s: %w", block, err)
			}
			switch to.Country.Code {
			case from.Country:
			case "":
				left.AddPrefix(block)
			default:
				return fmt.Errorf("result: %s is %q, in the source %q", block, to.Country.Code, from.Country)
			}
		}
	}
	c.left, err = left.IPSet()
	return err
}

func (c *conversion) wasRefused(network netip.Prefix) bool {
	for _, r := range c.refused {
		if r.network == network {
			return true
		}
	}
	return false
}
