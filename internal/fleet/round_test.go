package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// wellWithin is how long a fleet may take until every node has applied
	// everything, once nothing is broken any more.
	wellWithin = 90 * time.Second
	// lossPercent is of a lossy line.
	lossPercent = 15
)

// wrong is what is wrong with a node: the fault of a plan by its number, 0 for one that
// its operator made, and where it stands in History.Faults.
type wrong struct{ fault, at int }

// began notes that something is wrong with a node, or a host.
func (r *rig) began(fault int, what action, on string) {
	r.note(func(h *History) {
		r.faulty[on] = wrong{fault, len(h.Faults)}
		h.Faults = append(h.Faults, Fault{string(what), on, r.now(), never})
	})
	r.t.Logf("%7.3f   %s %s", r.now().Seconds(), on, what)
}

// begin makes a fault.
func (r *rig) begin(f fault) error {
	r.began(f.id, f.what, f.on)
	h := r.w.hosts[f.on]
	switch f.what {
	case cut, split:
		var all []*host
		for _, c := range r.controls {
			if c != f.on {
				all = append(all, r.w.hosts[c])
			}
		}
		return h.cut(all...)
	case alone:
		others := maps.Clone(r.w.hosts)
		delete(others, f.on)
		for _, region := range regions { // their routers are on the way; they say nothing
			delete(others, region.name)
		}
		return h.cut(slices.Collect(maps.Values(others))...)
	case lossy:
		return h.lossy(lossPercent)
	}
	if n := r.nodes[f.on]; f.outlives {
		n.dead.Store(true)
		return n.disk.LosePower()
	}
	return r.killed(r.nodes[f.on], f.what)
}

// killed kills a process that is to run, or to start, until then.
func (r *rig) killed(n *node, how action) error {
	if n.ended() {
		return fmt.Errorf("%s ended by itself:\n%s", n.name, tail(n.log))
	}
	return r.kill(n, how)
}

// kill ends a node's process.
func (r *rig) kill(n *node, how action) error {
	switch how {
	case term:
		return n.signal(syscall.SIGTERM)
	case power:
		return errors.Join(n.stop(), n.disk.LosePower(), n.signal(syscall.SIGKILL), n.disk.Unmount(), n.disk.Mount())
	}
	return n.signal(syscall.SIGKILL)
}

// ending is held while somebody ends what is wrong with a node.
func (r *rig) ending(on string) (done func()) {
	m, _ := r.ends.LoadOrStore(on, &sync.Mutex{})
	m.(*sync.Mutex).Lock()
	return m.(*sync.Mutex).Unlock
}

// endOf ends a fault of a plan, unless it is over. Who was killed is killed again while it
// starts, as often as the fault says.
func (r *rig) endOf(f fault) error {
	defer r.ending(f.on)()
	r.mu.Lock()
	now, there := r.faulty[f.on]
	r.mu.Unlock()
	if !there || now.fault != f.id {
		return nil
	}
	n := r.nodes[f.on]
	if err := r.replug(n); err != nil {
		return err
	}
	for _, later := range f.again {
		if err := r.start(n); err != nil {
			return err
		}
		time.Sleep(later)
		r.t.Logf("%7.3f   %s %s", r.now().Seconds(), f.on, f.what)
		if err := r.killed(n, f.what); err != nil {
			return err
		}
	}
	return r.well(f.on)
}

// replug kills a process that has outlived its disk, and has the disk back.
func (r *rig) replug(n *node) error {
	if n == nil || !n.dead.Swap(false) {
		return nil
	}
	if err := r.killed(n, kill); err != nil {
		return err
	}
	return errors.Join(n.disk.Unmount(), n.disk.Mount())
}

// end makes good what is wrong with a node, and waits until it serves.
func (r *rig) end(on string) error {
	defer r.ending(on)()
	return r.well(on)
}

// well is end for who holds ending.
func (r *rig) well(on string) error {
	r.mu.Lock()
	now, ok := r.faulty[on]
	delete(r.faulty, on)
	r.mu.Unlock()
	if !ok {
		return nil
	}
	if err := r.w.hosts[on].mend(); err != nil {
		return err
	}
	if n := r.nodes[on]; n != nil {
		if err := r.replug(n); err != nil {
			return err
		}
		if n.ended() {
			if err := r.start(n); err != nil {
				return err
			}
		}
		if err := n.ready(); err != nil {
			return err
		}
	}
	r.note(func(h *History) { h.Faults[now.at].End = r.now() })
	r.t.Logf("%7.3f   %s is well", r.now().Seconds(), on)
	return nil
}

func (r *rig) endAll() error {
	var errs []error
	r.mu.Lock()
	on := slices.Sorted(maps.Keys(r.faulty))
	r.mu.Unlock()
	for _, name := range on {
		errs = append(errs, r.end(name))
	}
	return errors.Join(errs...)
}

// run carries a plan out: in each step its operation and its faults, at once.
func (r *rig) run(p plan, o *operator) error {
	ends := map[int][]fault{}
	for i, s := range p.steps {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var errs []error
		failed := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
		for _, f := range ends[i] {
			wg.Go(func() {
				time.Sleep(f.then)
				failed(r.endOf(f))
			})
		}
		for _, f := range s.faults {
			if f.until != i {
				ends[f.until] = append(ends[f.until], f)
			}
			wg.Go(func() {
				time.Sleep(f.after)
				failed(r.begin(f))
				if f.until == i {
					time.Sleep(f.then)
					failed(r.endOf(f))
				}
			})
		}
		wg.Go(func() { failed(o.do(s)) })
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		o.look()
	}
	return nil
}

// heal makes everything good and waits until every node has applied all.
func (r *rig) heal(o *operator) error {
	if err := r.endAll(); err != nil {
		return err
	}
	if err := o.lookAtAll(); err != nil {
		return err
	}
	for edge := range maps.Clone(o.drained) {
		if o.drain(undrain, edge); o.drained[edge] {
			return fmt.Errorf("%s cannot be undrained though nothing is broken", edge)
		}
	}
	last := r.lastOf(Activate)
	o.purge(allPulled()[:1], "https://"+allPulled()[0])
	for _, seq := range []uint64{last, r.lastOf(Purge)} {
		if err := r.allApply(seq); err != nil {
			return err
		}
	}
	return nil
}

// lastOf is the number of the last acknowledged operation of a kind.
func (r *rig) lastOf(kind Kind) (seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range r.h.Ops {
		if op.Kind == kind && op.Acked && !op.Void {
			seq = op.Seq
		}
	}
	return seq
}

// allApply waits until every node has applied an entry, and notes the receipts.
func (r *rig) allApply(seq uint64) error {
	if seq == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), wellWithin)
	defer cancel()
	for {
		got, err := r.api.Receipts(ctx, seq, time.Second)
		if err != nil && ctx.Err() == nil {
			return err
		}
		at := r.now()
		r.note(func(h *History) {
			for _, a := range got.Applied {
				h.Receipts = append(h.Receipts, Receipt{seq, a.Node, at})
			}
		})
		if err == nil && len(got.Applied) == got.Nodes && got.Nodes > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("seq %d is applied on %d of %d nodes %v after nothing is broken; waiting for %+v", seq, len(got.Applied), got.Nodes, wellWithin, got.Waiting)
		}
	}
}

// steered asks the resolver from everywhere, until each place gets its own edge: that
// the resolver tells where its clients are (ECS), and that all edges are up again.
func (r *rig) steered() error {
	var got []string
	for end := time.Now().Add(wellWithin); time.Now().Before(end); time.Sleep(2 * lookEvery) {
		got = got[:0]
		for _, c := range clients {
			named, err := r.ask(r.w.hosts[c], netip.AddrPortFrom(r.w.hosts["resolver"].addr, 53))
			if err != nil {
				named = []string{err.Error()}
			}
			got = append(got, strings.Join(named, " "))
		}
		if slices.Equal(got, edges) {
			return nil
		}
	}
	return fmt.Errorf("clients in eu, us and ap are sent to %q, want %q", got, edges)
}

// round runs one plan on a new fleet and returns what the checker says. An error is
// something that did not come back by itself: a promise, too.
func round(t *testing.T, w *world, bins binaries, p plan) (found []Violation, err error) {
	base, err := os.MkdirTemp("", "fleet")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // the logs stay for who has to find out
		if !t.Failed() && err == nil && len(found) == 0 {
			_ = os.RemoveAll(base)
		}
	}()
	r, err := newRig(t, w, base, bins, p.cast)
	defer r.close()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	r.startClients(ctx, &wg)
	o := newOperator(r)
	err = r.run(p, o)
	if err == nil {
		err = r.heal(o)
	}
	if err == nil {
		err = r.steered()
	}
	time.Sleep(breath)
	cancel()
	wg.Wait()
	if err != nil {
		err = fmt.Errorf("%w (logs: %s)", err, base)
	}
	found = Check(&r.h)
	t.Logf("seed %d: %d operations, %d faults, %d replies, %d answers, %d violations", p.seed, len(r.h.Ops), len(r.h.Faults), len(r.h.Replies), len(r.h.Answers), len(found))
	for _, v := range found {
		t.Logf("%7.3f %s: %s", v.At.Seconds(), v.Rule, v.Text)
	}
	return found, err
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: want a number", name, text)
	}
	return n
}

// buildAll builds perigee, or a mutant of it.
func buildAll(t *testing.T, tag string) binaries {
	t.Helper()
	dir := t.TempDir()
	plain, err := build(filepath.Join(dir, "plain"), tag, false)
	node := plain
	if raceEnabled && tag == "" && err == nil {
		node, err = build(filepath.Join(dir, "race"), tag, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return binaries{node: node, plain: plain}
}

// fleetCast is who is in a fleet with so many control nodes.
func fleetCast(n int, disks []string) cast {
	return cast{controls: controls[:n], servers: servers, edges: edges, origins: []string{"origin"}, disks: disks}
}

// controlsOf is how many control nodes a round has: one or three, by its seed.
func controlsOf(seed uint64) int { return 1 + int(seed%2)*2 }

// roundSize is the size of rounds that the environment asks for: PERIGEE_FLEET_STEPS and
// PERIGEE_FLEET_FAULTS. With more faults than two in a step nodes are also killed several
// times in a row.
func roundSize(t *testing.T) size {
	z := size{steps: number(t, "PERIGEE_FLEET_STEPS", 6), faults: number(t, "PERIGEE_FLEET_FAULTS", 2), again: 1}
	if z.faults > 2 {
		z.again = 4
	}
	return z
}

// TestFleet runs seeded rounds: PERIGEE_FLEET_SEED is the first seed (else a new
// one), PERIGEE_FLEET_ROUNDS their number, roundSize what they are like.
// PERIGEE_FLEET_KILLS has it go on until nodes were killed so often,
// PERIGEE_FLEET_LOSSES until they lost power so often, and
// PERIGEE_FLEET_DISKS names those with a disk that can. A failure ends it.
func TestFleet(t *testing.T) {
	if !ownWorld(t) {
		return
	}
	w := newWorld(t, places)
	bins := buildAll(t, "")
	seed := uint64(number(t, "PERIGEE_FLEET_SEED", int(time.Now().UnixMilli())))
	z, kills, losses := roundSize(t), number(t, "PERIGEE_FLEET_KILLS", 0), number(t, "PERIGEE_FLEET_LOSSES", 0)
	var disks []string
	if text := os.Getenv("PERIGEE_FLEET_DISKS"); text != "" {
		disks = strings.Split(text, ",")
	}
	done := map[action]int{}
	for i := 0; i < number(t, "PERIGEE_FLEET_ROUNDS", 1) || done[kill] < kills || done[power] < losses; i++ {
		p := makePlan(seed+uint64(i), z, fleetCast(controlsOf(seed+uint64(i)), disks))
		t.Log(p)
		found, err := round(t, w, bins, p)
		if err != nil || len(found) > 0 {
			t.Fatalf("seed %d (make test-fleet SEED=%d STEPS=%d FAULTS=%d DISKS=%s ROUNDS=1): %d violations, %v", p.seed, p.seed, z.steps, z.faults, strings.Join(disks, ","), len(found), err)
		}
		p.kills(done)
		t.Logf("%d rounds: %v", i+1, done)
	}
}
