//go:build mutant_swap

package node

// swapEarly of this mutant activates a release once its manifest is there:
// `make test-fleet-mutants`.
const swapEarly = true
