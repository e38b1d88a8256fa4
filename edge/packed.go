package edge

import (
	"net/http"
	"strconv"
	"time"
)

// packed answers with the whole of a stored response in the way of a hit: by the
// head that is written down with it, and its octets where they are. It reports
// whether it did: the request must be the loop's and ask for nothing else, and the
// answer have no field that the stored response has not. Who calls it holds o.
func (x *exchange) packed(o *stored, age time.Duration) bool {
	w, ok := x.w.(*responseWriter)
	if !ok || w.err != nil || len(o.head) == 0 || o.part != nil || o.far != nil || !bodyAllowed(o.status) || len(w.header) > 0 || x.channel != "" || !x.plain() {
		return false
	}
	e, c := x.e, w.c
	d := c.desk
	var room [256]byte
	out := appendAge(append(d.out, o.head...), age)
	out = append(out, "Cache-Status: "...)
	out = x.status.appendTo(out, e.name, x.told, x.key)
	x.rec.Status = o.status
	if e.access != nil {
		// As writeHeader has it: for operators, and without the key.
		x.rec.CacheStatus = string(x.status.appendTo(room[:0], e.name, true, ""))
	}
	out = append(out, "\r\nContent-Length: "...)
	out = strconv.AppendInt(out, o.size, 10)
	if w.close = c.last || c.s.last(); w.close {
		out = append(out, "\r\nConnection: close"...)
	}
	out = append(out, "\r\n\r\n"...)
	d.body = Body{arena: e.store.arena, octets: o.body, size: o.size}
	long := o.size > copiedBody
	if !long {
		out = d.body.appendTo(out)
	}
	d.out = out[:0]
	w.status, w.composed, w.left = o.status, true, 0
	head := int64(len(out))
	if !long {
		head -= o.size
	}
	n, err := c.sendHere(out, long)
	x.rec.Bytes = max(0, n-head)
	if err != nil {
		x.abort()
	}
	return true
}

// plain reports whether a request asks for a representation, without a range or a
// condition.
func (x *exchange) plain() bool {
	q := x.q
	if q.method != http.MethodGet || x.peer || q.has("Range") || q.has("Cdn-Loop") {
		return false
	}
	for _, name := range conditional {
		if q.has(name) {
			return false
		}
	}
	return true
}

// sendHere is send outside of rawLoop, of out and, with body, of the desk's body
// behind it (see turnHere).
func (c *conn) sendHere(out []byte, body bool) (n int64, err error) {
	behind := &c.desk.body
	if !body {
		behind = nil
	}
	if c.raw == nil {
		return c.send(out, behind)
	}
	if closed := c.raw.Control(func(fd uintptr) {
		c.fd = fd
		n, err = c.send(out, behind)
	}); closed != nil {
		return 0, closed
	}
	return n, err
}
