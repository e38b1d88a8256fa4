// The bench of hit ratios, in a module of its own so that perigee does not depend
// on the caches that it is held against.
module perigee.example/tools/bench-cache

go 1.26.0

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/maypok86/otter/v2 v2.4.0
	perigee.example v0.0.0
)

replace perigee.example => ../..
