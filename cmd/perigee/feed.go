package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"perigee.example/feed"
)

func newFeed() *cobra.Command {
	c := &cobra.Command{
		Use:     "feed",
		Short:   "keep the log in a NATS cluster of yours",
		Example: "  perigee feed account --key-file feed.nk > perigee.conf",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newFeedAccount())
	return c
}

func newFeedAccount() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "account",
		Short: "print the account that control nodes need at NATS",
		Long: `Prints the account for the configuration of your NATS servers, with exactly the
rights that a control node uses, and makes the key that it proves itself with, if
the file is not there. Every control node has a copy of that file; the servers have
its public half alone, which is in what is printed.`,
		Example: "  perigee feed account --key-file feed.nk > perigee.conf",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			public, made, err := feed.ControlKey(key)
			if err != nil {
				return err
			}
			if made {
				say(c, "made %s; copy it to each control node, mode 0600, and name it in perigee.toml: [feed] credentials = %q", key, filepath.Base(key))
			}
			fmt.Fprint(c.OutOrStdout(), feed.Account(public))
			return nil
		},
	}
	c.Flags().StringVar(&key, "key-file", "feed.nk", "the `file` of the key; it is a secret")
	return c
}
