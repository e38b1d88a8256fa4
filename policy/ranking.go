package policy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// A ranking is the order in which a Geo or Latency policy tries its choices
// for a client, as indexes of the choices. For Geo they are the targets of all
// rules that match, the most specific first. For Latency they are the best
// few choices by round trip (see grain), then all others in the order written.
//
// A grain is how finely Latency tells clients apart: round trips are rounded to
// a step, and the best few choices are ranked. The orders of n choices on a
// globe number about n to the fourth, and nobody can tell whether the ninth
// best edge is better than the tenth.
type grain struct {
	step   time.Duration
	ranked int
}

// grains are tried from the finest on until the blocks of a root are within
// their bound: latency is coarsened, never a map. The last one leaves the order
// written.
var grains = [...]grain{{rttStep, 8}, {4 * rttStep, 8}, {16 * rttStep, 4}, {32 * rttStep, 2}, {64 * rttStep, 1}, {128 * rttStep, 1}, {MaxRTT, 0}}

// round is a round trip as a grain sees it. The finest takes the rows of a
// table as they are.
func (g grain) round(rtt time.Duration) time.Duration {
	if g.step == rttStep {
		return rtt
	}
	return rtt.Round(g.step)
}

// ranker finds the rankings of one Geo or Latency policy.
type ranker struct {
	sv      *survey
	cfg     *Config
	node    *node
	policy  *Policy
	grain   grain
	rules   map[Selector]int32 // index in Map or RTT
	cidrs   map[int32]int32    // the same for rules with a prefix, by index in survey.cidrs
	choice  map[string]int32
	byClass []int32 // the ranking of each class, -1 when not known yet
	ids     map[string]int32
	scratch []int32
}

func newRanker(s *Set, sv *survey, i int, g grain) *ranker {
	r := &ranker{
		sv: sv, cfg: &s.cfg, grain: g, node: &s.nodes[i], policy: &s.cfg.Policies[i],
		rules: make(map[Selector]int32), cidrs: make(map[int32]int32), choice: make(map[string]int32), ids: make(map[string]int32),
		byClass: slices.Repeat([]int32{-1}, len(sv.classes)),
	}
	for j, name := range targets(*r.policy) {
		r.choice[name] = int32(j)
	}
	for j, sel := range selectors(*r.policy) {
		r.rules[sel] = int32(j)
		if sel.Prefix.IsValid() {
			at, _ := slices.BinarySearchFunc(sv.cidrs, sel.Prefix, comparePrefixes)
			r.cidrs[int32(at)] = int32(j)
		}
	}
	return r
}

// selectors lists the selectors of a policy's map or rows, in order.
func selectors(p Policy) []Selector {
	var all []Selector
	for _, rule := range p.Map {
		all = append(all, rule.Match)
	}
	for _, row := range p.RTT {
		all = append(all, row.Match)
	}
	return all
}

// of returns the number of the ranking that clients of a class have.
func (r *ranker) of(cl uint32) int32 {
	if id := r.byClass[cl]; id >= 0 {
		return id
	}
	c := r.sv.classes[cl]
	r.scratch = r.matching(c, r.scratch[:0])
	var ranking []uint16
	if r.policy.Kind == Geo {
		ranking = r.targetsOf(r.scratch)
	} else {
		ranking = r.nearest(r.scratch, r.sv.locs[c.loc])
	}
	key := make([]byte, 0, 2*len(ranking))
	for _, at := range ranking {
		key = binary.BigEndian.AppendUint16(key, at)
	}
	id, ok := r.ids[string(key)]
	if !ok {
		id = int32(len(r.node.rankings))
		r.ids[string(key)] = id
		r.node.rankings = append(r.node.rankings, ranking)
	}
	r.byClass[cl] = id
	return id
}

// matching appends the rules that match a class, the most specific first.
func (r *ranker) matching(c class, out []int32) []int32 {
	for at := c.cidr; at >= 0; at = r.sv.parents[at] {
		if j, ok := r.cidrs[at]; ok {
			out = append(out, j)
		}
	}
	loc := r.sv.locs[c.loc]
	var keys []Selector
	if loc.ASN != 0 {
		keys = append(keys, Selector{ASN: loc.ASN})
	}
	if loc.Country != "" && loc.City != "" {
		keys = append(keys, Selector{City: loc.Country + "/" + loc.City})
	}
	if loc.Country != "" && loc.Subdivision != "" {
		keys = append(keys, Selector{Subdivision: loc.Country + "-" + loc.Subdivision})
	}
	if loc.Country != "" {
		keys = append(keys, Selector{Country: loc.Country})
	}
	if loc.Continent != "" {
		keys = append(keys, Selector{Continent: loc.Continent})
	}
	for _, key := range append(keys, Selector{}) {
		if j, ok := r.rules[key]; ok {
			out = append(out, j)
		}
	}
	return out
}

func (r *ranker) targetsOf(rules []int32) []uint16 {
	var ranking []uint16
	for _, j := range rules {
		if at := uint16(r.choice[r.policy.Map[j].To]); !slices.Contains(ranking, at) {
			ranking = append(ranking, at)
		}
	}
	return ranking
}

// nearest ranks by round trip: for each choice the most specific row that has
// it, else the estimate from its distance, else none.
func (r *ranker) nearest(rows []int32, loc Location) []uint16 {
	type timed struct {
		at  uint16
		rtt time.Duration
	}
	var known []timed
	for at, c := range r.policy.Choices {
		if rtt, ok := r.rtt(rows, c.To, loc, at); ok {
			known = append(known, timed{uint16(at), r.grain.round(rtt)})
		}
	}
	slices.SortStableFunc(known, func(a, b timed) int { return cmp.Compare(a.rtt, b.rtt) })
	known = known[:min(len(known), r.grain.ranked)]
	ranking := make([]uint16, 0, len(r.policy.Choices))
	ranked := make([]bool, len(r.policy.Choices))
	for _, k := range known {
		ranking = append(ranking, k.at)
		ranked[k.at] = true
	}
	for at := range r.policy.Choices {
		if !ranked[at] {
			ranking = append(ranking, uint16(at))
		}
	}
	return ranking
}

func (r *ranker) rtt(rows []int32, name string, loc Location, at int) (time.Duration, bool) {
	for _, j := range rows {
		if rtt, ok := r.policy.RTT[j].RTT[name]; ok {
			return rtt, true
		}
	}
	ref := r.node.to[at]
	if ref >= 0 || !loc.Located || !r.cfg.Endpoints[^ref].Located {
		return 0, false
	}
	e := r.cfg.Endpoints[^ref]
	return estimateRTT(distance(loc.Lat, loc.Lon, e.Lat, e.Lon)), true
}

// regions numbers the distinct outcomes of the rules that a root reaches.
type regions struct {
	s       *Set
	rankers []*ranker
	root    int32
	pos     []int32 // by policy: its place in an outcome, or -1
	deps    int     // policies that look at the client
	limit   int     // how many there may be
	latency bool    // a Latency policy is among them
	byClass []int32
	ids     map[string]int32
	ranks   []int32 // region × deps: rankings, -1 for a policy that these clients cannot reach
	outcome []int32
	key     []byte
	seen    []int64 // by policy: the last class that was followed through it, plus 1
}

func newRegions(s *Set, rankers []*ranker, classes int, root int32, limit int) *regions {
	r := &regions{s: s, rankers: rankers, root: root, limit: limit, ids: make(map[string]int32), byClass: slices.Repeat([]int32{-1}, classes)}
	r.pos = slices.Repeat([]int32{-1}, len(s.nodes))
	seen := make([]bool, len(s.nodes))
	var visit func(ref int32)
	visit = func(ref int32) {
		if ref < 0 || seen[ref] {
			return
		}
		seen[ref] = true
		if rankers[ref] != nil {
			r.pos[ref] = int32(r.deps)
			r.deps++
			r.latency = r.latency || s.nodes[ref].kind == Latency
		}
		for _, to := range s.nodes[ref].to {
			visit(to)
		}
	}
	visit(root)
	r.outcome = make([]int32, r.deps)
	r.seen = make([]int64, len(s.nodes))
	return r
}

// of returns the region of a class: classes whose clients get the same ranking
// from every policy that they can reach are one region.
func (r *regions) of(cl uint32) (int32, error) {
	if id := r.byClass[cl]; id >= 0 {
		return id, nil
	}
	for i := range r.outcome {
		r.outcome[i] = -1
	}
	r.follow(r.root, cl)
	r.key = r.key[:0]
	for _, rank := range r.outcome {
		r.key = binary.BigEndian.AppendUint32(r.key, uint32(rank))
	}
	id, ok := r.ids[string(r.key)]
	if !ok {
		id = int32(len(r.ids))
		if int(id) >= r.limit {
			return 0, fmt.Errorf("its maps and latency rankings tell more than %d kinds of client apart", r.limit)
		}
		r.ids[string(r.key)] = id
		r.ranks = append(r.ranks, r.outcome...)
	}
	r.byClass[cl] = id
	return id, nil
}

// follow notes the ranking of every policy that clients of a class can come
// to, whatever the state and the draws.
func (r *regions) follow(ref int32, cl uint32) {
	if ref < 0 || r.seen[ref] == int64(cl)+1 {
		return
	}
	r.seen[ref] = int64(cl) + 1
	n := &r.s.nodes[ref]
	if r.pos[ref] < 0 {
		for _, to := range n.to {
			r.follow(to, cl)
		}
		return
	}
	rank := r.rankers[ref].of(cl)
	r.outcome[r.pos[ref]] = rank
	for _, at := range n.rankings[rank] {
		r.follow(n.to[at], cl)
	}
}
