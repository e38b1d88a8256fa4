package policy

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Set is a compiled Config: for every policy its rules, and for every policy
// that a name is bound to the Atlas that maps clients to regions. Immutable,
// and safe for concurrent use.
type Set struct {
	cfg    Config
	geo    Geography // nil knows nothing
	names  map[string]int
	nodes  []node // one for each policy
	roots  []root
	byName map[string]Name
	paths  []int // by policy: the ways on which it leads to choices
}

// Name is a handle for a policy or endpoint that a name may be steered by. It
// belongs to the Set that gave it.
type Name int32

// node is a compiled policy. A reference to a policy is its index, one to an
// endpoint the complement of its index.
type node struct {
	kind     Kind
	hash     uint64 // of the name
	ttl      time.Duration
	answers  int
	to       []int32
	hashes   []uint64   // Multivalue: of the choices' names
	paces    []float64  // Weighted: 1/weight
	rankings [][]uint16 // Geo and Latency: the orders in which choices are tried
}

type root struct {
	ref     int32
	name    string
	reaches []int
	grain   int // how far latency was coarsened, in grains
	atlas   atlas
}

// Compile checks c and compiles it. roots are the policies or endpoints that
// steered names are bound to; an Atlas is built for each. A nil geography
// knows nothing of any address.
//
// The error is a list (errors.Join) of *ConfigError, with every mistake found;
// or, when the geography breaks its contract, an error that says how. A
// country database of half a million networks takes well under a second, ten
// roots over it a few.
func Compile(c Config, roots []string, g Geography) (*Set, error) {
	return compile(c, roots, g, limits{maxBlocks, maxRegions})
}

func compile(c Config, roots []string, g Geography, most limits) (*Set, error) {
	c = clone(c)
	names, errs := check(c)
	for _, name := range roots {
		if _, ok := names[name]; !ok {
			errs = append(errs, &ConfigError{Path: "steer", Text: "no edge or policy is called " + quoteEmpty(name), Hint: suggestName(name, names)})
		}
	}
	if len(errs) > 0 {
		return nil, join(errs)
	}
	s := &Set{cfg: c, geo: g, names: names, byName: make(map[string]Name)}
	for _, p := range c.Policies {
		s.nodes = append(s.nodes, s.compile(p))
	}
	if err := s.checkPaths(); err != nil {
		return nil, err
	}
	for _, name := range roots {
		if _, ok := s.byName[name]; ok {
			continue
		}
		s.byName[name] = Name(len(s.roots))
		ref := int32(names[name])
		s.roots = append(s.roots, root{ref: ref, name: name, reaches: s.reach(ref)})
	}
	return s, s.draw(g, most)
}

// clone copies c deeply, so that the caller may go on changing it.
func clone(c Config) Config {
	c.Endpoints = slices.Clone(c.Endpoints)
	c.Policies = slices.Clone(c.Policies)
	for i := range c.Policies {
		p := &c.Policies[i]
		p.Choices, p.Map, p.RTT = slices.Clone(p.Choices), slices.Clone(p.Map), slices.Clone(p.RTT)
		for j := range p.RTT {
			p.RTT[j].RTT = maps.Clone(p.RTT[j].RTT)
		}
	}
	return c
}

func (s *Set) compile(p Policy) node {
	n := node{kind: p.Kind, hash: nameHash(p.Name), ttl: ttlOf(p), answers: p.Answers}
	if n.answers == 0 {
		n.answers = DefaultAnswers
	}
	for _, name := range targets(p) {
		n.to = append(n.to, int32(s.names[name]))
		n.hashes = append(n.hashes, nameHash(name))
	}
	if p.Kind == Weighted {
		for _, c := range p.Choices {
			n.paces = append(n.paces, 1/float64(c.Weight)) // +Inf for a weight of 0
		}
	}
	return n
}

func ttlOf(p Policy) time.Duration {
	if p.TTL == 0 {
		return DefaultTTL
	}
	return p.TTL
}

// checkPaths bounds the ways on which policies lead to choices: when the whole
// fleet is down, Decide walks all of them.
func (s *Set) checkPaths() error {
	s.paths = make([]int, len(s.nodes))
	for i, p := range s.cfg.Policies {
		if s.ways(int32(i)) > MaxPaths {
			return join([]error{&ConfigError{
				Path: "policy." + tomlKey(p.Name),
				Text: fmt.Sprintf("its nested policies lead to choices on more than %d ways", MaxPaths),
				Hint: "nest fewer policies, or give them fewer choices",
			}})
		}
	}
	return nil
}

// ways counts the ways to choices from ref, up to one more than there may be.
func (s *Set) ways(ref int32) int {
	if ref < 0 {
		return 1
	}
	if s.paths[ref] == 0 {
		for _, to := range s.nodes[ref].to {
			s.paths[ref] = min(s.paths[ref]+s.ways(to), MaxPaths+1)
		}
	}
	return s.paths[ref]
}

// reach lists the endpoints that ref can lead to, in order.
func (s *Set) reach(ref int32) []int {
	seen := make([]bool, len(s.nodes))
	found := make([]bool, len(s.cfg.Endpoints))
	var visit func(ref int32)
	visit = func(ref int32) {
		if ref < 0 {
			found[^ref] = true
			return
		}
		if seen[ref] {
			return
		}
		seen[ref] = true
		for _, to := range s.nodes[ref].to {
			visit(to)
		}
	}
	visit(ref)
	var out []int
	for i, ok := range found {
		if ok {
			out = append(out, i)
		}
	}
	return out
}

// draw draws the atlas of every root.
func (s *Set) draw(g Geography, most limits) error {
	var cidrs []netip.Prefix
	for _, p := range s.cfg.Policies {
		for _, sel := range selectors(p) {
			if sel.Prefix.IsValid() {
				cidrs = append(cidrs, sel.Prefix)
			}
		}
	}
	if !s.looksAtClients() {
		g = nil // spare the walk
	}
	sv, err := look(g, sortPrefixes(cidrs), s.keep())
	if err != nil {
		return err
	}
	var rankers [len(grains)][]*ranker
	var errs []error
	for i := range s.roots {
		r := &s.roots[i]
		for ; ; r.grain++ {
			if rankers[r.grain] == nil {
				rankers[r.grain] = s.rankers(sv, rankers[0], grains[r.grain])
			}
			regions := newRegions(s, rankers[r.grain], len(sv.classes), r.ref, most.regions)
			if r.atlas, err = newAtlas(sv, regions, most.blocks); err == nil {
				break
			}
			if r.grain+1 == len(grains) || !regions.latency {
				errs = append(errs, tooLarge(r.name, err))
				break
			}
		}
	}
	return join(errs)
}

// rankers makes what ranks the choices of each policy, at a grain. Only Latency
// depends on it: for the rest fine ones serve, if there are any.
func (s *Set) rankers(sv *survey, fine []*ranker, g grain) []*ranker {
	list := make([]*ranker, len(s.nodes))
	for i, n := range s.nodes {
		switch {
		case n.kind == Geo && fine != nil:
			list[i] = fine[i]
		case n.kind == Geo || n.kind == Latency:
			list[i] = newRanker(s, sv, i, g)
			if fine != nil {
				list[i].ids = fine[i].ids // they number one list of rankings
			}
		}
	}
	return list
}

// Coarse returns the step to which root's latency policies round, when they
// were coarsened because all that the root tells apart would have cut the
// address space into too many blocks; else 0.
func (s *Set) Coarse(root Name) time.Duration {
	if g := s.roots[root].grain; g > 0 {
		return grains[g].step
	}
	return 0
}

func (s *Set) looksAtClients() bool {
	for _, n := range s.nodes {
		if n.kind == Geo || n.kind == Latency {
			return true
		}
	}
	return false
}

// keep returns what cuts a location down to what some rule looks at.
func (s *Set) keep() func(Location) Location {
	var want Location
	for _, p := range s.cfg.Policies {
		want.Located = want.Located || p.Kind == Latency
		for _, sel := range selectors(p) {
			want.ASN |= sel.ASN
			want.City += sel.City
			want.Subdivision += sel.Subdivision
		}
	}
	return func(loc Location) Location {
		if want.ASN == 0 {
			loc.ASN = 0
		}
		if want.City == "" {
			loc.City = ""
		}
		if want.Subdivision == "" {
			loc.Subdivision = ""
		}
		if !want.Located || !loc.placed() {
			loc.Lat, loc.Lon, loc.Located = 0, 0, false
		}
		loc.Centroid = false
		return loc
	}
}

// placed reports whether the location has coordinates that are a place on
// earth, which NaN is not.
func (l Location) placed() bool {
	return l.Located && math.Abs(l.Lat) <= 90 && math.Abs(l.Lon) <= 180
}

// Root returns the handle of one of the roots given to Compile.
func (s *Set) Root(name string) (Name, bool) {
	n, ok := s.byName[name]
	return n, ok
}

// NameOf returns the policy or endpoint that root stands for.
func (s *Set) NameOf(root Name) string { return s.roots[root].name }

// Reaches returns the indexes of every endpoint that root can lead to, in
// order. Do not modify it.
func (s *Set) Reaches(root Name) []int { return s.roots[root].reaches }

// Endpoint returns the endpoint with index i.
func (s *Set) Endpoint(i int) Endpoint { return s.cfg.Endpoints[i] }

// NewState returns a State for s in which every endpoint's health is Unknown.
func (s *Set) NewState() *State {
	return &State{Endpoints: make([]EndpointState, len(s.cfg.Endpoints))}
}
