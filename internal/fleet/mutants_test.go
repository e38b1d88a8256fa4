//go:build fleetmutants

package fleet

import (
	"slices"
	"testing"
)

// mutants are builds of perigee that break one promise each: the tag, and what a plan
// needs to show it. Each hook is a line in a file of its own beside the code.
var mutants = []struct {
	tag   string
	what  string
	shows func(p plan) bool
}{
	{"mutant_nosync", "an acknowledgement is not synced", func(p plan) bool {
		return slices.ContainsFunc(p.steps[1:], func(s step) bool {
			return slices.ContainsFunc(s.faults, func(f fault) bool { return f.what == power && f.on == "ctl1" })
		})
	}},
	{"mutant_chain", "the chain of the log is not verified", always},
	{"mutant_swap", "a release is active before its blobs have come", always},
	{"mutant_asof", "what is stored counts as fetched when it is stored", func(p plan) bool {
		n := 0
		for _, s := range p.steps {
			if s.do == purgeTwo {
				n++
			}
		}
		return n >= 2
	}},
	{"mutant_ack", "an entry is acknowledged before it is applied", always},
}

func always(plan) bool { return true }

const (
	// mutantTries bounds the seeds that are tried on one mutant.
	mutantTries = 4
	// mutantSteps is the length of their rounds.
	mutantSteps = 8
	firstSeed   = 1
)

// TestMutants checks the checker and the rounds: each mutant must make one of
// a few fixed rounds fail, and perigee as it is must pass every round that was used.
func TestMutants(t *testing.T) {
	if !ownWorld(t) {
		return
	}
	w := newWorld(t, places)
	disks := []string{"ctl1"}
	used := map[uint64]plan{}
	for _, m := range mutants {
		bins := buildAll(t, m.tag)
		caught := false
		for seed, tries := uint64(firstSeed), 0; !caught && tries < mutantTries; seed++ {
			p := makePlan(seed, size{steps: mutantSteps, faults: 2}, fleetCast(1, disks))
			if !m.shows(p) {
				continue
			}
			tries++
			used[seed] = p
			t.Logf("%s: %s; %s", m.tag, m.what, p)
			found, err := round(t, w, bins, p)
			if caught = len(found) > 0 || err != nil; caught {
				rules := map[Rule]int{}
				for _, v := range found {
					rules[v.Rule]++
				}
				t.Logf("%s: CAUGHT by seed %d: %v, %v", m.tag, seed, rules, err)
			}
		}
		if !caught {
			t.Errorf("%s (%s): %d rounds did not see it", m.tag, m.what, mutantTries)
		}
	}
	bins := buildAll(t, "")
	for seed, p := range used {
		if found, err := round(t, w, bins, p); err != nil || len(found) > 0 {
			t.Errorf("perigee as it is fails the round of seed %d: %v, %v", seed, found, err)
		}
	}
}
