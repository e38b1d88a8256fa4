package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
	"perigee.example/origin"
)

func newReleases(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "releases SITE",
		Short:   "list a site's releases",
		Example: "  perigee releases www",
		Args:    argsNamed(1, "the site"),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := ask(o, func(cl *control.Client) (control.ReleaseList, error) { return cl.Releases(c.Context(), args[0]) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, r := range list.Releases {
				state := "sealed"
				switch {
				case r.Active:
					state = "active"
				case r.Activated != nil:
					state = "retired"
				}
				if len(r.Previews) > 0 && !r.Active {
					state = strings.Join(r.Previews, " ")
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Release.String()[:shortRelease], state, plural(r.Files, "file"), size(r.Bytes), r.Sealed.Local().Format(time.DateTime))
			}
			return t.Flush()
		},
	}
}

func newRollback(o *options) *cobra.Command {
	return waitFlags(&cobra.Command{
		Use:     "rollback SITE [RELEASE]",
		Short:   "make an older release active again: the one before, or the one named",
		Example: "  perigee rollback www\n  perigee rollback www sha256-3f1c09aa2b44",
		Args:    argsNamed(1, "the site", "the release"),
		RunE: func(c *cobra.Command, args []string) error {
			id := ""
			if len(args) > 1 {
				id = args[1]
			}
			var release origin.Digest
			out, err := ask(o, func(cl *control.Client) (out control.Activated, err error) {
				release, out, err = cl.Rollback(c.Context(), args[0], id)
				return out, err
			})
			if err != nil {
				return err
			}
			return showReceipts(c.Context(), c, o, out.Seq, fmt.Sprintf("release %s of %s is active", release.String()[:shortRelease], args[0]), map[string]any{"release": release})
		},
	})
}
