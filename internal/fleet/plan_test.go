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
	id    int // within its plan, from 1 on
	what  action
	on    string
	after time.Duration
	until int           // the step in which it ends, …
	then  time.Duration // … so long after that begins
	// again are further kills, or losses of power, so long after each start: before it
	// is over, most of them.
	again []time.Duration
	// outlives is for a loss of power: the disk's alone, which the process outlives until
	// the fault ends.
	outlives bool
}

// step is one operation, and what happens meanwhile.
type step struct {
	do     action
	on     string // edge, URL, prefix, tag, …
	again  time.Duration
	faults []fault
	asks   int           // the control node that is asked first, by its place among them
	within time.Duration // the operator gives up after that
}

// size is how long a round is, and how much goes wrong in it.
type size struct {
	steps  int
	faults int // at most, in a step
	again  int // at most, how often who was killed is killed once more while it starts
}

// plan is a round. It follows from its seed and its size alone.
type plan struct {
	seed  uint64
	size  size
	cast  cast
	steps []step
}

const (
	// meanwhile bounds when a fault strikes after its operation begins: most
	// operations are over by then.
	meanwhile = 450 * time.Millisecond
	// longest is how many steps a fault may last.
	longest = 3
	// patientOne and patientThree are how long an operator waits for an answer of
	// so many control nodes: three may have to agree on another leader, and a push goes on at the next one when the
	// one that took it has said nothing for 15 s.
	patientOne   = 10 * time.Second
	patientThree = 25 * time.Second
	// hopeless is how long an operator waits while no two control nodes reach each other:
	// nothing can be acknowledged, and what is sent may be written when they do again.
	hopeless = 6 * time.Second
)

// cast is who is in a fleet, by what may be done to them.
type cast struct {
	controls, servers, edges, origins []string
	disks                             []string // who has a disk that can lose power
}

// makePlan draws steps with faults, and a restored log or partitions in the middle.
func makePlan(seed uint64, z size, c cast) plan {
	n := z.steps
	r := rand.New(rand.NewPCG(seed, 0x666c656574))
	p := plan{seed: seed, size: z, cast: c}
	well := map[string]int{} // the first step in which nothing is wrong with a node
	drained := ""
	at := n/2 + r.IntN(max(1, n/4))
	for i := range n {
		s := step{do: push}
		if i > 0 {
			s.draw(r, c, &drained)
		}
		for range r.IntN(z.faults + 1) {
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
	p.vary(rand.New(rand.NewPCG(seed, 0x7661727)))
	return p
}

// vary numbers the faults, and draws who is asked first in each step and who is killed
// more than once.
func (p *plan) vary(r *rand.Rand) {
	id := 0
	for i := range p.steps {
		s := &p.steps[i]
		s.asks = r.IntN(len(p.cast.controls))
		switch {
		case s.within > 0:
		case len(p.cast.controls) == 1:
			s.within = patientOne
		default:
			s.within = patientThree
		}
		for j := range s.faults {
			f := &s.faults[j]
			id++
			f.id = id
			if f.what != kill && f.what != power {
				continue
			}
			for range r.IntN(p.size.again + 1) {
				f.again = append(f.again, time.Duration(r.IntN(int(meanwhile))))
			}
			f.outlives = r.IntN(3) == 0 && f.what == power
		}
	}
}

// kills is how often a plan does something to nodes that their processes die of.
func (p *plan) kills(done map[action]int) {
	for _, s := range p.steps {
		for _, f := range s.faults {
			done[f.what] += 1 + len(f.again)
		}
	}
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
		{do: push, faults: []fault{cut(one, 6), cut(other, 5)}, within: hopeless},
		{do: purgeURL, on: aURL(r), within: hopeless},
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
			what := string(f.what)
			if f.outlives {
				what += " of its disk alone"
			}
			fmt.Fprintf(&b, "      %v later: %s %s, until %v into %d", f.after.Round(time.Millisecond), f.on, what, f.then.Round(time.Millisecond), f.until)
			for _, again := range f.again {
				fmt.Fprintf(&b, ", once more %v after a start", again.Round(time.Millisecond))
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// The same seed is the same plan; another is another; and every kind of thing
// happens in a few of them.
func TestPlan(t *testing.T) {
	c := cast{[]string{"ctl1"}, []string{"dns1", "dns2"}, []string{"fra1", "iad1", "sin1"}, []string{"origin"}, []string{"ctl1"}}
	seen, done, first, outlived := map[action]bool{}, map[action]int{}, [3]bool{}, false
	for seed := range uint64(20) {
		if c.controls = controls; seed%2 == 0 {
			c.controls = controls[:1]
		}
		z := size{steps: 12, faults: 2, again: 1}
		p := makePlan(seed, z, c)
		if !reflect.DeepEqual(p, makePlan(seed, z, c)) {
			t.Errorf("seed %d makes two plans", seed)
		}
		if reflect.DeepEqual(p.steps, makePlan(seed+1, z, c).steps) {
			t.Errorf("seeds %d and %d make one plan", seed, seed+1)
		}
		last := map[string]int{}
		p.kills(done)
		for i, s := range p.steps {
			seen[s.do], first[s.asks] = true, true
			for _, f := range s.faults {
				seen[f.what], outlived = true, outlived || f.outlives
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
	once := 0
	for seed := range uint64(20) {
		p := makePlan(seed, size{steps: 12, faults: 2}, cast{controls[:1], c.servers, c.edges, c.origins, c.disks})
		for _, s := range p.steps {
			for _, f := range s.faults {
				if len(f.again) > 0 {
					t.Errorf("seed %d: %s is killed more than once", seed, f.on)
				}
				if f.what == kill {
					once++
				}
			}
		}
	}
	if first != [3]bool{true, true, true} || done[kill] <= once || !outlived {
		t.Errorf("asked first are %v; %d kills, %d where nobody is killed twice; a process outlives its disk: %t", first, done[kill], once, outlived)
	}
}
