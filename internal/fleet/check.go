package fleet

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// inFlight is how long after its end an operation without an acknowledgement
	// may still take effect: the control node may have the request, and be slow.
	inFlight = 30 * time.Second
	// afterFault is how long after a fault clients may still feel it: connections
	// that hang, probes that have to succeed again, caches of resolvers.
	afterFault = 8 * time.Second
	// maxViolations bounds what Check returns: the first ones tell.
	maxViolations = 50
)

// never is late enough, and something can be added to it.
const never = time.Duration(math.MaxInt64 / 2)

// Check compares a history with the promises. It is pure.
func Check(h *History) []Violation {
	c := &checker{h: h, applied: map[appliedKey]time.Duration{}}
	c.index()
	c.seqs()
	for i := range h.Replies {
		c.reply(&h.Replies[i])
	}
	for i := range h.Answers {
		c.answer(&h.Answers[i])
	}
	for i := range h.Views {
		c.view(&h.Views[i])
	}
	slices.SortStableFunc(c.found, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	return c.found[:min(len(c.found), maxViolations)]
}

type appliedKey struct {
	op   int // index in acked
	node string
}

type checker struct {
	h     *History
	acked []*Op // in the order of the log; none that is void
	// applied is when a node is known to have applied an operation.
	applied map[appliedKey]time.Duration
	found   []Violation
}

func (c *checker) say(r Rule, at time.Duration, format string, args ...any) {
	c.found = append(c.found, Violation{r, at, fmt.Sprintf(format, args...)})
}

// index finds out which node has applied what, from when on. A receipt covers
// every entry before it; but activations are made in the background, so only a
// receipt of an activation covers those.
func (c *checker) index() {
	kind := map[uint64]Kind{}
	for i := range c.h.Ops {
		if o := &c.h.Ops[i]; o.Acked && !o.Void {
			c.acked = append(c.acked, o)
			kind[o.Seq] = o.Kind
		}
	}
	slices.SortStableFunc(c.acked, func(a, b *Op) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, r := range c.h.Receipts {
		for i, o := range c.acked {
			if o.Seq > r.Seq || r.At < o.Start || o.Kind == Activate && kind[r.Seq] != Activate {
				continue
			}
			k := appliedKey{i, r.Node}
			if at, ok := c.applied[k]; !ok || r.At < at {
				c.applied[k] = r.At
			}
		}
	}
}

// appliedAt is when node is known to have applied acked operation i.
func (c *checker) appliedAt(i int, node string) time.Duration {
	if at, ok := c.applied[appliedKey{i, node}]; ok {
		return at
	}
	return never
}

// seqs: no number twice, and rising with time.
func (c *checker) seqs() {
	byTime := slices.Clone(c.acked)
	slices.SortStableFunc(byTime, func(a, b *Op) int { return cmp.Compare(a.End, b.End) })
	var highest *Op
	for _, o := range byTime {
		if highest != nil && o.Start >= highest.End && o.Seq <= highest.Seq {
			c.say(RuleLost, o.End, "%s of %v got seq %d, and %s of %v had got %d: entries are lost", o.Kind, o.Start, o.Seq, highest.Kind, highest.Start, highest.Seq)
		}
		if highest == nil || o.Seq > highest.Seq {
			highest = o
		}
	}
}

// possible are the operations of kinds that may have taken effect after base (nil: any) and
// before the time end, though nobody knows that they have: those that are under way or
// later than base, and those without a clear outcome.
func (c *checker) possible(base *Op, end time.Duration, kinds ...Kind) (out []*Op) {
	for i := range c.h.Ops {
		o := &c.h.Ops[i]
		if o == base || !slices.Contains(kinds, o.Kind) || o.Start >= end {
			continue
		}
		switch {
		case base == nil, o.Void:
		case o.Acked && o.Seq < base.Seq:
			continue
		case !o.Acked && o.End+inFlight < base.Start:
			continue
		}
		out = append(out, o)
	}
	return out
}

// releases are the versions that may be active at a node, or at control with
// node "", for a request between start and end; known is false when there may be none yet.
func (c *checker) releases(node string, start, end time.Duration) (versions []int, known bool) {
	var base *Op
	for i, o := range c.acked {
		at := o.End
		if node != "" {
			at = c.appliedAt(i, node)
		}
		if o.Kind == Activate && at <= start {
			base = o
		}
	}
	if base != nil {
		versions = append(versions, base.Version)
	}
	for _, o := range c.possible(base, end, Activate) {
		versions = append(versions, o.Version)
	}
	return versions, base != nil
}

func (c *checker) reply(r *Reply) {
	pushed := strings.HasPrefix(r.URL, c.h.Pushed)
	switch {
	case r.Failed != "" || r.Status >= 500:
		c.refused(r, pushed)
		return
	case r.Wrong != "":
		c.say(RuleWrong, r.End, "%s got from %s for %s: %s", r.Client, r.Edge, r.URL, r.Wrong)
		return
	case r.Status != 200:
		c.say(RuleWrong, r.End, "%s got status %d from %s for %s (page of release %d)", r.Client, r.Status, r.Edge, r.URL, r.Page)
		return
	}
	if !pushed {
		c.fresh(r)
		return
	}
	if r.Page != 0 {
		if r.Version != r.Page {
			c.say(RuleMixed, r.End, "%s has a page of release %d, and for it from %s %s of release %d", r.Client, r.Page, r.Edge, r.URL, r.Version)
		}
		return
	}
	if versions, _ := c.releases(r.Edge, r.Start, r.End); !slices.Contains(versions, r.Version) {
		c.say(RuleLost, r.End, "%s serves release %d at %s, between %v and %v only %v could be", r.Edge, r.Version, r.URL, r.Start, r.End, versions)
	}
}

// fresh: what a purge covers that this edge has applied is not served any more.
func (c *checker) fresh(r *Reply) {
	for i, o := range c.acked {
		if o.Kind != Purge || c.appliedAt(i, r.Edge) > r.Start || !slices.Contains(o.URLs, r.URL) {
			continue
		}
		least := 0
		for _, b := range c.h.Bumps {
			if b.URL == r.URL && b.At <= o.Start {
				least = max(least, b.Version)
			}
		}
		if r.Version < least {
			c.say(RulePurged, r.End, "%s served version %d of %s to a request of %v; the purge of seq %d, for version %d, was applied there at %v",
				r.Edge, r.Version, r.URL, r.Start, o.Seq, least, c.appliedAt(i, r.Edge))
			return
		}
	}
}

// refused: who asks an edge that runs, over lines that stand, is served. What is
// not stored needs the origin, and a shield if there is one.
func (c *checker) refused(r *Reply, pushed bool) {
	for _, f := range c.h.Faults {
		if f.Start < r.End && r.Start < f.End+afterFault && (f.On == r.Edge || f.On == r.Client || !pushed && f.On != "") {
			return
		}
	}
	if _, known := c.releases(r.Edge, r.Start, r.End); pushed && !known {
		return // no release yet
	}
	why := r.Failed
	if why == "" {
		why = fmt.Sprintf("status %d", r.Status)
	}
	c.say(RuleRefused, r.End, "%s got nothing from %s for %s between %v and %v, and nothing was broken: %s", r.Client, r.Edge, r.URL, r.Start, r.End, why)
}

// answer: a DNS node that has applied a drain does not name that edge, until
// it is undrained. A resolver may say for the TTL what it heard.
func (c *checker) answer(a *Answer) {
	if a.Failed != "" {
		for _, f := range c.h.Faults {
			if f.Start < a.End && a.Start < f.End+afterFault {
				return
			}
		}
		c.say(RuleRefused, a.End, "no answer from %s, and nothing was broken: %s", cmp.Or(a.Server, "the resolver"), a.Failed)
		return
	}
	if len(a.Edges) == 0 {
		c.say(RuleWrong, a.End, "an answer of %s names no edge", cmp.Or(a.Server, "the resolver"))
	}
	servers, heard := []string{a.Server}, a.Start
	if a.Server == "" {
		servers, heard = c.h.Servers, a.Start-c.h.TTL
	}
	for _, edge := range a.Edges {
		if o := c.drainedAt(edge, servers, heard, a.End); o != nil {
			c.say(RuleDrained, a.End, "an answer of %s at %v names %s, whose drain (seq %d) was applied there before %v",
				cmp.Or(a.Server, "the resolver"), a.Start, edge, o.Seq, heard)
		}
	}
}

// drainedAt is the drain that all servers have applied by the time heard and
// that nothing may have undone before end; nil: there is none.
func (c *checker) drainedAt(edge string, servers []string, heard, end time.Duration) *Op {
	var last *Op
	for i, o := range c.acked {
		if o.Edge != edge {
			continue
		}
		all := true
		for _, s := range servers {
			all = all && c.appliedAt(i, s) <= heard
		}
		if all {
			last = o
		}
	}
	if last == nil || last.Kind != Drain {
		return nil
	}
	for _, o := range c.possible(last, end, Undrain) {
		if o.Edge == edge {
			return nil
		}
	}
	return last
}

// view: the control node knows what it acknowledged.
func (c *checker) view(v *View) {
	for _, o := range c.acked {
		if o.End <= v.Start && o.Seq > v.Seq {
			c.say(RuleLost, v.End, "the log ends at seq %d, and %s of seq %d was acknowledged at %v", v.Seq, o.Kind, o.Seq, o.End)
			break
		}
	}
	if versions, known := c.releases("", v.Start, v.End); known && !slices.Contains(versions, v.Active) {
		c.say(RuleLost, v.End, "the control node has release %d active; only %v could be", v.Active, versions)
	}
	for _, edge := range c.h.Edges {
		var last *Op
		for _, o := range c.acked {
			if o.Edge == edge && o.End <= v.Start {
				last = o
			}
		}
		if last == nil {
			continue
		}
		drained := slices.Contains(v.Drained, edge)
		other := map[bool]Kind{true: Drain, false: Undrain}[drained]
		if last.Kind == other {
			continue
		}
		undone := slices.ContainsFunc(c.possible(last, v.End, other), func(o *Op) bool { return o.Edge == edge })
		if !undone {
			c.say(RuleLost, v.End, "%s of %s (seq %d) was acknowledged at %v; the control node says drained: %t", last.Kind, edge, last.Seq, last.End, drained)
		}
	}
}
