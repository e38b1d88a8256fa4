package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/internal/handover"
)

func newServe(o *options) *cobra.Command {
	s := &server{o: o}
	c := &cobra.Command{
		Use:   "serve [dns | edge NAME | control [NAME] | origin FOLDER]",
		Short: "run a node: without a part, DNS, control and the only edge in one process",
		Long: `Runs a node, until SIGTERM or Ctrl-C: without a part, DNS, control and the only edge
in one process. SIGHUP has it read its files again, as perigee reload does; SIGUSR2
has the binary that is on disk now take its place, as perigee upgrade does. Events go
to stderr, the logs of requests and queries to stdout or to the files of [log].

serve origin is a web server for a folder of files, to try the cache with.`,
		Example: `  perigee serve
  perigee serve edge fra1 --state /var/lib/perigee
  perigee serve origin ./public --listen 127.0.0.1:9080`,
		Args: serveArgs,
		RunE: func(c *cobra.Command, args []string) error {
			s.log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			return s.run(c.Context(), args)
		},
		ValidArgs: []string{"dns", "edge", "control", "origin"},
	}
	c.Flags().StringVar(&s.stateFlag, "state", "", "the `folder` that keeps what must survive this process")
	c.Flags().StringVar(&s.metricsFlag, "metrics", "", "the `address` for Prometheus, or off, in place of [metrics] listen")
	c.Flags().StringVar(&s.listen, "listen", "127.0.0.1:9080", "the `address` of serve origin")
	return c
}

func serveArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	want, ok := map[string]int{"dns": 1, "control": 1, "edge": 2, "origin": 2}[args[0]]
	switch {
	case !ok:
		return usagef("there is no part called %q: dns, edge NAME, control or origin FOLDER", args[0])
	case len(args) < want:
		return usagef("serve %s needs a name", args[0])
	case args[0] == "control" && len(args) == 2: // one of [control] cluster
	case len(args) > want:
		return usagef("unexpected argument %q", args[want])
	}
	return nil
}

// server is one process that serves.
type server struct {
	o           *options
	stateFlag   string
	listen      string
	metricsFlag string
	log         *slog.Logger

	cfg   atomic.Pointer[config.Config] // swapped whole by reload
	dir   string                        // the state folder
	admin *admin

	reloading sync.Mutex
	refused   atomic.Pointer[string] // why the newest perigee.toml is not in use
	control   *controlPart           // when this process is the control node
	followers []*follower            // of its parts
	tasks     tasks

	reloads   reloads
	sockets   *handover.Sockets
	parent    *handover.Parent // the process that this one takes the place of, or nil
	lock      *os.File         // of the state folder
	upgrading sync.Mutex
	ending    atomic.Bool // told to end, or another process has taken its place
	told      <-chan struct{}
	edgeName  string // of the edge in this process, or empty
}

// reloads counts them.
type reloads struct {
	ok, failed atomic.Uint64
	last       atomic.Int64 // when perigee.toml was last taken over, Unix seconds
}

// tasks runs the loops of a process. The first that fails ends all.
type tasks struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   []chan struct{}
}

// start runs f until it returns or the process ends. An error of f ends the
// process; returning nil does not.
func (t *tasks) start(name string, f func(ctx context.Context) error) {
	done := make(chan struct{})
	t.done = append(t.done, done)
	go func() {
		defer close(done)
		if err := f(t.ctx); err != nil && t.ctx.Err() == nil {
			t.cancel(fmt.Errorf("%s: %w", name, err))
		}
	}()
}

// wait returns when every loop has ended, with the error that ended them.
func (t *tasks) wait() error {
	for _, done := range t.done {
		<-done
	}
	if err := context.Cause(t.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// run starts the parts, says that they are ready, and serves until ctx is done.
func (s *server) run(ctx context.Context, args []string) error {
	var err error
	if s.sockets, s.parent, err = handover.Inherit(); err != nil {
		return err
	}
	if len(args) > 0 && args[0] == "origin" {
		err = s.runOrigin(ctx, args[1])
	} else {
		err = s.runParts(ctx, args)
	}
	if s.parent != nil && err != nil {
		s.parent.Fail(errorLines(err))
	}
	return err
}

func (s *server) runParts(ctx context.Context, args []string) error {
	cfg, err := config.Load(s.o.config)
	if err != nil {
		return err
	}
	s.cfg.Store(cfg)
	if s.dir, err = stateDir(s.stateFlag, cfg); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	defer s.lock.Close()
	s.begin(ctx)
	err = s.startParts(args)
	if err == nil {
		err = s.startMetrics()
	}
	if err != nil {
		s.tasks.cancel(nil)
		return errors.Join(err, s.tasks.wait())
	}
	return s.serveUntilDone()
}

// begin prepares the tasks and the admin socket. When ctx ends, the tasks end
// after the parts are drained.
func (s *server) begin(ctx context.Context) {
	s.tasks.ctx, s.tasks.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.admin = &admin{log: s.log, started: time.Now(), reload: s.reload, upgrade: s.upgrade, about: s.about}
	s.told = ctx.Done()
	context.AfterFunc(ctx, s.end)
}

// about is what the whole process says of itself, beside its parts.
func (s *server) about(st *localStatus) {
	if cfg := s.cfg.Load(); cfg != nil {
		st.Config = cfg.Hash()
	}
	if t := s.trouble(); t != "" {
		st.Problems = append(st.Problems, t)
	}
}

// serveUntilDone takes over from an old process, opens the admin socket, says
// that the process is ready, and waits. SIGHUP is `perigee reload`, SIGUSR2 is
// `perigee upgrade`.
func (s *server) serveUntilDone() error {
	signal.Ignore(syscall.SIGXFSZ) // a limit on the size of files is an error of the write, not the end
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	err := s.takeOver()
	if err == nil {
		err = s.openControl() // which was the old process's till now
	}
	if err != nil {
		s.tasks.cancel(nil)
		return errors.Join(err, s.tasks.wait())
	}
	s.tasks.start("signals", func(ctx context.Context) error { return s.obey(ctx, signals) })
	for _, f := range s.followers {
		s.tasks.start("feed", f.follow)
	}
	if s.dir != "" {
		s.tasks.start("admin socket", func(ctx context.Context) error { return s.admin.serve(ctx, s.dir) })
	}
	s.admin.ready.Store(true)
	s.reloads.last.Store(time.Now().Unix())
	s.log.Info("ready", "role", s.admin.status().Role, "pid", os.Getpid(), "version", version())
	if err := handover.Notify(fmt.Sprintf("MAINPID=%d\nREADY=1", os.Getpid())); err != nil {
		s.log.Warn("systemd is not told", "err", err)
	}
	return s.tasks.wait()
}

// obey does what signals say.
func (s *server) obey(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig := <-signals:
			if sig == syscall.SIGUSR2 {
				if _, err := s.upgrade(); err != nil && !s.ending.Load() { // else it ends, unless the new one dies
					s.log.Error("upgrade failed; this process goes on", "err", err)
				}
				continue
			}
			if err := s.admin.reload(ctx); err != nil {
				s.log.Error("reload failed; the old configuration goes on", "err", err)
			}
		}
	}
}

// startParts decides from the arguments which parts this process plays.
func (s *server) startParts(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "control":
			return s.startControl(true, args[1:]...)
		case "dns":
			return s.startDNS(nil)
		default:
			return s.startEdge(args[1], nil)
		}
	}
	cfg := s.cfg.Load()
	if len(cfg.Edges) > 1 {
		var names []string
		for _, e := range cfg.Edges {
			names = append(names, e.Name)
		}
		return usagef("%s has several edges (%s): say which part this process is, such as: perigee serve edge %s", filepath.Base(s.o.config), strings.Join(names, ", "), names[0])
	}
	if names := memberNames(cfg); names != "" {
		return usagef("%s has several control nodes (%s): say which part this process is, such as: perigee serve control %s", filepath.Base(s.o.config), names, cfg.Control.Cluster[0].Name)
	}
	if err := s.startControl(false); err != nil {
		return err
	}
	if len(cfg.DNS.Listen) > 0 {
		if err := s.startDNS(s.localFeed(localDNS)); err != nil {
			return err
		}
	}
	if len(cfg.Edges) == 1 {
		name := cfg.Edges[0].Name
		return s.startEdge(name, s.localFeed(name))
	}
	return nil
}

// reload reads perigee.toml and every other file again. The new configuration
// is taken whole, by every part, or the old one goes on; a file that is bad
// keeps its last good version. Status says what is wrong until it is cured.
func (s *server) reload(ctx context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := s.reconfigure(ctx); err != nil {
		s.reloads.failed.Add(1)
		text := "the new " + filepath.Base(s.o.config) + " is not in use: " + err.Error()
		s.refused.Store(&text)
		return withHint(err, "the old configuration goes on: mend this and reload again")
	}
	s.refused.Store(nil)
	s.reloads.last.Store(time.Now().Unix())
	var errs []error
	for _, p := range s.admin.parts {
		errs = append(errs, p.reload(ctx))
	}
	err := errors.Join(errs...)
	if err != nil {
		s.reloads.failed.Add(1)
	} else {
		s.reloads.ok.Add(1)
		s.log.Info("reloaded", "config", s.o.config)
	}
	return err
}

// reconfigure has every part take perigee.toml as it is now. When one refuses,
// those before it go back.
func (s *server) reconfigure(ctx context.Context) error {
	old := s.cfg.Load()
	if old == nil {
		return nil // serve origin has none
	}
	cfg, err := config.Load(s.o.config)
	if err != nil {
		return err
	}
	for i, p := range s.admin.parts {
		err := p.configure(ctx, cfg)
		if err == nil {
			continue
		}
		for _, q := range s.admin.parts[:i] {
			err = errors.Join(err, q.configure(ctx, old))
		}
		return err
	}
	s.cfg.Store(cfg)
	if s.metricsFlag == "" && old.Metrics != cfg.Metrics {
		s.log.Warn("[metrics] has changed: upgrade or restart this process to take it up")
	}
	return nil
}

// trouble says why the newest perigee.toml is not in use; empty: it is.
func (s *server) trouble() string {
	if text := s.refused.Load(); text != nil {
		return *text
	}
	return ""
}
