// Package dnsserver answers DNS queries from compiled zones, steered by
// policies.
//
// The answer path is one pure function over wire bytes, View.Answer: no
// socket, no clock, no global random source. Server puts it behind UDP and TCP;
// tests, fuzzers, "perigee explain" and the simulator call it directly.
//
//	zone, findings := zones.Load("example.com.zone", zones.Options{Origin: "example.com"})
//	view, err := dnsserver.NewView(dnsserver.ViewConfig{
//		Zones:     []*zones.Zone{zone},
//		Policies:  set, // from policy.Compile
//		Endpoints: []dnsserver.Endpoint{{Addresses: addresses}},
//		Steer:     []dnsserver.Binding{{Zone: "example.com", Name: "www.example.com", Policy: "nearest"}},
//	})
//	server := dnsserver.NewServer(dnsserver.ServerConfig{})
//	server.SetView(view)
//	go server.ServeUDP(conn)
//	go server.ServeTCP(listener)
//
// It is authoritative only: it asks nobody, and refuses what is in none of its
// zones. It reads no configuration file and watches nothing: its owner swaps in
// a new View or a new policy.State.
//
// Limits: UDP replies of 1232 octets, chains of 8 names inside our zones, and
// those that Server's constants name. Replies by UDP are limited by network
// where that is asked for (Server.SetRateLimit). There is no transfer and no
// TSIG yet, and nothing is signed here: a zone that is signed elsewhere is served
// with its signatures and its proofs of what does not exist, to who sets DO.
package dnsserver

import (
	"net/netip"
	"time"

	"perigee.example/policy"
)

// Transport is how a query came.
type Transport uint8

// The transports.
const (
	UDP Transport = iota + 1
	TCP
)

// Context is what Answer is told about one query.
type Context struct {
	From      netip.AddrPort // the resolver
	Local     netip.AddrPort // the address the query came to; the zero value when that is not known
	Transport Transport
	Now       time.Duration // since the Unix epoch; read once a batch
	Seed      [16]byte      // the server's secret, for draws
	// State is the fleet as it is; nil is all unknown, and so is one that has
	// not as many endpoints as the View's policies.
	State *policy.State
	// Cookies are the secrets of server cookies (RFC 7873, RFC 9018); nil gives
	// and checks none.
	Cookies *CookieSecrets
	// Idle is how long a stream may wait for its next query, for clients that
	// ask (RFC 7828). It counts by TCP alone.
	Idle time.Duration
	// Limited asks for a reply that is no longer than the query to speak of:
	// BADCOOKIE for who speaks cookies and has no good one, else TC.
	Limited bool
}

// Action is what to do with a query after Answer.
type Action uint8

// What Answer can ask for.
const (
	Reply Action = iota + 1
	Drop         // send nothing: a response, a stub of a header, …
)

// Outcome describes one answer for counters, logs and limits, which act on it
// outside of Answer. Reuse one.
type Outcome struct {
	Action   Action
	Zone     string // origin of the zone that owns the queried name, or empty
	Rcode    uint16 // extended RCODE (RFC 6891 §6.1.3)
	QType    uint16
	Steered  bool
	Decision policy.Decision // when Steered; of a chain the last one
	Root     policy.Name     // when Steered; of a chain the last one
	Policies *policy.Set     // when Steered: that Decision and Root are of
	Only     []bool          // of the Query that Decision answers; nil mostly
	HasECS   bool            // the reply carries ECS
	Scope    int             // of the reply's ECS, in bits: the longest of a chain; 0 without ECS
	TTL      uint32          // the least TTL in the answer section, seconds
	TC       bool
	Answers  int // records in the answer section
	// ValidCookie says that the query carried a server cookie of ours that
	// holds: the resolver sits at its address.
	ValidCookie bool
	Limit       Verdict // set by Server, not by Answer
	Query       []byte  // as it came; set by Server for OnOutcome, not by Answer
}
