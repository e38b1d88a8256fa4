package fleet

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// action is what an operator does, or what is done to a node.
type action string

const (
	push      action = "push"
	rollback  action = "rollback"
	purgeURL  action = "purge url"
	purgePath action = "purge prefix"
	purgeTag  action = "purge tag"
	purgeSite action = "purge site"
	purgeTwo  action = "purge twice" // while what the first one caused is being fetched
	drain     action = "drain"
	undrain   action = "undrain"
	// snapshot copies the control node's log, restore puts the copy in its place.
	snapshot action = "snapshot of the log"
	restore  action = "restore of the log, unseen by" // an edge
	mend     action = "mend"
	mendAll  action = "mend everything"

	kill  action = "kill -9"
	term  action = "SIGTERM"
	power action = "power loss"
	cut   action = "cut off from control"
	alone action = "cut off from all"
	split action = "cut off from the other control nodes" // and from nobody else
	lossy action = "loses packets"
)

// fault is one thing done to a node, some time after the step's operation begins.
type fault struct {
	what  action
	on    string
	after time.Duration
	until int           // the step in which it ends, …
	then  time.Duration // … so long after that begins
}

// step is one operation, and what happens meanwhile.
type step struct {
	do     action
	on     string // edge, URL, prefix, tag, …
	again  time.Duration
	faults []fault
}

// plan is a round. It follows from its seed and its size alone.
type plan struct {
	seed  uint64
	cast  cast
	steps []step
}

const (
	// meanwhile bounds when a fault strikes after its operation begins: most
	// operations are over by then.
	meanwhile = 450 * time.Millisecond
	// longest is how many steps a fault may last.
	longest = 3
)

// cast is who is in a fleet, by what may be done to them.
type cast struct {
	controls, servers, edges, origins []string
	disks                             []string // who has a disk that can lose power
}

// makePlan draws n steps with faults, and a restored log in the middle.
func makePlan(seed uint64, n int, c cast) plan {
	r := rand.New(rand.NewPCG(seed, 0x666c656574))
	p := plan{seed: seed, cast: c}
	well := map[string]int{} // the first step in which nothing is wrong with a node
	drained := ""
	at := n/2 + r.IntN(max(1, n/4))
	for i := range n {
		s := step{do: push}
		if i > 0 {
			s.draw(r, c, &drained)
		}
		for range r.IntN(3) {
			f := drawFault(r, c, len(p.steps))
			if well[f.on] > len(p.steps) {
				continue
			}
			well[f.on] = f.until + 1
			s.faults = append(s.faults, f)
		}
		p.steps = append(p.steps, s)
		if i == at {
			if len(c.controls) == 1 { // of three, the others know better than a copy
				p.steps = append(p.steps, restored(r, c)...)
			} else {
				p.steps = append(p.steps, parted(r, c, len(p.steps)+1)...)
			}
			clear(well) // both begin by waiting until all is well, and end so
		}
	}
	return p
}

// restored is a log that goes back while an edge does not hear of it: what it
// knows is overtaken by other entries with the same numbers, among them a purge
// and a push. The others hear of it, and have seen higher numbers. Where the edge is
// the shield, they fetch through it all the while.
func restored(r *rand.Rand, c cast) []step {
	victim := c.edges[r.IntN(len(c.edges))]
	url := aURL(r)
	if victim == shield {
		url = pulledURL(pulled[1], r.IntN(pulledPaths))
	}
	return []step{
		{do: snapshot},
		{do: purgeURL, on: aURL(r)},
		{do: push},
		{do: purgeURL, on: url}, // what is stored of it from here on is as of the highest number of the old log
		{do: restore, on: victim},
		{do: push},
		{do: purgeURL, on: url}, // with a number that the old log has given out
		{do: purgeTag, on: tags[0]},
		{do: mend, on: victim},
	}
}

// parted is three control nodes that are cut two from one, then each from each, at
// random points of what is commanded; nodes and operators reach them all. from is the
// number of the second of these steps.
func parted(r *rand.Rand, c cast, from int) []step {
	one, other := r.IntN(3), 0
	if other = r.IntN(2); other >= one {
		other++
	}
	cut := func(on, until int) fault {
		return fault{what: split, on: c.controls[on], after: time.Duration(r.IntN(int(meanwhile))), until: from + until, then: time.Duration(r.IntN(int(meanwhile)))}
	}
	return []step{
		{do: mendAll},
		{do: push, faults: []fault{cut(one, 2)}},
		{do: purgeURL, on: aURL(r)},
		{do: purgeTag, on: tags[0]},
		{do: push, faults: []fault{cut(one, 6), cut(other, 5)}},
		{do: purgeURL, on: aURL(r)},
		{do: purgeURL, on: aURL(r)},
		{do: rollback},
		{do: mendAll},
	}
}

func (s *step) draw(r *rand.Rand, c cast, drained *string) {
	switch k := r.IntN(20); {
	case k < 5:
		s.do = push
	case k < 7:
		s.do = rollback
	case k < 10:
		s.do, s.on, s.again = purgeTwo, aURL(r), time.Duration(r.IntN(300))*time.Millisecond
	case k < 13:
		s.do, s.on = purgeURL, aURL(r)
	case k < 14:
		s.do, s.on = purgePath, pulled[r.IntN(len(pulled))]+fmt.Sprintf("/p%d", r.IntN(2))
	case k < 15:
		s.do, s.on = purgeTag, tags[r.IntN(len(tags))]
	case k < 16:
		s.do, s.on = purgeSite, pulled[r.IntN(len(pulled))]
	case *drained != "":
		s.do, s.on, *drained = undrain, *drained, ""
	default:
		*drained = c.edges[r.IntN(len(c.edges))]
		s.do, s.on = drain, *drained
	}
}

func drawFault(r *rand.Rand, c cast, i int) fault {
	f := fault{after: time.Duration(r.IntN(int(meanwhile))), until: i + r.IntN(longest), then: time.Duration(r.IntN(int(meanwhile)))}
	among := c.edges
	switch k := r.IntN(20); {
	case k < 8:
		among = c.controls
	case k < 12:
		among = c.servers
	case k < 13:
		f.what, f.on = alone, c.origins[r.IntN(len(c.origins))]
		return f
	}
	f.on = among[r.IntN(len(among))]
	hasDisk := false
	for _, d := range c.disks {
		hasDisk = hasDisk || d == f.on
	}
	switch k := r.IntN(20); {
	case hasDisk && k < 9:
		f.what = power
	case k < 11:
		f.what = kill
	case k < 13:
		f.what = term
	case k < 16 && among[0] != c.controls[0]:
		f.what = cut
	case k < 18:
		f.what = alone
	default:
		f.what = lossy
	}
	return f
}

// String is the plan for people.
func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the plan of seed %d, with %d control nodes:\n", p.seed, len(p.cast.controls))
	for i, s := range p.steps {
		fmt.Fprintf(&b, "%3d %s %s\n", i, s.do, s.on)
		for _, f := range s.faults {
			fmt.Fprintf(&b, "      %v later: %s %s, until %v into %d\n", f.after.Round(time.Millisecond), f.on, f.what, f.then.Round(time.Millisecond), f.until)
		}
	}
	return b.String()
}

// The same seed is the same plan; another is another; and every kind of thing
// happens in a few of them.
func TestPlan(t *testing.T) {
	c := cast{[]string{"ctl1"}, []string{"dns1", "dns2"}, []string{"fra1", "iad1", "sin1"}, []string{"origin"}, []string{"ctl1"}}
	seen := map[action]bool{}
	for seed := range uint64(20) {
		if c.controls = controls; seed%2 == 0 {
			c.controls = controls[:1]
		}
		p := makePlan(seed, 12, c)
		if !reflect.DeepEqual(p, makePlan(seed, 12, c)) {
			t.Errorf("seed %d makes two plans", seed)
		}
		if reflect.DeepEqual(p.steps, makePlan(seed+1, 12, c).steps) {
			t.Errorf("seeds %d and %d make one plan", seed, seed+1)
		}
		last := map[string]int{}
		for i, s := range p.steps {
			seen[s.do] = true
			for _, f := range s.faults {
				seen[f.what] = true
				if i < last[f.on] {
					t.Errorf("seed %d, step %d: %s has a fault within a fault", seed, i, f.on)
				}
				last[f.on] = f.until + 1
			}
			if s.do == snapshot || s.do == mendAll {
				clear(last)
			}
		}
	}
	for _, a := range []action{push, rollback, purgeURL, purgePath, purgeTag, purgeSite, purgeTwo, drain, undrain, snapshot, restore, mend, mendAll, kill, term, power, cut, alone, split, lossy} {
		if !seen[a] {
			t.Errorf("%s never happens", a)
		}
	}
}
