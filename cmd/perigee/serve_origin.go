package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"

	"perigee.example/internal/config"
	"perigee.example/origin"
)

// originPart is `serve origin`: a folder of files as an origin. It needs no
// perigee.toml.
type originPart struct{ dir string }

// Limits of the static origin's connections. Its clients are edges, which are
// prompt; a person with a browser is too.
const (
	originHeadTimeout = 10 * time.Second
	originIdleTimeout = 120 * time.Second
	originShutdown    = 5 * time.Second
)

func (s *server) runOrigin(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if s.stateFlag != "" { // only for its admin socket
		if s.dir, err = stateDir(s.stateFlag, nil); err != nil {
			return err
		}
		if err := s.takeLock(); err != nil {
			return err
		}
		defer s.lock.Close()
	}
	addr, err := netip.ParseAddrPort(s.listen)
	if err != nil {
		return usagef("--listen wants an address and a port, such as 127.0.0.1:9080, not %q", s.listen)
	}
	ln, err := s.sockets.Listen(config.Network("tcp", addr), addr.String())
	if err != nil {
		return addressInUse(err, "tcp", addr)
	}
	s.begin(ctx)
	srv := &http.Server{Handler: origin.Static(root, origin.StaticOptions{}), ReadHeaderTimeout: originHeadTimeout, IdleTimeout: originIdleTimeout}
	s.tasks.start("origin", func(context.Context) error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	s.tasks.start("origin end", func(ctx context.Context) error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), originShutdown)
		defer cancel()
		return srv.Shutdown(end)
	})
	s.admin.parts = append(s.admin.parts, &originPart{dir})
	s.log.Info("origin listens", "addr", fmt.Sprint(ln.Addr()), "folder", dir)
	return s.serveUntilDone()
}

// status implements part.
func (p *originPart) status(s *localStatus) { s.Role = joinRole(s.Role, "origin") }

// configure implements part. There is no perigee.toml.
func (p *originPart) configure(context.Context, *config.Config) error { return nil }

// reload implements part. Files are looked at for each request.
func (p *originPart) reload(context.Context) error { return nil }
