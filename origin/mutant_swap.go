//go:build mutant_swap

package origin

// swapNeedsBlobs of this mutant is false: `make test-fleet-mutants`.
const swapNeedsBlobs = false
