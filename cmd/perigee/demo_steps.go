package main

import (
	"fmt"
	"strings"
	"time"
)

// demoStep is one command of the screen that the demo prints. "demo --check"
// runs the same string in a shell and compares what it prints with Want.
type demoStep struct {
	Say  string   // a heading; empty continues the one before
	Cmd  string   // as a person pastes it
	Want []string // regular expressions ((?m) is on) that the output must match
	Not  []string // and must not match
	// Within is how long --check repeats the command until it matches: 0 runs
	// it once. It is set where the screen tells a person to wait.
	Within time.Duration
}

// demoSteps is the list, for the addresses of one running demo.
func demoSteps(d *demo) []demoStep {
	fra, iad, sin := d.edgeAddr("fra1"), d.edgeAddr("iad1"), d.edgeAddr("sin1")
	dig := fmt.Sprintf("dig @%s -p %d +short www.%s A", demoDNSHost, d.ports.dns, demoZone)
	get := func(scheme, host string, port int, path, flags string) string {
		return fmt.Sprintf("curl -s%s --resolve %s:%d:$edge %s://%s:%d%s", flags, host, port, scheme, host, port, path)
	}
	shop, www := "shop."+demoZone, "www."+demoZone
	line := func(addr string) string { return "^" + strings.ReplaceAll(addr, ".", `\.`) + "$" }
	return []demoStep{
		{Say: "this shell finds the demo's perigee, its configuration and its admin token",
			Cmd: ". " + d.path("env")},

		{Say: "DNS steers a client to the nearest edge: a German, an American, a Singaporean and a Norwegian network",
			Cmd: dig + " +subnet=193.99.144.0/24   # Germany: fra1", Want: []string{line(fra)}},
		{Cmd: dig + " +subnet=17.0.0.0/24        # United States: iad1", Want: []string{line(iad)}},
		{Cmd: dig + " +subnet=165.21.83.0/24     # Singapore: sin1", Want: []string{line(sin)}},
		{Cmd: dig + " +subnet=129.240.2.0/24     # Norway: fra1", Want: []string{line(fra)}},
		{Say: "the whole answer: its TTL, and the scope in which it holds (CLIENT-SUBNET: source/scope)",
			Cmd:  fmt.Sprintf("dig @%s -p %d www.%s A +subnet=193.99.144.0/24 | grep -E 'CLIENT-SUBNET|^www|status'", demoDNSHost, d.ports.dns, demoZone),
			Want: []string{"status: NOERROR", `CLIENT-SUBNET: 193\.99\.144\.0/24/\d+`, `^www\.` + demoZone + `\.\s+` + fmt.Sprint(demoTTL) + `\s+IN\s+A\s+` + fra}},
		{Say: "the same by TCP",
			Cmd: dig + " +tcp +subnet=165.21.83.0/24", Want: []string{line(sin)}},

		{Say: "a pull site through the steered edge: the first request is a miss, the second a hit with Age and Cache-Status",
			Cmd: "edge=$(" + dig + " +subnet=193.99.144.0/24); echo $edge", Want: []string{line(fra)}},
		{Cmd: get("http", shop, d.ports.http, "/", "i"), Want: []string{`^HTTP/1\.1 200`, `(?i)^cache-status:.*fwd=`, `demo shop`}, Not: []string{`(?i)^cache-status:.*; ?hit`}},
		{Cmd: "sleep 1; " + get("http", shop, d.ports.http, "/", "i"), Want: []string{`^HTTP/1\.1 200`, `(?i)^age: [1-9]`, `(?i)^cache-status:.*; ?hit`, `demo shop`}},
		{Say: "a range of a larger file",
			Cmd: get("http", shop, d.ports.http, "/big.bin", "i") + " -r 1000-1009 -o /dev/null -D -", Want: []string{`^HTTP/1\.1 206`, `(?i)^content-range: bytes 1000-1009/`}},

		{Say: "push a site: only what the fleet lacks travels, and every edge sends a receipt",
			Cmd: "perigee push " + d.path("site") + " www", Want: []string{`(?i)active`, `fra1`, `iad1`, `sin1`}},
		{Say: "it is served by HTTPS too, with a certificate of the demo's own CA",
			Cmd: get("https", www, d.ports.https, "/", "i") + " --cacert " + d.path("tls", "ca.pem"), Want: []string{`^HTTP/1\.1 200`, `(?i)^etag: "`, `(?i)^perigee-release:`, `first edition`}},
		{Say: "change a file and push again: one file travels",
			Cmd: "sed -i.bak 's/first edition/second edition/' " + d.path("site", "index.html") + " && rm " + d.path("site", "index.html.bak")},
		{Cmd: "perigee push " + d.path("site") + " www", Want: []string{`^sent 1 file of`}},
		{Cmd: get("http", www, d.ports.http, "/", ""), Want: []string{`second edition`}},
		{Say: "and back, in a second",
			Cmd: "perigee rollback www", Want: []string{`fra1`, `iad1`, `sin1`}},
		{Cmd: get("http", www, d.ports.http, "/", ""), Want: []string{`first edition`}},
		{Cmd: "perigee releases www", Want: []string{`(?i)active`, `(?i)retired`}},

		{Say: "purge a URL: the next request is a miss again",
			Cmd: fmt.Sprintf("perigee purge http://%s:%d/", shop, d.ports.http), Want: []string{`fra1`, `iad1`, `sin1`}},
		{Cmd: get("http", shop, d.ports.http, "/", "i"), Want: []string{`^HTTP/1\.1 200`, `(?i)^cache-status:.*fwd=`}, Not: []string{`(?i)^cache-status:.*; ?hit`}},

		{Say: "drain fra1: the next answer is another edge",
			Cmd: "perigee drain fra1", Want: []string{`dns1`}},
		{Cmd: dig + " +subnet=193.99.144.0/24", Want: []string{line(iad)}},
		{Say: "why? explain follows one client from the DNS question to the origin",
			Cmd: "perigee explain www." + demoZone + " --client 193.99.144.80", Want: []string{`(?i)country DE|location.*DE`, `(?i)fra1.*drain`, `iad1`}},
		{Cmd: "perigee undrain fra1", Want: []string{`dns1`}},
		{Cmd: dig + " +subnet=193.99.144.0/24", Want: []string{line(fra)}},

		{Say: fmt.Sprintf("kill an edge: DNS moves away within %s (the demo starts it again %s later)", demoDetection, demoRestart),
			Cmd: fmt.Sprintf("kill -9 $(cat %s); sleep %d", d.path("fra1.pid"), int(demoDetection.Seconds()))},
		{Cmd: dig + " +subnet=193.99.144.0/24", Want: []string{line(iad)}},
		{Say: "the fleet at a glance",
			Cmd: "perigee status", Want: []string{`fra1`, `iad1`, `sin1`, `dns1`}},
		{Say: "and the way back",
			Cmd: dig + " +subnet=193.99.144.0/24   # fra1 again, once it has been up for a while", Want: []string{line(fra)}, Within: 45 * time.Second},
	}
}

// printSteps shows the list to a person.
func printSteps(d *demo, steps []demoStep) {
	for _, s := range steps {
		if s.Say != "" {
			fmt.Fprintf(d.out, "\n  # %s\n", s.Say)
		}
		fmt.Fprintf(d.out, "  %s\n", s.Cmd)
	}
}
