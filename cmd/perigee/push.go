package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"perigee.example/internal/control"
	"perigee.example/origin"
)

func newPush(o *options) *cobra.Command {
	var po control.PushOptions
	var preview string
	var rw rewriteFlags
	c := &cobra.Command{
		Use:   "push FOLDER SITE",
		Short: "upload a folder as a release of a site, and make it active",
		Long: `Hashes the folder, sends what the fleet lacks, and makes the release active: each
edge switches at once when it holds every file. A push that broke is continued by
running it again.

Where stderr is no terminal it says every ten seconds how far it is; with --json, one
object a line on stderr, at most each second. --wait tells which nodes are waited for.

--rewrite makes pages and style sheets refer to files by names that change with their
content, at that host of the site, and gives scripts and styles integrity. A reference
to what is not in the folder is an error.`,
		Example: "  perigee push ./public www\n  perigee push ./public www --dry-run\n  perigee push ./public www --preview menu\n  perigee push ./public www --rewrite https://cdn.example.com",
		Args:    argsNamed(2, "the folder", "the site"),
		RunE: func(c *cobra.Command, args []string) error {
			po.Dir, po.Site = args[0], args[1]
			if preview != "" {
				po.Channel = origin.PreviewPrefix + preview
			}
			if po.Channel != "" {
				if err := origin.CheckChannel(po.Channel); err != nil {
					return &usageError{err}
				}
			}
			var err error
			if po.Rewrite, err = rw.options(po.Channel); err != nil {
				return err
			}
			return push(c, o, po)
		},
	}
	c.Flags().BoolVar(&po.DryRun, "dry-run", false, "show what would be sent, and send nothing")
	c.Flags().BoolVar(&po.KeepInactive, "inactive", false, "upload the release, and leave the active one active")
	c.Flags().StringVar(&po.Channel, "channel", "", "make it active in this `channel`: prod, the site itself, or preview-NAME")
	c.Flags().StringVar(&preview, "preview", "", "short for --channel preview-`NAME`: served at preview-NAME.HOST")
	rw.define(c)
	c.MarkFlagsMutuallyExclusive("channel", "preview", "inactive")
	return waitFlags(c)
}

func push(c *cobra.Command, o *options, po control.PushOptions) error {
	if terminal(c.ErrOrStderr()) && !o.json {
		bar := &pushBar{c: c}
		po.Progress = bar.show
		defer bar.end()
	} else {
		po.Progress = (&pushLines{w: c.ErrOrStderr(), json: o.json, now: time.Now}).show
	}
	out, err := ask(o, func(cl *control.Client) (control.Pushed, error) { return cl.Push(c.Context(), po) })
	if err != nil {
		return err
	}
	for _, s := range out.Skipped {
		say(c, "left out: %s", s)
	}
	sayRewritten(c, out.Rewritten)
	short := out.Release.String()[:shortRelease]
	if po.DryRun {
		if o.json {
			return printJSON(c, out)
		}
		var bytes int64
		for _, b := range out.Missing {
			bytes += b.Size
		}
		files := plural(len(out.Missing)-out.MissingVariants, "file")
		fmt.Fprintf(c.OutOrStdout(), "%s of %d%s to send (%s of %s); release %s\n", files, out.Files, variants(out.MissingVariants), size(bytes), size(out.Bytes), short)
		return nil
	}
	what := fmt.Sprintf("sent %s of %d%s (%s of %s)", plural(out.Sent, "file"), out.Files, variants(out.Variants), size(out.SentBytes), size(out.Bytes))
	if po.KeepInactive {
		if o.json {
			return printJSON(c, out)
		}
		fmt.Fprintf(c.OutOrStdout(), "%s; release %s is uploaded and not active\n", what, short)
		return nil
	}
	at := ""
	if len(out.Hosts) > 0 {
		at = " at " + strings.Join(out.Hosts, ", ")
	}
	return showReceipts(c.Context(), c, o, out.Seq, fmt.Sprintf("%s; release %s is active%s", what, short, at), map[string]any{"push": out})
}

// variants tells of compressed variants that travel beside the files.
func variants(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %s", plural(n, "compressed variant"))
}

// shortRelease is how much of a release's id people are shown: "sha256-" and
// twelve digits, which `rollback` understands.
const shortRelease = len("sha256-") + 12

// pushBar draws the progress of a push on a terminal, one bar a stage.
type pushBar struct {
	c     *cobra.Command
	stage string
	bar   *progressbar.ProgressBar
}

func (b *pushBar) show(p control.Progress) {
	if p.Stage != b.stage {
		b.end()
		b.stage = p.Stage
		switch p.Stage {
		case origin.StageHash, origin.StageRewrite, origin.StageCompress, "upload":
			b.bar = progressbar.NewOptions64(max(p.From, 1), progressbar.OptionSetWriter(b.c.ErrOrStderr()),
				progressbar.OptionSetDescription(p.Stage), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish())
		}
	}
	if b.bar == nil {
		return
	}
	if p.From > 0 {
		b.bar.ChangeMax64(p.From)
	}
	_ = b.bar.Set64(p.Bytes) // it fails only past the end
}

func (b *pushBar) end() {
	if b.bar != nil {
		_ = b.bar.Finish()
		b.bar = nil
	}
}
