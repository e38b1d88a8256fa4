package zones

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"perigee.example/internal/bigmem"
)

const (
	// maxRRset is the largest RRset that fits into a message by TCP with a
	// header, the longest question, an OPT record and the longest owner.
	maxRRset = math.MaxUint16 - 12 - (maxNameBytes + 4) - 64 - maxNameBytes
	// buildBits is how many bits of a slot hold the node while a zone is built,
	// when nobody knows yet how many it takes: 4 GiB.
	buildBits = 30
	maxArena  = nodeAlign << buildBits
)

// builder makes the arena of an image as records come, so that a zone is never
// in memory twice: the records of one owner that stand together are gathered
// and written as a node at once. Those that stand apart from the first are
// kept aside and joined at the end.
type builder struct {
	l *loader
	z *Zone
	m *image

	arena, slots bigmem.Block
	used         int // octets of arena
	live         int // nodes in the table

	owner []byte // relative to the origin, as written, of recs
	recs  []record
	data  []byte // their RDATA

	apex      []record
	apexData  []byte
	apexFlags uint8

	late     []record // of owners that have a node already
	lateData []byte

	lines bigmem.Block // of the first record of each RRset, in the order of the arena
	nsets int
	files map[int]uint16 // by RRset, of those from another file than the first
	marks []mark

	low []byte // scratch
	at  starts
}

// record is one record as read.
type record struct {
	pos
	rrtype uint16
	size   uint16 // of RDATA
	at     uint32 // where RDATA stands in the data that goes with the list
	ttl    uint32
	node   uint32 // of late ones: the node that has the owner
	owner  []byte // of late ones: relative, as written; else nil
}

// pos is a place in a file.
type pos struct {
	line uint32
	file uint16
}

// mark says how many RRsets stand before a node.
type mark struct {
	node uint32
	sets int
}

// markEvery is after how many RRsets a mark is set.
const markEvery = 64

// averageEntry is how many octets of text one owner has, at the least in zones
// that are large: what the table is made for at first.
const averageEntry = 24

func newBuilder(l *loader, z *Zone, textBytes int64) *builder {
	b := &builder{l: l, z: z, m: &image{bits: buildBits, key: newHashKey()}, used: nodeAlign, files: map[int]uint16{}}
	z.base = b.m
	size := 8
	for int64(size)*averageEntry < textBytes {
		size *= 2
	}
	b.slots.Resize(4 * size)
	b.m.slots = bigmem.Words[uint32](b.slots.Bytes())
	b.room(int(min(textBytes, 1<<20)))
	return b
}

// room makes the arena hold n octets more.
func (b *builder) room(n int) []byte {
	if have := len(b.arena.Bytes()); b.used+n > have {
		b.arena.Resize(max(2*have, b.used+n))
		b.m.arena = b.arena.Bytes()
	}
	return b.m.arena[b.used : b.used+n]
}

// add takes one record of the owner rel, relative to the origin, as written.
func (b *builder) add(rel []byte, r record, rdata []byte) {
	r.size = uint16(len(rdata))
	if len(rel) == 0 {
		r.at = uint32(len(b.apexData))
		b.apexData = append(b.apexData, rdata...)
		b.apex = append(b.apex, r)
		return
	}
	if !bytes.Equal(rel, b.owner) {
		b.flush()
		b.owner = append(b.owner[:0], rel...)
	}
	r.at = uint32(len(b.data))
	b.data = append(b.data, rdata...)
	b.recs = append(b.recs, r)
}

// flush writes the owner at hand.
func (b *builder) flush() {
	if len(b.recs) == 0 {
		return
	}
	b.low = appendLower(b.low[:0], b.owner)
	h := b.m.key.name(b.low, &b.at)
	old := b.m.find(h, b.low)
	switch {
	case old != 0 && b.m.at(old).sets() > 0:
		b.keepLate(old)
	case old != 0:
		b.m.replace(h, old, b.supersede(old, b.owner, b.recs, b.data))
	default:
		n := b.write(b.owner, 0, b.recs, b.data)
		b.enter(h, n)
		b.attach(b.owner, n)
	}
	b.recs, b.data, b.owner = b.recs[:0], b.data[:0], b.owner[:0]
}

// supersede writes a node in place of one with the same name.
func (b *builder) supersede(old uint32, owner []byte, recs []record, data []byte) uint32 {
	wild := b.m.at(old).flags() & flagWild
	b.m.at(old)[0] |= flagDead
	return b.write(owner, wild, recs, data)
}

// keepLate puts the records at hand aside.
func (b *builder) keepLate(n uint32) {
	owner := bytes.Clone(b.owner)
	for _, r := range b.recs {
		r.node, r.owner = n, owner
		at := r.at
		r.at = uint32(len(b.lateData))
		b.lateData = append(b.lateData, b.data[at:at+uint32(r.size)]...)
		b.late = append(b.late, r)
	}
}

// join writes the owners anew whose records did not stand together.
func (b *builder) join() {
	slices.SortStableFunc(b.late, func(x, y record) int { return cmp.Compare(x.node, y.node) })
	for len(b.late) > 0 {
		old := b.late[0].node
		d := b.m.at(old)
		b.recs, b.data = b.recs[:0], b.data[:0]
		set := b.setsBefore(old)
		for w := d.all(); w.left > 0; set++ {
			wire, rrtype, _ := w.next()
			for len(wire) > 0 {
				ttl := binary.BigEndian.Uint32(wire[6:])
				var rdata []byte
				rdata, wire = firstRecord(wire)
				b.recs = append(b.recs, record{pos: b.posOf(set), rrtype: rrtype, ttl: ttl, size: uint16(len(rdata)), at: uint32(len(b.data))})
				b.data = append(b.data, rdata...)
			}
		}
		for len(b.late) > 0 && b.late[0].node == old {
			r := b.late[0]
			rdata := b.lateData[r.at : r.at+uint32(r.size)]
			r.at = uint32(len(b.data))
			b.data = append(b.data, rdata...)
			b.recs = append(b.recs, r)
			b.late = b.late[1:]
		}
		b.owner = append(b.owner[:0], d.name()...)
		b.low = appendLower(b.low[:0], b.owner)
		b.m.replace(b.m.key.name(b.low, &b.at), old, b.supersede(old, b.owner, b.recs, b.data))
	}
	b.recs, b.data, b.late, b.lateData = nil, nil, nil, nil
}

// enter puts a node into the table, which is kept at most three quarters full.
func (b *builder) enter(h uint64, n uint32) {
	if b.live++; 4*b.live > 3*len(b.m.slots) {
		size := 2 * len(b.m.slots)
		b.slots.Free()
		b.slots.Resize(4 * size)
		b.m.slots = bigmem.Words[uint32](b.slots.Bytes())
		var low []byte
		arena := b.m.arena
		b.m.arena = arena[:b.used]
		b.m.nodes(func(other uint32, d node, _ int) {
			if other != n {
				low = appendLower(low[:0], d.name())
				b.m.put(b.m.key.name(low, &b.at), other)
			}
		})
		b.m.arena = arena
	}
	b.m.put(h, n)
}

// attach makes the empty non-terminals above a new node, and tells its parent.
func (b *builder) attach(owner []byte, n uint32) {
	parent := owner[1+int(owner[0]):]
	if len(parent) == 0 {
		if owner[0] == 1 && owner[1] == '*' {
			b.apexFlags |= flagWild
		}
		return
	}
	low := appendLower(nil, parent)
	h := b.m.key.name(low, &b.at)
	p := b.m.find(h, low)
	if p == 0 {
		p = b.write(parent, flagEmpty, nil, nil)
		b.enter(h, p)
		b.attach(parent, p)
	}
	if owner[0] == 1 && owner[1] == '*' {
		b.m.at(p)[0] |= flagWild
	}
}

// write appends a node to the arena. The records come as read and are sorted.
func (b *builder) write(owner []byte, flags uint8, recs []record, data []byte) uint32 {
	if len(recs) > 1 {
		slices.SortStableFunc(recs, func(x, y record) int {
			if c := cmp.Compare(x.rrtype, y.rrtype); c != 0 {
				return c
			}
			return bytes.Compare(x.of(data), y.of(data))
		})
	}
	if b.nsets >= markEvery*(len(b.marks)+1) {
		b.marks = append(b.marks, mark{uint32(b.used / nodeAlign), b.nsets})
	}
	for _, c := range owner {
		if c != lower(c) {
			flags |= flagMixed
			break
		}
	}
	n := b.used
	head := b.room(nodeHead + len(owner))
	head[1] = uint8(len(owner))
	copy(head[nodeHead:], owner)
	b.used += len(head)
	sets := 0
	for len(recs) > 0 {
		k := 1
		for k < len(recs) && recs[k].rrtype == recs[0].rrtype {
			k++
		}
		switch recs[0].rrtype {
		case typeNS:
			if len(owner) > 0 {
				flags |= flagCut
			}
		case typeDNAME:
			flags |= flagDNAME
		case typeCNAME:
			flags |= flagCNAME
		case typeRRSIG:
			b.z.signatures = true
		}
		b.set(owner, recs[:k], data)
		recs = recs[k:]
		sets++
	}
	d := b.m.arena[n:]
	binary.LittleEndian.PutUint16(d[2:], uint16(sets))
	d[0] = flags
	b.used += len(b.room(-b.used & (nodeAlign - 1)))
	if b.used >= maxArena-math.MaxUint16 {
		b.l.stop(b.l.open[0].name, 0, "the zone has more than 4 GiB of data", "split the zone")
	}
	return uint32(n / nodeAlign)
}

func (r *record) of(data []byte) []byte { return data[r.at : r.at+uint32(r.size)] }

// set packs the records of one RRset, which come sorted.
func (b *builder) set(owner []byte, recs []record, data []byte) {
	first := &recs[0]
	ttl := first.ttl
	uneven := false
	for i := range recs {
		if r := &recs[i]; r.line < first.line && r.file == first.file {
			first = r
		}
		uneven = uneven || recs[i].ttl != ttl
		ttl = min(ttl, recs[i].ttl)
	}
	// A signature has the TTL of what it covers, and RRSIGs at one name cover
	// RRsets of many TTLs (RFC 4034 §3): these are left alone.
	level := first.rrtype != typeRRSIG
	dups := newDuplicates(first.rrtype, len(recs))
	count, size := 0, 0
	head := b.used
	b.room(setHead)
	b.used += setHead
	for i := range recs {
		r := &recs[i]
		rdata := r.of(data)
		if dups.has(recs[:i], data, rdata) {
			b.l.remark(r.pos, "remove one of the two", "%s %s stands twice with the same data", b.nameOf(r, owner), typeName(r.rrtype))
			continue
		}
		if size += recordHeader + len(rdata); size > maxRRset {
			if count > 0 {
				continue
			}
			rdata, b.l.stopped = nil, true // no RRset is empty; nobody looks at this one
		}
		w := b.room(recordHeader + len(rdata))
		w[0], w[1] = 0xC0, 12 // the question's name
		binary.BigEndian.PutUint16(w[2:], r.rrtype)
		binary.BigEndian.PutUint16(w[4:], dns.ClassINET)
		if level {
			binary.BigEndian.PutUint32(w[6:], ttl)
		} else {
			binary.BigEndian.PutUint32(w[6:], r.ttl)
		}
		binary.BigEndian.PutUint16(w[10:], uint16(len(rdata)))
		copy(w[recordHeader:], rdata)
		b.used += len(w)
		count++
	}
	if uneven && level {
		b.l.remark(first.pos, "give all records of the set one TTL (RFC 2181 §5.2)", "%s %s has records of different TTLs; all get the least, %d", b.nameOf(first, owner), typeName(first.rrtype), ttl)
	}
	if size > maxRRset {
		b.l.fault(first.pos, "spread the records over several names", "%s %s has %d octets in %d records, which fit in no message", b.nameOf(first, owner), typeName(first.rrtype), size, len(recs))
	}
	binary.LittleEndian.PutUint16(b.m.arena[head:], uint16(b.used-head-setHead))
	binary.LittleEndian.PutUint16(b.m.arena[head+2:], uint16(count))
	b.place(first.pos)
}

// nameOf is the owner of a record for people, as written.
func (b *builder) nameOf(r *record, owner []byte) string {
	if r.owner != nil {
		owner = r.owner
	}
	return FormatName(append(slices.Clone(owner), b.z.origin...))
}

// place notes where the RRset just written stood.
func (b *builder) place(p pos) {
	if have := len(b.lines.Bytes()); 4*b.nsets >= have {
		b.lines.Resize(max(2*have, 256))
	}
	binary.NativeEndian.PutUint32(b.lines.Bytes()[4*b.nsets:], p.line)
	if p.file != 0 {
		b.files[b.nsets] = p.file
	}
	b.nsets++
}

// posOf is where an RRset stood.
func (b *builder) posOf(set int) pos {
	p := pos{line: binary.NativeEndian.Uint32(b.lines.Bytes()[4*set:])}
	if len(b.files) > 0 {
		p.file = b.files[set]
	}
	return p
}

// setsBefore is how many RRsets stand in the arena before a node.
func (b *builder) setsBefore(n uint32) int {
	i, _ := slices.BinarySearchFunc(b.marks, n, func(m mark, n uint32) int { return cmp.Compare(m.node, n) })
	from := mark{node: 1}
	switch {
	case i < len(b.marks) && b.marks[i].node == n:
		return b.marks[i].sets
	case i > 0:
		from = b.marks[i-1]
	}
	part := image{arena: b.m.arena[:uint64(n)*nodeAlign]}
	at := uint64(from.node) * nodeAlign
	for at < uint64(n)*nodeAlign {
		d := node(part.arena[at:])
		from.sets += d.count()
		at += uint64(d.length()+nodeAlign-1) / nodeAlign * nodeAlign
	}
	return from.sets
}

// duplicates tells which records of a set have been seen, by their data in
// canonical form (RFC 2181 §5).
type duplicates struct {
	rrtype uint16
	names  bool                // the data has names, whose case does not count
	seen   map[string]struct{} // of large sets with names
}

// fewRecords is up to how many records are compared with each other.
const fewRecords = 16

func newDuplicates(rrtype uint16, n int) duplicates {
	d := duplicates{rrtype: rrtype, names: hasNames(rrtype)}
	if d.names && n > fewRecords {
		d.seen = make(map[string]struct{}, n)
	}
	return d
}

// has reports whether rdata is among the records before, which are sorted.
func (d *duplicates) has(before []record, data, rdata []byte) bool {
	if d.seen != nil {
		key := string(appendCanonical(nil, d.rrtype, rdata))
		_, dup := d.seen[key]
		d.seen[key] = struct{}{}
		return dup
	}
	if !d.names {
		return len(before) > 0 && bytes.Equal(before[len(before)-1].of(data), rdata)
	}
	for i := range before {
		other := before[i].of(data)
		if len(other) == len(rdata) && (bytes.Equal(other, rdata) || bytes.EqualFold(other, rdata) &&
			bytes.Equal(appendCanonical(nil, d.rrtype, other), appendCanonical(nil, d.rrtype, rdata))) {
			return true
		}
	}
	return false
}

// hasNames reports whether data of a type has domain names in it.
func hasNames(rrtype uint16) bool {
	if rrtype == typeA || rrtype == typeAAAA {
		return false // most there are
	}
	return strings.Contains(layouts[rrtype], "n")
}

// remark and fault report what is odd, or wrong, at a place.
func (l *loader) remark(p pos, hint, format string, args ...any) {
	l.reportAt(p, true, hint, format, args...)
}

func (l *loader) fault(p pos, hint, format string, args ...any) {
	l.reportAt(p, false, hint, format, args...)
}

func (l *loader) reportAt(p pos, warning bool, hint, format string, args ...any) {
	l.report(Finding{File: l.files[p.file].path, Line: int(p.line), Warning: warning, Text: fmt.Sprintf(format, args...), Hint: hint})
}
