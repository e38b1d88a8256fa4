package seglog

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"perigee.example/internal/durable"
)

const (
	// segmentMagic begins a segment; its last byte is the format's version.
	segmentMagic = "PGSEGM\x00\x01"
	// segmentHead is the magic, a nonce of 4 bytes and zeros, so that the first
	// record is aligned.
	segmentHead = 64
	lockName    = "lock"
	stateName   = "state"
	segmentExt  = ".seg"
	indexExt    = ".idx"
)

// system is what the log asks of the disk. Tests have others, which fail.
type system interface {
	create(path string, size int64) (*os.File, error)
	writeAt(f *os.File, b []byte, off int64) error
	readAt(f *os.File, b []byte, off int64) error
	sync(f *os.File) error
	remove(path string) error
	save(path string, b []byte) error // whole, or not at all
}

type osSystem struct{}

func (osSystem) create(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := allocate(f, size); err != nil {
		f.Close()
		os.Remove(path)
		return nil, fmt.Errorf("allocate %d bytes for %s: %w", size, path, err)
	}
	return f, nil
}

func (osSystem) writeAt(f *os.File, b []byte, off int64) error {
	_, err := f.WriteAt(b, off)
	return err
}

func (osSystem) readAt(f *os.File, b []byte, off int64) error {
	_, err := f.ReadAt(b, off)
	return err
}

func (osSystem) sync(f *os.File) error { return durable.DataSync(f) }

func (osSystem) remove(path string) error { return os.Remove(path) }

func (osSystem) save(path string, b []byte) error { return durable.WriteFile(path, b, 0o600) }

// segment is a file of records.
type segment struct {
	id    uint32
	nonce uint32
	path  string // without its ending
	f     *os.File
	owner *segments
	refs  atomic.Int32 // the log's own, and one for each reader
	bytes int64        // of the file; segments.mu
	gone  bool         // no longer the log's; segments.mu

	// The writing goroutine's, until the segment is sealed:
	end     int64
	entries []entry
	said    bool // it has removals or notes

	synced atomic.Bool // nothing more is written, and what was is on the disk
}

// segments are the files of a log.
type segments struct {
	mu    sync.RWMutex
	m     map[uint32]*segment
	next  uint32
	bytes int64 // of m
	held  int64 // of files that are removed, and held by readers
}

func (l *Log) segmentPath(id uint32) string { return filepath.Join(l.dir, fmt.Sprintf("%08x", id)) }

// newSegment makes the next segment.
func (l *Log) newSegment() (*segment, error) {
	l.segs.mu.Lock()
	id := l.segs.next
	l.segs.next++
	l.segs.mu.Unlock()
	s := &segment{id: id, path: l.segmentPath(id), owner: &l.segs, end: segmentHead, bytes: l.segBytes}
	var head [segmentHead]byte
	copy(head[:], segmentMagic)
	rand.Read(head[len(segmentMagic) : len(segmentMagic)+4])
	s.nonce = binary.LittleEndian.Uint32(head[len(segmentMagic):])
	var err error
	if s.f, err = l.sys.create(s.path+segmentExt, l.segBytes); err != nil {
		return nil, err
	}
	if err := l.sys.writeAt(s.f, head[:], 0); err != nil {
		s.f.Close()
		l.sys.remove(s.path + segmentExt)
		return nil, err
	}
	l.segs.add(s)
	return s, nil
}

func (s *segments) add(seg *segment) {
	seg.refs.Store(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[seg.id] = seg
	s.bytes += seg.bytes
	s.next = max(s.next, seg.id+1)
}

// hold returns a segment that stays readable until it is released, or nil.
func (s *segments) hold(id uint32) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seg := s.m[id]
	if seg != nil {
		seg.refs.Add(1) // the log's own is there while mu is held
	}
	return seg
}

func (seg *segment) release() {
	if seg.refs.Add(-1) > 0 {
		return
	}
	seg.f.Close()
	s := seg.owner
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= seg.bytes
}

// drop takes a segment out. Its file is closed when the last reader lets go.
func (s *segments) drop(seg *segment) {
	s.mu.Lock()
	if seg.gone {
		s.mu.Unlock()
		return
	}
	seg.gone = true
	delete(s.m, seg.id)
	s.bytes -= seg.bytes
	s.held += seg.bytes
	s.mu.Unlock()
	seg.release()
}

func (s *segments) isGone(seg *segment) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return seg.gone
}

// shrink says that a segment's file is smaller now.
func (s *segments) shrink(seg *segment, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !seg.gone {
		s.bytes += bytes - seg.bytes
		seg.bytes = bytes
	}
}

// oldest is the oldest segment but for not, or nil.
func (s *segments) oldest(not *segment) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var first *segment
	for _, seg := range s.m {
		if seg != not && (first == nil || seg.id < first.id) {
			first = seg
		}
	}
	return first
}

func (s *segments) size() (n int, bytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.m), s.bytes + s.held
}

func (s *segments) closeAll() {
	s.mu.RLock()
	all := make([]*segment, 0, len(s.m))
	for _, seg := range s.m {
		all = append(all, seg)
	}
	s.mu.RUnlock()
	for _, seg := range all {
		s.drop(seg)
	}
}

// unsynced returns the segments that may hold what is not on the disk yet. Each
// is to be released.
func (s *segments) unsynced() (list []*segment) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, seg := range s.m {
		if !seg.synced.Load() {
			seg.refs.Add(1)
			list = append(list, seg)
		}
	}
	return list
}
