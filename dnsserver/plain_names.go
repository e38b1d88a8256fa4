package dnsserver

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"

	"perigee.example/policy"
	"perigee.example/zones"
)

// Plain replies that write names: a referral, and a chain of CNAMEs that ends at
// one RRset, or outside of our zones. They took 0.45 µs with all that answer.go
// keeps for the worst of them, and take half of that here.

const (
	// A plain reply writes at most so many names, each of so many labels. Names
	// that are seldom longer keep the work below maxCompressing.
	plainTargets = 4
	plainDepth   = 8
)

// plainStep is what one zone has for one name.
type plainStep struct {
	zone    *servedZone
	kind    zones.Kind
	node    zones.NodeID
	records []byte
	suffix  int // of a Referral: where the cut begins in the name
}

// plainNames is plainly for a name that step begins a chain or a referral at.
func (v *View) plainNames(dst, query []byte, q *plainQuestion, e *edns, c *Context, out *Outcome, step plainStep) ([]byte, bool) {
	*out = Outcome{Decision: policy.Decision{Endpoints: out.Decision.Endpoints[:0], Why: out.Decision.Why[:0]}}
	var opt optReply
	e.plainOptions(&opt, c, out)
	w := plainWriter{b: append(dst, query...), base: len(dst), n: 1}
	w.limit = w.base + e.limit(c.Transport) - e.replyLen(&opt, rcodeNoError)
	w.names[0], w.at[0] = q.plainName, headerLen
	var r plainReply
	authority, additional, ok := 0, 0, false
	if step.kind == zones.CNAME {
		r.flags = flagAA
		ok = w.chain(&r, v, step, q, e, c, out)
	} else {
		authority, additional, ok = w.referral(step)
	}
	if !ok {
		return dst, false
	}
	b := w.b
	if e.present {
		additional++
	}
	r.head(b[w.base:], authority)
	binary.BigEndian.PutUint16(b[w.base+10:], uint16(additional))
	if e.present {
		b = e.appendOPT(b, &opt, r.rcode, uint8(r.scope), 0)
	}
	r.note(e, out)
	out.Action, out.Zone, out.QType = Reply, q.zone.origin, q.qtype
	runtime.KeepAlive(v) // what the answer was copied from goes with the zones
	return b, true
}

// plainWriter is a reply in the making, with the names in it.
type plainWriter struct {
	b     []byte
	base  int // where in b the reply begins
	limit int // what len(b) may reach before the OPT is added
	names [1 + plainTargets]plainName
	at    [1 + plainTargets]uint16 // where each stands
	n     int
}

// chain follows the CNAME at step, and the next ones. It is false for a chain
// whose end is not one RRset, for one that is longer than plainTargets, as loops
// are, and where an alias on the way is steered.
func (w *plainWriter) chain(r *plainReply, v *View, step plainStep, q *plainQuestion, e *edns, c *Context, out *Outcome) bool {
	if uint64(1)<<q.qtype&verbatimTypes == 0 {
		return false
	}
	r.ttl = math.MaxUint32
	for step.kind == zones.CNAME {
		if step.zone.steer.get(step.node) != nil || !w.nameRecord(step.records, w.at[w.n-1]) {
			return false
		}
		r.count++
		r.ttl = min(r.ttl, binary.BigEndian.Uint32(step.records[pointerLen+4:]))
		to := &w.names[w.n-1]
		at := v.table.findAt(to.text[:to.size], to.labels[:to.nlabels], 0)
		if at < 0 {
			return true // the resolver goes on by itself
		}
		s := v.zones.at(at)
		if e.do && s.zone.HasSignatures() {
			return false
		}
		end := plainReply{}
		step.zone = s
		step.kind, step.node, end.records, end.count, _ = s.zone.Plain(to.text[:to.size], to.above(s), q.qtype)
		step.records = end.records
		if step.kind != zones.Found {
			continue
		}
		end.ttl = binary.BigEndian.Uint32(end.records[pointerLen+4:])
		if st := s.steer.get(step.node); st != nil && !end.steer(v, st, q, e, c, out) || !w.copySet(end.records, w.at[w.n-1]) {
			return false
		}
		if end.steered {
			setTTL(w.b[len(w.b)-len(end.records):], addressLen(q.qtype), end.ttl)
		}
		r.count, r.ttl, r.scope = r.count+end.count, min(r.ttl, end.ttl), end.scope
		return true
	}
	return false
}

// referral writes the NS records of a cut and the addresses of their names: those
// below the cut, then the others.
func (w *plainWriter) referral(step plainStep) (authority, additional int, ok bool) {
	question := &w.names[0]
	cut := question.text[step.suffix:question.size]
	for rest := step.records; len(rest) > pointerLen+recordFixed; authority++ {
		end := pointerLen + recordFixed + int(binary.BigEndian.Uint16(rest[pointerLen+8:]))
		if !w.nameRecord(rest[:end], uint16(headerLen+step.suffix)) {
			return 0, 0, false
		}
		rest = rest[end:]
	}
	for _, below := range [...]bool{true, false} {
		for i := 1; i < w.n; i++ {
			name := w.names[i].text[:w.names[i].size]
			if within(name, cut) != below {
				continue
			}
			node, has := step.zone.zone.Find(name)
			if !has {
				continue
			}
			for _, t := range [...]uint16{typeA, typeAAAA} {
				set, has := step.zone.zone.RRset(node, t)
				if !has {
					continue
				}
				if !w.copySet(set.Wire, w.at[i]) {
					return 0, 0, false
				}
				additional += set.Count
			}
		}
	}
	return authority, additional, true
}

// nameRecord writes a record whose RDATA is a name, of the owner at an offset.
func (w *plainWriter) nameRecord(record []byte, owner uint16) bool {
	const fixed = pointerLen + recordFixed
	if len(w.b)+len(record) > w.limit {
		return false // before its name is compressed: that is near enough
	}
	w.b = binary.BigEndian.AppendUint16(w.b, 0xC000|owner)
	w.b = append(w.b, record[pointerLen:fixed]...)
	start := len(w.b)
	if !w.addName(record[fixed:]) {
		return false
	}
	binary.BigEndian.PutUint16(w.b[start-2:], uint16(len(w.b)-start))
	return true
}

// copySet writes an RRset without names in its RDATA, of the owner at an offset.
func (w *plainWriter) copySet(records []byte, owner uint16) bool {
	if len(w.b)+len(records) > w.limit {
		return false
	}
	start := len(w.b)
	w.b = append(w.b, records...)
	for rest := w.b[start:]; len(rest) >= pointerLen+recordFixed; {
		binary.BigEndian.PutUint16(rest, 0xC000|owner)
		rest = rest[pointerLen+recordFixed+int(binary.BigEndian.Uint16(rest[pointerLen+8:])):]
	}
	return true
}

// addName writes a name, with the longest suffix that already stands in the reply
// as a pointer. It is false when it is not plain, or one too many.
//
// Of the names that have this suffix the first was not given it by a pointer.
func (w *plainWriter) addName(name []byte) bool {
	if w.n == len(w.names) {
		return false
	}
	n := &w.names[w.n]
	if !n.read(name) || n.nlabels > plainDepth {
		return false
	}
	shared, in := 0, 0
	for i := range w.names[:w.n] {
		if k := w.names[i].shares(n); k > shared {
			shared, in = k, i
		}
	}
	at := len(w.b) - w.base
	if shared == 0 {
		w.b = append(w.b, name[:n.size]...)
	} else {
		k := &w.names[in]
		to := int(w.at[in]) + int(k.labels[k.nlabels-shared])
		if shared == n.nlabels {
			at = to
		} else {
			w.b = append(w.b, name[:n.labels[n.nlabels-shared]]...)
		}
		w.b = append(w.b, 0xC0|byte(to>>8), byte(to))
	}
	w.at[w.n] = uint16(at)
	w.n++
	return true
}

// shares is how many labels at their ends two names have in common.
func (n *plainName) shares(other *plainName) int {
	a, b := n.size, other.size
	for k := 0; k < n.nlabels && k < other.nlabels; k++ {
		i, j := int(n.labels[n.nlabels-1-k]), int(other.labels[other.nlabels-1-k])
		if !bytes.Equal(n.text[i:a], other.text[j:b]) {
			return k
		}
		a, b = i, j
	}
	return min(n.nlabels, other.nlabels)
}
