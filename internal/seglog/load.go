package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"perigee.example/internal/durable"
)

// The state file says how the log was left. It has one length, and is written
// in place: that works on a full disk.
const (
	stateOpen    = "open"
	stateClean   = "clean"
	stateSuspect = "suspect"
	stateBytes   = 128
)

// writeState writes the state down, and syncs it.
func (l *Log) writeState(state string) error { return l.saveState(state, true) }

// putState writes the state down for after a kill, if the disk takes it.
func (l *Log) putState(state string) { l.saveState(state, false) }

func (l *Log) saveState(state string, sync bool) error {
	l.stateFile.Lock()
	defer l.stateFile.Unlock()
	b := fmt.Appendf(nil, "perigee-seglog 1 %s %s\n", state, bootID())
	for len(b) < stateBytes {
		b = append(b, ' ')
	}
	f, err := os.OpenFile(filepath.Join(l.dir, stateName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.sys.writeAt(f, b, 0); err != nil || !sync {
		return err
	}
	return l.sys.sync(f)
}

// leftWell reports whether what was said before is all there: the log was left
// in order, or its process was killed on a machine that has run since.
func (l *Log) leftWell() bool {
	b, err := os.ReadFile(filepath.Join(l.dir, stateName))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b))
	if len(f) < 3 || f[0] != "perigee-seglog" || f[1] != "1" {
		return false
	}
	return f[2] == stateClean || f[2] == stateOpen && len(f) == 4 && f[3] == bootID()
}

// Settled says that what Suspect told has been acted upon, by a Note.
func (l *Log) Settled() error {
	l.suspect.Store(false)
	return l.writeState(stateOpen)
}

// load reads what is there.
func (l *Log) load() error {
	ids, err := l.list()
	if err != nil {
		return err
	}
	state := stateOpen
	if len(ids) > 0 && !l.leftWell() {
		state = stateSuspect
		l.suspect.Store(true)
	}
	if err := l.writeState(state); err != nil {
		return err
	}
	if err := durable.Sweep(l.dir); err != nil {
		return err
	}
	ids = l.fit(ids)
	for _, id := range ids {
		if err := l.loadSegment(id); err != nil {
			return err
		}
	}
	return nil
}

// distrust makes the log suspect, after a kill too: it is written down before what
// shows the damage is mended.
func (l *Log) distrust() error {
	if l.suspect.Swap(true) {
		return nil
	}
	return l.writeState(stateSuspect)
}

// list returns the ids of the segments, rising. An index without its segment is
// removed.
func (l *Log) list() (ids []uint32, err error) {
	names, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		base, ext, _ := strings.Cut(n.Name(), ".")
		id, err := strconv.ParseUint(base, 16, 32)
		if err != nil || len(base) != 8 || !n.Type().IsRegular() {
			continue
		}
		switch "." + ext {
		case segmentExt:
			ids = append(ids, uint32(id))
		case indexExt:
			if _, err := os.Lstat(l.segmentPath(uint32(id)) + segmentExt); errors.Is(err, fs.ErrNotExist) {
				os.Remove(filepath.Join(l.dir, n.Name()))
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// fit removes the oldest segments until the rest, and one to write, are within
// the budget.
func (l *Log) fit(ids []uint32) []uint32 {
	total := l.segBytes
	for i := len(ids) - 1; i >= 0; i-- {
		info, err := os.Stat(l.segmentPath(ids[i]) + segmentExt)
		if err == nil {
			total += info.Size()
		}
		if total <= l.budget && len(ids)-i < maxSegments {
			continue
		}
		for _, id := range ids[:i+1] {
			l.sys.remove(l.segmentPath(id) + segmentExt)
			l.sys.remove(l.segmentPath(id) + indexExt)
		}
		return ids[i+1:]
	}
	return ids
}

// loadSegment takes a segment in. One that cannot be read as such is removed. An
// error is that damage could not be written down.
func (l *Log) loadSegment(id uint32) error {
	seg := &segment{id: id, path: l.segmentPath(id), owner: &l.segs}
	l.segs.next = max(l.segs.next, id+1)
	if err := seg.open(l.sys); err != nil {
		if err := l.distrust(); err != nil {
			return err
		}
		l.count.corrupt.Add(1)
		l.log.Warn("disk cache: a file is dropped", "file", seg.path+segmentExt, "why", err)
		l.sys.remove(seg.path + segmentExt)
		l.sys.remove(seg.path + indexExt)
		return nil
	}
	l.segs.add(seg)
	entries, there, err := l.readIndex(seg)
	if err != nil {
		s := l.scan(seg)
		l.count.corrupt.Add(uint64(s.bad))
		if there {
			l.count.corrupt.Add(1)
		}
		if there || s.rotten { // a removal may be among what is lost
			if err := l.distrust(); err != nil {
				return err
			}
		}
		entries = s.entries
		// What follows is nothing, or a write that was cut short.
		if seg.f.Truncate(s.end) == nil {
			l.segs.shrink(seg, s.end)
		}
		seg.entries = slices.Clone(entries)
	}
	for i := range entries {
		e := &entries[i]
		l.apply(e)
		if e.kind == kindNote {
			if err := l.loadNote(seg, e); err != nil {
				return err
			}
		}
		seg.said = seg.said || e.kind != kindValue && e.kind != kindPart
	}
	seg.synced.Store(err == nil)
	if err != nil {
		l.toSeal(seg)
	}
	return nil
}

func (seg *segment) open(sys system) error {
	f, err := os.OpenFile(seg.path+segmentExt, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var head [segmentHead]byte
	info, err := f.Stat()
	if err == nil {
		err = sys.readAt(f, head[:], 0)
	}
	if err == nil && !bytes.HasPrefix(head[:], []byte(segmentMagic)) {
		err = errors.New("it is no segment of this version")
	}
	if err != nil {
		f.Close()
		return err
	}
	seg.f, seg.bytes, seg.nonce = f, info.Size(), binary.LittleEndian.Uint32(head[len(segmentMagic):])
	return nil
}

func (l *Log) loadNote(seg *segment, e *entry) error {
	rec := make([]byte, e.size)
	err := l.sys.readAt(seg.f, rec, e.offset())
	h, ok := checkLead(rec, seg.nonce)
	if err != nil || !ok || h.kind != kindNote {
		l.count.corrupt.Add(1)
		return l.distrust()
	}
	l.notes = append(l.notes, rec[headerBytes:][:h.head])
	return nil
}
