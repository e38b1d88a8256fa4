// Package feed is the one ordered, durable log that carries a fleet's
// commands (releases, purges, drains) from the control node, which alone
// appends, to every node. It is built on NATS JetStream, embedded by default.
//
// Beside the log run reports: last-value messages from nodes to control,
// never persisted. The feed does not know what an entry means, and it is no
// message queue: every node sees every entry, in order.
//
//	srv, err := feed.OpenServer(ctx, feed.ServerConfig{Dir: "feed"}) // the control node
//	e, err := srv.Log().Append(ctx, "purge", body)                  // returns when synced to disk
//	err = srv.AddNode(ctx, "fra1")
//	f, err := feed.Dial(ctx, feed.DialConfig{ID: "fra1", Addr: addr, TLS: cfg, From: last})
//	e, err = f.Next(ctx)                                            // in order, from the one after last
//	verdict := feed.Verify(last, e)                                 // epoch, sequence, chain
//	err = f.Ack(e)                                                  // after it is applied and synced
//	err = f.Report("watermark", payload)
//
// Three servers hold the log together when each has a ClusterConfig: an entry is
// acknowledged when two of them have synced it, any of them appends, nodes follow
// through any, and the loss of one stops nothing.
//
// Limits: one entry MaxEntryBytes, one report MaxReportBytes, maxConns
// connections, node ids of MaxIDBytes. Every entry costs one sync of the disk.
package feed

import (
	"encoding/json"
	"fmt"
)

// Entry is one command on the log.
type Entry struct {
	Version int    `json:"v"`     // of the format; 1
	Epoch   uint64 `json:"epoch"` // of the log: a new one after a restore or damage
	// Seq rises by one within an epoch. A new epoch goes on above every number
	// that was ever given out, so a number never means two entries.
	Seq uint64 `json:"seq"`
	// Chain is the hex SHA-256 over the previous entry's Chain and this
	// entry's other fields: receivers check it, and on a break revalidate all.
	Chain string          `json:"chain"`
	Kind  string          `json:"kind"` // "activate", "purge", "drain", …: known to senders and receivers
	At    int64           `json:"at"`   // Unix milliseconds, control's clock: for people
	Body  json.RawMessage `json:"body"`
}

const (
	// MaxEntryBytes bounds one entry in its JSON form. Anything large is a blob
	// named by its digest.
	MaxEntryBytes = 64 << 10
	// MaxReportBytes bounds one report: a node's health view of 300 edges with
	// reasons is about 40 KiB.
	MaxReportBytes = 64 << 10
	// MaxIDBytes bounds a node's id: a DNS label (RFC 1035 §2.3.4).
	MaxIDBytes = 63
	// maxKindBytes bounds Entry.Kind and a report's kind; ours are words.
	maxKindBytes = 32
)

// KindEpoch is the kind of the first entry of every epoch but the first. Its
// body is EpochBody. The feed writes it itself; receivers apply nothing for it
// beyond what Verify told them.
const KindEpoch = "epoch"

// EpochBody says why a new epoch began.
type EpochBody struct {
	Why      string `json:"why"`
	Previous uint64 `json:"previous"` // the epoch before
	Known    uint64 `json:"known"`    // the highest Seq known to have been written in it
}

// CheckID refuses an id that cannot be a node's: lower-case letters, digits
// and inner hyphens, at most MaxIDBytes. Ids become parts of NATS subjects, so
// dots, wildcards and spaces must never pass.
func CheckID(id string) error {
	if id == "" || len(id) > MaxIDBytes {
		return fmt.Errorf("node name %.80q: it must have 1 to %d characters", id, MaxIDBytes)
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(id)-1:
		default:
			return fmt.Errorf("node name %q: only a-z, 0-9 and inner hyphens are allowed", id)
		}
	}
	return nil
}

func checkKind(kind string) error {
	if kind == "" || len(kind) > maxKindBytes {
		return fmt.Errorf("kind %.40q: it must have 1 to %d characters", kind, maxKindBytes)
	}
	for i := range len(kind) {
		if c := kind[i]; (c < 'a' || c > 'z') && c != '-' {
			return fmt.Errorf("kind %q: only a-z and hyphens are allowed", kind)
		}
	}
	return nil
}
