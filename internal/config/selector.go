package config

import (
	"fmt"
	"strings"

	"perigee.example/policy"
)

// continents are the words of policy.ParseSelector, to suggest and to keep
// from being names.
var continents = []string{"africa", "antarctica", "asia", "europe", "north-america", "oceania", "south-america"}

// selectors keeps which clients the keys of one table select, to find two that
// select the same.
type selectors map[policy.Selector]string

// selector reads a key of a geo map or a table of round trips.
func (t *table) selector(n *node, path string, seen selectors) (policy.Selector, bool) {
	sel, err := policy.ParseSelector(n.key)
	if err != nil {
		// Messages end in the cure, behind a colon; a near miss of a continent has a better one.
		text, hint, cured := strings.Cut(err.Error(), ": write ")
		if cured {
			hint = "write " + hint
		}
		if near := didYouMean(n.key, continents); near != "" {
			hint = near
		}
		t.fail(n.keyAt, path, text, hint)
		return sel, false
	}
	if first, twice := seen[sel]; twice {
		t.fail(n.keyAt, path, fmt.Sprintf("%q selects the same clients as %q", n.key, first), "keep one")
		return sel, false
	}
	seen[sel] = n.key
	return sel, true
}
