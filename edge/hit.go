package edge

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"perigee.example/internal/arena"
)

// errShortFile is that of a file which has fewer octets than it had.
var errShortFile = errors.New("a file of a release is shorter than it was")

// Body is what follows the head that Hit wrote, and what is to be logged of
// the answer. The caller writes it with WriteTo, and closes it: till then the
// octets are held, and no room for others.
type Body struct {
	Status  int
	Site    *Site
	Cache   string // as in AccessRecord
	Release string

	arena  *arena.Arena
	held   arena.Extent // till Close
	octets arena.Extent
	file   *os.File
	start  int64 // of the body, in octets or file
	size   int64
	target target
	status [2]int // where in the head our Cache-Status stands
}

// Len is the body's length in octets.
func (b *Body) Len() int64 { return b.size }

// appendTo appends a body that is in memory.
func (b *Body) appendTo(dst []byte) []byte {
	skip, left := b.start, b.size
	for at := b.octets.First(); at != 0 && left > 0; {
		var p []byte
		p, at = b.arena.Read(at)
		if skip >= int64(len(p)) {
			skip -= int64(len(p))
			continue
		}
		p = p[skip:]
		p = p[:min(int64(len(p)), left)]
		skip, left = 0, left-int64(len(p))
		dst = append(dst, p...)
	}
	return dst
}

// slices appends to list what follows the first skip octets of a body in memory,
// most octets at most, and no more parts than list has room for.
func (b *Body) slices(list [][]byte, skip, most int64) [][]byte {
	left := min(b.size-skip, most)
	skip += b.start
	for at := b.octets.First(); at != 0 && left > 0 && len(list) < cap(list); {
		var p []byte
		p, at = b.arena.Read(at)
		if skip >= int64(len(p)) {
			skip -= int64(len(p))
			continue
		}
		p = p[skip:]
		p = p[:min(int64(len(p)), left)]
		skip, left = 0, left-int64(len(p))
		list = append(list, p)
	}
	return list
}

// WriteTo writes the body.
func (b *Body) WriteTo(w io.Writer) (int64, error) {
	if b.file != nil {
		n, err := io.Copy(w, io.NewSectionReader(b.file, b.start, b.size))
		if err == nil && n < b.size {
			err = errShortFile
		}
		return n, err
	}
	return writeExtent(w, b.arena, b.octets, b.start, b.size)
}

// Close lets go of what the body holds. A second one does nothing.
func (b *Body) Close() {
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
	if b.held != 0 {
		b.arena.Release(b.held)
		b.held, b.octets = 0, 0
	}
}

// heads are reused: one is 2 KiB, and a hit should allocate nothing.
var heads = sync.Pool{New: func() any { return new(head) }}

// Hit answers the request whose head stands at the start of b (and may be
// followed by more), if that takes no origin: a fresh stored response, or a
// file of the active release: whole, one range of it, or as 304. It appends the
// head of the answer to dst. ok is false for whatever is unusual, be it wrong,
// several ranges, a body, HTTP/1.0 or another connection option: then the general
// path answers, by the same rules. It knows no socket, and reads the clock from now alone.
func Hit(dst, b []byte, s *Snapshot, now time.Time) (out []byte, body Body, ok bool) {
	h := heads.Get().(*head)
	defer heads.Put(h)
	if _, err := h.parse(b); err != nil {
		return dst, body, false
	}
	out, ok = hit(dst, h, s, now, &body)
	return out, body, ok
}

// hit is Hit of a head that is parsed, with an empty body to fill. That goes by
// pointer: by value, the stack of a connection was twice as large.
func hit(dst []byte, h *head, s *Snapshot, now time.Time, body *Body) (out []byte, ok bool) {
	if !h.plain() {
		return dst, false
	}
	t := &body.target
	if err := h.readTarget(t, s.tls); err != nil || strings.HasPrefix(t.path, "/-/") {
		return dst, false
	}
	site, channel := s.route(t)
	if site == nil {
		return dst, false
	}
	body.Site = site
	if site.Push {
		if out, ok, had := s.hitRelease(dst, h, channel, now, body); had {
			return out, ok
		}
	}
	if site.Origin == nil || channel != "" {
		return dst, false
	}
	query := t.query
	t.query = site.Query.apply(query)
	h.key = t.appendKey(h.key[:0])
	t.query = query // that is logged
	found, record := s.look(site, h.key, h, now, &h.stored)
	if found.obj == nil {
		return dst, false
	}
	defer s.store.arena.Release(record)
	body.arena, body.held = s.store.arena, found.obj.body
	if found.use == useFresh && !found.ahead && !found.early && found.obj.part == nil && bodyAllowed(found.obj.status) {
		if out, ok = s.hitStored(dst, h, found.obj, found.age, body); ok {
			return out, true
		}
	}
	body.Close()
	return dst, false
}

// plain reports whether a head asks for nothing but a representation, maybe
// under a condition, or a range of it.
func (h *head) plain() bool {
	return (h.method == http.MethodGet || h.method == http.MethodHead) && h.minor == 1 && h.bodyless() && !h.unusual
}

func (h *head) value1(name string) string {
	v, _ := h.combined(name)
	return v
}

func (s *Snapshot) hitStored(dst []byte, h *head, o *stored, age time.Duration, body *Body) ([]byte, bool) {
	body.Status, body.Cache = o.status, "hit"
	body.octets, body.size = o.body, o.size
	if o.status == http.StatusOK && !body.choose(h, &o.validators) {
		return dst, false
	}
	switch body.Status {
	case http.StatusNotModified:
		dst = append(dst, o.head304...)
	case http.StatusPartialContent:
		dst = appendStatusLine(dst, body.Status)
		dst = append(dst, o.head[len(statusLine200):]...)
		dst = body.appendContentRange(dst, o.size)
	default:
		dst = append(dst, o.head...)
	}
	dst = appendAge(dst, age)
	status := cacheStatus{hit: true, ttl: o.ttl(age), hasTTL: true}
	return s.finishHead(dst, h, &status, body, o.key), true
}

// choose makes of a whole representation, which body is, what a request's
// conditions and its range want of it, as exchange.serve does. It reports whether
// the answer is one of Hit's.
func (b *Body) choose(h *head, v *validators) bool {
	if !h.conditional {
		return true
	}
	switch v.evaluate(h) {
	case preconditionFailed:
		return false
	case notModified:
		b.Status, b.size = http.StatusNotModified, 0
		return true
	}
	field, ok := h.combined("Range")
	if !ok || h.method != http.MethodGet || !v.rangeApplies(h) {
		return true
	}
	r, answer, single := singleRange(field, b.size)
	if !single || answer == unsatisfiable {
		return false
	}
	if answer == satisfyRange {
		b.Status, b.start, b.size = http.StatusPartialContent, r.start, r.length
	}
	return true
}

func appendAge(dst []byte, age time.Duration) []byte {
	dst = append(dst, "Age: "...)
	dst = strconv.AppendInt(dst, int64(age/time.Second), 10)
	return append(dst, "\r\n"...)
}

func (b *Body) appendContentRange(dst []byte, size int64) []byte {
	dst = append(dst, "Content-Range: "...)
	dst = byteRange{b.start, b.size}.appendTo(dst, size)
	return append(dst, "\r\n"...)
}

// finishHead appends what every answer ends with.
func (s *Snapshot) finishHead(dst []byte, h *head, status *cacheStatus, body *Body, key string) []byte {
	dst = append(dst, "Cache-Status: "...)
	body.status[0] = len(dst)
	dst = status.appendTo(dst, s.name, s.full, key)
	body.status[1] = len(dst)
	if body.Status != http.StatusNotModified {
		dst = append(dst, "\r\nContent-Length: "...)
		dst = strconv.AppendInt(dst, body.size, 10)
	}
	if h.method == http.MethodHead {
		body.size = 0
		body.Close()
	}
	return append(dst, "\r\n\r\n"...)
}

// hitRelease answers with a file of the site's releases; had is false when they
// have no such path.
func (s *Snapshot) hitRelease(dst []byte, h *head, channel string, now time.Time, body *Body) (out []byte, ok, had bool) {
	types, typed := h.combined("Accept")
	t := &body.target
	f := s.release(body.Site, asked{channel, t.path, t.query, h.value1(releaseField), h.value1("Accept-Encoding"), types, !typed}, now)
	if f.status == 0 {
		return dst, false, false
	}
	out, ok = s.hitFile(dst, h, &f, body, now)
	return out, ok, true
}

func (s *Snapshot) hitFile(dst []byte, h *head, f *releaseFile, body *Body, now time.Time) ([]byte, bool) {
	if f.location != "" || f.status != http.StatusOK {
		return dst, false
	}
	body.Status, body.Cache, body.Release, body.size = f.status, "release", releaseID(f.release), f.file.Size
	v := validators{etag: f.etag()}
	if !body.choose(h, &v) {
		return dst, false
	}
	if body.Status != http.StatusNotModified {
		file, err := s.blobs.Open(f.file.Digest)
		if err != nil {
			return dst, false // the general path says so
		}
		body.file = file
	}
	dst = appendStatusLine(dst, body.Status)
	if body.Status == http.StatusPartialContent {
		dst = body.appendContentRange(dst, f.file.Size)
	}
	if body.Status != http.StatusNotModified {
		dst = appendField(dst, "Accept-Ranges", "bytes")
		dst = appendField(dst, "Content-Type", f.file.Type)
		if f.coding != "" {
			dst = appendField(dst, "Content-Encoding", f.coding)
		}
	}
	dst = appendField(dst, "Cache-Control", f.expiry)
	dst = append(dst, "Date: "...)
	dst = now.UTC().AppendFormat(dst, http.TimeFormat)
	dst = append(dst, "\r\n"...)
	dst = appendField(dst, "Etag", v.etag)
	dst = appendField(dst, releaseField, body.Release)
	if f.varies {
		dst = appendField(dst, "Vary", "Accept-Encoding")
	}
	for i := range f.fields {
		dst = appendField(dst, f.fields[i].Name, f.fields[i].Value)
	}
	dst = appendField(dst, "X-Content-Type-Options", "nosniff")
	if f.preview {
		dst = appendField(dst, robotsField, noRobots)
	}
	return s.finishHead(dst, h, &cacheStatus{hit: true}, body, ""), true
}
