// Package fleet judges what was seen of a fleet: its History goes in, the
// Violations come out. It is the model that the fleet tests of this folder
// (make test-fleet) are held against, and knows nothing of how they make
// processes, networks and faults.
//
//	h := &fleet.History{Edges: edges, Servers: servers}
//	h.Ops = append(h.Ops, …) // and replies, answers, views, as they come
//	for _, v := range fleet.Check(h) { … }
//
// # What is promised
//
// An operation is acknowledged when the control node says so, and applied at a
// node when that node has said so (a receipt). From then on, whatever is killed,
// cut off or unplugged:
//
//   - an acknowledged push, rollback, purge, drain or undrain is not lost, and
//     no seq is given out twice (RuleLost);
//   - the files of one page are of one release (RuleMixed);
//   - an edge serves nothing that a purge covers which it has applied (RulePurged);
//   - each reply that a client takes for good is whole, and of its URL (RuleWrong);
//   - no answer of a DNS node names an edge whose drain it has applied (RuleDrained);
//   - clients are served while nothing on their way is broken (RuleRefused).
//
// All times are since the round began, by one clock. An operation without an
// acknowledgement may have happened, then or a little later.
package fleet

import "time"

// Kind is what an operation does.
type Kind string

const (
	Activate Kind = "activate" // a push or a rollback
	Purge    Kind = "purge"
	Drain    Kind = "drain"
	Undrain  Kind = "undrain"
)

// Op is one operation, as its operator saw it.
type Op struct {
	Kind       Kind
	Start, End time.Duration
	// Acked: the control node has said that it is done. Seq is the number it gave.
	Acked bool
	Seq   uint64
	// Void: an old copy of the log was put in its place since. Then it may be lost.
	Void bool

	Version int      // Activate: of the release, counted by pushes
	URLs    []string // Purge: all that it covers
	Edge    string   // Drain, Undrain
}

// Receipt is a node's word, by way of the control node, that it has applied the
// entry with that number, and all before it.
type Receipt struct {
	Seq  uint64
	Node string
	At   time.Duration // when the operator heard of it
}

// Reply is what a client got for one request, or why it got nothing.
type Reply struct {
	Client, Edge, URL string
	Start, End        time.Duration
	// Page is the release of the page that named this file, 0 for none: the
	// request asked for that release.
	Page int
	// Failed says why there was no whole response: refused, cut off, too late.
	// A client knows that it has nothing then.
	Failed string
	Status int
	// Wrong says what is not as it should be of a response that the client's
	// library took for whole: another URL's content, octets that are missing.
	Wrong   string
	Version int // of the content: the release, or the origin's version of the URL
}

// Answer is a DNS answer: by a server of ours, or by a resolver that asked it.
type Answer struct {
	Server     string // "" from a resolver: by any of them
	Start, End time.Duration
	Edges      []string
	Failed     string
}

// View is what the control node said of the fleet.
type View struct {
	Start, End time.Duration
	Seq        uint64
	Active     int // release, 0: none
	Drained    []string
}

// Bump is a new version of a URL at the origin.
type Bump struct {
	URL     string
	Version int
	At      time.Duration // from then on the origin answers nothing older
}

// Fault is what was done to a part of the fleet, and when it was over.
type Fault struct {
	What, On   string // On: a node, or a place where clients are
	Start, End time.Duration
}

// History is all that was seen in one round.
type History struct {
	Edges, Servers []string // names of edges, of DNS nodes
	// TTL is how long a resolver may keep an answer.
	TTL      time.Duration
	Ops      []Op
	Receipts []Receipt
	Replies  []Reply
	Answers  []Answer
	Views    []View
	Bumps    []Bump
	Faults   []Fault
	// Pushed are the sites whose content is releases: URLs that begin so.
	Pushed string
}

// Rule is one of the promises.
type Rule string

const (
	RuleLost    Rule = "lost"
	RuleMixed   Rule = "mixed"
	RulePurged  Rule = "purged"
	RuleWrong   Rule = "wrong"
	RuleDrained Rule = "drained"
	RuleRefused Rule = "refused"
)

// Violation is a promise that was not kept.
type Violation struct {
	Rule Rule
	At   time.Duration
	Text string
}
