// Command perigee is a CDN of your own in one binary: the authoritative DNS
// that steers each client to the best edge, and the edges that serve it from
// pushed releases or pulled caches.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments; it returns the exit code:
// 0 done, 1 failed, 2 used wrongly.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	printError(stderr, err)
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// options are the flags that every command has.
type options struct {
	config  string // path of perigee.toml
	control string // address of the control API, or unix:PATH
	json    bool
}

// newRoot builds the command tree. One file a subcommand; each adds itself here.
func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:           "perigee",
		Short:         "a CDN of your own: steering DNS, HTTP cache and pushed releases in one binary",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Example:       "  perigee init my-cdn && cd my-cdn && perigee serve\n  perigee explain www.example.com --client 193.99.144.80\n  perigee status",
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("perigee {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	f := root.PersistentFlags()
	f.StringVarP(&o.config, "config", "c", envOr("PERIGEE_CONFIG", "perigee.toml"), "the fleet's `file`; also $PERIGEE_CONFIG")
	f.StringVar(&o.control, "control", os.Getenv("PERIGEE_CONTROL"), "control API: https://HOST:PORT or unix:PATH; also $PERIGEE_CONTROL")
	f.BoolVar(&o.json, "json", false, "print results as JSON")
	root.AddCommand(
		newInit(o), newCheck(o), newServe(o), newReload(o), newUpgrade(o),
		newExplain(o), newStatus(o), newZone(o), newGeo(o),
		newPush(o), newReleases(o), newRollback(o), newForget(o), newChannel(o), newPurge(o), newDrain(o), newUndrain(o),
		newLogin(o), newNode(o), newFeed(), newToken(o), newAudit(o), newBackup(o), newRestore(o), newDemo(o), newMan(),
	)
	addCobraExamples(root)
	return root
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && (v == "" || v == "(devel)") {
			v = s.Value[:12]
		}
	}
	return v
}
