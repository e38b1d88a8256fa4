package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/zones"
)

func newZone(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "zone",
		Short:   "check and compare master files, or accept a reload that was held back",
		Example: "  perigee zone check zones/example.com.zone\n  perigee zone diff example.com --state /var/lib/perigee\n  perigee zone accept example.com --state /var/lib/perigee",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newZoneCheck(o), newZoneDiff(o), newZoneAccept(o))
	return c
}

func newZoneCheck(o *options) *cobra.Command {
	var origin string
	c := &cobra.Command{
		Use:     "check FILE | ZONE",
		Short:   "check one master file, or that of a zone in perigee.toml",
		Example: "  perigee zone check zones/example.com.zone\n  perigee zone check db.example --origin example.com\n  perigee zone check example.com -c /etc/perigee/perigee.toml",
		Args:    argsNamed(1, "the master file or the zone"),
		RunE: func(c *cobra.Command, args []string) error {
			path, origin, err := zoneFile(o, args[0], origin)
			if err != nil {
				return err
			}
			z, findings := zones.Load(path, zones.Options{Origin: origin})
			if o.json {
				if err := printJSON(c, findings); err != nil {
					return err
				}
			}
			bad := 0
			for _, f := range findings {
				if !f.Warning {
					bad++
				}
				if o.json {
					continue
				}
				if f.Warning {
					say(c, "warning: %v", findingError(f))
				} else {
					printError(c.ErrOrStderr(), findingError(f))
				}
			}
			if z == nil {
				return fmt.Errorf("zone %s: %s in %s", origin, plural(bad, "mistake"), path)
			}
			if !o.json {
				fmt.Fprintf(c.OutOrStdout(), "%s is good: %s, serial %d\n", z.Origin(), plural(z.Len(), "name"), z.Serial())
			}
			return nil
		},
	}
	c.Flags().StringVar(&origin, "origin", "", "the zone's `name` (default: the file's name without .zone)")
	return c
}

func newZoneAccept(o *options) *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:     "accept ZONE",
		Short:   "serve the new content of a zone that the shrink guard held back",
		Example: "  perigee zone accept example.com",
		Args:    argsNamed(1, "the zone"),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := runningState(o, state)
			if err != nil {
				return err
			}
			var s localStatus
			if err := localCall(c.Context(), dir, http.MethodPost, "/v1/zones/accept", url.Values{"zone": args}, &s); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is accepted as it is on disk\n", args[0])
			return nil
		},
	}
	c.Flags().StringVar(&state, "state", "", "the state `folder` of the running process")
	return c
}

func newReload(o *options) *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:     "reload",
		Short:   "have the running process read its configuration and zones again",
		Long:    "Has the process with this state folder read perigee.toml, zones, databases and certificates again, as SIGHUP does.\nOn a mistake it keeps what it had, and the mistake is shown here.",
		Example: "  perigee reload --state /var/lib/perigee",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := runningState(o, state)
			if err != nil {
				return err
			}
			var s localStatus
			if err := localCall(c.Context(), dir, http.MethodPost, "/v1/reload", nil, &s); err != nil {
				return err
			}
			for _, p := range s.Problems {
				say(c, "warning: %s", p)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s, pid %d: reloaded\n", s.Role, s.PID)
			return nil
		},
	}
	c.Flags().StringVar(&state, "state", "", "the state `folder` of the running process")
	return c
}

// runningState is the state folder of a process that runs on this machine.
// perigee.toml may be unreadable just now: the flag is enough.
func runningState(o *options, flag string) (string, error) {
	if flag != "" {
		return stateDir(flag, nil)
	}
	cfg, err := config.Load(o.config)
	if err != nil {
		return "", withHint(err, "--state DIR names the running process's state folder without perigee.toml")
	}
	return stateDir("", cfg)
}
