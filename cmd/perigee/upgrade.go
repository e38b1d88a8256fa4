package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/handover"
)

// Here a process ends without breaking anything, and gives its place to a new
// binary. The order of an upgrade:
//
//  1. The old process lets go of the feed (place and journal), and starts the
//     new binary with its own arguments, the state folder's lock and every
//     listening socket.
//  2. The new one loads everything, serves from the same sockets, and says that
//     it is ready. When it fails instead, the old one takes the feed back and
//     goes on; nobody noticed.
//  3. The old one stops using what is stored without asking (purges are the new
//     one's to hear), closes the control node if it is one, and lets the new
//     one go on: control node, admin socket, feed. A new one that cannot open
//     the control node ends, and the old one takes everything back.
//  4. The old one drains, as at SIGTERM, and ends. When the new one dies
//     meanwhile, the old one takes everything back.

// upgradeTimeout bounds the start of a new binary: zones of millions of names
// take a minute to load.
const upgradeTimeout = 5 * time.Minute

// probation is how long the old process stays at least, without drain to wait
// for: a new one that cannot live mostly dies at once.
const probation = 2 * time.Second

// openingPoll is how often the old process looks whether the new one has opened
// the control node.
const openingPoll = 50 * time.Millisecond

// upgradeResult is what an upgrade did.
type upgradeResult struct {
	Old int `json:"old_pid"`
	New int `json:"new_pid"`
}

func newUpgrade(o *options) *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "have the binary as it is on disk now take the place of the running process",
		Long: `Has the process with this state folder start the binary that is now at its path,
as SIGUSR2 does. The new process takes over the listening sockets; once it serves,
the old one ends what it has begun and goes. A new binary that does not start, or a
perigee.toml that it does not like, leaves the old process as it is, and the reason
is shown here. A control node is away for a moment, as if it were restarted, while
DNS and HTTP of the same process go on.`,
		Example: "  sudo install bin/perigee /usr/local/bin/ && perigee upgrade --state /var/lib/perigee",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := runningState(o, state)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), upgradeTimeout+localTimeout)
			defer cancel()
			var r upgradeResult
			err = localDo(ctx, dir, http.MethodPost, "/v1/upgrade", nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(&r) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, r)
			}
			fmt.Fprintf(c.OutOrStdout(), "pid %d has taken the place of pid %d\n", r.New, r.Old)
			return nil
		},
	}
	c.Flags().StringVar(&state, "state", "", "the state `folder` of the running process")
	return c
}

// ender is a part that can announce its end to clients before it comes. drain
// reports whether they need time to hear of it. replaced: another process serves
// from the same sockets, so nobody needs to be sent elsewhere. undrain takes it back.
type ender interface {
	drain(replaced bool) bool
	undrain()
}

// follows is a part whose feed another process has taken over.
type follows interface{ letGo() }

// takeLock takes the state folder's lock, or keeps that of the old process.
func (s *server) takeLock() error {
	if s.parent == nil {
		var err error
		s.lock, err = lockState(s.dir)
		return err
	}
	ours, err := os.Stat(filepath.Join(s.dir, lockFile))
	if err != nil {
		return err
	}
	theirs, err := s.parent.Lock.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(ours, theirs) {
		return withHint(fmt.Errorf("the state folder is %s now, and was another one", s.dir), "another state folder needs a restart")
	}
	s.lock = s.parent.Lock
	return nil
}

// takeOver tells the old process, if there is one, that this one serves, and
// waits until it has let go of the rest.
func (s *server) takeOver() error {
	for _, name := range s.sockets.CloseUnused() {
		s.log.Warn("an inherited socket is not in the configuration and was closed", "socket", name)
	}
	if s.parent == nil {
		return nil
	}
	return s.parent.Ready()
}

// upgrade has a new process take the place of this one; an error leaves this
// one as it was.
func (s *server) upgrade() (pid int, err error) {
	if !s.upgrading.TryLock() {
		return 0, errors.New("an upgrade is under way already")
	}
	var resume []func()
	keep := func() {
		for _, f := range resume {
			f()
		}
		s.upgrading.Unlock()
	}
	defer func() {
		if err != nil {
			keep()
		}
	}()
	switch {
	case s.ending.Load():
		return 0, errors.New("this process is ending")
	case s.dir == "":
		return 0, withHint(errors.New("a process without a state folder cannot be upgraded in place"), "start it with --state DIR")
	}
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	for _, f := range s.followers {
		r := f.pause()
		if r == nil {
			err = errors.New("the feed was taken back only just now: try again")
			break
		}
		resume = append(resume, r)
	}
	if err != nil {
		return 0, err
	}
	s.log.Info("upgrade: starting the new process", "program", program)
	child, err := s.sockets.Start(program, os.Args, s.lock)
	if err != nil {
		return 0, err
	}
	if err := child.Wait(upgradeTimeout); err != nil {
		return 0, err
	}
	if s.ending.Swap(true) { // told so meanwhile, and nobody has told the new one
		child.Stop()
		return 0, errors.New("this process is ending")
	}
	s.log.Info("upgrade: the new process serves", "pid", child.Pid)
	for _, p := range s.admin.parts {
		if p, ok := p.(follows); ok {
			p.letGo()
		}
	}
	if s.control != nil {
		resume = append([]func(){s.control.pause()}, resume...)
	}
	s.admin.handOver()
	child.Go()
	if s.control != nil {
		if err = s.watchOpening(child); err != nil {
			s.takeBack(err)
			return 0, withHint(fmt.Errorf("the new process could not go on with the control node, and this one has taken its place back: %w", err), "the new process has said why in the log")
		}
	}
	go s.giveWay(child, keep)
	return child.Pid, nil
}

// watchOpening waits until the new process has opened the control node, which it
// can only after this one has closed it; an error says that it has died of it.
// Who is told to end meanwhile does not wait.
func (s *server) watchOpening(child *handover.Child) error {
	late := time.After(upgradeTimeout)
	for {
		select {
		case <-child.Ended():
			if err := child.Err(); err != nil {
				return err
			}
			return errors.New("it has ended")
		case <-late:
			child.Kill()
			return fmt.Errorf("it took longer than %s", upgradeTimeout)
		case <-s.told:
			return nil
		case <-s.tasks.ctx.Done():
			return nil
		case <-time.After(openingPoll):
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		var st localStatus
		err := localDo(ctx, s.dir, http.MethodGet, "/v1/local", nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(&st) })
		cancel()
		if err == nil && st.PID == child.Pid && st.Ready {
			return nil
		}
	}
}

// giveWay drains and ends this process, whose place child has taken, unless child
// dies before that is done: then this one goes on as if there had been none, and
// calls keep.
func (s *server) giveWay(child *handover.Child, keep func()) {
	wait := probation
	if s.drainParts(true) {
		wait = max(wait, s.cfg.Load().Health.Drain)
	}
	s.log.Info("ending: another process serves in this one's place", "pid", child.Pid, "for", wait)
	select {
	case <-time.After(wait):
	case <-s.tasks.ctx.Done():
	case <-s.told:
	case <-child.Ended():
		if err := child.Err(); err != nil && s.tasks.ctx.Err() == nil {
			s.takeBack(err)
			keep()
			select {
			case <-s.told: // while it was taken back
				s.end()
			default:
			}
			return
		}
	}
	s.tasks.cancel(nil)
}

// takeBack undoes what was done for a process that has died. Purges that it heard
// of are in the journal, and are made here as the feed is opened.
func (s *server) takeBack(why error) {
	s.log.Error("upgrade failed: the new process has died; this one has taken its place back", "why", why)
	s.ending.Store(false)
	for _, p := range s.admin.parts {
		if p, ok := p.(ender); ok {
			p.undrain()
		}
	}
	if err := s.admin.takeBack(); err != nil {
		s.log.Error("admin socket", "why", err)
	}
	if err := handover.Notify(fmt.Sprintf("MAINPID=%d", os.Getpid())); err != nil {
		s.log.Warn("systemd is not told", "err", err)
	}
}

// end drains every part for as long as [health] drain says, and then ends the
// tasks. The second call does nothing.
func (s *server) end() {
	if s.ending.Swap(true) {
		return
	}
	if s.admin.ready.Load() && s.drainParts(false) {
		wait := s.cfg.Load().Health.Drain
		s.log.Info("ending: answers say so from now", "for", wait)
		select {
		case <-time.After(wait):
		case <-s.tasks.ctx.Done():
		}
	}
	s.tasks.cancel(nil)
}

func (s *server) drainParts(replaced bool) (wait bool) {
	for _, p := range s.admin.parts {
		if p, ok := p.(ender); ok && p.drain(replaced) {
			wait = true
		}
	}
	return wait
}
