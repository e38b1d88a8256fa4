package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/internal/durable"
)

// controlDir is the control node's folder in the state folder.
const controlDir = "control"

func newBackup(o *options) *cobra.Command {
	var withoutBlobs bool
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "save all that the control node is into one file, while it runs",
		Long: `Saves the control node's CA and its key, the hashes of the tokens, the list of
nodes, the log and the blobs of all releases, as they were at one moment, into a
tar archive with checksums, mode 0600. It is a secret: who has it can add nodes.
Needs a token with the right admin, or the admin socket.`,
		Example: "  perigee backup perigee-2026-11-24.tar",
		Args:    argsNamed(1, "the file"),
		RunE: func(c *cobra.Command, args []string) error {
			return backup(c, o, args[0], !withoutBlobs)
		},
	}
	c.Flags().BoolVar(&withoutBlobs, "without-blobs", false, "leave the blobs out, and keep the list of them: pushing the sites again brings them back")
	return c
}

func backup(c *cobra.Command, o *options, path string, blobs bool) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return withHint(fmt.Errorf("%s exists already", path), "name another file, or remove it")
	}
	part := path + ".part" // FILE is there when it is whole, or not at all
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return withHint(err, "another backup may be writing it; else remove it")
	}
	defer func() {
		if err != nil {
			os.Remove(part)
		}
	}()
	defer f.Close()
	if _, err := ask(o, func(cl *control.Client) (struct{}, error) { return struct{}{}, cl.Backup(c.Context(), f, blobs) }); err != nil {
		return err
	}
	head, err := control.CheckBackup(f)
	if err != nil {
		return fmt.Errorf("what arrived is no whole backup: %w", err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if o.json {
		return printJSON(c, head)
	}
	left := ""
	if head.BlobsLeftOut {
		left = ", left out"
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: seq %d, epoch %d, %s of %s%s\n", path, head.Head.Seq, head.Head.Epoch, plural(head.Blobs, "blob"), size(head.Bytes), left)
	return nil
}

func newRestore(o *options) *cobra.Command {
	var state string
	var accept bool
	c := &cobra.Command{
		Use:   "restore [FILE]",
		Short: "make the control node's state from a backup, into an empty folder",
		Long: `Makes the state of a control node from what backup saved: in the state folder that
serve will use, in which there must be none. All of FILE is checked first.

A backup may be older than what the fleet has seen. So a restored control node
changes nothing until each of its nodes has come back and has not seen more; then
it goes on by itself. When one has, it is refused, stays as it is and goes on
serving, and so do commands, until --accept-rollback gives up what came after the
backup: a new epoch begins, and every node revalidates what it holds. With FILE it
does so at once; without, it settles a restore that waits.`,
		Example: "  perigee restore perigee-2026-11-24.tar --state /var/lib/perigee\n  perigee restore --accept-rollback",
		Args:    argsNamed(0, "the file"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && !accept {
				return usagef("the file is missing")
			}
			var cfg *config.Config
			if state == "" && os.Getenv("STATE_DIRECTORY") == "" {
				var err error
				if cfg, err = config.Load(o.config); err != nil {
					return err
				}
			}
			dir, err := stateDir(state, cfg)
			if err != nil {
				return err
			}
			lock, err := lockState(dir)
			if err != nil {
				return err
			}
			defer lock.Close()
			dir = filepath.Join(dir, controlDir)
			if len(args) == 0 {
				return acceptRollback(c, dir)
			}
			return restore(c, o, dir, args[0], accept)
		},
	}
	c.Flags().StringVar(&state, "state", "", "the state `folder` that serve will use")
	c.Flags().BoolVar(&accept, "accept-rollback", false, "give up what came after the backup, and begin a new epoch")
	return c
}

func acceptRollback(c *cobra.Command, dir string) error {
	m, err := control.AcceptRollback(c.Context(), dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s goes on from the backup of %s, in a new epoch\n", dir, m.Backup.Format(time.DateTime))
	return nil
}

func restore(c *cobra.Command, o *options, dir, path string, accept bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head, err := control.Restore(c.Context(), dir, f, accept)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if o.json {
		return printJSON(c, head)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: the backup of %s, seq %d, %s\n", dir, head.Created.Format(time.DateTime), head.Head.Seq, plural(head.Blobs, "blob"))
	if head.BlobsLeftOut {
		say(c, "blobs were left out of it: push each site again")
	}
	if !accept {
		say(c, "it changes nothing until every node has said that it has not seen more: `perigee status` shows which")
	}
	return nil
}
