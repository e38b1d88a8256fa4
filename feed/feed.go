// Package feed is the one ordered, durable log that carries a fleet's
// commands (releases, purges, drains) from the control node, which alone
// appends, to every node. It is built on NATS JetStream, embedded by default.
//
// Beside the log run reports: last-value messages from nodes to control,
// never persisted. The feed does not know what an entry means.
package feed

import "encoding/json"

// Entry is one command on the log.
type Entry struct {
	Version int    `json:"v"`     // of the format; 1
	Epoch   uint64 `json:"epoch"` // of the log: a new one after a restore or damage
	Seq     uint64 `json:"seq"`   // rises by one within an epoch, from 1
	// Chain is the hex SHA-256 over the previous entry's Chain and this
	// entry's other fields: receivers check it, and on a break revalidate all.
	Chain string          `json:"chain"`
	Kind  string          `json:"kind"` // "activate", "purge", "drain", …: known to senders and receivers
	At    int64           `json:"at"`   // Unix milliseconds, control's clock: for people
	Body  json.RawMessage `json:"body"`
}

// MaxEntryBytes bounds one entry in its JSON form. Anything large is a blob
// named by its digest.
const MaxEntryBytes = 64 << 10
