package edge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"perigee.example/internal/arena"
	"perigee.example/internal/seglog"
)

var (
	errStray304  = errors.New("the origin answered 304 to a request without condition")
	errRangeOnly = errors.New("too large to be fetched for a range")
)

// exchange is one request on the general path and what has been answered.
type exchange struct {
	e      *Edge
	w      http.ResponseWriter
	r      *http.Request
	ctx    context.Context // ends when the client has gone
	facts  *connFacts      // nil: Serve knows nothing of the connection
	client string          // address without port of who is connected
	watch  *watch          // not nil: this is the goroutine of the client's connection
	q      *request
	snap   *Snapshot
	site   *Site
	// channel is that of a preview; "" is the site itself.
	channel string
	key     string
	status  cacheStatus
	rec     AccessRecord
	peer    bool // another edge asks
	told    bool // the client sees all of Cache-Status
	// peerAsOf is what was applied here when the peer's request was taken up.
	peerAsOf    instant
	again       bool  // the answer was begun anew, since the origin has another representation by now
	lookedAgain bool  // in the store, when there was no fetch to join any more
	early       bool  // it did not wait for another's fetch
	fallback    found // what may stand in for an origin that fails what is passed on
	spared      bool  // its client has not paid for a fetch, since it waits for another's

	tee   *farKeeper       // writes what is passed on to disk
	far   []*seglog.Object // till the end
	held  []arena.Extent   // bodies, till the end
	parts []*partsBody
}

// source gives the octets of a representation; size is -1 while unknown.
type source interface {
	// writeRange writes length octets from start, or to the end when length
	// is -1. An error means that the client must not take what it has for whole.
	writeRange(ctx context.Context, w io.Writer, start, length int64) (int64, error)
	size() int64
}

func (b storedBody) writeRange(_ context.Context, w io.Writer, start, length int64) (int64, error) {
	if length < 0 {
		length = b.stored.size - start
	}
	return b.writeTo(w, start, length)
}

// growingBody of a response on its way.
type growingBody struct {
	g *growing
	f *follower
}

func (b growingBody) size() int64 { return b.g.length }
func (b growingBody) writeRange(ctx context.Context, w io.Writer, start, length int64) (int64, error) {
	var sent int64
	flush := http.NewResponseController(w.(*exchange).w)
	for length != 0 {
		p, err := b.f.next(ctx)
		if err == io.EOF {
			if length > 0 {
				return sent, io.ErrUnexpectedEOF
			}
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		if skip := min(start, int64(len(p))); skip > 0 {
			start -= skip
			p = p[skip:]
		}
		if length > 0 && int64(len(p)) > length {
			p = p[:length]
		}
		n, err := w.Write(p)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
		if length > 0 {
			length -= int64(n)
		}
		if b.g.length >= 0 && b.g.isWhole() {
			continue // what follows goes along; without a length, trailers may be that
		}
		if err := flush.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return sent, err
		}
	}
	return sent, nil
}

// Write counts what goes to the client.
func (x *exchange) Write(p []byte) (int, error) {
	n, err := x.w.Write(p)
	x.rec.Bytes += int64(n)
	return n, err
}

// serve answers with a representation: conditions first, then ranges (RFC
// 9110 §13.2.2). v may be nil for a status other than 200.
func (x *exchange) serve(status int, v *validators, src source) {
	h := x.w.Header()
	size := src.size()
	if status == http.StatusOK && v != nil {
		switch v.evaluate(x.q.fields()) {
		case notModified:
			x.bare304(h)
			return
		case preconditionFailed:
			x.fail(http.StatusPreconditionFailed, "a precondition does not hold")
			return
		}
		if size >= 0 {
			h["Accept-Ranges"] = []string{"bytes"}
			if rng, ok := x.q.fields().combined("Range"); ok && x.q.method == http.MethodGet && v.rangeApplies(x.q.fields()) {
				ranges, answer := parseRanges(rng, size)
				switch {
				case answer == unsatisfiable:
					h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
					x.fail(http.StatusRequestedRangeNotSatisfiable, "the range is outside of the representation")
					return
				case answer == satisfyRange && len(ranges) == 1:
					h.Set("Content-Range", ranges[0].contentRange(size))
					x.send(http.StatusPartialContent, src, ranges[0].start, ranges[0].length)
					return
				case answer == satisfyRange && seekable(src):
					x.sendParts(src, ranges)
					return
				}
			}
		}
	}
	x.send(status, src, 0, size)
}

// seekable sources can be read at several places.
func seekable(src source) bool {
	if parts, ok := src.(*partsBody); ok {
		return parts.g == nil
	}
	_, once := src.(growingBody)
	return !once
}

// bare304 answers 304 with the fields of RFC 9110 §15.4.5, and those that the
// stored response has beside its content's.
func (x *exchange) bare304(h http.Header) {
	for _, name := range contentFields {
		delete(h, name)
	}
	if len(h["Etag"]) > 0 {
		delete(h, "Last-Modified") // the weaker validator would only confuse
	}
	x.writeHeader(http.StatusNotModified)
}

// contentFields describe content that a 304 does not have.
var contentFields = []string{"Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Range", "Content-Md5", "Content-Digest", "Accept-Ranges"}

func (x *exchange) send(status int, src source, start, length int64) {
	if !x.ready(src, byteRange{start, length}) {
		return
	}
	if length >= 0 && bodyAllowed(status) {
		x.w.Header()["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	x.writeHeader(status)
	if x.q.method == http.MethodHead || !bodyAllowed(status) {
		return
	}
	if _, err := src.writeRange(x.ctx, x, start, length); err != nil {
		x.abort()
	}
	if b, ok := src.(growingBody); ok && length < 0 {
		x.trailers(b.g.trailer())
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// sendParts answers several ranges as multipart/byteranges (RFC 9110 §14.6).
func (x *exchange) sendParts(src source, ranges []byteRange) {
	if !x.ready(src, ranges...) {
		return
	}
	h, size := x.w.Header(), src.size()
	var random [16]byte
	rand.Read(random[:])
	boundary := hex.EncodeToString(random[:])
	heads := make([]string, len(ranges))
	end := "\r\n--" + boundary + "--\r\n"
	total := int64(len(end))
	for i, r := range ranges {
		heads[i] = "\r\n--" + boundary + "\r\n"
		if ct := h.Get("Content-Type"); ct != "" {
			heads[i] += "Content-Type: " + ct + "\r\n"
		}
		heads[i] += "Content-Range: " + r.contentRange(size) + "\r\n\r\n"
		total += int64(len(heads[i])) + r.length
	}
	h.Set("Content-Type", "multipart/byteranges; boundary="+boundary)
	h.Set("Content-Length", strconv.FormatInt(total, 10))
	x.writeHeader(http.StatusPartialContent)
	for i, r := range ranges {
		if _, err := io.WriteString(x, heads[i]); err != nil {
			x.abort()
		}
		if _, err := src.writeRange(x.ctx, x, r.start, r.length); err != nil {
			x.abort()
		}
	}
	io.WriteString(x, end)
}

// writeHeader sends the head, with our Cache-Status last.
func (x *exchange) writeHeader(status int) {
	h := x.w.Header()
	if x.channel != "" {
		h[robotsField] = []string{noRobots}
	}
	var room [256]byte
	cs := string(x.status.appendTo(room[:0], x.e.name, x.told, x.key))
	h["Cache-Status"] = append(h["Cache-Status"][:len(h["Cache-Status"]):len(h["Cache-Status"])], cs)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http must not guess one
	}
	x.rec.Status, x.rec.CacheStatus = status, cs
	if x.e.access != nil {
		// For operators; always without the key, whose query may hold secrets.
		x.rec.CacheStatus = string(x.status.appendTo(room[:0], x.e.name, true, ""))
	}
	x.w.WriteHeader(status)
}

// fail answers with an error of our own. Such an answer is nobody's to store.
func (x *exchange) fail(status int, why string) {
	h := x.w.Header()
	for _, name := range append([]string{"Etag", "Last-Modified", "Expires", "Age", "Set-Cookie"}, contentFields...) {
		if name != "Content-Range" || status != http.StatusRequestedRangeNotSatisfiable {
			delete(h, name)
		}
	}
	body := fmt.Sprintf("%d %s: %s\n", status, http.StatusText(status), why)
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.writeHeader(status)
	if x.q == nil || x.q.method != http.MethodHead {
		io.WriteString(x, body)
	}
}

// abort breaks the connection off, so that the client cannot take a part for
// the whole (RFC 9112 §8).
func (x *exchange) abort() { panic(http.ErrAbortHandler) }

// storedHeader sets the header fields of a stored response, as of now.
func (x *exchange) storedHeader(o *stored, age time.Duration) {
	h := x.w.Header()
	for name, lines := range o.header {
		if name != vendorControl || x.q.has("Cdn-Loop") { // to another edge of ours, say
			h[name] = lines
		}
	}
	x.tellPeer(o.asOf, o.tags)
	h["Age"] = []string{strconv.FormatInt(int64(age/time.Second), 10)}
}

// ownHeader adds the fields that are not stored, for the client whose request
// brought them.
func (x *exchange) ownHeader(o *outcome, leader bool) {
	if leader {
		maps.Copy(x.w.Header(), o.own)
	}
}
