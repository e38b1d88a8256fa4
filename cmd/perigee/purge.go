package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newPurge(o *options) *cobra.Command {
	var soft, dryRun, prefix bool
	var tags []string
	var from string
	c := &cobra.Command{
		Use:   "purge [--prefix] [--from FILE] URL… | [--tag TAG]… SITE…",
		Short: "have every edge stop using what it stored of a URL, a prefix, a tag or a whole site",
		Long: `Purges URLs, each with all its variants and whatever the scheme and port; with
--prefix each URL's path and all below it, with any query; with --tag what the
origin has tagged so (Surrogate-Key, Cache-Tag, Cache-Groups) on the sites named;
or all that is stored of sites. With --soft stored responses become stale: they
are revalidated, and served if the origin fails.

--from reads more of what may stand on the command line from a file, one a line; empty
lines and those that begin with # are left out, and - is stdin. Several purges are
sent together, and either all of a thousand are understood or none is done.`,
		Example: `  perigee purge https://shop.example.com/prices.json
  perigee purge --prefix https://shop.example.com/img/
  perigee purge --tag summer shop
  perigee purge shop --soft
  perigee purge --from changed-urls.txt --wait all`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && from == "" {
				return usagef("a URL or a site is missing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if from != "" {
				more, err := linesOf(c.InOrStdin(), from)
				if err != nil {
					return err
				}
				args = append(args, more...)
			}
			purges, err := purgesOf(args, tags, prefix)
			if err != nil {
				return err
			}
			for i := range purges {
				purges[i].Soft = soft
			}
			return purge(c, o, purges, dryRun)
		},
	}
	c.Flags().StringVar(&from, "from", "", "read more to purge from this `file`, one a line; - is stdin")
	c.Flags().BoolVar(&prefix, "prefix", false, "purge each URL's path and all below it")
	c.Flags().StringArrayVar(&tags, "tag", nil, "purge what carries this tag on the sites named (repeatable)")
	c.Flags().BoolVar(&soft, "soft", false, "make stored responses stale instead of unusable")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be purged, and purge nothing")
	return waitFlags(c)
}

// maxPurgeLine bounds one line of --from: longer ones are no URL that control takes.
const maxPurgeLine = 64 << 10

// linesOf reads what a file lists, one a line; "-" is stdin.
func linesOf(stdin io.Reader, name string) ([]string, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	var lines []string
	scan := bufio.NewScanner(stdin)
	scan.Buffer(nil, maxPurgeLine)
	n := 0
	for scan.Scan() {
		n++
		if line := strings.TrimSpace(scan.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	if len(lines) == 0 {
		return nil, withHint(fmt.Errorf("%s names nothing to purge", name), "one URL a line")
	}
	return lines, nil
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

// purge sends what is to be purged. One purge has a line of its own; several
// are told together, since they share entries of the log.
func purge(c *cobra.Command, o *options, ps []control.Purge, dryRun bool) error {
	if len(ps) == 1 {
		return purgeOne(c, o, ps[0], dryRun)
	}
	out, err := ask(o, func(cl *control.Client) (control.PurgedMany, error) {
		return cl.PurgeMany(c.Context(), ps, dryRun, func(d time.Duration) {
			say(c, "the control node takes no more purges at once: going on in %s", d)
		})
	})
	if err != nil {
		if n := len(out.Purged); n > 0 && !dryRun {
			err = withHint(err, fmt.Sprintf("the first %d of %d are done; purging them again does no harm", n, len(ps)))
		}
		return err
	}
	if !dryRun {
		what := purgedWhat(out.Purged)
		return showReceipts(c.Context(), c, o, out.Seq, what, map[string]any{"purged": out.Purged})
	}
	if o.json {
		return printJSON(c, out)
	}
	for i := range out.Purged {
		fmt.Fprintln(c.OutOrStdout(), "would purge", out.Purged[i].String())
	}
	return nil
}

// maxPurgeLines is how many purges are shown one by one when they are done.
const maxPurgeLines = 10

// purgedWhat says what was purged: each, unless there are many.
func purgedWhat(ps []control.Purged) string {
	if len(ps) > maxPurgeLines {
		return fmt.Sprintf("purged %s and %d more", ps[0].String(), len(ps)-1)
	}
	var lines []string
	for i := range ps {
		lines = append(lines, "purged "+ps[i].String())
	}
	return strings.Join(lines, "\n")
}

func purgeOne(c *cobra.Command, o *options, p control.Purge, dryRun bool) error {
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
