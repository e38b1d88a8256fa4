//go:build mutant_nosync

package feed

// syncAlways of this mutant is false: `make test-fleet-mutants`.
const syncAlways = false
