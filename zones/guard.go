package zones

import (
	"fmt"
	"strings"
)

// A version that loses more than a fifth of the names of the one before, and
// not just a few, is more often half a file than an intention.
const (
	shrinkShare = 5
	shrinkNames = 20
)

// shrinkage says what a zone would lose, if that is so much that somebody must
// accept it first; else it is empty. The loss of apex SOA or NS is an error of
// the zone itself.
func shrinkage(old, new *Zone) string {
	lost := 0
	var examples []string
	for name := range old.Names() {
		if _, ok := new.Find(name); ok {
			continue
		}
		if lost++; len(examples) < 3 {
			examples = append(examples, FormatName(name))
		}
	}
	if lost < shrinkNames || lost*shrinkShare <= old.Len() {
		return ""
	}
	return fmt.Sprintf("%d of its %d names (%s, …)", lost, old.Len(), strings.Join(examples, ", "))
}
