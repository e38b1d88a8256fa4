package node

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"perigee.example/feed"
	"perigee.example/internal/control"
	"perigee.example/internal/durable"
)

const (
	journalName = "feed.journal"
	// journalMagic starts the file; its last byte is the format's version.
	journalMagic = "PGJRNL\x00\x01"
	// recordHead is the length (4 bytes) and CRC-32C (4 bytes) before each
	// record, both big endian; the CRC covers the length too.
	recordHead = 8
	// maxRecordBytes bounds a record: one entry and its tag.
	maxRecordBytes = feed.MaxEntryBytes + 1
	// maxJournalBytes bounds the file that is read: maxScopes purges of the
	// longest usual URLs, twice, since it is rewritten at double size.
	maxJournalBytes = 1 << 30
	// slackBytes is how much a journal may grow beyond twice its live size
	// before it is rewritten: rewriting a small one each time would be waste.
	slackBytes = 1 << 20

	tagEntry    = 'E' // an entry that was applied; the place is after it
	tagPosition = 'P' // a place on the log
	tagKept     = 'K' // an entry that still matters, in a rewritten journal; it does not move the place
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// journal is a node's durable memory of the log: its place on it, and the
// entries that must survive a restart. Each append is one write and one sync.
type journal struct {
	path     string
	f        *os.File // nil after an error, until a rewrite has worked
	live     *live
	position feed.Position
	size     int64 // of the file
	base     int64 // of the file after the last rewrite
}

// openJournal reads the journal in dir, or makes it. When the file has a bad
// record, everything from it on is cut off and cut says what was wrong; a torn
// last record, as a crash in the middle of a write leaves, is cut in silence,
// since it was never acknowledged.
func openJournal(dir string, k keep) (j *journal, cut string, err error) {
	if err := durable.Sweep(dir); err != nil {
		return nil, "", err
	}
	j = &journal{path: filepath.Join(dir, journalName), live: newLive(k)}
	b, err := readBounded(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, "", j.rewrite()
	}
	if err != nil {
		return nil, "", err
	}
	good, why, torn := j.read(b)
	if good != len(b) || why != "" {
		if !torn {
			cut = fmt.Sprintf("at byte %d of %d: %s", good, len(b), why)
			// What was cut is kept beside it, for whoever wants to know.
			if err := durable.WriteFile(j.path+".bad", b[good:], 0o600); err != nil {
				return nil, "", err
			}
		}
		return j, cut, j.rewrite()
	}
	if j.f, err = os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, "", err
	}
	j.size, j.base = int64(len(b)), int64(len(b))
	return j, "", nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJournalBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxJournalBytes {
		return nil, fmt.Errorf("%s: more than %d bytes: move it away, and the node reads the log from the start", path, maxJournalBytes)
	}
	return b, nil
}

// read folds in every record of b up to the first bad one. It returns how many
// bytes were good, what was wrong then, and whether that looks like a write
// that a crash cut short.
func (j *journal) read(b []byte) (good int, why string, torn bool) {
	if !bytes.HasPrefix(b, []byte(journalMagic)) {
		return 0, "not a journal of this version", len(b) < len(journalMagic) && bytes.HasPrefix([]byte(journalMagic), b)
	}
	good = len(journalMagic)
	for good < len(b) {
		rest := b[good:]
		if len(rest) < recordHead {
			return good, "torn record", true
		}
		n := int(binary.BigEndian.Uint32(rest))
		if n == 0 || n > maxRecordBytes {
			return good, fmt.Sprintf("record of %d bytes", n), false
		}
		if len(rest) < recordHead+n {
			return good, "torn record", true
		}
		payload := rest[recordHead : recordHead+n]
		if checksum(rest[:4], payload) != binary.BigEndian.Uint32(rest[4:]) {
			return good, "checksum does not match", false
		}
		if err := j.fold(payload); err != nil {
			return good, err.Error(), false
		}
		good += recordHead + n
	}
	return good, "", false
}

func checksum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, crcTable), crcTable, payload)
}

// fold takes one record in.
func (j *journal) fold(payload []byte) error {
	body := payload[1:]
	switch payload[0] {
	case tagPosition:
		var p feed.Position
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&p); err != nil {
			return fmt.Errorf("position: %w", err)
		}
		j.position = p
	case tagEntry, tagKept:
		e, err := feed.Decode(body)
		if err != nil {
			return err
		}
		if payload[0] == tagEntry {
			j.position = e.Position()
		}
		command, err := control.DecodeCommand(e)
		if err == nil {
			j.live.put(e, command)
		} // else it was skipped when it came, too
	default:
		return fmt.Errorf("record of unknown kind %q", payload[0])
	}
	return nil
}

func appendRecord(b []byte, tag byte, body []byte) []byte {
	payload := append([]byte{tag}, body...)
	var head [recordHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)))
	binary.BigEndian.PutUint32(head[4:], checksum(head[:4], payload))
	return append(append(b, head[:]...), payload...)
}

// append folds entries in and makes them durable with one sync. commands are
// their decoded bodies, nil for those that were skipped. After an error they
// are folded in but not durable: the file is dead (a sync is never tried twice
// on the same file), and the next append rewrites the journal whole, with them.
func (j *journal) append(es []feed.Entry, commands []any) (drains bool, err error) {
	var b []byte
	for i, e := range es {
		if j.live.put(e, commands[i]) {
			drains = true
		}
		body, err := e.Encode()
		if err != nil {
			return drains, err
		}
		b = appendRecord(b, tagEntry, body)
	}
	before := j.position
	j.position = es[len(es)-1].Position()
	if j.f == nil || j.size+int64(len(b)) > 2*j.base+slackBytes {
		if err = j.rewrite(); err != nil {
			j.position = before
		}
		return drains, err
	}
	if _, err = j.f.Write(b); err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		_ = j.f.Close()
		j.f, j.position = nil, before
		return drains, fmt.Errorf("journal %s: %w", j.path, err)
	}
	j.size += int64(len(b))
	return drains, nil
}

// replace makes l and position the journal's content.
func (j *journal) replace(l *live, position feed.Position) error {
	oldLive, oldPosition := j.live, j.position
	j.live, j.position = l, position
	if err := j.rewrite(); err != nil {
		j.live, j.position = oldLive, oldPosition
		return err
	}
	return nil
}

// rewrite writes the journal anew: the place, and what still matters.
func (j *journal) rewrite() error {
	if j.f != nil {
		_ = j.f.Close() // nothing in it is waiting to be written
		j.f = nil
	}
	p, err := json.Marshal(j.position)
	if err != nil {
		return err
	}
	b := appendRecord([]byte(journalMagic), tagPosition, p)
	for _, r := range j.live.sorted() {
		body, err := r.entry.Encode()
		if err != nil {
			return err
		}
		b = appendRecord(b, tagKept, body)
	}
	if err := durable.WriteFile(j.path, b, 0o600); err != nil {
		return err
	}
	if j.f, err = os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	j.size, j.base = int64(len(b)), int64(len(b))
	return nil
}

func (j *journal) close() error {
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}

// purgeBody is the body of a purge entry that this node puts together itself.
func purgeBody(p *control.Purge) json.RawMessage {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // two strings and two bools
	}
	return b
}
