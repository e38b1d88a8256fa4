package seglog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

// ErrTooLarge says that a value is larger than one may be.
var ErrTooLarge = errors.New("larger than a value may be")

// Item is a value to be kept.
type Item struct {
	// Key is a hash that an outsider cannot aim, and Variant tells values of one
	// key apart: a value takes the place of the one with the same two. Neither is
	// proof of what a value is; its head is.
	Key, Variant uint64
	Expires      time.Time // not worth writing again after; zero: never
	Head         []byte
	Body         [][]byte // in pieces
}

// Put hands a value over to be written. It may be found a moment later, or
// never: an error says why it will not be. It waits a while when the disk is slow.
func (l *Log) Put(it Item) error {
	n := 0
	for _, p := range it.Body {
		n += len(p)
	}
	if n <= partBytes {
		if len(it.Head) > maxHeadBytes {
			return ErrTooLarge
		}
		h := header{kind: kindValue, key: it.Key, variant: it.Variant, expires: unix(it.Expires), total: uint64(n)}
		return l.append(h, it.Head, it.Body)
	}
	s := l.Create(it.Key, it.Variant)
	if s == nil {
		return errBusy
	}
	for _, p := range it.Body {
		if _, err := s.Write(p); err != nil {
			s.Abort()
			return err
		}
	}
	return s.Commit(it.Head, it.Expires)
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func (l *Log) append(h header, head []byte, body [][]byte) error {
	if l.why.Load() != nil {
		l.count.dropped.Add(1)
		return errNotWriting
	}
	rec := encode(h, head, body)
	hh, _ := parseHeader(rec)
	return l.enqueue(job{rec: rec, h: hh}, maxWait)
}

// Remove makes the values of a key unusable, of one variant or of all. When it
// returns they are, after a kill of the process too.
func (l *Log) Remove(key, variant uint64, all bool) {
	// Until the removal is written, what was handed over before it must not be
	// found either.
	l.removals.Lock()
	if l.removing == nil {
		l.removing = map[uint64]int{}
	}
	l.removing[key]++
	l.removals.Unlock()
	defer func() {
		l.removals.Lock()
		defer l.removals.Unlock()
		if l.removing[key]--; l.removing[key] == 0 {
			delete(l.removing, key)
		}
	}()
	l.idx.removeKey(key, variant, all)
	k := kindRemove
	if all {
		k = kindRemoveKey
	}
	l.say(header{kind: k, key: key, variant: variant}, nil)
}

// Replaced says that a value has been replaced elsewhere. It may come back after
// a kill, as a cache may lose what is new.
func (l *Log) Replaced(key, variant uint64) {
	flying := l.inFlight.Load() > 0 // an earlier one may be among them
	if l.idx.removeKey(key, variant, false) || flying {
		rec := encode(header{kind: kindRemove, key: key, variant: variant}, nil, nil)
		h, _ := parseHeader(rec)
		l.enqueue(job{rec: rec, h: h}, 0)
	}
}

// Note writes a note down, for the next Open. When it returns, a kill does not
// lose it; after sync, no loss of power does. A note of more than 64 KiB, or
// one that cannot be written, drops every value instead.
func (l *Log) Note(note []byte, sync bool) {
	if len(note) > maxNoteBytes {
		l.forgo()
		return
	}
	l.say(header{kind: kindNote}, note)
	if sync {
		l.syncNotes()
	}
}

const maxNoteBytes = 64 << 10

// say writes down what Open must know.
func (l *Log) say(h header, head []byte) {
	if l.tainted.Load() {
		return // everything goes, and so does what this is about; nobody waits for a disk that hangs
	}
	rec := encode(h, head, nil)
	h, _ = parseHeader(rec)
	done := make(chan error, 1)
	if err := l.enqueue(job{rec: rec, h: h, said: true, done: done}, maxWait); err != nil {
		l.forgo()
		return
	}
	t := time.NewTimer(maxWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		l.forgo()
	case <-l.sealed:
	}
}

// forgo gives everything up, for something that must be written down could not
// be: the disk hangs, say. Nothing is found from now on; the writing goroutine
// removes the files when it can.
func (l *Log) forgo() {
	l.forgone.Add(1)
	l.tainted.Store(true)
	l.idx.clear()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	// Until they are removed, a kill leaves them to the next start. A disk that hangs
	// may not take that either, and then nobody waits for it.
	done := make(chan struct{})
	go func() {
		l.putState(stateSuspect)
		close(done)
	}()
	t := time.NewTimer(maxWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// syncNotes brings what is written to the disk.
func (l *Log) syncNotes() {
	for _, seg := range l.segs.unsynced() {
		if err := l.syncIn(seg, maxSyncWait); err != nil {
			l.forgo()
		}
		seg.release()
	}
}

// Stream is a value that comes in pieces. It is for one goroutine.
type Stream struct {
	l            *Log
	key, variant uint64
	id           uint64
	buf          []byte
	size         int64
	parts        uint32
	err          error
}

// Create begins a value whose body comes in pieces. It is nil when too many are
// under way already, or nothing is written. Either Commit or Abort ends it.
func (l *Log) Create(key, variant uint64) *Stream {
	if l.why.Load() != nil || l.closed.Load() {
		return nil
	}
	if l.streams.Add(1) > maxStreams {
		l.streams.Add(-1)
		l.count.dropped.Add(1)
		return nil
	}
	var id [8]byte
	rand.Read(id[:])
	return &Stream{l: l, key: key, variant: variant, id: binary.LittleEndian.Uint64(id[:]) | 1}
}

// Write adds to the body. After an error the value will not be kept.
func (s *Stream) Write(p []byte) (int, error) {
	if s.err == nil && s.size+int64(len(p)) > s.l.MaxValue() {
		s.err = ErrTooLarge
	}
	if s.err != nil {
		return 0, s.err
	}
	n := len(p)
	for len(p) > 0 {
		if len(s.buf) == partBytes { // there is more: the value is in parts
			if s.err = s.part(); s.err != nil {
				return 0, s.err
			}
		}
		m := min(len(p), partBytes-len(s.buf))
		s.buf = append(s.buf, p[:m]...)
		p = p[m:]
	}
	s.size += int64(n)
	return n, nil
}

// part writes what has come as the next part.
func (s *Stream) part() error {
	h := header{kind: kindPart, key: partKey(s.id, s.parts), variant: s.id, id: s.id, part: s.parts}
	if err := s.l.append(h, nil, [][]byte{s.buf}); err != nil {
		return err
	}
	s.parts++
	s.buf = s.buf[:0]
	return nil
}

// Size is how much has been written.
func (s *Stream) Size() int64 { return s.size }

// Commit makes the value one that can be found.
func (s *Stream) Commit(head []byte, expires time.Time) error {
	defer s.l.streams.Add(-1)
	if s.err == nil && len(head) > maxHeadBytes {
		s.err = ErrTooLarge
	}
	if s.err != nil {
		return s.err
	}
	h := header{kind: kindValue, key: s.key, variant: s.variant, expires: unix(expires), total: uint64(s.size)}
	if s.parts == 0 {
		return s.l.append(h, head, [][]byte{s.buf})
	}
	if err := s.part(); err != nil {
		return err
	}
	h.id = s.id
	return s.l.append(h, head, nil)
}

// Abort gives the value up.
func (s *Stream) Abort() {
	s.l.streams.Add(-1)
	for i := range s.parts {
		for _, e := range s.l.idx.find(nil, partKey(s.id, i), kindPart) {
			s.l.idx.remove(&e)
		}
	}
}
