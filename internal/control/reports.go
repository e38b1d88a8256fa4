package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// The kinds of reports from nodes.
const (
	ReportWatermark = "watermark" // Watermark, at most ten a second
	ReportNode      = "node"      // NodeReport, once a second
)

// Watermark says how far a node has applied the log: every entry up to Seq is
// applied and synced there, but for releases still being fetched (Pending).
type Watermark struct {
	feed.Position
	Pending []PendingRelease `json:"pending,omitempty"`
}

// PendingRelease is an activation that a node has read and not yet made, since
// blobs are still missing there: the old release is served until then.
type PendingRelease struct {
	Site    string        `json:"site"`
	Channel string        `json:"channel,omitempty"` // "" is prod
	Since   uint64        `json:"since"`             // seq of the first activation waiting; later ones took its place
	Seq     uint64        `json:"seq"`               // seq of the one being fetched
	Release origin.Digest `json:"release"`
	Missing int           `json:"missing"`       // blobs; -1: the manifest itself
	Why     string        `json:"why,omitempty"` // the last error
}

func (p *PendingRelease) place() string { return origin.Place(p.Site, p.Channel) }

// placeOf is where a command makes a release active, or "".
func placeOf(command any) string {
	switch c := command.(type) {
	case *Activate:
		return c.Site
	case *Channel:
		return origin.Place(c.Site, c.Channel)
	}
	return ""
}

// NodeReport is the rest of what a node says about itself.
type NodeReport struct {
	Role    string `json:"role"`    // "dns" or "edge"
	Started int64  `json:"started"` // Unix milliseconds
	Config  string `json:"config"`  // hash of its perigee.toml
	Version string `json:"version,omitempty"`
	// Health is what a DNS node sees of edges and endpoints.
	Health map[string]EdgeHealth `json:"health,omitempty"`
	// LostSince is when the feed was lost last, in Unix milliseconds, if the
	// node has not caught up since.
	LostSince int64 `json:"lost_since,omitempty"`
	// Trouble are things to cure on that node, each in a few words.
	Trouble []string `json:"trouble,omitempty"`
}

// EdgeHealth is one target as a DNS node sees it.
type EdgeHealth struct {
	Health string `json:"health"` // up, down, unknown
	Why    string `json:"why,omitempty"`
}

// maxPending bounds Watermark.Pending, maxHealth NodeReport.Health and
// maxTrouble NodeReport.Trouble: more than a fleet has, less than a report holds.
const (
	maxPending = 200
	maxHealth  = 1000
	maxTrouble = 32
)

// nodeState is what control remembers of one node's reports.
type nodeState struct {
	watermark Watermark
	markAt    time.Time
	report    NodeReport
	reportAt  time.Time
	// marks are the last watermarks and when they came, oldest first, for receipts.
	marks []mark
	// made is when the last activation that had to wait was made, by site.
	made map[string]time.Time
}

type mark struct {
	seq uint64
	at  time.Time
}

// maxMarks bounds nodeState.marks: at ten a second, the last half minute.
const maxMarks = 300

// decodeReport reads a report. Fields that are not known here are passed over: a
// newer node's report is of use without them. What is an entry is no report: a
// node that names another's subject for its answers would have it speak.
func decodeReport(b []byte, v any) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	if fields["kind"] != nil && fields["body"] != nil {
		return errors.New("an entry of the log, and no report")
	}
	return json.Unmarshal(b, v)
}

func parseWatermark(b []byte) (w Watermark, err error) {
	if err = decodeReport(b, &w); err == nil && len(w.Pending) > maxPending {
		err = fmt.Errorf("%d pending releases, more than %d", len(w.Pending), maxPending)
	}
	return w, err
}

func parseNodeReport(b []byte) (r NodeReport, err error) {
	if err = decodeReport(b, &r); err == nil && (len(r.Health) > maxHealth || len(r.Trouble) > maxTrouble) {
		err = fmt.Errorf("%d health entries and %d troubles, more than %d and %d", len(r.Health), len(r.Trouble), maxHealth, maxTrouble)
	}
	return r, err
}

// applied reports whether the entry is applied at a node with this watermark.
func (w *Watermark) applied(e feed.Entry, command any) bool {
	if w.Epoch < e.Epoch || w.Seq < e.Seq {
		return false
	}
	if place := placeOf(command); place != "" {
		for _, p := range w.Pending {
			if p.place() == place && p.Since <= e.Seq {
				return false
			}
		}
	}
	return true
}
