package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/spf13/cobra"
)

// The demo is a fleet like any other: each node is a process of this binary,
// started from a perigee.toml with a state folder and credentials of its own.
// Nothing outside of demo*.go knows that a demo runs.

const (
	demoZone    = "perigee.test"
	demoDNSHost = "127.0.0.1"
	demoTTL     = 5 // seconds; short, so that a person sees steering move

	// demoDetection is how long DNS may take to leave a killed edge: three
	// probes of 500 ms and what a busy machine adds.
	demoDetection = 4 * time.Second
	// demoRestart is how long the demo leaves a killed node down.
	demoRestart = 12 * time.Second
	// demoStart bounds the wait for one node to be ready.
	demoStart = 30 * time.Second
)

// demoEdges are the three edges: loopback addresses, true coordinates.
var demoEdges = []struct {
	Name, Addr string
	Lat, Lon   float64
	City       string
}{
	{"fra1", "127.0.1.1", 50.11, 8.68, "Frankfurt"},
	{"iad1", "127.0.1.2", 39.04, -77.49, "Ashburn, Virginia"},
	{"sin1", "127.0.1.3", 1.35, 103.82, "Singapore"},
}

// demoPorts are the ports of one demo.
type demoPorts struct {
	dns, http, https, origin, admin, feed, blob int
}

// demo is one running demo.
type demo struct {
	dir   string
	exe   string
	ports demoPorts
	nodes []*demoNode
	out   io.Writer // the screen
}

func newDemo(_ *options) *cobra.Command {
	var dir string
	var check bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "run a whole CDN on loopback and print commands to paste",
		Long: `Runs a DNS node, a control node, three edges and an origin on loopback, each a
process of its own, and prints commands to paste. Ctrl-C ends it all.

With --check it runs those commands itself in a shell with dig and curl,
compares what they print, then kills each node in turn and checks that the rest
goes on and that the node resumes where it was.`,
		Example: "  perigee demo\n  perigee demo --check",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runDemo(c.Context(), c.OutOrStdout(), dir, check)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "an empty `folder` for the demo's files (default: a temporary one, removed at the end)")
	c.Flags().BoolVar(&check, "check", false, "run the commands, compare, kill each node in turn; exit 1 with what failed")
	return c
}

func runDemo(ctx context.Context, out io.Writer, dir string, check bool) (err error) {
	d, cleanup, err := prepareDemo(out, dir)
	if err != nil {
		return err
	}
	defer cleanup()
	defer d.stop()
	if err := d.start(ctx); err != nil {
		return err
	}
	d.intro()
	steps := demoSteps(d)
	if check {
		return d.check(ctx, steps)
	}
	printSteps(d, steps)
	fmt.Fprintf(d.out, "\nCtrl-C ends the demo.\n")
	d.keep(ctx)
	fmt.Fprintf(d.out, "\nending\n")
	return nil
}

// prepareDemo writes every file that the demo's nodes start from.
func prepareDemo(out io.Writer, dir string) (*demo, func(), error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cleanup := func() {}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "perigee-demo-"); err != nil {
			return nil, nil, err
		}
		cleanup = func() { os.RemoveAll(dir) }
	} else {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, nil, err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, err
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			return nil, nil, fmt.Errorf("demo: %s is not an empty folder", dir)
		}
	}
	d := &demo{dir: dir, exe: exe, out: out}
	if err := d.write(); err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("demo: %w", err)
	}
	return d, cleanup, nil
}

func (d *demo) path(elem ...string) string { return filepath.Join(append([]string{d.dir}, elem...)...) }

func (d *demo) edgeAddr(name string) string {
	for _, e := range demoEdges {
		if e.Name == name {
			return e.Addr
		}
	}
	return ""
}

// write chooses ports and writes configuration, zone, sites and certificates.
func (d *demo) write() error {
	var err error
	if d.ports, err = chooseDemoPorts(); err != nil {
		return err
	}
	for _, sub := range []string{"bin", "zones", "tls", "state"} {
		if err := os.MkdirAll(d.path(sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(d.exe, d.path("bin", "perigee")); err != nil {
		return err
	}
	if err := writeDemoSite(d.path("site"), "demo site"); err != nil {
		return err
	}
	if err := writeDemoSite(d.path("origin"), "demo shop"); err != nil {
		return err
	}
	if err := writeDemoCertificates(d.path("tls"), "www."+demoZone, "shop."+demoZone); err != nil {
		return err
	}
	for name, text := range map[string]*template.Template{
		"perigee.toml":                demoTOML,
		"zones/" + demoZone + ".zone": demoZoneFile,
		"env":                         demoEnv,
	} {
		f, err := os.Create(d.path(filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if err := text.Execute(f, d.values()); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// chooseDemoPorts takes the usual port of each listener where it is free, and
// any free one where it is not.
func chooseDemoPorts() (demoPorts, error) {
	edges := []string{}
	for _, e := range demoEdges {
		edges = append(edges, e.Addr)
	}
	local := []string{"127.0.0.1"}
	var p demoPorts
	taken := map[int]bool{}
	for _, want := range []struct {
		port  *int
		usual int
		hosts []string
		udp   bool
	}{
		{&p.dns, 5300, local, true}, {&p.http, 8080, edges, false}, {&p.https, 8443, edges, false},
		{&p.origin, 9080, local, false}, {&p.admin, 7440, local, false}, {&p.feed, 7441, local, false}, {&p.blob, 7442, local, false},
	} {
		port, err := freePort(want.usual, want.hosts, want.udp, taken)
		if err != nil {
			return p, err
		}
		*want.port = port
		taken[port] = true
	}
	return p, nil
}

// maxPortTries bounds the search for a port that is free on several addresses.
const maxPortTries = 50

func freePort(usual int, hosts []string, udp bool, taken map[int]bool) (int, error) {
	var last error
	for try := range maxPortTries {
		port := usual
		if try > 0 {
			l, err := net.Listen("tcp", net.JoinHostPort(hosts[0], "0"))
			if err != nil {
				return 0, loopbackHint(err)
			}
			port = l.Addr().(*net.TCPAddr).Port
			l.Close()
		}
		if taken[port] {
			continue
		}
		if last = portFree(port, hosts, udp); last == nil {
			return port, nil
		}
	}
	return 0, loopbackHint(fmt.Errorf("no free port: %w", last))
}

func loopbackHint(err error) error {
	return withHint(err, "the demo needs 127.0.0.1 and 127.0.1.1 to 127.0.1.3; macOS and the BSDs add the latter by: ifconfig lo0 alias 127.0.1.1")
}

func portFree(port int, hosts []string, udp bool) error {
	for _, host := range hosts {
		addr := net.JoinHostPort(host, fmt.Sprint(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		l.Close()
		if !udp {
			continue
		}
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		p.Close()
	}
	return nil
}
