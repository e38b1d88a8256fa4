package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// witness is one Explain under way.
type witness struct {
	*terrain
	q     Query
	st    *State
	d     *Decision
	where surroundings
	key   uint64
	level leniency
}

// Explain fills d as Decide does, and d.Why, by evaluating the rules as
// written, without the compiled tables. That both agree on endpoints, TTL,
// scope and Open is a test of the compiler. It is for people and takes its
// time: it asks the geography about every network around the client until the
// rules differ.
func (s *Set) Explain(root Name, q Query, st *State, d *Decision) {
	t := newTerrain(s, s.roots[root].name)
	t.explain(t.around(normal(q.Client)), q, st, d)
}

// explain is Explain for a client whose surroundings are known: finding them is
// most of the work.
func (t *terrain) explain(where surroundings, q Query, st *State, d *Decision) {
	name, client := t.root, normal(q.Client)
	*d = Decision{Endpoints: d.Endpoints[:0], Why: d.Why[:0], TTL: DefaultTTL}
	w := &witness{terrain: t, q: q, st: st, d: d, where: where}
	d.Scope = w.where.scope
	block := w.where.block
	w.key = blockKey(q.Draw, block.Addr().Is4(), unit(block.Addr()), block.Bits())
	w.introduce(name, client)
	if p := t.s.written(name); p != nil {
		d.TTL = ttlOf(*p)
	}
	for !w.up(name) {
		if w.level == openAll {
			d.Open = false
			w.say(name, "nothing that this client can come to has an address of the family asked for")
			return
		}
		w.level++
		d.Open = true
		if w.level == openDown {
			w.say(name, "every choice is out: what is down counts as up, what is drained or forced down stays out")
		} else {
			w.say(name, "nothing else exists: what is drained or forced down counts as up too")
		}
	}
	w.choose(name, d.TTL)
	w.conclude(name)
}

func (w *witness) say(name, format string, args ...any) {
	w.d.Why = append(w.d.Why, Step{Policy: name, Text: fmt.Sprintf(format, args...)})
}

func (w *witness) introduce(name string, client netip.Prefix) {
	if w.st != nil && w.st.Stale {
		w.say(name, "the picture of the fleet is old: control or probes are lost, the last known state counts")
	}
	switch {
	case w.blind:
		w.say(name, "client %v: the client does not matter here", client)
	case w.where.block == client && w.where.scope > client.Bits():
		w.say(name, "client %v is larger than what the rules tell apart: counts as most of it does, such as %v; location %v", client, w.where.addr, w.where.loc)
	default:
		w.say(name, "client %v: location %v", client, w.where.loc)
	}
}

func (w *witness) conclude(name string) {
	names := make([]string, len(w.d.Endpoints))
	for i, e := range w.d.Endpoints {
		names[i] = w.s.cfg.Endpoints[e].Name
	}
	scope := "scope /0: good for every client"
	if w.d.Scope > 0 {
		scope = fmt.Sprintf("scope /%d: good for every client in %v", w.d.Scope, w.where.block)
		if w.d.Scope > w.where.block.Bits() {
			scope = fmt.Sprintf("scope /%d: a SOURCE of that length gets a tailored answer", w.d.Scope)
		}
	}
	w.say(name, "answer %s, TTL %v, %s", strings.Join(names, ", "), w.d.TTL, scope)
}

// String is what an operator reads of a location: "DE, EU, AS64500 (50.11,
// 8.68)", "unknown".
func (l Location) String() string {
	var parts []string
	if l.City != "" {
		parts = append(parts, l.City)
	}
	switch {
	case l.Country != "" && l.Subdivision != "":
		parts = append(parts, l.Country+"-"+l.Subdivision)
	case l.Country != "":
		parts = append(parts, l.Country)
	}
	if l.Continent != "" {
		parts = append(parts, Selector{Continent: l.Continent}.String())
	}
	if l.ASN != 0 {
		parts = append(parts, Selector{ASN: l.ASN}.String())
	}
	switch {
	case l.Located && l.Centroid:
		parts = append(parts, "at the centroid of "+l.Country)
	case l.Located:
		parts = append(parts, fmt.Sprintf("at %.2f, %.2f", l.Lat, l.Lon))
	}
	if len(parts) == 0 {
		return "unknown"
	}
	return strings.Join(parts, ", ")
}

// state is what is known of the endpoint called name.
func (w *witness) state(name string) EndpointState {
	i := ^w.s.names[name]
	if w.st == nil || i >= len(w.st.Endpoints) {
		return EndpointState{}
	}
	return w.st.Endpoints[i]
}

// up reports whether name would answer.
func (w *witness) up(name string) bool {
	p := w.s.written(name)
	if p == nil {
		if w.lacking(name) {
			return false
		}
		st := w.state(name)
		out := st.Draining || st.Force == ForceDown
		switch w.level {
		case openAll:
			return true
		case openDown:
			return !out
		}
		return !out && (st.Health != Down || st.Force == ForceUp)
	}
	return slices.ContainsFunc(w.choices(p), func(o option) bool { return w.up(o.to) })
}

// lacking reports whether the endpoint called name does not exist for this
// question.
func (w *witness) lacking(name string) bool {
	i := ^w.s.names[name]
	return w.q.Only != nil && (i >= len(w.q.Only) || !w.q.Only[i])
}

// choices lists what p may choose for this client.
func (w *witness) choices(p *Policy) []option {
	if p.Kind == Geo || p.Kind == Latency {
		return w.order(p, w.where.addr, w.where.loc)
	}
	var out []option
	for _, c := range p.Choices {
		out = append(out, option{to: c.To})
	}
	return out
}

// out says why name would not answer.
func (w *witness) out(name string) string {
	if w.s.written(name) != nil {
		return "is down: all that it may choose is out"
	}
	if w.lacking(name) {
		return "has no address of the family asked for"
	}
	st := w.state(name)
	var said []string
	switch {
	case st.Draining:
		said = append(said, "drained")
	case st.Force == ForceDown:
		said = append(said, "forced down")
	}
	if st.Health == Down {
		down := "down"
		if st.Why != "" {
			down += ": " + st.Why
		}
		said = append(said, down)
	}
	return "is " + strings.Join(said, ", and ")
}

// choose appends the endpoints that name, which is up, answers with. ttl is
// the least TTL met on the way to it.
func (w *witness) choose(name string, ttl time.Duration) {
	p := w.s.written(name)
	if p == nil {
		w.endpoint(name)
		return
	}
	ttl = min(ttl, ttlOf(*p))
	w.d.TTL = min(w.d.TTL, ttl)
	switch p.Kind {
	case Geo, Latency, Failover:
		for _, o := range w.choices(p) {
			why := ""
			if o.why != "" {
				why = o.why + ": "
			}
			if w.up(o.to) {
				w.say(name, "%v: %s→ %s", p.Kind, why, o.to)
				w.choose(o.to, ttl)
				return
			}
			w.say(name, "%v: %snot %s, which %s", p.Kind, why, o.to, w.out(o.to))
		}
	case Weighted:
		w.choose(w.weighted(p, ttl), ttl)
	case Multivalue:
		w.several(p, ttl)
	}
}

func (w *witness) endpoint(name string) {
	w.d.Endpoints = append(w.d.Endpoints, ^w.s.names[name])
	st := w.state(name)
	switch {
	case w.level > asKnown && (st.Draining || st.Force == ForceDown || st.Health == Down && st.Force != ForceUp):
		w.say(name, "%s; it answers because all else is out too", w.out(name))
	case st.Force == ForceUp:
		w.say(name, "is forced up")
	case st.Health == Unknown:
		w.say(name, "counts as up: no probe has told otherwise yet")
	default:
		w.say(name, "is up")
	}
}

// weighted lets the choices race: of those that are up the one with the least
// time for its weight comes first.
func (w *witness) weighted(p *Policy, ttl time.Duration) string {
	draw := levelDraw(w.key, nameHash(p.Name), ttl, w.q.Now)
	sum := uint64(0)
	var in, spare []Choice
	for _, c := range p.Choices {
		sum += uint64(c.Weight)
		switch {
		case !w.up(c.To):
			w.say(p.Name, "weighted: not %s (weight %d), which %s", c.To, c.Weight, w.out(c.To))
		case c.Weight == 0:
			spare = append(spare, c)
		default:
			in = append(in, c)
		}
	}
	time := func(c Choice) float64 { return raceTime(draw, nameHash(c.To)) / float64(max(c.Weight, 1)) }
	first := func(list []Choice) Choice {
		return slices.MinFunc(list, func(a, b Choice) int { return cmp.Compare(time(a), time(b)) })
	}
	if len(in) == 0 {
		to := first(spare).To
		w.say(p.Name, "weighted: only choices of weight 0 are left: draw %.4f → %s", fraction(draw), to)
		return to
	}
	c := first(in)
	w.say(p.Name, "weighted: draw %.4f → %s (%d of %d)", fraction(draw), c.To, c.Weight, sum)
	return c.To
}

// fraction is a draw as a number from 0 to 1.
func fraction(draw uint64) float64 { return float64(draw>>11) / (1 << 53) }

// several draws some of the choices of a multivalue policy, each at most once.
func (w *witness) several(p *Policy, ttl time.Duration) {
	draw := levelDraw(w.key, nameHash(p.Name), ttl, w.q.Now)
	var in []string
	for _, c := range p.Choices {
		if w.up(c.To) {
			in = append(in, c.To)
		} else {
			w.say(p.Name, "multivalue: not %s, which %s", c.To, w.out(c.To))
		}
	}
	hash := func(name string) uint64 { return mix(draw ^ nameHash(name)) }
	slices.SortStableFunc(in, func(a, b string) int { return cmp.Compare(hash(b), hash(a)) })
	answers := p.Answers
	if answers == 0 {
		answers = DefaultAnswers
	}
	w.say(p.Name, "multivalue: draw %.4f orders %s; the first %d answer", fraction(draw), strings.Join(in, ", "), min(answers, len(in)))
	before := slices.Clone(w.d.Endpoints)
	var chosen []int
	for _, name := range in[:min(answers, len(in))] {
		w.d.Endpoints = nil
		w.choose(name, ttl)
		if first := w.d.Endpoints[0]; !slices.Contains(chosen, first) {
			chosen = append(chosen, first)
		}
	}
	w.d.Endpoints = append(before, chosen...)
}
