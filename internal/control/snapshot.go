package control

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// KindSnapshot entries name a snapshot (SnapshotMade). For nodes they change nothing.
const KindSnapshot = "snapshot"

// SnapshotMade is the body of a snapshot entry: the fold of the log up to At is in
// the blob Digest.
type SnapshotMade struct {
	At     feed.Position `json:"at"`
	Digest origin.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

func (m *SnapshotMade) check() error {
	if m.At.Epoch == 0 || m.At.Seq == 0 || len(m.At.Chain) != 2*sha256.Size || m.Size <= 0 || m.Size > MaxSnapshotBytes {
		return errors.New("snapshot: it has no place on the log, or no size")
	}
	return checkDigest(m.Digest)
}

// MadeSnapshot is one that the log names, and when.
type MadeSnapshot struct {
	SnapshotMade
	Seq  uint64 // of the entry
	Made time.Time
}

// maxSnapshots bounds those that are remembered: one an hour for a week, and more.
// Of older ones nothing is needed.
const maxSnapshots = 200

// Snapshot is the log up to At, folded: what a control node or a node needs instead
// of the entries up to there. As a blob it is a line of JSON with all but the
// purges, and then a line for each purge, in the order of the log:
//
//	{"v":1,"at":{"epoch":1,"seq":41,"chain":"…"},"state":{…},"purges":2}
//	{"seq":17,"purge":{"site":"www","url":"http://www.example.com/"}}
//	{"seq":40,"purge":{"site":"www","tag":"menu"}}
type Snapshot struct {
	At     feed.Position
	State  State
	Purges []SeqPurge
}

// SeqPurge is the last purge of a scope, and the number of its entry.
type SeqPurge struct {
	Seq   uint64 `json:"seq"`
	Purge Purge  `json:"purge"`
}

type snapshotHead struct {
	Version int             `json:"v"`
	At      feed.Position   `json:"at"`
	State   json.RawMessage `json:"state"`
	Purges  int             `json:"purges"`
}

const (
	snapshotVersion = 1
	// MaxSnapshotBytes bounds a snapshot: maxScopes purges of the longest usual
	// URLs, and the releases of ten thousand sites.
	MaxSnapshotBytes = 1 << 30
	// maxScopes bounds the purges in it: as many as an edge remembers one by one.
	maxScopes = 100_000
)

// Write writes the snapshot's blob.
func (s *Snapshot) Write(w io.Writer) error {
	state, err := json.Marshal(&s.State)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	if err := enc.Encode(snapshotHead{snapshotVersion, s.At, state, len(s.Purges)}); err != nil {
		return err
	}
	for i := range s.Purges {
		if err := enc.Encode(&s.Purges[i]); err != nil {
			return err
		}
	}
	return out.Flush()
}

// ReadSnapshot reads what Write has written, of a blob whose digest must be d. With
// strict, a field of the state that is not known is an error, as it must be for a
// control node: it would lose it. A purge is always read whole.
func ReadSnapshot(r io.Reader, d origin.Digest, strict bool) (*Snapshot, error) {
	sum := sha256.New()
	limited := &io.LimitedReader{R: r, N: MaxSnapshotBytes + 1}
	in := io.TeeReader(bufio.NewReader(limited), sum)
	s, err := readSnapshot(in, strict)
	if err == nil && limited.N <= 0 {
		err = fmt.Errorf("more than %d bytes", MaxSnapshotBytes)
	}
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != hex.EncodeToString(d[:]) {
		err = errors.New("its digest does not match")
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", d, err)
	}
	return s, nil
}

func readSnapshot(in io.Reader, strict bool) (*Snapshot, error) {
	dec := json.NewDecoder(in)
	dec.DisallowUnknownFields()
	var head snapshotHead
	if err := dec.Decode(&head); err != nil {
		return nil, err
	}
	if head.Version != snapshotVersion {
		return nil, fmt.Errorf("version %d is not known here (only %d): update perigee", head.Version, snapshotVersion)
	}
	if head.Purges < 0 || head.Purges > maxScopes || head.At.Epoch == 0 || head.At.Seq == 0 || len(head.At.Chain) != 2*sha256.Size {
		return nil, fmt.Errorf("%d purges up to epoch %d, seq %d", head.Purges, head.At.Epoch, head.At.Seq)
	}
	s := &Snapshot{At: head.At, Purges: make([]SeqPurge, 0, head.Purges)}
	var err error
	if strict {
		err = decodeStrict(bytes.NewReader(head.State), &s.State)
	} else {
		err = json.Unmarshal(head.State, &s.State)
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	for range head.Purges {
		var p SeqPurge
		if err := dec.Decode(&p); err != nil {
			return nil, fmt.Errorf("purge %d: %w", len(s.Purges)+1, err)
		}
		if err := checkCommand(&p.Purge); err != nil || p.Seq == 0 || p.Seq > s.At.Seq {
			return nil, fmt.Errorf("purge %d, seq %d: %w", len(s.Purges)+1, p.Seq, err)
		}
		s.Purges = append(s.Purges, p)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("data after the last purge")
	}
	return s, nil
}

// purged is the last purge of each scope: a fold of the log. A Purge is its scope.
type purged map[Purge]uint64

func (m purged) put(seq uint64, p Purge) {
	if p.All && !p.Soft {
		// It covers every purge of its site before. A map of all is walked, but
		// nobody empties a site a thousand times a second.
		for old := range m {
			if old.Site == p.Site {
				delete(m, old)
			}
		}
	}
	if _, there := m[p]; !there && len(m) >= maxScopes {
		m.shed()
	}
	m[p] = seq
}

// shed makes room for a tenth: the oldest become purges of their sites, as hard as
// they were.
func (m purged) shed() {
	for _, old := range m.sorted()[:maxScopes/10] {
		if old.Purge.All {
			continue
		}
		delete(m, old.Purge)
		all := Purge{Site: old.Purge.Site, All: true, Soft: old.Purge.Soft}
		m[all] = max(m[all], old.Seq)
	}
}

// sorted returns them in the order of the log.
func (m purged) sorted() []SeqPurge {
	out := make([]SeqPurge, 0, len(m))
	for p, seq := range m {
		out = append(out, SeqPurge{seq, p})
	}
	slices.SortFunc(out, func(a, b SeqPurge) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Purge.Site, b.Purge.Site), cmp.Compare(a.Purge.URL, b.Purge.URL), cmp.Compare(a.Purge.Prefix, b.Purge.Prefix), cmp.Compare(a.Purge.Tag, b.Purge.Tag))
	})
	return out
}
