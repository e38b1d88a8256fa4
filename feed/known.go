package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"perigee.example/internal/durable"
)

// knownName is the file beside the log that holds the last position control
// acknowledged. JetStream can lose messages and use their numbers again
// (a flipped bit in its files is enough); this file is how that is noticed.
//
// It is written for each acknowledgement, so it has one size, and is written in place:
// that costs one sync, where another file, a rename and the folder's sync cost two. It
// has two slots, which are written in turn. One that was being written when the power
// went does not have its sum: the other then holds the acknowledgement before, and
// what was being written was never acknowledged.
const knownName = "epoch.json"

const (
	// slotBytes is one slot: a block of the disk, so that no write touches both.
	slotBytes  = 4 << 10
	knownBytes = 2 * slotBytes
	// slotLine bounds what is written of a slot: a sum, and three small fields.
	slotLine = 512
	slotSum  = 2 * sha256.Size // hex
)

// slot is one of the two.
type slot struct {
	N uint64 `json:"n"` // of the write; of two whole ones the higher counts
	Position
}

func (s *slot) encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	line := fmt.Appendf(nil, "%x %s", sum, b)
	if len(line) >= slotLine {
		return nil, fmt.Errorf("%d bytes of a position", len(line))
	}
	return append(line, append(bytes.Repeat([]byte{' '}, slotLine-1-len(line)), '\n')...), nil
}

// decodeSlot reads a slot, or says that it is not whole.
func decodeSlot(b []byte) (s slot, ok bool) {
	line, _, _ := bytes.Cut(b[:slotLine], []byte{'\n'})
	if len(line) < slotSum+2 || line[slotSum] != ' ' {
		return s, false
	}
	text := bytes.TrimRight(line[slotSum+1:], " ")
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != string(line[:slotSum]) || decodeStrict(text, &s) != nil {
		return slot{}, false
	}
	return s, true
}

// newest returns the slot that counts.
func newest(b []byte) (s slot, ok bool) {
	for part := range slices.Chunk(b, slotBytes) {
		if other, whole := decodeSlot(part); whole && (!ok || other.N > s.N) {
			s, ok = other, true
		}
	}
	return s, ok
}

// readKnown reads the last acknowledged position; ok is false when there is no file.
func readKnown(dir string) (p Position, ok bool, err error) {
	path := filepath.Join(dir, knownName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, knownBytes+1))
	if err != nil {
		return p, false, err
	}
	cure := "it says which log entries were acknowledged; to go on with the log as it is, move this file away, and every node will revalidate everything"
	switch {
	case len(b) == knownBytes:
		s, whole := newest(b)
		if !whole {
			return p, false, fmt.Errorf("%s: it is damaged: %s", path, cure)
		}
		p = s.Position
	case len(b) > knownBytes:
		return p, false, fmt.Errorf("%s: more than %d bytes: %s", path, knownBytes, cure)
	default: // as versions before wrote it
		if err := decodeStrict(b, &p); err != nil {
			return p, false, fmt.Errorf("%s: %w: %s", path, err, cure)
		}
	}
	if _, err := parseChain(p.Chain); err != nil || p.Epoch == 0 {
		return p, false, fmt.Errorf("%s: not a position: %s", path, cure)
	}
	return p, true, nil
}

// writeKnown saves an acknowledged position durably.
func writeKnown(dir string, p Position) error {
	path := filepath.Join(dir, knownName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return newKnown(path, p)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, knownBytes)
	switch _, err := io.ReadFull(f, b); {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return newKnown(path, p) // of a version before
	case err != nil:
		return err
	}
	last, ok := newest(b)
	if !ok {
		return newKnown(path, p)
	}
	next := slot{last.N + 1, p}
	line, err := next.encode()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(line, int64(next.N%2)*slotBytes); err != nil {
		return err
	}
	return durable.DataSync(f)
}

// newKnown makes the file, with an empty second slot.
func newKnown(path string, p Position) error {
	first := slot{Position: p}
	line, err := first.encode()
	if err != nil {
		return err
	}
	b := bytes.Repeat([]byte{' '}, knownBytes)
	copy(b, line)
	b[slotBytes-1], b[knownBytes-1] = '\n', '\n'
	return durable.WriteFile(path, b, 0o600)
}
