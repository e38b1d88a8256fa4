package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "write a man page for every command into a folder",
		Example: "  perigee man /usr/local/share/man/man1",
		Args:    argsNamed(1, "the folder"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true // the same input gives the same pages
			return doc.GenManTree(root, &doc.GenManHeader{Title: "PERIGEE", Section: "1", Source: "perigee " + version(), Manual: "Perigee"}, args[0])
		},
	}
}
