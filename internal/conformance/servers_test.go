package conformance

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// zone is a zone as the servers are to serve it.
type zone struct {
	origin string // with the final dot
	text   string // the master file
	plain  string // the master file before it was signed
}

func origins(list []zone) []string {
	var names []string
	for _, z := range list {
		names = append(names, z.origin)
	}
	return names
}

// zoneFile is the name of a zone's master file, which perigee reads the origin from.
func zoneFile(origin string) string { return strings.TrimSuffix(origin, ".") + ".zone" }

// withZones adds the master files to the configuration of a server.
func withZones(list []zone, name, config string) map[string]string {
	files := map[string]string{name: config}
	for _, z := range list {
		files[zoneFile(z.origin)] = z.text
	}
	return files
}

// startPerigee serves zones with the real program and as little configuration
// as it needs.
func startPerigee(t *testing.T, list []zone) *server { return startPerigeeAt(t, list, "", "") }

func startPerigeeAt(t *testing.T, list []zone, host, port string) *server {
	t.Helper()
	bin, err := perigee()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, program{
		name: "perigee",
		host: host,
		port: port,
		files: func(dir, host, port string) map[string]string {
			return withZones(list, "perigee.toml", fmt.Sprintf("version = 1\nstate = %q\n[dns]\nlisten = [\"%s:%s\"]\nzone_files = [\"*.zone\"]\n",
				filepath.Join(dir, "state"), host, port))
		},
		args: func(dir string) []string {
			return []string{bin, "serve", "dns", "-c", filepath.Join(dir, "perigee.toml")}
		},
		ready: serves(origins(list)),
	})
}

func startKnot(t *testing.T, list []zone) *server {
	t.Helper()
	return start(t, program{
		name: "knot",
		files: func(dir, host, port string) map[string]string {
			var b strings.Builder
			fmt.Fprintf(&b, "server:\n  listen: %s@%s\n  rundir: %s\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n", host, port, dir)
			fmt.Fprintf(&b, "database:\n  storage: %s/db\nlog:\n  - target: stderr\n    any: warning\n", dir)
			fmt.Fprintf(&b, "template:\n  - id: default\n    storage: %s\n    zonefile-sync: -1\n    journal-content: none\nzone:\n", dir)
			for _, z := range list {
				fmt.Fprintf(&b, "  - domain: %s\n    file: %s\n", z.origin, zoneFile(z.origin))
			}
			return withZones(list, "knot.conf", b.String())
		},
		args:  func(dir string) []string { return []string{"knotd", "-c", filepath.Join(dir, "knot.conf")} },
		ready: serves(origins(list)),
	})
}

func startNSD(t *testing.T, list []zone) *server {
	t.Helper()
	return start(t, program{
		name: "nsd",
		files: func(dir, host, port string) map[string]string {
			var b strings.Builder
			fmt.Fprintf(&b, "server:\n  ip-address: %s@%s\n  server-count: 1\n  username: \"\"\n  zonesdir: %q\n  database: \"\"\n", host, port, dir)
			fmt.Fprintf(&b, "  pidfile: \"\"\n  xfrdfile: \"%[1]s/xfrd\"\n  xfrdir: %[1]q\n  zonelistfile: \"%[1]s/zones.list\"\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n", dir)
			b.WriteString("remote-control:\n  control-enable: no\n")
			for _, z := range list {
				fmt.Fprintf(&b, "zone:\n  name: %q\n  zonefile: %q\n", z.origin, zoneFile(z.origin))
			}
			return withZones(list, "nsd.conf", b.String())
		},
		args:  func(dir string) []string { return []string{"nsd", "-d", "-c", filepath.Join(dir, "nsd.conf")} },
		ready: serves(origins(list)),
	})
}

func startBIND(t *testing.T, list []zone) *server {
	t.Helper()
	return start(t, program{
		name: "bind",
		host: "127.0.0.1", // named opens only what an interface has, and no other address of 127/8
		files: func(dir, host, port string) map[string]string {
			var b strings.Builder
			fmt.Fprintf(&b, "controls { };\noptions {\n  directory %q;\n  pid-file none;\n  listen-on port %s { %s; };\n  listen-on-v6 { none; };\n", dir, port, host)
			b.WriteString("  recursion no;\n  notify no;\n  dnssec-validation no;\n  empty-zones-enable no;\n  minimal-responses no; zero-no-soa-ttl no;\n};\n")
			for _, z := range list {
				fmt.Fprintf(&b, "zone %q { type primary; file %q; check-names ignore; check-integrity no; check-dup-records ignore; };\n", z.origin, zoneFile(z.origin))
			}
			return withZones(list, "named.conf", b.String())
		},
		args: func(dir string) []string {
			return []string{"named", "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf")}
		},
		ready: serves(origins(list)),
	})
}
