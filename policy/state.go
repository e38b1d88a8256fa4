package policy

import "sync/atomic"

// Health is what is known of one endpoint.
type Health uint8

// An endpoint's health. Unknown counts as up: before the first round of probes
// an answer is as configured.
const (
	Unknown Health = iota
	Up
	Down
)

// Force is an operator's word on one endpoint. It outranks health, but ForceUp
// does not outrank a drain.
type Force uint8

// What an operator may say.
const (
	Obey Force = iota // go by health
	ForceUp
	ForceDown
)

// EndpointState is one endpoint's part of a State.
type EndpointState struct {
	Health   Health
	Draining bool // an operator drained it: out, also when everything else is down, unless nothing else exists
	Force    Force
	Why      string // the reason in words, for Explain and status
}

// State is a frozen picture of the fleet, one entry for each of
// Config.Endpoints in order. Treat it as immutable once made; swap it whole.
type State struct {
	Endpoints []EndpointState
	Stale     bool // the picture is older than it should be: control or probes are lost

	plan atomic.Pointer[plan] // of the Set that prepared it; see Set.Prepare
}
