package feed

import (
	"encoding/hex"
	"fmt"
)

// Position is a place on the log: the entry that was last read. The zero
// Position is before the first entry.
type Position struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	Chain string `json:"chain"`
}

// Position returns the place just after e.
func (e *Entry) Position() Position { return Position{e.Epoch, e.Seq, e.Chain} }

// Verdict says how an entry fits after a Position.
type Verdict struct {
	Kind VerdictKind
	Why  string // for people; empty for Next
}

// VerdictKind is the outcome of Verify.
type VerdictKind int

const (
	// Next: the entry follows. Apply it.
	Next VerdictKind = iota
	// Duplicate: the entry, or one above it, was read already. Skip it.
	Duplicate
	// Break: the log was cut, changed or restored. What was derived from
	// entries before may be wrong: revalidate everything and say so, then
	// apply the entry and go on from it.
	Break
)

func (k VerdictKind) String() string {
	switch k {
	case Next:
		return "next"
	case Duplicate:
		return "duplicate"
	case Break:
		return "break"
	}
	return fmt.Sprintf("VerdictKind(%d)", int(k))
}

// Verify compares e with the place last read. It is pure. From the zero
// Position any first entry whose chain starts an epoch is Next, and so is the
// first entry of a log that was trimmed: a new node has nothing to revalidate.
func Verify(last Position, e Entry) Verdict {
	brk := func(format string, args ...any) Verdict {
		return Verdict{Break, fmt.Sprintf(format, args...)}
	}
	switch {
	case last.Epoch == 0 && (e.Seq == 1 || e.Kind == KindEpoch) && !e.intact():
		return brk("chain of seq %d does not start an epoch", e.Seq)
	case last.Epoch == 0:
		return Verdict{Kind: Next}
	case e.Epoch < last.Epoch:
		return brk("epoch went back from %d to %d: an old copy of the log", last.Epoch, e.Epoch)
	case e.Epoch > last.Epoch:
		return brk("new epoch %d after %d", e.Epoch, last.Epoch)
	case e.Seq < last.Seq:
		return Verdict{Duplicate, fmt.Sprintf("seq %d was read already (at %d)", e.Seq, last.Seq)}
	case e.Seq == last.Seq && sameChain(e.Chain, last.Chain):
		return Verdict{Duplicate, fmt.Sprintf("seq %d was read already", e.Seq)}
	case e.Seq == last.Seq:
		return brk("seq %d was used twice", e.Seq)
	case e.Seq > last.Seq+1:
		return brk("entries %d to %d are missing", last.Seq+1, e.Seq-1)
	}
	prev, err := parseChain(last.Chain)
	if err != nil {
		return brk("own position is unreadable: %v", err)
	}
	if want := e.chain(prev); !sameChain(hex.EncodeToString(want[:]), e.Chain) {
		return brk("chain of seq %d does not follow from seq %d", e.Seq, last.Seq)
	}
	return Verdict{Kind: Next}
}

// intact reports whether e's chain is right as the first entry of an epoch,
// where it follows from nothing.
func (e *Entry) intact() bool {
	c := e.chain(noChain)
	return sameChain(hex.EncodeToString(c[:]), e.Chain)
}
