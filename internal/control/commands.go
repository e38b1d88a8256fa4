package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"perigee.example/feed"
	"perigee.example/origin"
)

// The kinds of entries on the feed. Adding one: a constant, a body type, a case
// in DecodeCommand and one in State.Apply; nodes skip and report kinds that they do not know.
const (
	KindRelease  = "release"  // Release: a release is sealed, every blob of it is stored
	KindActivate = "activate" // Activate
	KindChannel  = "channel"  // Channel
	KindForget   = "forget"   // Forget
	KindPurge    = "purge"    // Purge
	KindPurges   = "purges"   // Purges: several that came at the same time
	KindDrain    = "drain"    // Drain
	KindUndrain  = "undrain"  // Drain
	KindForce    = "force"    // Force
	KindNode     = "node"     // NodeCert
	KindToken    = "token"    // TokenChange: among several control nodes
)

// Release says that a release of a site is complete and may be activated.
type Release struct {
	Site    string        `json:"site"`
	Release origin.Digest `json:"release"`
	Files   int           `json:"files"`
	Bytes   int64         `json:"bytes"`
}

// Activate makes a sealed release the active one of its site. Its generation is
// the number (Seq) of its entry: it only rises, rollback included, and is never
// given out twice, whatever happens to the log.
type Activate struct {
	Site    string        `json:"site"`
	Release origin.Digest `json:"release"`
}

// Purges are purges that came at the same time and share an entry, in their order.
type Purges struct {
	Purges []Purge `json:"purges"`
}

// PurgesOf returns the purges of a decoded command, in their order: none of
// those that are no purge.
func PurgesOf(command any) []Purge {
	switch c := command.(type) {
	case *Purge:
		return []Purge{*c}
	case *Purges:
		return c.Purges
	}
	return nil
}

// Channel makes a sealed release the active one of a preview, or, without a
// release, removes the preview. Its generation is the entry's number, as with
// Activate, which is for the channel prod alone: so nodes that know no previews
// skip these entries and read all others.
type Channel struct {
	Site    string        `json:"site"`
	Channel string        `json:"channel"`
	Release origin.Digest `json:"release,omitzero"`
}

// Drain takes an edge out of steering, or back in.
type Drain struct {
	Edge string `json:"edge"`
}

// Force is an operator's word on an edge: "up", "down", or "obey" its health.
type Force struct {
	Edge  string `json:"edge"`
	Force string `json:"force"`
}

// NodeCert says which certificate is a node's only one from now on, for the other
// nodes that it comes to: an edge's peer door. Of a node that no entry names,
// every certificate of the fleet's CA is good.
type NodeCert struct {
	Node string `json:"node"`
	Cert string `json:"cert,omitempty"` // hex SHA-256; none: the node is removed
}

// maxNameBytes bounds names of sites and edges: DNS labels and a bit.
const maxNameBytes = 100

// ErrUnknownKind is an entry of a kind that this version does not know.
var ErrUnknownKind = errors.New("unknown kind of entry")

// DecodeCommand reads the body of an entry: a *Release, *Activate, *Channel,
// *Forget, *Purge, *Purges, *Drain, *Force, *NodeCert, or *feed.EpochBody. An unknown field is an error, since it
// may change what the command means.
func DecodeCommand(e feed.Entry) (any, error) {
	var body any
	switch readKind(e.Kind) {
	case KindRelease:
		body = &Release{}
	case KindActivate:
		body = &Activate{}
	case KindChannel:
		body = &Channel{}
	case KindForget:
		body = &Forget{}
	case KindPurge:
		body = &Purge{}
	case KindPurges:
		body = &Purges{}
	case KindDrain, KindUndrain:
		body = &Drain{}
	case KindForce:
		body = &Force{}
	case KindNode:
		body = &NodeCert{}
	case KindToken:
		body = &TokenChange{}
	case KindSnapshot:
		body = &SnapshotMade{}
	case feed.KindEpoch:
		body = &feed.EpochBody{}
	default:
		return nil, fmt.Errorf("%w: %q (seq %d)", ErrUnknownKind, e.Kind, e.Seq)
	}
	if ps, ok := decodePurges(e.Body); ok && e.Kind == KindPurges { // nearly all of them
		body = ps
	} else if err := decodeStrict(bytes.NewReader(e.Body), body); err != nil {
		return nil, fmt.Errorf("%s entry %d: %w", e.Kind, e.Seq, err)
	}
	if err := checkCommand(body); err != nil {
		return nil, fmt.Errorf("%s entry %d: %w", e.Kind, e.Seq, err)
	}
	return body, nil
}

// checkCommand refuses a body that no control node writes.
func checkCommand(body any) error {
	switch b := body.(type) {
	case *Release:
		return errors.Join(checkName("site", b.Site), checkDigest(b.Release))
	case *Activate:
		return errors.Join(checkName("site", b.Site), checkDigest(b.Release))
	case *Channel:
		if b.Channel == origin.Prod {
			return errors.New("channel prod has entries of its own kind")
		}
		return errors.Join(checkName("site", b.Site), origin.CheckChannel(b.Channel))
	case *Forget:
		if len(b.Releases) == 0 || len(b.Releases) > MaxForgotten {
			return fmt.Errorf("%d releases: 1 to %d are forgotten at a time", len(b.Releases), MaxForgotten)
		}
		for _, d := range b.Releases {
			if err := checkDigest(d); err != nil {
				return err
			}
		}
		return checkName("site", b.Site)
	case *Purge:
		return errors.Join(checkName("site", b.Site), b.check())
	case *Purges:
		if len(b.Purges) == 0 || len(b.Purges) > maxShared {
			return fmt.Errorf("%d purges: 1 to %d share an entry", len(b.Purges), maxShared)
		}
		for i := range b.Purges {
			if err := checkCommand(&b.Purges[i]); err != nil {
				return fmt.Errorf("purge %d: %w", i+1, err)
			}
		}
	case *NodeCert:
		if sum, err := hex.DecodeString(b.Cert); err != nil || len(sum) != 0 && len(sum) != sha256.Size {
			return fmt.Errorf("cert %.80q: it must be 64 hex digits, or none", b.Cert)
		}
		return feed.CheckID(b.Node)
	case *TokenChange:
		return b.check()
	case *SnapshotMade:
		return b.check()
	case *Drain:
		return checkName("edge", b.Edge)
	case *Force:
		if b.Force != "up" && b.Force != "down" && b.Force != "obey" {
			return fmt.Errorf("force %.40q: up, down or obey", b.Force)
		}
		return checkName("edge", b.Edge)
	}
	return nil
}

func checkDigest(d origin.Digest) error {
	if d.IsZero() {
		return errors.New("no release is named")
	}
	return nil
}

func checkName(what, name string) error {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == '\\' }) {
		return fmt.Errorf("%s %.120q is not a name", what, name)
	}
	return nil
}

// decodeStrict reads exactly one JSON value of v's shape from r.
func decodeStrict(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("data after the end of the JSON value")
	}
	return nil
}
