package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// server is one contender. configure writes what it needs into dir and returns
// its arguments; it runs in the foreground.
type server struct {
	name      string
	program   string
	configure func(dir, zones string, port int, d data) ([]string, error)
}

var servers = []server{
	{"perigee", "", configurePerigee},
	{"knot", "/usr/sbin/knotd", configureKnot},
	{"gdnsd", "/usr/sbin/gdnsd", configureGdnsd},
	{"nsd", "/usr/sbin/nsd", configureNSD},
	{"bind", "/usr/sbin/named", configureBIND},
}

// write writes a configuration.
func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

func configurePerigee(dir, zones string, port int, _ data) ([]string, error) {
	conf := filepath.Join(dir, "perigee.toml")
	text := fmt.Sprintf("version = 1\n[dns]\nlisten = [\"127.0.0.1:%d\"]\nzone_files = [%q]\n", port, filepath.Join(zones, "*.zone"))
	return []string{"serve", "dns", "-c", conf, "--state", filepath.Join(dir, "state")}, write(conf, text)
}

func configureKnot(dir, zones string, port int, d data) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n  listen: 127.0.0.1@%d\n  rundir: %s\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n", port, dir)
	fmt.Fprintf(&b, "database:\n  storage: %s\ntemplate:\n  - id: default\n    storage: %s\n    journal-content: none\n    zonefile-sync: -1\nzone:\n", dir, zones)
	for _, origin := range d.origins() {
		fmt.Fprintf(&b, "  - domain: %s\n    file: %s.zone\n", origin, origin)
	}
	conf := filepath.Join(dir, "knot.conf")
	return []string{"-c", conf}, write(conf, b.String())
}

func configureGdnsd(dir, zones string, port int, d data) ([]string, error) {
	if err := os.Mkdir(filepath.Join(dir, "zones"), 0o755); err != nil {
		return nil, err
	}
	for _, origin := range d.origins() {
		if err := os.Symlink(filepath.Join(zones, origin+".zone"), filepath.Join(dir, "zones", origin)); err != nil {
			return nil, err
		}
	}
	text := fmt.Sprintf("options => { listen => [ 127.0.0.1:%d ], udp_threads => 1, tcp_threads => 1, run_dir => %s, state_dir => %s }\n", port, dir, dir)
	return []string{"-c", dir, "start"}, write(filepath.Join(dir, "config"), text)
}

func configureNSD(dir, zones string, port int, d data) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n  server-count: 1\n  ip-address: 127.0.0.1\n  port: %d\n  username: \"\"\n  chroot: \"\"\n  zonesdir: %q\n  pidfile: %q\n", port, zones, filepath.Join(dir, "nsd.pid"))
	fmt.Fprintf(&b, "  database: \"\"\n  zonelistfile: %q\n  xfrdfile: %q\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n", filepath.Join(dir, "zone.list"), filepath.Join(dir, "xfrd"))
	for _, origin := range d.origins() {
		fmt.Fprintf(&b, "zone:\n  name: %q\n  zonefile: %q\n", origin, origin+".zone")
	}
	conf := filepath.Join(dir, "nsd.conf")
	return []string{"-d", "-c", conf}, write(conf, b.String())
}

func configureBIND(dir, zones string, port int, d data) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "options { directory %q; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile none; minimal-responses yes; dnssec-validation no; notify no; };\ncontrols {};\n", dir, port)
	for _, origin := range d.origins() {
		fmt.Fprintf(&b, "zone %q { type primary; file %q; };\n", origin, filepath.Join(zones, origin+".zone"))
	}
	conf := filepath.Join(dir, "named.conf")
	return []string{"-f", "-n", "1", "-c", conf}, write(conf, b.String())
}
