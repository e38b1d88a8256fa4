package edge

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// sliceBytes is the size of the slices in which a large representation is
// fetched and stored: one octet of it costs the origin this at most (RFC 9110
// §17.15), and one request brings enough for a second of video.
const sliceBytes = 1 << 20

var (
	errChanged = errors.New("the representation changed at the origin while it was fetched in slices")
	errNoSlice = errors.New("the origin did not give the slice that it was asked for")
)

// part says that a stored response holds a part of its representation only:
// body is what follows start. The rest is in slices, stored responses of their
// own, if it has a strong validator, by which alone parts may be combined (RFC
// 9110 §15.3.7.3); slices have a key that no request has. end says that the part
// is known to be the end, and nothing else is sure (keepEnd).
type part struct {
	start, total int64
	end          bool
}

// covers reports whether n octets from start are in the stored part.
func (o *stored) covers(start, n int64) bool {
	return start >= o.part.start && start+n <= o.part.start+o.size
}

// strongValidator is what If-Range may say of o, "" for none: a strong ETag,
// or a strong Last-Modified (RFC 9110 §8.8.2.2) where nothing varies, since
// representations that do may share theirs.
func (o *stored) strongValidator() string {
	if o.etag != "" {
		if !strings.HasPrefix(o.etag, `"`) {
			return ""
		}
		return o.etag
	}
	if lm := o.header["Last-Modified"]; len(lm) == 1 && len(o.sel) == 0 && !o.lastModified.IsZero() && o.date.Sub(o.lastModified) >= time.Second {
		return lm[0]
	}
	return ""
}

// answers reports whether o has, or slices can give, what q asks for. A whole
// that fits one slice is better fetched, and stored, as a whole.
func (o *stored) answers(q *request) bool {
	if o.part == nil {
		return true
	}
	rng, ranged := q.fields().combined("Range")
	if _, suffix := suffixLength(rng); o.part.end && !suffix {
		return false
	}
	if o.strongValidator() != "" && !o.part.end {
		return ranged || q.method == http.MethodHead || o.part.total > sliceBytes
	}
	if !ranged || q.has("If-Range") {
		return false
	}
	ranges, answer := parseRanges(rng, o.part.total)
	return answer == satisfyRange && len(ranges) == 1 && o.covers(ranges[0].start, ranges[0].length)
}

// firstRange is the Range field that a request for a range brings when nothing
// is stored: its own when that is one range of a slice at most; the slice of
// its first octet when it is longer. exact tells which. ok is false for what
// is better passed through: several ranges, and whatever cannot be read.
func firstRange(v string) (field string, exact, ok bool) {
	unit, set, found := strings.Cut(v, "=")
	set = trimOWS(set)
	first, last, dash := strings.Cut(set, "-")
	if !found || !dash || !strings.EqualFold(trimOWS(unit), "bytes") || strings.ContainsAny(set, ", \t") {
		return "", false, false
	}
	start, okFirst := parsePosition(first)
	end, okLast := parsePosition(last)
	switch {
	case first == "" && okLast && end <= sliceBytes:
		return "bytes=-" + last, true, true // at the end, wherever that is
	case !okFirst || last != "" && (!okLast || end < start):
		return "", false, false
	case last != "" && end-start < sliceBytes:
		return "bytes=" + first + "-" + last, true, true
	}
	start -= start % sliceBytes
	return rangeField(start, sliceBytes), false, true
}

func rangeField(start, n int64) string {
	return "bytes=" + strconv.FormatInt(start, 10) + "-" + strconv.FormatInt(start+n-1, 10)
}

// parseContentRange reads "bytes 0-99/1000" (RFC 9110 §14.4).
func parseContentRange(lines []string) (r byteRange, total int64, ok bool) {
	if len(lines) != 1 {
		return r, 0, false
	}
	unit, rest, _ := strings.Cut(lines[0], " ")
	span, size, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	start, ok1 := parsePosition(first)
	end, ok2 := parsePosition(last)
	total, ok3 := parsePosition(size)
	if !strings.EqualFold(unit, "bytes") || !ok1 || !ok2 || !ok3 || end < start || end >= total {
		return r, 0, false
	}
	return byteRange{start, end - start + 1}, total, true
}

// askedFor reports whether a Range field of ours asked for r.
func askedFor(field string, r byteRange, total int64) bool {
	want, answer := parseRanges(field, total)
	return answer == satisfyRange && len(want) == 1 && want[0] == r
}

// classifyPart makes of a 206 the response that it is a part of, and takes it
// for the whole when it is.
func (w *fill) classifyPart(resp *http.Response) (p *part, ok bool) {
	r, total, ok := parseContentRange(resp.Header["Content-Range"])
	if !ok || !askedFor(w.rangeField, r, total) || resp.ContentLength >= 0 && resp.ContentLength != r.length {
		return nil, false
	}
	resp.ContentLength = r.length // chunks or not: it must be as long as it says
	if r.length == total {
		return nil, true
	}
	return &part{start: r.start, total: total}, true
}

// sliceable reports that o, of which length octets would come, is better
// fetched in slices.
func (w *fill) sliceable(o *stored, length int64) bool {
	limit := w.e.store.maxObject(w.site.Name)
	if w.rangeField != "" {
		limit = sliceBytes
	}
	return o.status == http.StatusOK && length > limit && length > sliceBytes && o.strongValidator() != "" &&
		strings.EqualFold(strings.Join(o.header["Accept-Ranges"], ","), "bytes")
}

// slice returns a slice that is stored, or whose octets have begun to come.
func (x *exchange) slice(ctx context.Context, head *stored, index int64) (*heldSlice, error) {
	return x.waitSlice(ctx, x.joinSlice(head, index, false))
}

func (x *exchange) waitSlice(ctx context.Context, s *heldSlice) (*heldSlice, error) {
	if s.obj != nil {
		return s, nil
	}
	select {
	case <-s.fl.ready: // the origin's timeouts bound this
	case <-ctx.Done():
		x.letGo(s)
		return nil, ctx.Err()
	}
	if err := s.fl.outcome.err; err != nil {
		x.letGo(s)
		return nil, err
	}
	return s, nil
}

// joinSlice finds a slice in the store, or joins or starts its one fetch. ahead
// says that it is not to be read at once.
func (x *exchange) joinSlice(head *stored, index int64, ahead bool) *heldSlice {
	e := x.e
	key := head.sliceKey(index)
	obj, _ := e.store.get([]byte(key), nil)
	if obj == nil {
		obj = x.sliceFromDisk(key)
	}
	if obj = x.unpurged(head, obj); obj != nil {
		return &heldSlice{index: index, obj: obj}
	}
	fl, lead := e.joinUnless(x.route(key), head.key, head.scopes, func() bool {
		obj, _ = e.store.get([]byte(key), nil)
		obj = x.unpurged(head, obj)
		return obj != nil
	})
	if obj != nil {
		return &heldSlice{index: index, obj: obj}
	}
	if lead {
		fl.behind = ahead
		return x.startSlice(head, index, fl)
	}
	s := &heldSlice{index: index, fl: fl}
	if e.slicePurged(head, &fl.scopes, fl.asOf) { // it began before the head had the tags that it has
		x.letGo(s)
		return x.startSlice(head, index, nil)
	}
	return s
}

// unpurged is a slice that is stored, nil if there is none or a hard purge covers it.
func (x *exchange) unpurged(head, slice *stored) *stored {
	if slice == nil || !x.e.slicePurged(head, &slice.scopes, slice.asOf) {
		return slice
	}
	x.e.store.letGo(slice)
	return nil
}

// slicePurged reports whether a hard purge covers a slice that falls under scopes
// and is as of asOf. It falls under what the head does too: by the tags that the
// representation has now, and not only by those it had as the slice came.
func (e *Edge) slicePurged(head *stored, scopes *purgeScopes, asOf instant) bool {
	hard, _ := e.purges.check(scopes, asOf)
	ofHead, _ := e.purges.check(&head.scopes, asOf)
	return hard || ofHead
}

// sliceKey is a key that no request has.
func (o *stored) sliceKey(index int64) string {
	return o.key + "\x00" + o.strongValidator() + "\x00" + strconv.FormatInt(index, 10)
}

// startSlice fetches a slice for fl; nil is a fetch for this request alone.
func (x *exchange) startSlice(head *stored, index int64, fl *flight) *heldSlice {
	if fl == nil {
		fl = x.e.solo(head.key, head.scopes)
	}
	w := x.newFill(fl, found{})
	want := byteRange{index * sliceBytes, min(sliceBytes, head.part.total-index*sliceBytes)}
	w.header["If-Range"] = []string{head.strongValidator()}
	w.header["Range"] = []string{rangeField(want.start, want.length)}
	go w.runSlice(head, head.sliceKey(index), want)
	return &heldSlice{index: index, fl: fl, lead: true}
}

// runSlice carries out the flight of a slice.
func (w *fill) runSlice(head *stored, key string, want byteRange) {
	defer w.survive()
	defer w.e.ended(w.fl)
	defer w.fl.cancel()
	obj, resp, err := w.fetchSlice(head, key, want)
	if err != nil {
		if errors.Is(err, errChanged) {
			w.e.store.discard(head)
		}
		w.e.settle(w.fl, outcome{err: err})
		return
	}
	g := newGrowing(want.length, w.e.store.arena)
	w.e.settle(w.fl, outcome{obj: obj, body: g, status: resp.StatusCode})
	(&bodyFill{fill: w, obj: obj, body: g, resp: resp}).keep()
}

// fetchSlice asks for a slice of head. Whatever is not that slice of that very
// representation is refused: If-Range makes an origin say 200 when it has
// another by now, and its validator and length are held against head's all the same.
func (w *fill) fetchSlice(head *stored, key string, want byteRange) (*stored, *http.Response, error) {
	asked := w.e.now()
	resp, asOf, err := w.send(&w.fl.ctx, w.header)
	if err != nil {
		return nil, nil, err
	}
	obj, err := w.checkSlice(head, want, resp, asked)
	if err != nil {
		resp.Body.Close()
		return nil, nil, err
	}
	obj.key, obj.scopes, obj.asOf = key, w.fl.scopes, asOf
	if hasTags(resp.Header) {
		obj.scopes = obj.scopes.tagged(resp.Header, &w.target) // the head's are asked about as well
	}
	return obj, resp, nil
}

func (w *fill) checkSlice(head *stored, want byteRange, resp *http.Response, asked time.Time) (*stored, error) {
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusRequestedRangeNotSatisfiable,
		resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return nil, errChanged
	case resp.StatusCode != http.StatusPartialContent:
		return nil, errNoSlice
	}
	r, total, ok := parseContentRange(resp.Header["Content-Range"])
	came := w.e.now()
	obj := newStored(w.site, http.StatusOK, received(resp.Header), asked, came)
	obj.sel = head.sel
	switch {
	case !ok || r != want || resp.ContentLength >= 0 && resp.ContentLength != r.length:
		return nil, errNoSlice
	case total != head.part.total || obj.strongValidator() != head.strongValidator():
		return nil, errChanged
	}
	// What the slice says of itself counts for it: not of all may be stored.
	if storable(w.site, obj.status, obj.header, &obj.cc, w.auth, true) != "" {
		return nil, errChanged
	}
	resp.ContentLength = r.length
	obj.sel, obj.header, obj.status = nil, nil, http.StatusPartialContent
	obj.part = &part{start: r.start, total: total}
	return obj, nil
}
