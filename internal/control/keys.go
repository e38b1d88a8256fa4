package control

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/durable"
)

const (
	nodesName = "nodes.json"
	// maxNodes bounds the fleet: DESIGN's three hundred edges, DNS nodes, and room.
	maxNodes = 1000
	// maxListBytes bounds tokens.json and nodes.json.
	maxListBytes = 1 << 20
)

func readList(path string, v any) error {
	b, err := readFile(path, maxListBytes)
	if err != nil {
		return err
	}
	if err := decodeStrict(bytes.NewReader(b), v); err != nil {
		return fmt.Errorf("%s: %w: restore the file from a backup", path, err)
	}
	return nil
}

func writeList(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(b, '\n'), 0o600)
}

// nodeEntry is one node of the fleet, in nodes.json.
type nodeEntry struct {
	Name string `json:"name"`
	// Cert is the hex SHA-256 of the certificate it must show; empty for a node
	// in the control node's own process, which comes in by no door.
	Cert  string    `json:"cert,omitempty"`
	Added time.Time `json:"added"`
	Until time.Time `json:"until"` // the certificate's end
}

// nodeList is who belongs to the fleet. A node is cut off by not being on it.
type nodeList struct {
	path string

	mu    sync.RWMutex
	nodes map[string]nodeEntry
}

func openNodes(dir string) (*nodeList, error) {
	l := &nodeList{path: filepath.Join(dir, nodesName), nodes: map[string]nodeEntry{}}
	var entries []nodeEntry
	if err := readList(l.path, &entries); errors.Is(err, fs.ErrNotExist) {
		return l, nil
	} else if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := feed.CheckID(e.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", l.path, err)
		}
		l.nodes[e.Name] = e
	}
	return l, nil
}

// admit reports whether a node with this certificate is of the fleet.
func (l *nodeList) admit(name string, cert *x509.Certificate) bool {
	l.mu.RLock()
	e, ok := l.nodes[name]
	l.mu.RUnlock()
	sum := sha256.Sum256(cert.Raw)
	return ok && e.Cert == hex.EncodeToString(sum[:])
}

func (l *nodeList) all() []nodeEntry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]nodeEntry, 0, len(l.nodes))
	for _, e := range l.nodes {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b nodeEntry) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (l *nodeList) has(name string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.nodes[name]
	return ok
}

// change edits the list and saves it durably before it counts. On an error the
// old list stands.
func (l *nodeList) change(edit func(map[string]nodeEntry) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := make(map[string]nodeEntry, len(l.nodes)+1)
	for k, v := range l.nodes {
		next[k] = v
	}
	if err := edit(next); err != nil {
		return err
	}
	entries := make([]nodeEntry, 0, len(next))
	for _, e := range next {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b nodeEntry) int { return strings.Compare(a.Name, b.Name) })
	if err := writeList(l.path, entries); err != nil {
		return err
	}
	l.nodes = next
	return nil
}
