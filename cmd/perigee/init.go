package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
)

// starterPage is the site that init makes, so that the first push has content.
const starterPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>It works</title></head>
<body><h1>It works</h1><p>Pushed to a Perigee edge. Change this file and run <code>perigee push</code> again.</p></body></html>
`

func newInit(_ *options) *cobra.Command {
	var so config.StarterOptions
	c := &cobra.Command{
		Use:   "init [FOLDER]",
		Short: "write a first perigee.toml, zone file and site, ready to serve",
		Long: `Writes perigee.toml, a zone file and a one-page site into a folder (default: this
one). They are accepted by serve as they are, need no root, and listen on
loopback. Nothing that exists is overwritten.`,
		Example: "  perigee init my-cdn && cd my-cdn && perigee serve\n  perigee init --zone cdn.example.com",
		Args:    argsNamed(0, "the folder"),
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return writeStarter(c, dir, so)
		},
	}
	c.Flags().StringVar(&so.Zone, "zone", config.StarterZone, "the zone's `name`")
	c.Flags().StringVar(&so.Edge, "edge", config.StarterEdge, "the edge's `name`")
	return c
}

func writeStarter(c *cobra.Command, dir string, so config.StarterOptions) error {
	toml, zone, err := config.Starter(so)
	if err != nil {
		return &usageError{err}
	}
	files := []struct {
		name string
		text []byte
	}{
		{"perigee.toml", toml},
		{so.ZoneFile(), zone},
		{"public/index.html", []byte(starterPage)},
	}
	for _, f := range files { // look first, so that nothing is written by halves
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if _, err := os.Lstat(path); err == nil {
			return withHint(fmt.Errorf("%s exists already", path), "name another folder, or remove it")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.text, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), path)
	}
	where := "" // a command to paste
	if filepath.Clean(dir) != "." {
		where = "cd " + shellQuote(dir) + " && "
	}
	say(c, "next: %sperigee serve", where)
	say(c, "then, from another shell: %sperigee push public www", where)
	return nil
}

// shellQuote is a word that a POSIX shell reads as s.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
