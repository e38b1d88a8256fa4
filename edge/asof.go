//go:build !mutant_asof

package edge

// asOfStored is where a response that is stored now stands among the purges: where its
// fetch started.
func (e *Edge) asOfStored(started instant) instant { return started }
