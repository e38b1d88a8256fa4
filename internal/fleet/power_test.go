package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/internal/txtest"
)

const (
	// writers is how many purge at the same time.
	writers = 8
	// acks is how often the reader of the log says so: the server waits at 1,024 entries.
	acks = 256
	// outage bounds how long after its start a control node loses power.
	outage = 600 * time.Millisecond
	// diskFirst bounds how long the process outlives its disk.
	diskFirst = 100 * time.Millisecond
)

// promised is what a control node has acknowledged.
type promised struct {
	mu      sync.Mutex
	purges  map[string]uint64 // URL to seq
	active  string            // the last release that was acknowledged
	started map[string]bool   // releases whose push has begun since
}

// TestPowerLoss has a control node on a disk of its own lose power again and
// again, in the middle of purges and pushes (PERIGEE_POWER_LOSSES of them): all that
// it acknowledged is on its log, with JetStream's real store, and no number is used twice.
func TestPowerLoss(t *testing.T) {
	if !ownWorld(t) {
		return
	}
	w := newWorld(t, map[string]string{self: "eu.5", "ctl1": "eu.10"})
	seed := uint64(number(t, "PERIGEE_FLEET_SEED", int(time.Now().UnixMilli())))
	t.Logf("seed %d", seed)
	losses := number(t, "PERIGEE_POWER_LOSSES", 3)
	made, err := losePower(t, w, buildAll(t, ""), rand.New(rand.NewPCG(seed, 1)), losses)
	if errors.Is(err, errNoMounts) {
		if os.Getenv("CI") == "true" {
			t.Fatal(err) // a skip in here is none out there
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d losses of power, %d purges acknowledged before them, all there", losses, made)
}

// errNoMounts: this machine does not let a process mount a file of its own.
var errNoMounts = errors.New("no XFS on a loop device here (needs root, mkfs.xfs, xfs_io and loop devices)")

// losePower returns how many purges were acknowledged; an error is what is not
// as it was acknowledged.
func losePower(t *testing.T, w *world, bins binaries, random *rand.Rand, losses int) (int, error) {
	base := t.TempDir()
	r := &rig{t: t, w: w, base: base, bins: bins, controls: controls[:1], begun: time.Now(), nodes: map[string]*node{}, faulty: map[string]wrong{}}
	r.environment()
	defer r.close()
	if err := os.WriteFile(filepath.Join(base, "perigee.toml"), []byte(fmt.Sprintf(powerTOML, w.hosts["ctl1"].addr)), 0o600); err != nil {
		return 0, err
	}
	r.define("ctl1", "control")
	n := r.nodes["ctl1"]
	var err error
	if n.disk, err = txtest.NewDisk(filepath.Join(base, "ctl1.xfs"), n.dir, diskBytes); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoMounts, err)
	}
	if err := n.disk.Proof(); err != nil {
		return 0, err
	}
	if err := r.startControl(); err != nil {
		return 0, err
	}
	added, err := r.api.NodeAdd(t.Context(), "reader", false)
	if err != nil {
		return 0, err
	}
	reader, err := control.ParseCredentials([]byte(added.Credentials))
	if err != nil {
		return 0, err
	}
	p := &promised{purges: map[string]uint64{}, started: map[string]bool{}}
	for i := range losses {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for j := range writers {
			wg.Go(func() { p.purge(ctx, r, fmt.Sprintf("http://shop.%s/%d/%d", zone, i, j)) })
		}
		wg.Go(func() { p.push(ctx, r, i) })
		time.Sleep(time.Duration(random.Int64N(int64(outage))))
		// The machine stops as a whole; or, for every second loss, its disk does first, and
		// what is acknowledged then is a lie (F9).
		if random.IntN(2) == 0 {
			err = n.stop()
		}
		if err := errors.Join(err, n.disk.LosePower()); err != nil {
			cancel()
			return 0, err
		}
		pause(ctx, time.Duration(random.Int64N(int64(diskFirst))))
		if err := r.kill(n, kill); err != nil {
			cancel()
			return 0, err
		}
		cancel()
		wg.Wait()
		if err := errors.Join(n.disk.Unmount(), n.disk.Mount(), r.start(n), n.ready()); err != nil {
			return 0, fmt.Errorf("after loss %d: %w", i, err)
		}
		if err := p.check(t.Context(), r, reader); err != nil {
			return 0, fmt.Errorf("after loss %d: %w", i, err)
		}
	}
	if len(p.purges) < losses {
		return 0, fmt.Errorf("only %d purges were acknowledged: this shows nothing", len(p.purges))
	}
	return len(p.purges), nil
}

// purge purges URL after URL until the control node is gone.
func (p *promised) purge(ctx context.Context, r *rig, prefix string) {
	for i := 0; ; i++ {
		url := fmt.Sprintf("%s/%d", prefix, i)
		got, err := r.api.Purge(ctx, control.Purge{URL: url}, false)
		if err != nil {
			var refused *control.Error
			if errors.As(err, &refused) && ctx.Err() == nil {
				pause(ctx, lookEvery) // more than it takes of one caller
				continue
			}
			return
		}
		p.mu.Lock()
		p.purges[got.URL] = got.Seq
		p.mu.Unlock()
	}
}

// push pushes one release of its own.
func (p *promised) push(ctx context.Context, r *rig, i int) {
	dir := filepath.Join(r.base, fmt.Sprint("site", i))
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "index.html"), bodyOf("www/", i), 0o600)); err != nil {
		r.t.Error(err)
		return
	}
	dry, err := r.api.Push(ctx, control.PushOptions{Dir: dir, Site: "www", DryRun: true})
	if err != nil {
		return
	}
	p.mu.Lock()
	p.started[dry.Release.String()] = true
	p.mu.Unlock()
	out, err := r.api.Push(ctx, control.PushOptions{Dir: dir, Site: "www"})
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active = out.Release.String()
	clear(p.started)
}

// check reads the whole log as a node does, and the state that follows from it.
func (p *promised) check(ctx context.Context, r *rig, reader *control.Credentials) error {
	ctx, cancel := context.WithTimeout(ctx, wellWithin)
	defer cancel()
	f, err := feed.Dial(ctx, feed.DialConfig{ID: reader.Name, Addr: reader.Feed, TLS: reader.TLS()})
	if err != nil {
		return err
	}
	defer f.Close()
	there := map[string]uint64{}
	var at feed.Position
	for at.Seq < f.Head().Seq {
		e, err := f.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the log after seq %d: %w", at.Seq, err)
		}
		if v := feed.Verify(at, e); v.Kind != feed.Next {
			return fmt.Errorf("seq %d after %d: %s", e.Seq, at.Seq, v.Why)
		}
		if at = e.Position(); e.Seq%acks == 0 {
			if err := f.Ack(e); err != nil {
				return err
			}
		}
		command, err := control.DecodeCommand(e)
		if err != nil {
			return err
		}
		for _, purge := range control.PurgesOf(command) {
			there[purge.URL] = e.Seq
		}
	}
	for url, seq := range p.purges {
		if there[url] != seq {
			return fmt.Errorf("the purge of %s was acknowledged as seq %d, and is seq %d on the log (0: none), which ends at %d", url, seq, there[url], at.Seq)
		}
	}
	s, err := r.api.Status(ctx)
	if err != nil {
		return err
	}
	if active := s.Sites["www"].Active.String(); p.active != "" && active != p.active && !p.started[active] {
		return fmt.Errorf("release %s was acknowledged, %s is active", p.active, active)
	}
	return nil
}

const powerTOML = `version = 1
[control]
listen      = "0.0.0.0:7440"
feed_listen = "%[1]s:7441"
blob_listen = "%[1]s:7442"
addresses   = ["https://%[1]s:7440"]
[site.www]
hosts = ["www.` + zone + `"]
push  = true
[site.shop]
hosts   = ["shop.` + zone + `"]
origins = ["http://192.0.2.1"]
[edge.fra1]
addresses = ["192.0.2.2"]
listen    = ["192.0.2.2:80"]
`
