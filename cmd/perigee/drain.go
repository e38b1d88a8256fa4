package main

import (
	"context"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newDrain(o *options) *cobra.Command {
	return edgeCommand(o, "drain", "take an edge out of DNS answers",
		"Takes an edge out of steering: DNS answers lead elsewhere from now on, and clients\nfollow as the TTLs that they hold run out. The edge itself goes on serving.",
		(*control.Client).Drain, "is drained")
}

func newUndrain(o *options) *cobra.Command {
	return edgeCommand(o, "undrain", "take a drained edge back into DNS answers", "Ends a drain.", (*control.Client).Undrain, "is back")
}

// edgeCommand is a command about one edge that becomes one entry on the feed.
func edgeCommand(o *options, name, short, long string, call func(*control.Client, context.Context, string) (control.Appended, error), done string) *cobra.Command {
	return waitFlags(&cobra.Command{
		Use:     name + " EDGE",
		Short:   short,
		Long:    long,
		Example: "  perigee " + name + " fra1",
		Args:    argsNamed(1, "the edge"),
		RunE: func(c *cobra.Command, args []string) error {
			out, err := ask(o, func(cl *control.Client) (control.Appended, error) { return call(cl, c.Context(), args[0]) })
			if err != nil {
				return err
			}
			return showReceipts(c.Context(), c, o, out.Seq, args[0]+" "+done, nil)
		},
	})
}
