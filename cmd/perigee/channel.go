package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/origin"
	"perigee.example/zones"
)

func newChannel(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "channel",
		Short:   "list a site's previews, make one the site itself, or delete it",
		Example: "  perigee push ./public www --preview menu\n  perigee channel list www\n  perigee channel promote www preview-menu\n  perigee channel delete www preview-menu",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newChannelList(o), newChannelPromote(o), newChannelDelete(o))
	return c
}

func newChannelList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list SITE",
		Short:   "what is active at the site itself (prod) and in its previews",
		Example: "  perigee channel list www",
		Args:    argsNamed(1, "the site"),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := ask(o, func(cl *control.Client) (control.ChannelList, error) { return cl.Channels(c.Context(), args[0]) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, l := range list.Channels {
				release, at := "no release", "-"
				if !l.Release.IsZero() {
					release = l.Release.String()[:shortRelease]
				}
				if l.Activated != nil {
					at = l.Activated.Local().Format(time.DateTime)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.Channel, release, at, strings.Join(l.Hosts, " "))
			}
			return t.Flush()
		},
	}
}

func newChannelPromote(o *options) *cobra.Command {
	return waitFlags(&cobra.Command{
		Use:   "promote SITE CHANNEL",
		Short: "make the release of a preview the active one of the site",
		Long: `Makes the release that is active in a preview the active one of the site itself,
as it is: nothing is sent. The preview stays until it is deleted.`,
		Example: "  perigee channel promote www preview-menu",
		Args:    argsNamed(2, "the site", "the channel"),
		RunE: func(c *cobra.Command, args []string) error {
			var release origin.Digest
			out, err := ask(o, func(cl *control.Client) (out control.Activated, err error) {
				release, out, err = cl.Promote(c.Context(), args[0], args[1])
				return out, err
			})
			if err != nil {
				return err
			}
			return showReceipts(c.Context(), c, o, out.Seq, fmt.Sprintf("release %s of %s is active", release.String()[:shortRelease], args[0]), map[string]any{"release": release})
		},
	})
}

func newChannelDelete(o *options) *cobra.Command {
	return waitFlags(&cobra.Command{
		Use:     "delete SITE CHANNEL",
		Short:   "take a preview off every edge",
		Long:    "Takes a preview off every edge. Its releases stay, and can be pushed again without\nsending them.",
		Example: "  perigee channel delete www preview-menu",
		Args:    argsNamed(2, "the site", "the channel"),
		RunE: func(c *cobra.Command, args []string) error {
			out, err := ask(o, func(cl *control.Client) (control.Appended, error) {
				return cl.DeleteChannel(c.Context(), args[0], args[1], nil)
			})
			if err != nil {
				return err
			}
			return showReceipts(c.Context(), c, o, out.Seq, fmt.Sprintf("%s of %s is deleted", args[1], args[0]), nil)
		},
	})
}

// certHosts are the names that a site's certificate must cover.
func certHosts(s *config.Site) []string {
	if h := s.PreviewsBelow(); h != "" {
		return append(s.Hosts[:len(s.Hosts):len(s.Hosts)], "*."+h)
	}
	return s.Hosts
}

// checkPreviews warns of sites whose previews nobody can find, though one of
// our zones could name them.
func checkPreviews(cfg *config.Config, zs []*zones.Zone) (warnings []string) {
	for _, s := range cfg.Sites {
		h := s.PreviewsBelow()
		if h == "" {
			continue
		}
		host, err1 := zones.ParseName(h + ".")
		wild, err2 := zones.ParseName("*." + h + ".")
		if err1 != nil || err2 != nil {
			continue // no name of a zone
		}
		for _, z := range zs {
			if _, named := z.Find(host); !named {
				continue
			}
			if _, ok := z.Find(wild); !ok {
				warnings = append(warnings, fmt.Sprintf("site %s has previews, but zone %s has no *.%s: without that name nobody finds them; give it what %s has, and steer it the same way", s.Name, z.Origin(), h, h))
			}
		}
	}
	return warnings
}
