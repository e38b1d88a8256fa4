package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ConfigError is a mistake in a Config. Path says where, in the words of
// perigee.toml ("policy.canary.weights.fra9"); a key that TOML would quote is
// quoted (policy.by-country.map."192.0.2.0/24").
type ConfigError struct {
	Path string
	Text string
	Hint string // what to do about it, or empty
}

func (e *ConfigError) Error() string { return e.Path + ": " + e.Text }

// checker looks for every mistake of a Config, so that one run shows them all.
type checker struct {
	cfg   Config
	names map[string]int // endpoint i as ^i, policy i as i
	errs  []error
}

// check returns the names of c and every mistake in it.
func check(c Config) (map[string]int, []error) {
	k := &checker{cfg: c, names: make(map[string]int)}
	for i, e := range c.Endpoints {
		k.endpoint(i, e)
	}
	for i, p := range c.Policies {
		k.declare("policy."+tomlKey(p.Name), p.Name, i)
	}
	for _, p := range c.Policies {
		k.policy(p)
	}
	if len(k.errs) == 0 {
		k.nesting()
	}
	return k.names, k.errs
}

func (k *checker) fail(path, hint, format string, args ...any) {
	k.errs = append(k.errs, &ConfigError{Path: path, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (k *checker) declare(path, name string, ref int) {
	if name == "" {
		k.fail(path, "", "the name is empty")
		return
	}
	if old, ok := k.names[name]; ok {
		what := "an edge or endpoint"
		if old >= 0 {
			what = "a policy"
		}
		k.fail(path, "edges, endpoints and policies share one name space: choose another name", "the name is already that of %s", what)
		return
	}
	k.names[name] = ref
}

func (k *checker) endpoint(i int, e Endpoint) {
	path := "endpoint." + tomlKey(e.Name)
	k.declare(path, e.Name, ^i)
	// The comparisons are written so that NaN fails them.
	if e.Located && !(math.Abs(e.Lat) <= 90 && math.Abs(e.Lon) <= 180) {
		k.fail(path+".location", "write degrees north, then degrees east, such as [50.11, 8.68]", "%v, %v is no place on earth", e.Lat, e.Lon)
	}
}

func (k *checker) policy(p Policy) {
	path := "policy." + tomlKey(p.Name)
	if p.TTL < 0 || p.TTL > MaxTTL || p.TTL%time.Second != 0 {
		k.fail(path+".ttl", "write whole seconds", "%v is not a TTL: 1s to %v", p.TTL, MaxTTL)
	}
	if p.Kind != Geo && len(p.Map) > 0 {
		k.fail(path+".map", `only by = "geo" has a map`, "a %v policy has no map", p.Kind)
	}
	if p.Kind != Latency && len(p.RTT) > 0 {
		k.fail(path+".rtt", `only by = "latency" has rtt rows`, "a %v policy has no rtt rows", p.Kind)
	}
	if p.Kind != Multivalue && p.Answers != 0 {
		k.fail(path+".answers", `only by = "multivalue" has answers`, "a %v policy has no answers", p.Kind)
	}
	switch p.Kind {
	case Geo:
		k.geo(path, p)
	case Weighted:
		k.choices(path+".weights", p)
		k.weights(path+".weights", p)
	case Failover:
		k.choices(path+".order", p)
	case Latency:
		k.choices(path+".among", p)
		k.rtt(path+".rtt", p)
	case Multivalue:
		k.choices(path+".among", p)
		if p.Answers < 0 || p.Answers > MaxAnswers {
			k.fail(path+".answers", "", "%d is not a number of answers: 1 to %d", p.Answers, MaxAnswers)
		}
	default:
		k.fail(path+".by", "write latency, weighted, geo, failover or multivalue", "there is no such kind of policy")
	}
}

// choices checks the list at path, of any kind but geo.
func (k *checker) choices(path string, p Policy) {
	if len(p.Choices) == 0 {
		k.fail(path, "name at least one edge, endpoint or policy", "there is nothing to choose from")
	}
	if len(p.Choices) > MaxChoices {
		k.fail(path, "nest policies", "%d choices are more than %d", len(p.Choices), MaxChoices)
	}
	seen := make(map[string]bool)
	for _, c := range p.Choices {
		at := path
		if p.Kind == Weighted {
			at += "." + tomlKey(c.To)
		} else if c.Weight != 0 {
			k.fail(at, `only by = "weighted" has weights`, "%s has a weight in a %v policy", c.To, p.Kind)
		}
		k.target(at, c.To)
		if seen[c.To] {
			k.fail(at, "name each choice once", "%s stands here twice", c.To)
		}
		seen[c.To] = true
	}
}

func (k *checker) weights(path string, p Policy) {
	for _, c := range p.Choices {
		if c.Weight > 0 {
			return
		}
	}
	if len(p.Choices) > 0 {
		k.fail(path, "give at least one choice a positive weight", "every weight is 0")
	}
}

func (k *checker) geo(path string, p Policy) {
	if len(p.Choices) > 0 {
		k.fail(path, "a geo policy chooses by its map alone", "a geo policy has no list of choices")
	}
	path += ".map"
	if len(p.Map) > MaxRules {
		k.fail(path, "", "%d rules are more than %d", len(p.Map), MaxRules)
	}
	seen := make(map[Selector]bool)
	targets := make(map[string]bool)
	for _, r := range p.Map {
		at := k.selector(path, r.Match, seen)
		k.target(at, r.To)
		targets[r.To] = true
	}
	if len(targets) > MaxChoices {
		k.fail(path, "nest policies", "%d choices are more than %d", len(targets), MaxChoices)
	}
	if !seen[Selector{}] {
		k.fail(path, `add a line such as default = "…": it answers the clients that no other rule selects`, "there is no default")
	}
}

func (k *checker) rtt(path string, p Policy) {
	if len(p.RTT) > MaxRules {
		k.fail(path, "", "%d rows are more than %d", len(p.RTT), MaxRules)
	}
	seen := make(map[Selector]bool)
	for _, row := range p.RTT {
		at := k.selector(path, row.Match, seen)
		if len(row.RTT) == 0 {
			k.fail(at, "", "the row is empty")
		}
		for _, name := range sortedKeys(row.RTT) {
			member := func(c Choice) bool { return c.To == name }
			if !slices.ContainsFunc(p.Choices, member) {
				hint := suggest(name, func(yield func(string)) {
					for _, c := range p.Choices {
						yield(c.To)
					}
				})
				k.fail(at+"."+tomlKey(name), hint, "%s is not among the choices of %s", name, p.Name)
			}
			if d := row.RTT[name]; d < 0 || d > MaxRTT {
				k.fail(at+"."+tomlKey(name), "", "%v is not a round trip: 0s to %v", d, MaxRTT)
			}
		}
	}
}

// selector checks the key of a map and returns its path.
func (k *checker) selector(path string, s Selector, seen map[Selector]bool) string {
	path += "." + tomlKey(s.String())
	if err := s.check(); err != nil {
		k.fail(path, "", "%v", err)
	}
	if seen[s] {
		k.fail(path, "keep one", "the selector stands here twice")
	}
	seen[s] = true
	return path
}

// target checks that a policy or endpoint is called name.
func (k *checker) target(path, name string) {
	if _, ok := k.names[name]; !ok {
		k.fail(path, suggestName(name, k.names), "no edge or policy is called %s", quoteEmpty(name))
	}
}

// nesting looks for loops and for policies nested too deep. All names are
// known to exist.
func (k *checker) nesting() {
	const (
		unseen = iota
		open
		done
	)
	state := make([]int, len(k.cfg.Policies))
	below := make([]int, len(k.cfg.Policies)) // levels from here down, this one included
	var path []int
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		path = append(path, i)
		for _, to := range targets(k.cfg.Policies[i]) {
			ref := k.names[to]
			switch {
			case ref < 0:
				continue
			case state[ref] == open:
				k.loop(path[slices.Index(path, ref):])
				continue
			case state[ref] == unseen:
				visit(ref)
			}
			below[i] = max(below[i], below[ref])
		}
		below[i]++
		path = path[:len(path)-1]
		state[i] = done
	}
	for i, p := range k.cfg.Policies {
		if state[i] == unseen {
			visit(i)
		}
		if below[i] == MaxDepth+1 { // one above would only repeat it
			k.fail("policy."+tomlKey(p.Name), "", "policies are nested deeper than %d", MaxDepth)
		}
	}
}

// loop reports policies that choose each other in a ring.
func (k *checker) loop(ring []int) {
	var b strings.Builder
	for _, i := range ring {
		b.WriteString(k.cfg.Policies[i].Name + " → ")
	}
	first := k.cfg.Policies[ring[0]].Name
	k.fail("policy."+tomlKey(first), "break the loop: some policy in it must choose edges or endpoints only", "policies choose each other: %s%s", b.String(), first)
}

// targets lists what p may choose, each once, in the order written.
func targets(p Policy) []string {
	var to []string
	seen := make(map[string]bool)
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			to = append(to, name)
		}
	}
	for _, c := range p.Choices {
		add(c.To)
	}
	for _, r := range p.Map {
		add(r.To)
	}
	return to
}

// tomlKey writes a key as TOML does: bare where that is allowed, else quoted.
func tomlKey(key string) string {
	bare := strings.Trim(strings.ToUpper(key), upperAndDigits+"_-") == ""
	for _, r := range key {
		bare = bare && r < 0x80
	}
	if bare && key != "" {
		return key
	}
	return strconv.Quote(key)
}

func quoteEmpty(name string) string {
	if name == "" {
		return `""`
	}
	return name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// suggestName is a hint with the known name nearest to a wrong one, or empty.
func suggestName(wrong string, names map[string]int) string {
	return suggest(wrong, func(yield func(string)) {
		for _, name := range sortedKeys(names) {
			yield(name)
		}
	})
}

func suggest(wrong string, each func(func(string))) string {
	best, at := "", min(2, len(wrong)/2)+1 // farther than that is another word
	each(func(name string) {
		if gap := len(name) - len(wrong); gap >= at || -gap >= at {
			return
		}
		if d := editDistance(wrong, name); d < at {
			best, at = name, d
		}
	})
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// editDistance counts the octets to insert, delete, replace or swap with their
// neighbour (optimal string alignment).
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 0
			if a[i-1] != b[j-1] {
				cost = 1
			}
			d := min(rows[i-1][j-1]+cost, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// join makes one error of many, nil of none.
func join(errs []error) error { return errors.Join(errs...) }
