package seglog

// scanBytes is how much of a file is read at a time. It must hold any lead.
const scanBytes = 1 << 20

// scanned is what the records of a segment are.
type scanned struct {
	entries []entry
	end     int64 // after the last good record
	bad     int   // stretches that are no record
	// rotten: something bad stands before something good. A write that was cut
	// short has nothing behind it.
	rotten bool
}

// scan reads the leads of all records of a segment. After something bad it looks
// for the next record. A body that looks like one is not taken for it: who sent
// it did not know the nonce.
func (l *Log) scan(seg *segment) (s scanned) {
	s.end = segmentHead
	w := window{sys: l.sys, seg: seg}
	inBad := false
	for off := int64(segmentHead); off+headerBytes <= seg.bytes; {
		b := w.at(off, headerBytes)
		if b == nil { // unreadable
			inBad, off = s.isBad(inBad), off+align
			continue
		}
		if n := zeros(w.rest(off)); n >= headerBytes {
			off += int64(n &^ (align - 1))
			continue
		}
		h, ok := parseHeader(b)
		if ok && off+int64(h.size()) <= seg.bytes {
			b = w.at(off, h.lead())
			if b != nil {
				h, ok = checkLead(b, seg.nonce)
			}
		}
		if !ok || b == nil || off+int64(h.size()) > seg.bytes {
			inBad, off = s.isBad(inBad), off+align
			continue
		}
		if off != s.end { // records have no gaps
			s.rotten = true
			if !inBad {
				s.bad++
			}
		}
		inBad = false
		s.entries = append(s.entries, entry{key: h.key, variant: h.variant, seg: seg.id, off: uint32(off / align),
			size: uint32(h.size()), lead: uint32(h.lead()), kind: h.kind})
		off += int64(h.size())
		s.end = off
	}
	return s
}

func (s *scanned) isBad(already bool) bool {
	if !already {
		s.bad++
	}
	return true
}

// window is the part of a file that a scan looks at.
type window struct {
	sys  system
	seg  *segment
	buf  []byte
	have []byte // of buf
	off  int64  // where have begins
	bad  int64  // the last place that could not be read, and was not zero
}

// at returns n bytes from off, or nil when they cannot be read.
func (w *window) at(off int64, n int) []byte {
	if off+int64(n) > w.seg.bytes {
		return nil
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.have)) {
		if w.bad != 0 && off < w.bad+scanBytes && off >= w.bad {
			return nil
		}
		if w.buf == nil {
			w.buf = make([]byte, scanBytes)
		}
		w.off, w.have = off, w.buf[:min(int64(len(w.buf)), w.seg.bytes-off)]
		if err := w.sys.readAt(w.seg.f, w.have, off); err != nil {
			w.bad, w.have = off, nil
			return nil
		}
	}
	return w.have[off-w.off:][:n]
}

// rest is what of the window follows off.
func (w *window) rest(off int64) []byte { return w.have[off-w.off:] }

// zeros is how many bytes b begins with that are 0.
func zeros(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return len(b)
}
