package main

import (
	"strings"

	"github.com/spf13/cobra"

	"perigee.example/origin"
)

// rewriteFlags are those of push that say how references are rewritten.
type rewriteFlags struct {
	base    string
	except  []string
	missing string
}

// Words of --rewrite-missing.
const (
	missingError = "error"
	missingWarn  = "warn"
)

func (r *rewriteFlags) define(c *cobra.Command) {
	c.Flags().StringVar(&r.base, "rewrite", "", "refer to files by names of their content, at this `URL`; / is the page's own host")
	c.Flags().StringArrayVar(&r.except, "rewrite-except", nil, "leave alone what this `GLOB` matches, such as api/**, and references to it (may be given again)")
	c.Flags().StringVar(&r.missing, "rewrite-missing", missingError, "what a reference to nothing is: error or warn")
}

// options are nil when nothing is to be rewritten.
func (r *rewriteFlags) options(channel string) (*origin.RewriteOptions, error) {
	if r.base == "" {
		if len(r.except) > 0 || r.missing != missingError {
			return nil, usagef("--rewrite-except and --rewrite-missing go with --rewrite")
		}
		return nil, nil
	}
	if r.missing != missingError && r.missing != missingWarn {
		return nil, usagef("--rewrite-missing %q: want %s or %s", r.missing, missingError, missingWarn)
	}
	o := &origin.RewriteOptions{Base: r.base, Except: r.except, Lax: r.missing == missingWarn}
	if err := o.Check(); err != nil {
		return nil, &usageError{err}
	}
	// What only a preview has is served at its own host and no other.
	if host := o.Host(); strings.HasPrefix(channel, origin.PreviewPrefix) && host != "" && !strings.HasPrefix(host, channel+".") {
		return nil, usagef("a preview's files are at %s.HOST, not at %s: write --rewrite /, the host of the page", channel, host)
	}
	return o, nil
}

// sayRewritten tells what rewriting did, and what it left.
func sayRewritten(c *cobra.Command, r *origin.Rewritten) {
	if r == nil {
		return
	}
	for _, remark := range r.Remarks {
		say(c, "warning: %s", remark)
	}
	say(c, "rewrote %s in %s and %s; %s by content", plural(r.References, "reference"), plural(r.Pages, "page"), plural(r.Sheets, "style sheet"), plural(r.Named, "file named", "files named"))
}
