package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// eventually is how long --check waits for something that takes a few probes
// or a reconnect: far more than it takes, so that a slow machine passes.
const eventually = 45 * time.Second

// killEach kills every node in turn with SIGKILL, checks that the rest goes
// on, starts it again, and checks that it resumes where it was.
func (c *demoChecker) killEach(ctx context.Context) {
	d := c.d
	dig := fmt.Sprintf("dig @%s -p %d +short +time=2 +tries=2 www.%s A", demoDNSHost, d.ports.dns, demoZone)
	at := func(edge, site, path string) string {
		host := site + "." + demoZone
		return fmt.Sprintf("curl -s -m 5 -i --resolve %s:%d:%s http://%s:%d%s", host, d.ports.http, d.edgeAddr(edge), host, d.ports.http, path)
	}
	is := func(edge string) []string {
		return []string{"^" + strings.ReplaceAll(d.edgeAddr(edge), ".", `\.`) + "$"}
	}
	german, asian := dig+" +subnet=193.99.144.0/24", dig+" +subnet=165.21.83.0/24"
	release := []string{`^HTTP/1\.1 200`, "first edition"}

	// Something to remember for each: a drain, a cached page at each edge.
	c.step(ctx, demoStep{Say: "before the kills: sin1 is drained, every edge has the shop's page stored", Cmd: "perigee drain sin1", Want: []string{"dns1"}})
	c.step(ctx, demoStep{Cmd: asian, Not: is("sin1"), Within: eventually})
	for _, e := range demoEdges {
		c.step(ctx, demoStep{Cmd: at(e.Name, "shop", "/about.html"), Want: []string{`^HTTP/1\.1 200`}})
	}

	c.killed(ctx, "origin", func() {
		c.step(ctx, demoStep{Cmd: at("iad1", "shop", "/about.html"), Want: []string{`^HTTP/1\.1 200`, "Made by perigee demo"}})
		c.step(ctx, demoStep{Cmd: at("iad1", "shop", "/css/site.css"), Want: []string{`^HTTP/1\.1 50[234]`}})
	}, func() {
		c.step(ctx, demoStep{Cmd: at("iad1", "shop", "/css/site.css"), Want: []string{`^HTTP/1\.1 200`}, Within: eventually})
	})
	c.killed(ctx, "ctl", func() {
		c.step(ctx, demoStep{Cmd: german, Want: is("fra1"), Within: eventually})
		c.step(ctx, demoStep{Cmd: asian, Not: is("sin1")})
		c.step(ctx, demoStep{Cmd: at("fra1", "www", "/"), Want: release})
		c.step(ctx, demoStep{Cmd: at("fra1", "shop", "/about.html"), Want: []string{`^HTTP/1\.1 200`}})
		c.step(ctx, demoStep{Cmd: "perigee releases www; test $? = 1", Want: []string{"perigee: error"}})
	}, func() {
		c.step(ctx, demoStep{Cmd: "perigee releases www", Want: []string{"(?i)active"}, Within: eventually})
		c.step(ctx, demoStep{Cmd: fmt.Sprintf("perigee purge http://shop.%s:%d/about.html", demoZone, d.ports.http), Want: []string{"fra1", "iad1", "sin1"}, Within: eventually})
	})
	c.killed(ctx, "dns1", func() {
		c.step(ctx, demoStep{Cmd: at("fra1", "www", "/"), Want: release})
		c.step(ctx, demoStep{Cmd: at("sin1", "shop", "/about.html"), Want: []string{`^HTTP/1\.1 200`}})
	}, func() {
		c.step(ctx, demoStep{Cmd: german, Want: is("fra1"), Within: eventually})
		c.step(ctx, demoStep{Cmd: asian, Want: []string{`^127\.`}, Not: is("sin1")})
	})
	for _, e := range demoEdges {
		other := "iad1"
		if e.Name == other {
			other = "fra1"
		}
		c.killed(ctx, e.Name, func() {
			c.step(ctx, demoStep{Cmd: german, Want: []string{`^127\.`}, Not: is(e.Name), Within: eventually})
			c.step(ctx, demoStep{Cmd: at(other, "www", "/"), Want: release})
		}, func() {
			c.step(ctx, demoStep{Cmd: at(e.Name, "www", "/"), Want: release, Within: eventually})
			c.step(ctx, demoStep{Cmd: at(e.Name, "shop", "/about.html"), Want: []string{`^HTTP/1\.1 200`}})
		})
	}
	c.step(ctx, demoStep{Say: "after the kills: the fleet is whole", Cmd: "perigee undrain sin1", Want: []string{"dns1"}, Within: eventually})
	c.step(ctx, demoStep{Cmd: german, Want: is("fra1"), Within: eventually})
	c.step(ctx, demoStep{Cmd: asian, Want: is("sin1"), Within: eventually})
	c.step(ctx, demoStep{Cmd: "perigee push " + d.path("site") + " www", Want: []string{"fra1", "iad1", "sin1"}, Within: eventually})
	c.step(ctx, demoStep{Cmd: at("sin1", "www", "/"), Want: []string{"second edition"}, Within: eventually})
}

// killed kills a node, checks what must go on without it, starts it again, and
// checks that it resumes.
func (c *demoChecker) killed(ctx context.Context, name string, without, resumed func()) {
	if ctx.Err() != nil {
		return
	}
	n := c.d.node(name)
	fmt.Fprintf(c.d.out, "\n# kill -9 %d (%s): the rest goes on\n", n.pid(), name)
	n.kill()
	without()
	fmt.Fprintf(c.d.out, "\n# %s is started again and resumes where it was\n", name)
	if err := c.d.launch(ctx, n); err != nil {
		c.failures = append(c.failures, err)
		fmt.Fprintln(c.d.out, err)
		return
	}
	resumed()
}
