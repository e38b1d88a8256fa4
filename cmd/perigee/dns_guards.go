package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
)

// dnsGuards keeps a DNS server's cookies and limits as the configuration has
// them.
type dnsGuards struct {
	server  *dnsserver.Server
	cookies *cookieJar

	mu    sync.Mutex // guards what follows
	on    bool       // cookies are given
	limit config.Limit
}

// openGuards reads the secrets of the state folder and puts the guards in force.
func openGuards(server *dnsserver.Server, dir string, cfg *config.Config) (*dnsGuards, error) {
	jar, err := openCookies(filepath.Join(dir, "dns", "cookies"), time.Now())
	if err != nil {
		return nil, err
	}
	g := &dnsGuards{server: server, cookies: jar}
	g.configure(cfg)
	return g, nil
}

// configure takes a new configuration over. What the limit has counted is
// forgotten only when the limit is another.
func (g *dnsGuards) configure(cfg *config.Config) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = cfg.DNS.Cookies
	g.setCookies()
	if c := cfg.DNS.Limit; !reflect.DeepEqual(g.limit, c) {
		g.limit = c
		g.server.SetRateLimit(dnsserver.RateLimit{Rate: c.Rate, Slip: c.Slip, Exempt: c.Exempt})
	}
}

// setCookies gives the server the secrets as they are now, or none.
func (g *dnsGuards) setCookies() {
	if g.on {
		g.server.SetCookies(g.cookies.use())
	} else {
		g.server.SetCookies(nil)
	}
}

// roll rolls the secrets over until ctx ends.
func (g *dnsGuards) roll(ctx context.Context, log *slog.Logger) error {
	for {
		next, err := g.cookies.turn(time.Now())
		if err != nil {
			log.Error("secrets of dns cookies: the old one goes on", "err", err)
		}
		g.mu.Lock()
		g.setCookies()
		g.mu.Unlock()
		wait := time.NewTimer(max(time.Until(next), time.Second))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
}
