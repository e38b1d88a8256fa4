//go:build mutant_asof

package edge

// asOfStored of this mutant is where the edge stands when the response is
// stored: `make test-fleet-mutants`.
func (e *Edge) asOfStored(instant) instant { return e.asOf() }
