package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newNode(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "node",
		Short:   "add nodes to the fleet, and remove them",
		Example: "  perigee node add fra1 --out fra1.pem\n  perigee node remove fra1",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newNodeAdd(o), newNodeRemove(o))
	return c
}

func newNodeAdd(o *options) *cobra.Command {
	var out string
	var replace bool
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "make the credentials file of a node",
		Long: `Makes a key and a certificate for a node and writes them, with the fleet's CA and
the addresses of the control node, into one file of mode 0600. Copy it to the node
as node.pem in its state folder. An edge's node has the edge's name.`,
		Example: "  perigee node add fra1 --out fra1.pem",
		Args:    argsNamed(1, "the node"),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				out = args[0] + ".pem"
			}
			// First the file, then the node: a name that cannot be saved is not made.
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return withHint(err, "name another file with --out")
			}
			added, err := ask(o, func(cl *control.Client) (control.NodeAdded, error) {
				return cl.NodeAdd(c.Context(), args[0], replace)
			})
			if err == nil {
				_, err = f.WriteString(added.Credentials)
			}
			if err == nil {
				err = f.Sync()
			}
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				os.Remove(out)
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), out)
			say(c, "copy it to the node, as %s in its state folder; it is a secret", filepath.Base(nodeFile))
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "the `file` to write (default: NAME.pem)")
	c.Flags().BoolVar(&replace, "replace", false, "the node exists: make new credentials, and refuse its old ones")
	return c
}

func newNodeRemove(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "cut a node off from the fleet, within 5 s",
		Long:    "Refuses the node's credentials from now on and ends its connections, those to\nother edges too. It goes on serving what it has; remove its addresses from DNS,\ntoo.",
		Example: "  perigee node remove fra1",
		Args:    argsNamed(1, "the node"),
		RunE: func(c *cobra.Command, args []string) error {
			removed, err := ask(o, func(cl *control.Client) (control.NodeRemoved, error) { return cl.NodeRemove(c.Context(), args[0]) })
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
