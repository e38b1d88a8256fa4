package edge

import (
	"strconv"
	"strings"
)

const (
	// maxRanges bounds the parts of one answer. Media players and PDF readers
	// ask for one to four; a hundred is an attack (CVE-2011-3192).
	maxRanges = 16
	// maxRangeSpecs bounds what we read of a Range field at all.
	maxRangeSpecs = 128
	// coalesceGap is the gap below which two ranges are sent as one: about
	// what the head of another part costs (RFC 9110 §15.3.7.2).
	coalesceGap = 80
)

// byteRange is length octets from start.
type byteRange struct{ start, length int64 }

// end is the place behind the last octet.
func (r byteRange) end() int64 { return r.start + r.length }

// contentRange is the Content-Range of r in size octets (RFC 9110 §14.4).
func (r byteRange) contentRange(size int64) string { return string(r.appendTo(nil, size)) }

func (r byteRange) appendTo(dst []byte, size int64) []byte {
	dst = append(dst, "bytes "...)
	dst = strconv.AppendInt(dst, r.start, 10)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, r.start+r.length-1, 10)
	dst = append(dst, '/')
	return strconv.AppendInt(dst, size, 10)
}

// rangeAnswer of a Range field.
type rangeAnswer int

const (
	ignoreRange   rangeAnswer = iota // 200: not bytes, malformed, or abusive
	satisfyRange                     // 206
	unsatisfiable                    // 416
)

// parseRanges reads a Range field against a representation of size octets
// (RFC 9110 §14.1, §14.2). Ranges that overlap or nearly touch are coalesced
// where they stand in order, so that no octet is sent twice; a set that is still
// more than maxRanges, or runs backwards, is ignored, which §14.2 allows: the whole
// then costs less than the parts.
func parseRanges(v string, size int64) ([]byteRange, rangeAnswer) {
	unit, set, ok := strings.Cut(v, "=")
	if !ok || !strings.EqualFold(trimOWS(unit), "bytes") {
		return nil, ignoreRange
	}
	var ranges []byteRange
	specs := 0
	for {
		spec, rest, ok := nextMember(set)
		if !ok {
			break
		}
		if specs++; specs > maxRangeSpecs {
			return nil, ignoreRange
		}
		r, valid := parseRangeSpec(spec, size)
		if !valid {
			return nil, ignoreRange
		}
		if r.length > 0 {
			ranges = append(ranges, r)
		}
		set = rest
	}
	switch {
	case specs == 0:
		return nil, ignoreRange
	case len(ranges) == 0:
		return nil, unsatisfiable
	}
	return coalesce(ranges)
}

// singleRange is parseRanges of a field that names one range, as they nearly all
// do: it allocates nothing. single is false for what may be several.
func singleRange(v string, size int64) (r byteRange, answer rangeAnswer, single bool) {
	unit, set, ok := strings.Cut(v, "=")
	if !ok || !strings.EqualFold(trimOWS(unit), "bytes") {
		return r, ignoreRange, true
	}
	if strings.IndexByte(set, ',') >= 0 {
		return r, ignoreRange, false
	}
	r, valid := parseRangeSpec(trimOWS(set), size)
	switch {
	case !valid:
		return byteRange{}, ignoreRange, true
	case r.length == 0:
		return byteRange{}, unsatisfiable, true
	}
	return r, satisfyRange, true
}

// coalesce merges neighbours, and refuses what is abusive.
func coalesce(ranges []byteRange) ([]byteRange, rangeAnswer) {
	out := ranges[:1]
	for _, r := range ranges[1:] {
		last := &out[len(out)-1]
		switch {
		case r.start < last.start:
			return nil, ignoreRange
		case r.start-last.end() <= coalesceGap:
			last.length = max(last.end(), r.end()) - last.start
		default:
			out = append(out, r)
		}
	}
	if len(out) > maxRanges {
		return nil, ignoreRange
	}
	return out, satisfyRange
}

// parseRangeSpec reads "first-last", "first-" or "-suffix". A range that
// satisfies nothing has length 0.
func parseRangeSpec(spec string, size int64) (byteRange, bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return byteRange{}, false
	}
	if first == "" {
		n, ok := parsePosition(last)
		if !ok {
			return byteRange{}, false
		}
		n = min(n, size)
		return byteRange{size - n, n}, true
	}
	start, ok := parsePosition(first)
	if !ok {
		return byteRange{}, false
	}
	end := size - 1
	if last != "" {
		n, ok := parsePosition(last)
		if !ok || n < start {
			return byteRange{}, false
		}
		end = min(end, n)
	}
	if start > end {
		return byteRange{}, true
	}
	return byteRange{start, end - start + 1}, true
}

// parsePosition reads digits; what does not fit is larger than any body.
func parsePosition(s string) (int64, bool) {
	const huge = 1 << 62
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n < huge/16 {
			n = n*10 + int64(s[i]-'0')
		}
	}
	return n, true
}
