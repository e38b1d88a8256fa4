package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newForget(o *options) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "forget SITE [RELEASE…]",
		Short: "give up old releases: those that the site does not keep, or those named",
		Long: `Forgets releases, so that they can no longer be activated, and what only they need
is removed: on edges at once, on the control node a day later. A release that is active
at the site or in a preview is not forgotten. Without a release it forgets those that
keep and keep_for of [site.NAME] give up; the control node does that by itself every hour.

The same folder can be pushed again: it becomes the same release, and is sent.`,
		Example: "  perigee forget www --dry-run\n  perigee forget www sha256-3f1c09aa2b44",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("the site is missing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			out, err := ask(o, func(cl *control.Client) (control.Forgot, error) {
				return cl.Forget(c.Context(), args[0], args[1:], dryRun)
			})
			if err != nil {
				return err
			}
			return showForgot(c, o, out)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be forgotten, and forget nothing")
	return waitFlags(c)
}

func showForgot(c *cobra.Command, o *options, out control.Forgot) error {
	if out.Seq == 0 && o.json {
		return printJSON(c, out)
	}
	if len(out.Releases) == 0 {
		fmt.Fprintf(c.OutOrStdout(), "nothing to forget: %s keeps %s\n", out.Site, kept(out))
		return nil
	}
	if out.Seq == 0 {
		t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, r := range out.Releases {
			fmt.Fprintf(t, "%s\twould be forgotten\t%s\t%s\tlast used %s\n", r.Release.String()[:shortRelease], plural(r.Files, "file"), size(r.Bytes), r.LastUsed.Local().Format(time.DateTime))
		}
		return t.Flush()
	}
	var names []string
	for _, r := range out.Releases {
		names = append(names, r.Release.String()[:shortRelease])
	}
	return showReceipts(c.Context(), c, o, out.Seq, fmt.Sprintf("forgot %s of %s: %s", plural(len(names), "release"), out.Site, strings.Join(names, ", ")), map[string]any{"forgot": out})
}

// kept is what a site keeps, in words.
func kept(out control.Forgot) string {
	if out.KeepSeconds == 0 {
		return "every release (keep_for is \"0\")"
	}
	return fmt.Sprintf("what was in use within %dh, and the last %d that were active", out.KeepSeconds/3600, out.KeepReleases)
}
