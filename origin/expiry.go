package origin

import (
	"path"
	"strings"
)

// The Cache-Control of pushed files by class. A document names others and must
// be validated each time, which costs one 304; a fingerprinted file never
// changes (RFC 8246).
const (
	ExpiryImmutable = "public, max-age=31536000, immutable"
	ExpiryDocument  = "no-cache"
	ExpiryAsset     = "public, max-age=0, must-revalidate"
)

// ExpiryRule gives the Cache-Control of pushed paths that match Glob: the
// form of path.Match, without a leading slash; "dir/**" covers all below dir.
type ExpiryRule struct {
	Glob         string
	CacheControl string
}

func (r *ExpiryRule) matches(name string) bool {
	if dir, ok := strings.CutSuffix(r.Glob, "/**"); ok {
		return strings.HasPrefix(name, dir+"/")
	}
	ok, err := path.Match(r.Glob, name)
	return ok && err == nil
}

// ExpiryOf is the Cache-Control of a path of a release, header rules aside: the
// first of a site's rules that matches, else that of the file's class.
func ExpiryOf(rules []ExpiryRule, name, class string) string {
	for i := range rules {
		if rules[i].matches(name) {
			return rules[i].CacheControl
		}
	}
	switch class {
	case Immutable:
		return ExpiryImmutable
	case Document:
		return ExpiryDocument
	}
	return ExpiryAsset
}

// Unchangeable returns the paths of both manifests that now serves as immutable
// and next has other bytes for: who has them will not ask again for as long as
// they may be kept. It returns at most limit of them, in no order, and how many
// there are.
func Unchangeable(now, next *Manifest, rules []ExpiryRule, limit int) (paths []string, n int) {
	for name, old := range now.Files {
		file, ok := next.Files[name]
		if !ok || file.Digest == old.Digest {
			continue
		}
		control := ExpiryOf(rules, name, old.Class)
		for _, f := range now.Fields("/" + name) {
			if f.Name == "Cache-Control" {
				control = f.Value
			}
		}
		if !hasDirective(control, "immutable") {
			continue
		}
		if n++; len(paths) < limit {
			paths = append(paths, name)
		}
	}
	return paths, n
}

func hasDirective(control, name string) bool {
	for part := range strings.SplitSeq(control, ",") {
		if strings.EqualFold(strings.TrimSpace(part), name) {
			return true
		}
	}
	return false
}
