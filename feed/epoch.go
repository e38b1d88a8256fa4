package feed

import "fmt"

// scan is what a walk over the stored log found.
type scan struct {
	head     Position  // of the last readable entry
	last     uint64    // stream sequence of the last message, readable or not
	segments []segment // one for each run with the same distance of Seq to stream sequence
	damage   string    // first break in the newest epoch; empty: none
	known    bool      // the acknowledged position was met, with its chain
	first    firstEntry
}

// segment maps entry numbers to stream sequences: from both on, they rise together.
type segment struct{ seq, stream uint64 }

// add takes the message at stream sequence at, and reports whether it is an entry
// that receivers take. Decoding errors come in as err.
func (s *scan) add(at uint64, e Entry, err error, known Position) bool {
	s.last = at
	if err != nil {
		s.note("message %d of the stream is unreadable: %v", at, err)
		return false
	}
	if e.Epoch > s.head.Epoch && e.Kind == KindEpoch && e.intact() {
		s.damage = "" // what broke before is known: this epoch began because of it
	} else if v := Verify(s.head, e); v.Kind == Break {
		s.note("%s", v.Why)
	}
	if e.Seq <= s.head.Seq {
		return false // a copy of an old message: every receiver skips it too
	}
	s.segments = addSegment(s.segments, e.Seq, at)
	s.head = e.Position()
	if s.first.at.Seq == 0 {
		s.first = firstEntry{e.Position(), at, e}
	}
	if s.head == known {
		s.known = true
	}
	return true
}

func (s *scan) note(format string, args ...any) {
	if s.damage == "" {
		s.damage = fmt.Sprintf(format, args...)
	}
}

// judge says why a new epoch is needed, or "". haveKnown is whether a position
// was acknowledged before.
func (s *scan) judge(known Position, haveKnown bool) string {
	switch {
	case s.damage != "":
		return s.damage
	case !haveKnown || known.Seq == 0 || s.known:
		return ""
	case known.Epoch <= s.first.at.Epoch && known.Seq+1 < s.first.at.Seq, known.Seq+1 == s.first.at.Seq && s.first.follows(known):
		return "" // the others have trimmed the log beyond it, while this one was away
	case s.head.Epoch < known.Epoch || s.head.Seq < known.Seq:
		return fmt.Sprintf("the log ends at epoch %d seq %d, but epoch %d seq %d was acknowledged: entries are lost",
			s.head.Epoch, s.head.Seq, known.Epoch, known.Seq)
	}
	return fmt.Sprintf("the entry with seq %d is not the one that was acknowledged", known.Seq)
}

// addSegment notes that entry seq is message at, if the segments do not say so already.
func addSegment(segments []segment, seq, at uint64) []segment {
	if n := len(segments); n > 0 && seq-segments[n-1].seq == at-segments[n-1].stream {
		return segments
	}
	return append(segments, segment{seq, at})
}

// streamSeq returns the stream sequence of the first message whose entry has at
// least the number seq. Segments rise in both numbers: the last one that starts
// at or below seq decides, and no segment reaches into the next.
func streamSeq(segments []segment, seq uint64) uint64 {
	at := uint64(1)
	for i, g := range segments {
		if g.seq > seq {
			if i == 0 {
				return g.stream
			}
			return min(at, g.stream)
		}
		at = g.stream + (seq - g.seq)
	}
	return at
}
