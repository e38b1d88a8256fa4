package seglog

// scanBytes is how much of a file is read at a time. It must hold any lead.
const scanBytes = 1 << 20

// scanned is what the records of a segment are.
type scanned struct {
	entries []entry
	end     int64 // after the last good record
	bad     int   // stretches that are no record
	// rotten: something bad stands where no write that was cut short leaves it.
	rotten bool
	dirt   int64 // after the last octets that are no record and not zero
}

// pageBytes is what the system writes whole or not at all when a process is
// killed: its pages are of this size, or of a multiple.
const pageBytes = 4 << 10

// scan reads the leads of all records of a segment. After something bad it looks
// for the next record. A body that looks like one is not taken for it: who sent
// it did not know the nonce.
func (l *Log) scan(seg *segment) (s scanned) {
	s.end = segmentHead
	w := window{sys: l.sys, seg: seg}
	inBad, off := false, int64(segmentHead)
	for off+headerBytes <= seg.bytes {
		b := w.at(off, headerBytes)
		if b == nil { // unreadable
			inBad, off = s.isBad(inBad), off+align
			s.dirt = off
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
			if zeros(w.rest(off)) < align {
				s.dirt = off + align
			}
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
	if b := w.at(off, int(max(0, seg.bytes-off))); zeros(b) < len(b) {
		s.isBad(inBad)
		s.dirt = seg.bytes // less than a header: the file has been cut
	}
	if s.dirt > s.end && !w.torn(s.end, s.dirt) {
		s.rotten = true
	}
	return s
}

// torn reports whether what stands between end and dirt can be the start of the
// next record, whose write a kill has cut short. Then nobody has been told that it
// was written. It ends with a page, and there is nothing of it from there on; a
// record that is there to its end is a damaged one. What happens to end in zeros is
// taken for damaged, which costs a validation.
func (w *window) torn(end, dirt int64) bool {
	cut := (dirt + pageBytes - 1) &^ (pageBytes - 1)
	size := int64(headerBytes)
	if b := w.at(end, headerBytes); b != nil {
		if h, ok := parseHeader(b); ok {
			size = int64(h.size())
		}
	}
	return cut == dirt && cut < end+size && end+size <= w.seg.bytes
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
