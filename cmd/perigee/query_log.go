package main

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/internal/logqueue"
	"perigee.example/policy"
	"perigee.example/zones"
)

// The query log: one JSON object for each query of the sample. Its records are
// made where queries are served, and written elsewhere.

// queryRecord is one query, without a pointer into what the server uses again.
type queryRecord struct {
	time      time.Time
	from      netip.Addr
	transport dnsserver.Transport
	name      [255]byte // as asked, in wire form
	nameLen   uint8
	qtype     uint16
	hasName   bool
	stale     bool
	outcome   dnsserver.Outcome // without slices
	endpoint  int               // -1: none
}

// queryLine is a line of the query log.
type queryLine struct {
	Time      string `json:"time"`
	Client    string `json:"client"` // the resolver's network
	Transport string `json:"transport"`
	Name      string `json:"name,omitempty"`
	Type      string `json:"type,omitempty"`
	Zone      string `json:"zone,omitempty"`
	Rcode     string `json:"rcode,omitempty"`
	Answers   int    `json:"answers"`
	TTL       uint32 `json:"ttl"`
	Truncated bool   `json:"truncated,omitempty"`
	Policy    string `json:"policy,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`
	Scope     *int   `json:"scope,omitempty"` // with ECS alone
	Reason    string `json:"reason,omitempty"`
}

// Networks of clients in the log: what a resolver's operator has, not a person.
const (
	loggedBits4 = 24
	loggedBits6 = 48
)

// queryLog is the log of a DNS node.
type queryLog struct {
	*logqueue.Queue[queryRecord]
	every uint32
	file  *logqueue.File // nil: stdout
}

// openQueryLog starts the log that the configuration asks for; nil: none.
func openQueryLog(c config.Log) (*queryLog, error) {
	if c.Queries == 0 {
		return nil, nil
	}
	l := &queryLog{every: uint32(c.Queries)}
	w, file, err := openLog(c.QueriesFile)
	if err != nil {
		return nil, err
	}
	l.file, l.Queue = file, logqueue.New(w, appendQueryLine)
	return l, nil
}

// openLog opens a log file; an empty path is stdout.
func openLog(path string) (io.Writer, *logqueue.File, error) {
	if path == "" {
		return os.Stdout, nil, nil
	}
	f, err := logqueue.OpenFile(path)
	if err != nil {
		return nil, nil, withHint(err, "name a file in a folder that this user may write")
	}
	return f, f, nil
}

// reopen opens a log file anew.
func reopen(f *logqueue.File) error {
	if f == nil {
		return nil
	}
	return f.Reopen()
}

// outcome is the server's OnOutcome.
func (l *queryLog) outcome(c *dnsserver.Context, o *dnsserver.Outcome) {
	if l.every > 1 && rand.Uint32N(l.every) != 0 {
		return
	}
	r := queryRecord{time: time.Unix(0, int64(c.Now)), from: c.From.Addr(), transport: c.Transport, outcome: *o, endpoint: -1}
	r.stale = c.State != nil && c.State.Stale
	if len(o.Decision.Endpoints) > 0 {
		r.endpoint = o.Decision.Endpoints[0]
	}
	r.outcome.Query, r.outcome.Only = nil, nil
	r.outcome.Decision = policy.Decision{Open: o.Decision.Open}
	r.question(o.Query)
	l.Put(r)
}

// question takes the name and the type out of a query.
func (r *queryRecord) question(query []byte) {
	const header = 12
	if len(query) < header || query[4] == 0 && query[5] == 0 {
		return
	}
	at := header
	for at < len(query) && query[at] != 0 {
		if query[at] > 63 || at-header > len(r.name)-2 {
			return // a pointer, or no name
		}
		at += 1 + int(query[at])
	}
	if n := at + 1 - header; at+3 <= len(query) && n <= len(r.name) {
		copy(r.name[:], query[header:at+1])
		r.nameLen, r.hasName = uint8(n), true
		r.qtype = uint16(query[at+1])<<8 | uint16(query[at+2])
	}
}

func appendQueryLine(b []byte, r *queryRecord) []byte {
	o := &r.outcome
	line := queryLine{
		Time: r.time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), Client: clientNetwork(r.from), Transport: transportWord(r.transport),
		Zone: o.Zone, Answers: o.Answers, TTL: o.TTL, Truncated: o.TC, Reason: r.reason(),
	}
	if r.hasName {
		line.Name, line.Type = zones.FormatName(r.name[:r.nameLen]), zones.TypeName(r.qtype)
	}
	if o.Action == dnsserver.Reply {
		line.Rcode = dnsserver.RcodeText(o.Rcode)
	}
	if o.Steered {
		line.Policy = o.Policies.NameOf(o.Root)
		if r.endpoint >= 0 {
			line.Endpoint = o.Policies.Endpoint(r.endpoint).Name
		}
	}
	if o.HasECS {
		line.Scope = &o.Scope
	}
	text, err := json.Marshal(line)
	if err != nil {
		return b // nothing of a queryLine can fail
	}
	return append(append(b, text...), '\n')
}

// clientNetwork is the network that a resolver is in.
func clientNetwork(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	bits := loggedBits6
	if a.Is4() {
		bits = loggedBits4
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// reason says what was unusual; empty: nothing.
func (r *queryRecord) reason() string {
	o := &r.outcome
	switch {
	case o.Limit == dnsserver.Dropped:
		return "over the rate: dropped"
	case o.Limit == dnsserver.Slipped:
		return "over the rate: slipped"
	case o.Action != dnsserver.Reply:
		return "no reply to what is no query"
	case o.Steered && o.Decision.Open:
		return "every choice was down: all counted as up"
	case o.Steered && r.stale:
		return "the feed is lost: drains as they were last known"
	case o.Steered:
		return "steered"
	}
	return ""
}
