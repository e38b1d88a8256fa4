package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newPurge(o *options) *cobra.Command {
	var soft, dryRun bool
	c := &cobra.Command{
		Use:   "purge URL… | SITE",
		Short: "have every edge stop using what it stored of a URL, or of a whole site",
		Long: `Purges URLs, each with all its variants and whatever the scheme and port, or all
that is stored of a site. With --soft stored responses become stale: they are
revalidated, and served if the origin fails.`,
		Example: "  perigee purge https://shop.example.com/prices.json\n  perigee purge shop --soft",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("a URL or a site is missing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			for _, arg := range args {
				if err := purge(c, o, arg, soft, dryRun); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&soft, "soft", false, "make stored responses stale instead of unusable")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be purged, and purge nothing")
	return c
}

func purge(c *cobra.Command, o *options, what string, soft, dryRun bool) error {
	isURL := strings.Contains(what, "://")
	name := "all of site " + what
	if isURL {
		normal, _, err := control.NormalURL(what)
		if err != nil {
			return &usageError{err}
		}
		name = normal
	}
	if dryRun {
		fmt.Fprintln(c.OutOrStdout(), "would purge", name)
		return nil
	}
	out, err := ask(o, func(cl *control.Client) (control.Appended, error) {
		if isURL {
			return cl.PurgeURL(c.Context(), what, soft)
		}
		return cl.PurgeSite(c.Context(), what, soft)
	})
	if err != nil {
		return err
	}
	return showReceipts(c.Context(), c, o, out.Seq, "purged "+name, nil)
}
