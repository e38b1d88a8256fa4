package edge

import (
	"slices"
	"strings"
)

// QueryRules normalise the queries of a site, for the key and for the origin
// alike: what the key leaves out, the origin does not see. Names are compared
// byte for byte, never decoded; a final "*" stands for any rest.
type QueryRules struct {
	// Sort orders parameters by name; those of one name keep their order.
	Sort bool
	// Keep, when it has any, keeps parameters of these names alone.
	Keep []string
	// Drop removes parameters of these names.
	Drop []string
}

// apply returns what the rules leave of a query, which starts with "?" or is
// empty. Parameters are separated by "&" alone: whoever hides one behind ";"
// has it in the key of the one before.
func (r *QueryRules) apply(query string) string {
	if len(query) == 0 || !r.Sort && len(r.Keep) == 0 && len(r.Drop) == 0 {
		return query
	}
	var kept []string
	for part := range strings.SplitSeq(query[1:], "&") {
		name := parameterName(part)
		if part != "" && (len(r.Keep) == 0 || namedBy(r.Keep, name)) && !namedBy(r.Drop, name) {
			kept = append(kept, part)
		}
	}
	if len(kept) == 0 {
		return ""
	}
	if r.Sort {
		slices.SortStableFunc(kept, func(a, b string) int { return strings.Compare(parameterName(a), parameterName(b)) })
	}
	return "?" + strings.Join(kept, "&")
}

func parameterName(part string) string {
	name, _, _ := strings.Cut(part, "=")
	return name
}

func namedBy(patterns []string, name string) bool {
	for _, p := range patterns {
		if start, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, start) || p == name {
			return true
		}
	}
	return false
}
