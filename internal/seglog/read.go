package seglog

import (
	"errors"
	"io"
	"sync"
)

// ErrCorrupt says that a body's bytes are not those that were written. The
// value is dropped, and none of the bad bytes have been given out.
var ErrCorrupt = errors.New("a record on disk is damaged")

// firstRead is how much of a record a look-up reads at once: most values whole.
const firstRead = 32 << 10

// Object is a value on disk. It stays readable until it is closed, whatever
// happens to the log.
type Object struct {
	l    *Log
	seg  *segment // nil once closed
	e    entry
	h    header
	lead []byte // and maybe the body
	// Of a value in parts: where they are, and the segments held for them.
	parts []entry
	held  map[uint32]*segment
}

// Has reports whether there may be a value of key, without reading the disk.
func (l *Log) Has(key uint64) bool { return l.idx.has(key) }

// HasVariant reports whether there may be a value of key and variant.
func (l *Log) HasVariant(key, variant uint64) bool {
	var space [maxVariants]entry
	for _, e := range l.idx.find(space[:0], key, kindValue) {
		if e.variant == variant {
			return true
		}
	}
	return false
}

// Get returns a value of key whose head satisfies match: of several the newest.
// Nil is a miss. Who gets one closes it.
func (l *Log) Get(key uint64, match func(head []byte) bool) *Object {
	if l.closed.Load() || l.tainted.Load() {
		return nil
	}
	var space [maxVariants]entry
	for _, e := range l.idx.find(space[:0], key, kindValue) {
		o := l.openEntry(e)
		if o == nil {
			continue
		}
		if match(o.Head()) && o.findParts() {
			l.idx.touch(&e)
			return o
		}
		o.Close()
	}
	return nil
}

// openEntry reads the lead of a value. Nil is that it has made way, or is damaged.
func (l *Log) openEntry(e entry) *Object {
	seg := l.segs.hold(e.seg)
	if seg == nil {
		return nil
	}
	o := &Object{l: l, seg: seg, e: e}
	buf := make([]byte, min(e.size, max(e.lead, firstRead)))
	err := l.readAt(seg, buf, e.offset())
	if err == errOverdue {
		o.Close()
		return nil
	}
	var ok bool
	if err == nil {
		o.h, ok = checkLead(buf, seg.nonce)
	}
	if !ok || o.h.kind != e.kind || o.h.key != e.key || o.h.variant != e.variant || o.h.size() != int(e.size) {
		l.damaged(&e)
		o.Close()
		return nil
	}
	o.lead = buf
	return o
}

// damaged counts a record and forgets it.
func (l *Log) damaged(e *entry) {
	if _, ok := l.idx.remove(e); ok {
		l.count.corrupt.Add(1)
	}
}

// findParts holds all parts of a value that has any. A value that has lost one
// is forgotten.
func (o *Object) findParts() bool {
	if o.h.id == 0 {
		return o.h.total == uint64(o.h.body)
	}
	n := int((o.h.total + partBytes - 1) / partBytes)
	if int64(o.h.total) > o.l.MaxValue() || o.h.total == 0 {
		return false
	}
	o.parts, o.held = make([]entry, 0, n), map[uint32]*segment{}
	var space [maxVariants]entry
	for i := range n {
		found := false
		for _, e := range o.l.idx.find(space[:0], partKey(o.h.id, uint32(i)), kindPart) {
			if e.variant != o.h.id || found {
				continue
			}
			if o.held[e.seg] == nil {
				if o.held[e.seg] = o.l.segs.hold(e.seg); o.held[e.seg] == nil {
					delete(o.held, e.seg)
					continue
				}
			}
			o.parts = append(o.parts, e)
			found = true
		}
		if !found {
			o.l.idx.remove(&o.e)
			return false
		}
	}
	return true
}

// Head is what the value's head was. It must not be changed.
func (o *Object) Head() []byte { return o.lead[headerBytes:][:o.h.head] }

// Size is the length of the body.
func (o *Object) Size() int64 { return int64(o.h.total) }

// Close lets go of the files. The object is then nobody's to use.
func (o *Object) Close() {
	if o.seg != nil {
		o.seg.release()
	}
	for _, seg := range o.held {
		seg.release()
	}
	o.seg, o.held = nil, nil
}

// record is the whole of a record that is not in parts.
func (o *Object) record() ([]byte, error) {
	if len(o.lead) < int(o.e.size) {
		rec := make([]byte, o.e.size)
		n := copy(rec, o.lead)
		if err := o.l.readAt(o.seg, rec[n:], o.e.offset()+int64(n)); err == errOverdue {
			return nil, err
		} else if err != nil {
			o.l.damaged(&o.e)
			return nil, ErrCorrupt
		}
		o.lead = rec
	}
	if !checkBody(o.lead, &o.h) {
		o.l.damaged(&o.e)
		return nil, ErrCorrupt
	}
	return o.lead, nil
}

var blocks = sync.Pool{New: func() any { return new([blockBytes]byte) }}

// Verify reads what a range of the body needs first, so that what is damaged
// there is known before a word is said of it.
func (o *Object) Verify(start, n int64) error {
	if n <= 0 {
		return nil
	}
	if o.h.id == 0 {
		_, err := o.record()
		return err
	}
	_, err := o.WriteRange(io.Discard, start, min(n, partBytes-start%partBytes))
	return err
}

// WriteRange writes n bytes of the body from start to w, each block verified
// before any of it is written. It returns how many it wrote. ErrCorrupt is the
// disk's fault, and so is one that does not answer; other errors are w's.
func (o *Object) WriteRange(w io.Writer, start, n int64) (sent int64, err error) {
	if start < 0 || n < 0 || start+n > o.Size() {
		return 0, io.ErrUnexpectedEOF
	}
	if o.h.id == 0 {
		if len(o.lead) == int(o.e.size) { // it has been read, and may have been verified
			if _, err := o.record(); err != nil {
				return 0, err
			}
			m, err := w.Write(o.lead[o.h.lead():][start : start+n])
			return int64(m), err
		}
		return o.l.writeBlocks(w, o.seg, &o.e, o.lead, &o.h, start, n)
	}
	for n > 0 {
		i := start / partBytes
		from := start - i*partBytes
		m := min(n, partBytes-from)
		e := &o.parts[i]
		seg := o.held[e.seg]
		lead := make([]byte, e.lead)
		err := o.l.readAt(seg, lead, e.offset())
		if err == errOverdue {
			return sent, err
		}
		h, ok := checkLead(lead, seg.nonce)
		want := min(int64(partBytes), o.Size()-i*partBytes)
		if err != nil || !ok || h.kind != kindPart || h.id != o.h.id || h.part != uint32(i) || int64(h.body) != want || h.size() != int(e.size) {
			o.l.damaged(e)
			return sent, ErrCorrupt
		}
		o.l.idx.touch(e)
		got, err := o.l.writeBlocks(w, seg, e, lead, &h, from, m)
		sent += got
		if err != nil {
			return sent, err
		}
		start, n = start+m, n-m
	}
	return sent, nil
}

// writeBlocks writes a range of a record's body.
func (l *Log) writeBlocks(w io.Writer, seg *segment, e *entry, lead []byte, h *header, start, n int64) (sent int64, err error) {
	buf := blocks.Get().(*[blockBytes]byte)
	defer func() {
		if err != errOverdue { // else it may still be written to
			blocks.Put(buf)
		}
	}()
	for i := int(start / blockBytes); n > 0; i++ {
		block := buf[:h.blockLen(i)]
		if err := l.readAt(seg, block, e.offset()+int64(h.lead()+i*blockBytes)); err == errOverdue {
			return sent, err
		} else if err != nil || !checkBlock(lead, h, i, block) {
			l.damaged(e)
			return sent, ErrCorrupt
		}
		from := start - int64(i)*blockBytes
		b := block[from:min(from+n, int64(len(block)))]
		m, err := w.Write(b)
		sent += int64(m)
		if err != nil {
			return sent, err
		}
		start, n = start+int64(m), n-int64(m)
	}
	return sent, nil
}
