package edge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unsafe"
)

// A record is the one serialised form of a stored response, in every tier: all
// but the octets of the body, which follow it where both are kept together.
//
//	head    144 octets of fixed fields, little endian (the offsets below)
//	ends    recSections numbers of 4 octets: where each section ends, counted
//	        from the record's start; the first begins where ends end
//	text    the sections: key, site, resource, origin, etag, selecting fields,
//	        tags, groups, head, head304, header lines, tag lines
//
// Lists are a number of 2 octets and then strings, each a number of 4 octets
// and that many octets; a header line is two strings, a selecting field three
// with an octet before them that says whether the field was present.
//
// What purges of this edge alone (asOf.local) and Go's monotonic clock say holds
// for the process that wrote it, which the head names (boot): for another one
// the time until its start is counted by the wall clock, and asOf.local is 0. The body's length is
// in the record; a checksum is not: who writes a record to a disk adds one.
//
// Version 1. Another layout takes another number, and a golden file of its own;
// readRecord refuses what it does not know, and the response is a miss.
const recordVersion = 1

// Offsets in the head.
const (
	recMagic      = 0  // "PgR" and the version
	recLength     = 4  // of the record
	recBody       = 8  // octets of the body
	recBoot       = 16 // the process that wrote it
	recMonotonic  = 24 // when the head came: nanoseconds since that process began
	recWallSec    = 32 // the same by the wall clock
	recWallNano   = 40
	recInitialAge = 48 // nanoseconds, as all durations
	recLifetime   = 56
	recStaleWhile = 64
	recStaleError = 72
	recAheadAge   = 80
	recDate       = 88 // seconds
	recModified   = 96
	recSeq        = 104 // asOf
	recLocal      = 112
	recPartStart  = 120
	recPartTotal  = 128
	recDateNano   = 136
	recStatus     = 140 // 2 octets
	recFlags      = 142 // 2 octets
	recHead       = 144
)

// Sections.
const (
	recKey = iota
	recSite
	recResource
	recOrigin
	recEtag
	recSelecting
	recTags
	recGroups
	recPacked
	recPacked304
	recHeader
	recTagLines
	recSections
	recText = recHead + 4*recSections
)

// Flags.
const (
	recHasLifetime = 1 << iota
	recTargeted
	recUnmodified
	recHasModified
	recHasDate
	recHasPart
	recAnyTag
	recNoCache
	recPublic
	recMustRevalidate
	recProxyRevalidate
	recHasSMaxAge
	recHasTagLines
	recEndPart
)

// maxRecordBytes bounds a record: the head of a response has 1 MiB at most, and
// stands in it up to three times.
const maxRecordBytes = 8 << 20

var errRecord = errors.New("it is no record of a stored response that this version reads")

// boot is one process's clock: what a record says of times is counted from it.
type boot struct {
	id   uint64
	base time.Time // with Go's monotonic reading
}

var noText [recText]byte

// appendRecord writes o down.
func appendRecord(dst []byte, o *stored, b *boot) []byte {
	start := len(dst)
	dst = slices.Grow(dst, recText+2*(len(o.head)+len(o.key))+len(o.head304)+256)
	dst = append(dst, noText[:]...)
	var ends [recSections]uint32
	section := func(i int) { ends[i] = uint32(len(dst) - start) }
	for i, text := range []string{o.key, o.scopes.site, o.scopes.resource, o.scopes.origin, o.etag} {
		dst = append(dst, text...)
		section(recKey + i)
	}
	dst = appendCount(dst, len(o.sel))
	for i := range o.sel {
		s := &o.sel[i]
		dst = append(dst, bit(s.present))
		dst = appendString(appendString(appendString(dst, s.name), s.value), s.sent)
	}
	section(recSelecting)
	dst = appendStrings(dst, o.scopes.tags)
	section(recTags)
	dst = appendStrings(dst, o.scopes.groups)
	section(recGroups)
	dst = append(dst, o.head...)
	section(recPacked)
	dst = append(dst, o.head304...)
	section(recPacked304)
	dst = appendLines(dst, o.header)
	section(recHeader)
	dst = appendLines(dst, o.tags)
	section(recTagLines)
	r := dst[start:]
	for i, end := range ends {
		binary.LittleEndian.PutUint32(r[recHead+4*i:], end)
	}
	putFixed(r, o, b)
	return dst
}

func putFixed(r []byte, o *stored, b *boot) {
	put := func(at int, n int64) { binary.LittleEndian.PutUint64(r[at:], uint64(n)) }
	copy(r, "PgR")
	r[3] = recordVersion
	binary.LittleEndian.PutUint32(r[recLength:], uint32(len(r)))
	put(recBody, o.size)
	put(recBoot, int64(b.id))
	put(recMonotonic, int64(o.responseTime.Sub(b.base)))
	put(recWallSec, o.responseTime.Unix())
	put(recWallNano, int64(o.responseTime.Nanosecond()))
	put(recInitialAge, int64(o.correctedInitialAge))
	put(recLifetime, int64(o.lifetime))
	put(recStaleWhile, int64(o.cc.staleWhileRevalidate))
	put(recStaleError, int64(o.cc.staleIfError))
	put(recAheadAge, int64(o.aheadAge))
	put(recSeq, int64(o.asOf.seq))
	put(recLocal, int64(o.asOf.local))
	var flags uint16
	for i, set := range []bool{o.hasLifetime, o.targeted, o.unmodified, !o.lastModified.IsZero(), !o.date.IsZero(), o.part != nil, o.scopes.anyTag,
		o.cc.noCache, o.cc.public, o.cc.mustRevalidate, o.cc.proxyRevalidate, o.cc.sMaxAge != noDelta, o.tags != nil, o.part != nil && o.part.end} {
		flags |= uint16(bit(set)) << i
	}
	if flags&recHasDate != 0 {
		put(recDate, o.date.Unix())
		binary.LittleEndian.PutUint32(r[recDateNano:], uint32(o.date.Nanosecond()))
	}
	if flags&recHasModified != 0 {
		put(recModified, o.lastModified.Unix())
	}
	if o.part != nil {
		put(recPartStart, o.part.start)
		put(recPartTotal, o.part.total)
	}
	binary.LittleEndian.PutUint16(r[recStatus:], uint16(o.status))
	binary.LittleEndian.PutUint16(r[recFlags:], flags)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendCount(dst []byte, n int) []byte { return binary.LittleEndian.AppendUint16(dst, uint16(n)) }

func appendString(dst []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(s))), s...)
}

func appendStrings(dst []byte, list []string) []byte {
	dst = appendCount(dst, len(list))
	for _, s := range list {
		dst = appendString(dst, s)
	}
	return dst
}

// appendLines writes a header down, sorted by name, so that one response has one form.
func appendLines(dst []byte, h http.Header) []byte {
	var some [32]string
	names, lines := some[:0], 0
	for name, values := range h {
		names = append(names, name)
		lines += len(values)
	}
	slices.Sort(names)
	dst = appendCount(dst, lines)
	for _, name := range names {
		for _, v := range h[name] {
			dst = appendString(appendString(dst, name), v)
		}
	}
	return dst
}

// recordLength is the length of the record that stands at the start of b, and of
// the body that belongs to it. It looks at the fixed head alone.
func recordLength(b []byte) (record int, body int64, err error) {
	if len(b) < recText || string(b[:3]) != "PgR" || b[3] != recordVersion {
		return 0, 0, errRecord
	}
	record = int(binary.LittleEndian.Uint32(b[recLength:]))
	body = int64(binary.LittleEndian.Uint64(b[recBody:]))
	if record < recText || record > maxRecordBytes || body < 0 {
		return 0, 0, errRecord
	}
	return record, body, nil
}

// readRecord makes a stored response, without body, of the record that stands
// at the start of b, which may be any octets. What it returns shares nothing
// with b. here is the process that reads.
func readRecord(b []byte, here *boot) (*stored, error) {
	n, _, err := recordLength(b)
	if err != nil {
		return nil, err
	}
	if n > len(b) {
		return nil, fmt.Errorf("%w: it is cut short", errRecord)
	}
	own := slices.Clone(b[:n])
	o := new(stored)
	text := textOf(own)
	if err := o.view(own, text, here); err != nil {
		return nil, err
	}
	if err := o.viewSelecting(own, text); err != nil {
		return nil, err
	}
	return o, o.viewHeader(own, text)
}

// view fills o from a record with what a hit needs: all but its selecting fields,
// and its header and tag lines.
// text has the same octets as r; o's strings are parts of it, and its heads
// parts of r. It reuses the slices that o has, and allocates nothing once they
// are large enough.
func (o *stored) view(r []byte, text string, here *boot) error {
	if err := o.viewFixed(r, here); err != nil {
		return err
	}
	at, last := [recSections + 1]int{recText}, recText
	for i := range recSections {
		end := int(binary.LittleEndian.Uint32(r[recHead+4*i:]))
		if end < last || end > len(r) {
			return errRecord
		}
		at[i+1], last = end, end
	}
	if last != len(r) {
		return errRecord
	}
	part := func(i int) string { return text[at[i]:at[i+1]] }
	o.key, o.etag = part(recKey), part(recEtag)
	o.scopes.site, o.scopes.resource, o.scopes.origin = part(recSite), part(recResource), part(recOrigin)
	o.head, o.head304 = r[at[recPacked]:at[recPacked+1]:at[recPacked+1]], r[at[recPacked304]:at[recPacked304+1]:at[recPacked304+1]]
	o.scopes.tags, o.scopes.groups = o.scopes.tags[:0], o.scopes.groups[:0]
	if at[recPacked]-at[recTags] == 4 { // two empty lists, as most have
		return nil
	}
	tags, groups := recordText{part(recTags), false}, recordText{part(recGroups), false}
	o.scopes.tags, o.scopes.groups = tags.texts(o.scopes.tags), groups.texts(o.scopes.groups)
	if tags.end() && groups.end() {
		return nil
	}
	return errRecord
}

// viewSelecting fills o's selecting fields from a record that view has taken.
func (o *stored) viewSelecting(r []byte, text string) error {
	sel := recordText{text[binary.LittleEndian.Uint32(r[recHead+4*recEtag:]):binary.LittleEndian.Uint32(r[recHead+4*recSelecting:])], false}
	o.sel = o.sel[:0]
	for range sel.count() {
		s := selecting{present: sel.octet() == 1}
		s.name, s.value, s.sent = sel.text(), sel.text(), sel.text()
		o.sel = append(o.sel, s)
		if sel.bad {
			break
		}
	}
	if sel.end() {
		return nil
	}
	return errRecord
}

func (o *stored) viewFixed(r []byte, here *boot) error {
	n, size, err := recordLength(r)
	if err != nil || n != len(r) {
		return errRecord
	}
	get := func(at int) int64 { return int64(binary.LittleEndian.Uint64(r[at:])) }
	flags := binary.LittleEndian.Uint16(r[recFlags:])
	has := func(flag uint16) bool { return flags&flag != 0 }
	o.size = size
	if o.status = int(binary.LittleEndian.Uint16(r[recStatus:])); o.status < 200 || o.status > 999 {
		return errRecord
	}
	o.asOf = instant{uint64(get(recSeq)), uint64(get(recLocal))}
	o.responseTime = here.base.Add(time.Duration(get(recMonotonic)))
	if uint64(get(recBoot)) != here.id { // from then on, by the monotonic clock again
		came := time.Unix(get(recWallSec), get(recWallNano))
		o.responseTime, o.asOf.local = here.base.Add(came.Sub(here.base.Round(0))), 0
	}
	o.correctedInitialAge = min(max(0, time.Duration(get(recInitialAge))), maxDeltaSeconds*time.Second)
	o.lifetime, o.aheadAge = time.Duration(get(recLifetime)), time.Duration(get(recAheadAge))
	o.hasLifetime, o.targeted, o.unmodified, o.scopes.anyTag = has(recHasLifetime), has(recTargeted), has(recUnmodified), has(recAnyTag)
	o.cc = noDirectives()
	o.cc.noCache, o.cc.public, o.cc.mustRevalidate, o.cc.proxyRevalidate = has(recNoCache), has(recPublic), has(recMustRevalidate), has(recProxyRevalidate)
	o.cc.staleWhileRevalidate, o.cc.staleIfError = time.Duration(get(recStaleWhile)), time.Duration(get(recStaleError))
	if has(recHasSMaxAge) {
		o.cc.sMaxAge = o.lifetime
	}
	o.date, o.lastModified = time.Time{}, time.Time{}
	if has(recHasDate) {
		o.date = time.Unix(get(recDate), int64(binary.LittleEndian.Uint32(r[recDateNano:]))).UTC()
	}
	if has(recHasModified) {
		o.lastModified = time.Unix(get(recModified), 0).UTC()
	}
	o.part = nil
	if has(recHasPart) {
		o.part = &part{get(recPartStart), get(recPartTotal), has(recEndPart)}
		if o.part.start < 0 || o.part.total < 0 || o.part.start > o.part.total || o.size > o.part.total-o.part.start {
			return errRecord
		}
	}
	return nil
}

// viewHeader fills o's header and tag lines from a record that view has taken.
func (o *stored) viewHeader(r []byte, text string) error {
	from := binary.LittleEndian.Uint32(r[recHead+4*recPacked304:])
	mid := binary.LittleEndian.Uint32(r[recHead+4*recHeader:])
	lines, tags := recordText{text[from:mid], false}, recordText{text[mid:], false}
	o.header, o.tags = lines.lines(), tags.lines()
	if binary.LittleEndian.Uint16(r[recFlags:])&recHasTagLines == 0 {
		o.tags = nil
	}
	if lines.end() && tags.end() {
		return nil
	}
	return errRecord
}

// recordText reads a section. Once something is missing it is bad, and gives nothing.
type recordText struct {
	left string
	bad  bool
}

func (t *recordText) end() bool { return !t.bad && t.left == "" }

func (t *recordText) take(n int) string {
	if n < 0 || n > len(t.left) {
		t.bad, t.left = true, ""
		return ""
	}
	s := t.left[:n]
	t.left = t.left[n:]
	return s
}

func (t *recordText) octet() byte {
	if s := t.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (t *recordText) count() int {
	if s := t.take(2); s != "" {
		return int(s[0]) | int(s[1])<<8
	}
	return 0
}

func (t *recordText) text() string {
	if s := t.take(4); s != "" {
		return t.take(int(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24))
	}
	return ""
}

func (t *recordText) texts(dst []string) []string {
	for range t.count() {
		if dst = append(dst, t.text()); t.bad {
			break
		}
	}
	return dst
}

func (t *recordText) lines() http.Header {
	n := t.count()
	h := make(http.Header, min(n, 64))
	for range n {
		name, v := t.text(), t.text()
		if t.bad {
			break
		}
		h[name] = append(h[name], v)
	}
	return h
}

// recordSelects reports whether a request selects the response of a record
// (varyMatches).
func recordSelects(r []byte, f fields) bool {
	from, to := binary.LittleEndian.Uint32(r[recHead+4*recEtag:]), binary.LittleEndian.Uint32(r[recHead+4*recSelecting:])
	t := recordText{textOf(r[from:to]), false}
	for range t.count() {
		s := [1]selecting{{present: t.octet() == 1}}
		s[0].name, s[0].value, s[0].sent = t.text(), t.text(), t.text()
		if t.bad || !varyMatches(s[:], f) {
			return false
		}
	}
	return true
}

// laterDate reports whether the Date of a record is after that of another.
func laterDate(r, other []byte) bool {
	a, b := int64(binary.LittleEndian.Uint64(r[recDate:])), int64(binary.LittleEndian.Uint64(other[recDate:]))
	return a > b || a == b && binary.LittleEndian.Uint32(r[recDateNano:]) > binary.LittleEndian.Uint32(other[recDateNano:])
}

// textOf is memory of the arena as a string, which is one as long as its extent
// is held.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
