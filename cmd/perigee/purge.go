package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newPurge(o *options) *cobra.Command {
	var soft, dryRun, prefix bool
	var tags []string
	c := &cobra.Command{
		Use:   "purge [--prefix] URL… | [--tag TAG]… SITE…",
		Short: "have every edge stop using what it stored of a URL, a prefix, a tag or a whole site",
		Long: `Purges URLs, each with all its variants and whatever the scheme and port; with
--prefix each URL's path and all below it, with any query; with --tag what the
origin has tagged so (Surrogate-Key, Cache-Tag, Cache-Groups) on the sites named;
or all that is stored of sites. With --soft stored responses become stale: they
are revalidated, and served if the origin fails.`,
		Example: `  perigee purge https://shop.example.com/prices.json
  perigee purge --prefix https://shop.example.com/img/
  perigee purge --tag summer shop
  perigee purge shop --soft`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("a URL or a site is missing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			purges, err := purgesOf(args, tags, prefix)
			if err != nil {
				return err
			}
			for _, p := range purges {
				p.Soft = soft
				if err := purge(c, o, p, dryRun); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&prefix, "prefix", false, "purge each URL's path and all below it")
	c.Flags().StringArrayVar(&tags, "tag", nil, "purge what carries this tag on the sites named (repeatable)")
	c.Flags().BoolVar(&soft, "soft", false, "make stored responses stale instead of unusable")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be purged, and purge nothing")
	return waitFlags(c)
}

// purgesOf reads the command line: URLs, or sites with the tags to purge there.
func purgesOf(args, tags []string, prefix bool) ([]control.Purge, error) {
	var purges []control.Purge
	for _, arg := range args {
		isURL := strings.Contains(arg, "://")
		switch {
		case prefix && len(tags) > 0:
			return nil, usagef("--prefix and --tag do not go together: purge one, then the other")
		case isURL && len(tags) > 0:
			return nil, usagef("a tag is a site's: name the site instead of %s", arg)
		case !isURL && prefix:
			return nil, usagef("%s is no URL: write the prefix as https://host/path", arg)
		case prefix:
			purges = append(purges, control.Purge{Prefix: arg})
		case isURL:
			purges = append(purges, control.Purge{URL: arg})
		case len(tags) == 0:
			purges = append(purges, control.Purge{Site: arg, All: true})
		}
		for _, tag := range tags {
			if tag == "" {
				return nil, usagef("the tag is empty")
			}
			purges = append(purges, control.Purge{Site: arg, Tag: tag})
		}
	}
	return purges, nil
}

func purge(c *cobra.Command, o *options, p control.Purge, dryRun bool) error {
	out, err := ask(o, func(cl *control.Client) (control.Purged, error) { return cl.Purge(c.Context(), p, dryRun) })
	if err != nil {
		return err
	}
	if !dryRun {
		return showReceipts(c.Context(), c, o, out.Seq, "purged "+out.String(), map[string]any{"purge": out.Purge})
	}
	if o.json {
		return printJSON(c, out)
	}
	fmt.Fprintln(c.OutOrStdout(), "would purge", out.String())
	return nil
}
