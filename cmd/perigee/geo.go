package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/internal/geo"
)

// geoAttribution is shown where the built-in country data is used.
const geoAttribution = geo.Attribution

func newGeo(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "geo",
		Short:   "ask the geo databases",
		Example: "  perigee geo lookup 193.99.144.80",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newGeoLookup(o))
	return c
}

func newGeoLookup(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "lookup IP…",
		Short:   "show what is known of an address, and by which database",
		Long:    "Looks addresses up in the databases that perigee.toml names; without a perigee.toml, in the built-in country data.",
		Example: "  perigee geo lookup 193.99.144.80\n  perigee geo lookup --json 2001:db8::1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("an IP address is missing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			db, err := geoForLookup(c, o)
			if err != nil {
				return err
			}
			var list []geo.Description
			for _, arg := range args {
				addr, err := netip.ParseAddr(arg)
				if err != nil {
					return usagef("%q is not an IP address", arg)
				}
				list = append(list, db.Describe(addr))
			}
			if o.json {
				return printJSON(c, list)
			}
			for i, d := range list {
				if i > 0 {
					fmt.Fprintln(c.OutOrStdout())
				}
				fmt.Fprint(c.OutOrStdout(), d)
			}
			return nil
		},
	}
}

// geoForLookup opens the databases of perigee.toml. A perigee.toml that is not
// there is no mistake here, unless it was asked for.
func geoForLookup(c *cobra.Command, o *options) (*geo.DB, error) {
	cfg, err := config.Load(o.config)
	if errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("config") {
		return geo.Builtin()
	}
	if err != nil {
		return nil, err
	}
	return openGeo(cfg)
}
