package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
)

// A segment's part of the index is a file beside it: magic, the segment's id and
// nonce, entries of indexEntry bytes, and a checksum of all that.
const (
	indexMagic = "PGSEGI\x00\x01"
	indexHead  = len(indexMagic) + 8
	indexEntry = 32
)

var errIndex = errors.New("no index of this segment")

func encodeIndex(seg *segment, entries []entry) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, indexHead+len(entries)*indexEntry+4)
	b = append(b, indexMagic...)
	b = le.AppendUint32(b, seg.id)
	b = le.AppendUint32(b, seg.nonce)
	for i := range entries {
		e := &entries[i]
		b = le.AppendUint64(b, e.key)
		b = le.AppendUint64(b, e.variant)
		b = le.AppendUint32(b, e.off)
		b = le.AppendUint32(b, e.size)
		b = le.AppendUint32(b, e.lead)
		b = append(b, byte(e.kind), 0, 0, 0)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeIndex reads an index of a segment of size bytes. Its entries lie within
// the segment, whatever b is.
func decodeIndex(b []byte, id, nonce uint32, size int64) ([]entry, error) {
	le := binary.LittleEndian
	n := len(b) - indexHead - 4
	if n < 0 || n%indexEntry != 0 || !bytes.HasPrefix(b, []byte(indexMagic)) || crc32.Checksum(b[:len(b)-4], castagnoli) != le.Uint32(b[len(b)-4:]) ||
		le.Uint32(b[len(indexMagic):]) != id || le.Uint32(b[len(indexMagic)+4:]) != nonce {
		return nil, errIndex
	}
	entries := make([]entry, 0, n/indexEntry)
	for b = b[indexHead : len(b)-4]; len(b) > 0; b = b[indexEntry:] {
		e := entry{key: le.Uint64(b), variant: le.Uint64(b[8:]), seg: id, off: le.Uint32(b[16:]), size: le.Uint32(b[20:]), lead: le.Uint32(b[24:]), kind: kind(b[28])}
		if e.kind < kindValue || e.kind > kindNote || e.lead < headerBytes || e.lead > e.size || e.size > maxRecordBytes || e.size%align != 0 ||
			e.offset() < segmentHead || e.offset()+int64(e.size) > size {
			return nil, errIndex
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// readIndex reads the index that was saved for a segment.
func (l *Log) readIndex(seg *segment) (entries []entry, there bool, err error) {
	b, err := os.ReadFile(seg.path + indexExt)
	if err != nil {
		return nil, false, err
	}
	entries, err = decodeIndex(b, seg.id, seg.nonce, seg.bytes)
	return entries, true, err
}

// seal is the goroutine that syncs what is full, and saves its part of the index.
func (l *Log) seal() {
	for seg := range l.seals {
		l.sealOne(seg)
		seg.release()
	}
	l.end()
	close(l.sealed)
}

func (l *Log) sealOne(seg *segment) {
	entries := seg.entries
	seg.entries = nil
	if l.segs.isGone(seg) {
		return
	}
	if err := l.sys.sync(seg.f); err != nil {
		// Nobody knows what of it is on the disk, and a second sync would not say:
		// the file is dead.
		l.count.deadFiles.Add(1)
		l.log.Error("disk cache: a file could not be synced, and is dropped", "file", seg.path+segmentExt, "why", err)
		for i := range entries {
			l.idx.remove(&entries[i])
		}
		if l.unlink(seg) != nil || seg.said {
			l.forgo()
		}
		return
	}
	seg.synced.Store(true)
	if err := l.sys.save(seg.path+indexExt, encodeIndex(seg, entries)); err != nil {
		l.log.Warn("disk cache: the next start will scan a file, for its index could not be saved", "file", seg.path+segmentExt, "why", err)
	}
	if l.segs.isGone(seg) {
		l.sys.remove(seg.path + indexExt)
	}
}

// end is the orderly end: the next Open may trust all that it finds.
func (l *Log) end() {
	state := stateClean
	if l.tainted.Load() || l.suspect.Load() {
		state = stateSuspect
	}
	if err := l.writeState(state); err != nil {
		l.log.Warn("disk cache: its orderly end could not be written down", "dir", l.dir, "why", err)
	}
	l.segs.closeAll()
	l.lock.Close()
}
