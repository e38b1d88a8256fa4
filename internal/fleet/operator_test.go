package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"perigee.example/internal/control"
)

const (
	// receiptsWithin is how long a command waits for all nodes, in the middle of faults.
	receiptsWithin = "1500ms"
	// commandWithin bounds a command while nothing is broken.
	commandWithin = 40 * time.Second
)

// operator works on the fleet with the perigee command, one operation after the other.
type operator struct {
	r        *rig
	version  int            // of the last release
	releases map[string]int // by id
	acked    []string       // ids of releases that were pushed, in order
	drained  map[string]bool
	snapAt   time.Duration
	asked    []string      // control nodes, in the order in which this step's commands try them
	within   time.Duration // how long a command of this step is waited for
}

func newOperator(r *rig) *operator {
	return &operator{r: r, releases: map[string]int{}, drained: map[string]bool{}, asked: r.controls, within: commandWithin}
}

// said is what a command prints with --json.
type said struct {
	Seq      uint64           `json:"seq"`
	Receipts control.Receipts `json:"receipts"`
	Push     control.Pushed   `json:"push"`
}

// command runs perigee, and notes the operation and its receipts.
func (o *operator) command(op Op, args ...string) (said, bool) {
	r := o.r
	ctx, cancel := context.WithTimeout(context.Background(), o.within)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.bins.plain, append(args, "--json", "--control", r.admins(o.asked), "--wait", "all", "--within", receiptsWithin)...)
	cmd.Env = r.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	op.Start = r.now()
	err := cmd.Run() // it fails when a node is late, too
	op.End = r.now()
	var s said
	if json.Unmarshal(out.Bytes(), &s) == nil && s.Seq != 0 {
		op.Acked, op.Seq = true, s.Seq
	}
	outcome := "not acknowledged: " + strings.TrimSpace(errs.String())
	if op.Acked {
		outcome = fmt.Sprintf("seq %d, applied on %d of %d", s.Seq, len(s.Receipts.Applied), s.Receipts.Nodes)
	} else if err == nil {
		outcome += "exit 0, without a number: " + out.String()
	}
	r.t.Logf("%7.3f %s %s: %s", op.Start.Seconds(), op.Kind, strings.Join(args, " "), outcome)
	r.note(func(h *History) {
		h.Ops = append(h.Ops, op)
		for _, a := range s.Receipts.Applied {
			h.Receipts = append(h.Receipts, Receipt{op.Seq, a.Node, op.End})
		}
	})
	return s, op.Acked
}

// do carries out the operation of a step.
func (o *operator) do(s step) error {
	defer func(asked []string) { o.asked, o.within = asked, commandWithin }(o.asked)
	o.asked, o.within = slices.Concat(o.r.controls[s.asks:], o.r.controls[:s.asks]), s.within
	switch s.do {
	case push:
		return o.push()
	case rollback:
		o.rollback()
	case purgeTwo:
		o.r.hot.Store(&s.on)
		o.purge([]string{s.on}, "https://"+s.on)
		time.Sleep(s.again)
		o.purge([]string{s.on}, "https://"+s.on)
		time.Sleep(slowest) // what was under way comes
		o.r.hot.Store(nil)
	case purgeURL:
		o.purge([]string{s.on}, "https://"+s.on)
	case purgePath:
		o.purge(covered(func(url string) bool { return strings.HasPrefix(url, s.on+"/") }), "--prefix", "https://"+s.on)
	case purgeTag:
		for _, site := range pulled {
			name, _, _ := strings.Cut(site, ".")
			o.purge(covered(func(url string) bool { return strings.HasPrefix(url, site) && tagOf(url) == s.on }), "--tag", s.on, name)
		}
	case purgeSite:
		name, _, _ := strings.Cut(s.on, ".")
		o.purge(covered(func(url string) bool { return strings.HasPrefix(url, s.on) }), name)
	case drain, undrain:
		o.drain(s.do, s.on)
	case snapshot:
		return o.snapshot()
	case restore:
		return o.restore(s.on)
	case mendAll:
		return o.r.endAll()
	case mend:
		if err := o.r.end(s.on); err != nil {
			return err
		}
		return o.r.allApply(o.r.lastOf(Activate))
	}
	return nil
}

func covered(by func(url string) bool) []string {
	return slices.DeleteFunc(allPulled(), func(url string) bool { return !by(url) })
}

// push makes the next release and pushes it.
func (o *operator) push() error {
	o.version++
	dir := filepath.Join(o.r.base, "site")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range append([]string{"index.html"}, pageParts...) {
		url := pushed + "/" + strings.TrimPrefix(name, "index.html")
		if err := os.WriteFile(filepath.Join(dir, name), bodyOf(url, o.version), 0o600); err != nil {
			return err
		}
	}
	if s, ok := o.command(Op{Kind: Activate, Version: o.version}, "push", dir, "www"); ok {
		id := s.Push.Release.String()
		o.releases[id] = o.version
		o.acked = append(o.acked, id)
	}
	return nil
}

// rollback goes back to one of the releases before the last.
func (o *operator) rollback() {
	if len(o.acked) < 2 {
		return
	}
	id := o.acked[max(0, len(o.acked)-1-o.version%3-1)]
	o.command(Op{Kind: Activate, Version: o.releases[id]}, "rollback", "www", id)
}

// purge makes new versions at the origin, and purges the old ones.
func (o *operator) purge(urls []string, args ...string) {
	o.r.origin.bump(urls...)
	o.command(Op{Kind: Purge, URLs: urls}, append([]string{"purge"}, args...)...)
}

// drain drains an edge, or ends that. Never are two drained: with all others down
// one of them would have to answer.
func (o *operator) drain(what action, edge string) {
	if what == drain {
		for other := range o.drained {
			if other != edge {
				what, edge = undrain, other
			}
		}
	}
	if what == undrain {
		if _, ok := o.command(Op{Kind: Undrain, Edge: edge}, "undrain", edge); ok {
			delete(o.drained, edge)
		}
		return
	}
	o.drained[edge] = true // also without an answer
	o.command(Op{Kind: Drain, Edge: edge}, "drain", edge)
}

// stopped runs f while the control node does not run.
func (o *operator) stopped(f func(feed, copy string) error) error {
	n := o.r.nodes["ctl1"]
	o.r.began(0, "stopped by its operator", n.name)
	if err := o.r.kill(n, term); err != nil {
		return err
	}
	if err := f(filepath.Join(n.dir, "control", "feed"), filepath.Join(o.r.base, "feed.snapshot")); err != nil {
		return err
	}
	return o.r.end(n.name)
}

// snapshot copies the log, as who makes images of disks does.
func (o *operator) snapshot() error {
	if err := o.r.endAll(); err != nil {
		return err
	}
	o.snapAt = o.r.now()
	return o.stopped(func(feed, to string) error { return copyDir(feed, to) })
}

// restore puts the copy in the log's place while the edge victim hears nothing
// of the control node. What was acknowledged since the copy may be lost.
func (o *operator) restore(victim string) error {
	if err := o.r.begin(fault{what: cut, on: victim}); err != nil {
		return err
	}
	err := o.stopped(func(feed, from string) error {
		if err := os.RemoveAll(feed); err != nil {
			return err
		}
		return copyDir(from, feed)
	})
	o.r.note(func(h *History) {
		for i := range h.Ops {
			if h.Ops[i].Start >= o.snapAt {
				h.Ops[i].Void = true
			}
		}
	})
	return err
}

// look notes what the control node says now, if it says something.
func (o *operator) look() {
	if len(o.r.controls) == 1 { // one of three may be behind, and says what it knows
		o.note(o.r.api)
	}
}

// lookAtAll notes what each control node says once all are well: all that was
// acknowledged, a moment later.
func (o *operator) lookAtAll() error {
	for _, name := range o.r.controls {
		api, err := o.r.client([]string{name})
		if err != nil {
			return err
		}
		var last uint64
		for _, kind := range []Kind{Activate, Purge, Drain, Undrain} {
			last = max(last, o.r.lastOf(kind))
		}
		seen := uint64(0)
		for end := time.Now().Add(wellWithin); time.Now().Before(end) && seen < last; time.Sleep(lookEvery) {
			if s, err := status(api); err == nil {
				seen = s.Head.Seq
			}
		}
		if seen < last {
			return fmt.Errorf("%s has the log up to seq %d, and %d was acknowledged", name, seen, last)
		}
		o.note(api)
	}
	return nil
}

func (o *operator) note(api *control.Client) {
	v := View{Start: o.r.now()}
	s, err := status(api)
	if err != nil {
		return
	}
	v.End, v.Seq, v.Drained = o.r.now(), s.Head.Seq, s.Drained
	if site, ok := s.Sites["www"]; ok {
		if v.Active = o.releases[site.Active.String()]; v.Active == 0 {
			return // of a push that was not acknowledged: its number is not known
		}
	}
	o.r.note(func(h *History) { h.Views = append(h.Views, v) })
}
