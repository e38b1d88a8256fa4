package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/zones"
)

// zoneDiff is what differs between two versions of a zone, for --json.
type zoneDiff struct {
	Zone      string   `json:"zone"`
	OldSerial uint32   `json:"old_serial"`
	NewSerial uint32   `json:"new_serial"`
	Removed   []string `json:"removed"`
	Added     []string `json:"added"`
}

func newZoneDiff(o *options) *cobra.Command {
	var origin, state string
	c := &cobra.Command{
		Use:   "diff OLD NEW | diff ZONE",
		Short: "records that differ between two master files, or between what is served and its file",
		Long: `Prints the records of OLD that NEW lacks, each after "- ", and those that NEW has
beside, each after "+ ": absolute names, owners in canonical order (RFC 4034 §6.1).
With one argument, the name of a zone, OLD is what the running process serves and
NEW its master file in perigee.toml: what a reload would change.`,
		Example: "  perigee zone diff db.example.old db.example --origin example.com\n  perigee zone diff example.com --state /var/lib/perigee",
		Args:    argsNamed(1, "the old master file or the zone", "the new master file"),
		RunE: func(c *cobra.Command, args []string) error {
			old, now, err := twoVersions(c.Context(), o, state, origin, args)
			if err != nil {
				return err
			}
			return printDiff(c, o, old, now)
		},
	}
	c.Flags().StringVar(&origin, "origin", "", "the zone's `name` (default: the new file's name without .zone)")
	c.Flags().StringVar(&state, "state", "", "the state `folder` of the running process")
	return c
}

// twoVersions loads what is to be compared.
func twoVersions(ctx context.Context, o *options, state, origin string, args []string) (old, now *zones.Zone, err error) {
	if len(args) == 2 {
		if origin == "" {
			origin = originOf(args[1])
		}
		old, errOld := loadZone(args[0], origin)
		now, errNow := loadZone(args[1], origin)
		return old, now, errors.Join(errOld, errNow)
	}
	z, err := zoneNamed(o, args[0])
	if err != nil {
		return nil, nil, err
	}
	dir, err := runningState(o, state)
	if err != nil {
		return nil, nil, err
	}
	if old, err = servedZone(ctx, dir, z.Origin); err != nil {
		return nil, nil, err
	}
	now, err = loadZone(z.File, z.Origin)
	return old, now, err
}

// originOf is the zone that a file is of, by its name.
func originOf(path string) string { return strings.TrimSuffix(filepath.Base(path), ".zone") }

// zoneFile is the master file that an argument means, and its zone: a file, or
// a zone that perigee.toml names.
func zoneFile(o *options, arg, origin string) (path, zone string, err error) {
	if info, err := os.Stat(arg); err == nil && !info.IsDir() || origin != "" {
		if origin == "" {
			origin = originOf(arg)
		}
		return arg, origin, nil
	}
	z, err := zoneNamed(o, arg)
	if err != nil {
		return "", "", err
	}
	return z.File, z.Origin, nil
}

// zoneNamed finds a zone in perigee.toml.
func zoneNamed(o *options, name string) (*config.Zone, error) {
	cfg, err := config.Load(o.config)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s is no file, and no zone can be looked up: %w", name, err), "name a master file, or perigee.toml with -c")
	}
	for i, z := range cfg.Zones {
		if strings.EqualFold(strings.TrimSuffix(z.Origin, "."), strings.TrimSuffix(name, ".")) {
			return &cfg.Zones[i], nil
		}
	}
	return nil, withHint(fmt.Errorf("%s is neither a file nor a zone in %s", name, o.config), "perigee status --state DIR lists the zones that a DNS node serves")
}

// loadZone loads a master file; the error has its mistakes.
func loadZone(path, origin string) (*zones.Zone, error) {
	z, findings := zones.Load(path, zones.Options{Origin: origin})
	if z != nil {
		return z, nil
	}
	var errs []error
	for _, f := range findings {
		if !f.Warning {
			errs = append(errs, findingError(f))
		}
	}
	return nil, errors.Join(errs...)
}

// maxServedText bounds the text of a zone that a process hands out: twice what
// a master file may have, since its data is in hex.
const maxServedText = 1 << 30

// servedZone asks the process with this state folder for a zone as it is served.
func servedZone(ctx context.Context, dir, origin string) (*zones.Zone, error) {
	var text []byte
	err := localDo(ctx, dir, http.MethodGet, "/v1/zones/text", url.Values{"zone": {origin}}, func(body io.Reader) (err error) {
		text, err = io.ReadAll(io.LimitReader(body, maxServedText+1))
		if err == nil && len(text) > maxServedText {
			err = fmt.Errorf("zone %s is larger than %d octets", origin, maxServedText)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	z, findings := zones.Parse("the zone as it is served", text, zones.Options{Origin: origin})
	if z == nil {
		return nil, fmt.Errorf("zone %s: what is served cannot be read: %v", origin, findings)
	}
	return z, nil
}

func printDiff(c *cobra.Command, o *options, old, now *zones.Zone) error {
	d := zoneDiff{Zone: now.Origin(), OldSerial: old.Serial(), NewSerial: now.Serial(), Removed: []string{}, Added: []string{}}
	out := c.OutOrStdout()
	for change := range zones.Changes(old, now) {
		removed, added := change.Difference()
		d.Removed, d.Added = append(d.Removed, removed...), append(d.Added, added...)
		if o.json {
			continue
		}
		for _, r := range removed {
			fmt.Fprintln(out, "-", r)
		}
		for _, r := range added {
			fmt.Fprintln(out, "+", r)
		}
	}
	if o.json {
		return printJSON(c, d)
	}
	changed := len(d.Removed) + len(d.Added)
	switch {
	case changed == 0:
		say(c, "%s: no difference, serial %d", d.Zone, d.NewSerial)
	default:
		say(c, "%s: %d removed, %d added, serial %d to %d", d.Zone, len(d.Removed), len(d.Added), d.OldSerial, d.NewSerial)
		if d.NewSerial == d.OldSerial {
			say(c, "warning: the content differs and the serial does not: secondaries will not take it")
		}
	}
	return nil
}
