package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newToken(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "token",
		Short:   "make tokens that may do some things on some sites, list and remove them",
		Example: "  perigee token add ci --site www --can push,purge --expires 90d\n  perigee token list\n  perigee token remove ci",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newTokenAdd(o), newTokenList(o), newTokenRemove(o))
	return c
}

func newTokenAdd(o *options) *cobra.Command {
	var req control.TokenRequest
	var expires, out string
	c := &cobra.Command{
		Use:   "add NAME --can RIGHT[,RIGHT]… [--site SITE]…",
		Short: "make a token and print it, once",
		Long: `Makes a token for the control API and prints it: it is kept nowhere, only its hash
on the control node. It may do what --can says and nothing else:

  push           push, activate, roll back and list releases of the sites named
  purge          purge anything of the sites named
  purge:PREFIX   purge URLs and prefixes below https://host/path/ of these sites
  drain          drain, undrain and force edges
  read           status, receipts, and releases of every site
  admin          everything, nodes and tokens included`,
		Example: `  perigee token add ci --site www --can push,purge --expires 90d --out ci.token
  perigee token add images --site shop --can purge:https://shop.example.com/img/
  perigee token add dashboard --can read`,
		Args: argsNamed(1, "the token's name"),
		RunE: func(c *cobra.Command, args []string) error {
			req.Name = args[0]
			if len(req.Can) == 0 {
				return usagef("--can is missing: say what the token may do")
			}
			life, err := parseLife(expires)
			if err != nil {
				return &usageError{err}
			}
			req.ExpiresIn = int64(life / time.Second)
			return addToken(c, o, req, out)
		},
	}
	c.Flags().StringSliceVar(&req.Can, "can", nil, "the `rights`: push, purge, purge:PREFIX, drain, read, admin")
	c.Flags().StringSliceVar(&req.Sites, "site", nil, "a `site` that push and purge are for (repeatable)")
	c.Flags().StringVar(&expires, "expires", "", "when it stops working, such as 90d or 12h (default: never)")
	c.Flags().StringVar(&out, "out", "", "write it to this `file`, mode 0600, instead of stdout")
	return c
}

func addToken(c *cobra.Command, o *options, req control.TokenRequest, out string) error {
	w := c.OutOrStdout()
	var f *os.File
	if out != "" { // first the file: a token that cannot be saved is not made
		var err error
		if f, err = os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return withHint(err, "name another file with --out")
		}
		w = f
	}
	added, err := ask(o, func(cl *control.Client) (control.TokenAdded, error) { return cl.TokenAdd(c.Context(), req) })
	if err == nil && !(o.json && f == nil) {
		_, err = fmt.Fprintln(w, added.Secret)
	}
	if f != nil {
		err = errors.Join(err, f.Sync(), f.Close())
		if err != nil {
			os.Remove(out)
		}
	}
	switch {
	case err != nil:
		return err
	case o.json && f != nil:
		return printJSON(c, added.Token) // the secret is in the file
	case o.json:
		return printJSON(c, added)
	case f != nil:
		fmt.Fprintln(c.OutOrStdout(), out)
	default:
		say(c, "token %s: keep it now, it is not shown again", added.Name)
	}
	return nil
}

// parseLife reads a duration with days: "90d", "12h"; "" is no end.
func parseLife(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	const day = 24 * time.Hour
	life, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16) // some 180 years
		life = time.Duration(n) * day
	}
	if err != nil || life < time.Second {
		return 0, fmt.Errorf("--expires %q: write a duration such as 90d or 12h", s)
	}
	return life, nil
}

func newTokenList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "list the tokens: what each may do, when it ends and when it was last used",
		Example: "  perigee token list",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := ask(o, func(cl *control.Client) (control.TokenList, error) { return cl.Tokens(c.Context()) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, k := range list.Tokens {
				may := strings.Join(k.Can, ", ")
				if len(k.Sites) > 0 {
					may += " on " + strings.Join(k.Sites, ", ")
				}
				end := "never ends"
				if k.Expires != nil {
					end = "ends " + k.Expires.Local().Format(time.DateOnly)
					if list.Time.After(*k.Expires) {
						end = "ended " + k.Expires.Local().Format(time.DateOnly)
					}
				}
				used := "never used"
				if k.Used != nil {
					used = "used " + k.Used.Local().Format(time.DateTime)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.Name, may, end, used)
			}
			if len(list.Silent) > 0 {
				say(c, "uses at %s are not known: no answer", strings.Join(list.Silent, ", "))
			}
			return t.Flush()
		},
	}
}

func newTokenRemove(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "take a token away: the next call with it is refused",
		Example: "  perigee token remove ci",
		Args:    argsNamed(1, "the token's name"),
		RunE: func(c *cobra.Command, args []string) error {
			removed, err := ask(o, func(cl *control.Client) (control.TokenRemoved, error) {
				return cl.TokenRemove(c.Context(), args[0])
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, removed)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is removed\n", args[0])
			return nil
		},
	}
}
