package dnsserver

// The two ways to answer, for tests that hold them against each other.
var (
	Generally = (*View).generally
	Plainly   = (*View).plainly
)
