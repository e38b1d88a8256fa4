package edge

import (
	"errors"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"
)

const (
	// deskBytes is what heads are read into at first; a browser's has 700.
	deskBytes = 8 << 10
	// copiedBody bounds the bodies that are copied behind their heads: one write
	// costs more than the copy.
	copiedBody = 16 << 10
	// gatherBytes is how much of answers to pipelined requests is gathered before
	// it is written.
	gatherBytes = 64 << 10
	// lookAgain is how soon a connection that has had an answer is looked at
	// again without a sign of it: the end of a client's stream that came together
	// with its last request gives no sign of its own. It also spares the loop to
	// set a timer for each request.
	lookAgain = time.Second
	// sendBytes and maxParts bound what one call sends of a long body.
	sendBytes = 1 << 20
	maxParts  = 18
)

// course says how it goes on with a connection.
type course int

const (
	waitMore   course = iota // for octets
	byAllRules               // for an answer to the request whose head is on the desk
	leaveIt                  // to net/http: what is unread stands in conn.buf
	refuseHead               // for conn.bad
	endIt
)

// phase of a connection: who shuts down, or needs room, goes by it.
type phase = int32

const (
	silent  phase = iota // nothing has come yet
	resting              // between two requests
	busy
	evicted // to end: it rested when another needed its room
)

// desk is what a connection works with while it has something to do. One that
// rests has none.
type desk struct {
	head head
	in   []byte     // what heads are read into
	buf  []byte     // the part of in that is read and not consumed
	out  []byte     // answers that are not written yet
	done []answered // those in out
	line []byte     // of the access log
	list [maxParts][]byte
	body Body // of the answer in the making: here, since it would be allocated for each
}

// answered is an answer that is to be counted, and logged, once it is written.
type answered struct {
	stats *siteStats
	end   int64 // where it ends in what is written
	rec   AccessRecord
}

var desks = sync.Pool{New: func() any { return &desk{in: make([]byte, deskBytes)} }}

// take gives the connection a desk with the start of a head that it has kept.
func (c *conn) take() *desk {
	d := desks.Get().(*desk)
	for len(d.in) <= len(c.kept) {
		d.in = make([]byte, 2*len(d.in))
	}
	d.buf = d.in[:copy(d.in, c.kept)]
	d.head.same = c.same
	c.desk = d
	return d
}

// drop gives the desk back; what is unread is kept.
func (c *conn) drop() {
	d := c.desk
	if c.desk = nil; d == nil {
		return
	}
	if len(d.buf) == 0 {
		c.kept = nil
	} else {
		c.kept = append(c.kept[:0], d.buf...)
	}
	d.buf, d.out, d.head.same, d.head.lines = nil, d.out[:0], nil, nil
	if len(d.in) == deskBytes && cap(d.out) <= 2*gatherBytes {
		desks.Put(d)
	}
}

// room is where the next octets go. It is never empty: a head of maxHeadBytes is
// refused.
func (d *desk) room() []byte {
	if len(d.buf) == len(d.in) {
		d.in = make([]byte, 2*len(d.in))
		d.buf = d.in[:copy(d.in, d.buf)]
	}
	return d.in[len(d.buf):]
}

// loop answers what Hit can, until something else is to be done. It is entered
// for a new connection, and whenever net/http, which has the connection once Hit
// has left it a request, waits for the next one.
func (c *conn) loop() (v course) {
	defer c.survive(&v)
	now := time.Now()
	if c.phase.Load() == silent {
		c.due = now.Add(headTimeout)
	} else {
		c.due = now.Add(idleTimeout)
	}
	c.arm(c.due)
	if c.s.closing.Load() { // shutdown may have come between
		if c.lingers = c.phase.Load() == resting; c.lingers {
			return endIt
		}
		c.arm(now.Add(lastChance))
	}
	for goesOn := true; goesOn; {
		var ok bool
		if v, ok = c.rawLoop(); !ok {
			v = c.netLoop()
		}
		if goesOn = v == byAllRules; goesOn {
			v = c.general()
			goesOn = v == waitMore
		}
	}
	if (v == leaveIt || v == refuseHead) && c.desk != nil {
		c.mem = make([]byte, max(firstBuffer, len(c.desk.buf)))
		c.buf = c.mem[:copy(c.mem, c.desk.buf)]
		c.desk.buf = nil
	}
	c.drop()
	c.kept, c.begun, c.looked = nil, time.Time{}, false
	return v
}

// netLoop is the loop over any net.Conn.
func (c *conn) netLoop() course {
	for {
		room := c.octet[:] // whoever rests holds no more
		if c.desk != nil {
			room = c.desk.room()
		}
		n, err := c.Conn.Read(room)
		if n == 0 {
			if errors.Is(err, os.ErrDeadlineExceeded) && c.goesOn() {
				continue
			}
			return endIt
		}
		c.wakes()
		if c.desk == nil {
			c.take().buf = append(c.desk.in[:0], c.octet[0])
			c.begins(time.Now())
			continue
		}
		c.desk.buf = c.desk.in[:len(c.desk.buf)+n]
		if v := c.turn(); v != waitMore {
			return v
		}
		c.put(waitMore)
	}
}

// put leaves the desk as who waits for octets wants it: rawLoop takes a new one
// with them, netLoop reads on behind what is unread.
func (c *conn) put(v course) course {
	if v != waitMore {
		return v
	}
	if d := c.desk; c.raw != nil || len(d.buf) == 0 {
		c.drop()
	} else {
		d.buf = d.in[:copy(d.in, d.buf)]
	}
	return v
}

// arm sets the read deadline.
func (c *conn) arm(t time.Time) {
	c.armed = t
	c.Conn.SetReadDeadline(t)
}

// soon sees to it that the wait is interrupted soon: goesOn then sets its end.
func (c *conn) soon(now time.Time) {
	if next := now.Add(lookAgain); c.armed.After(next) {
		c.arm(next)
	}
}

// goesOn is asked when the read deadline has passed: it may have been set for
// less than the whole wait, or to end the connection.
func (c *conn) goesOn() bool {
	if !time.Now().Before(c.due) || !c.mayWait() {
		return false
	}
	c.arm(c.due)
	return c.mayWait() // shutdown may have come between
}

func (c *conn) mayWait() bool {
	p := c.phase.Load()
	return p == busy || p != evicted && !c.s.closing.Load()
}

// wakes says that octets have come.
func (c *conn) wakes() {
	switch c.phase.Load() {
	case busy:
	case silent:
		c.phase.Store(busy)
	default:
		if !c.phase.CompareAndSwap(resting, busy) {
			c.last = true // its room is another's, after this
		}
	}
}

// begins starts a head's time.
func (c *conn) begins(now time.Time) {
	if c.begun.IsZero() {
		c.begun, c.due = now, now.Add(headTimeout)
		c.soon(now)
	}
}

// rests starts the time between two requests. It reports whether there may be a
// next one.
func (c *conn) rests(now time.Time) bool {
	c.begun, c.due = time.Time{}, now.Add(idleTimeout)
	c.soon(now)
	c.phase.Store(resting)
	c.lingers = c.s.closing.Load()
	return !c.lingers
}

// turn answers the requests that have come, in order, as far as Hit can, and
// writes the answers at once. It reads the clock once.
func (c *conn) turn() course {
	d, e := c.desk, c.s.e
	if c.s.verify != nil {
		return leaveIt // a peer is told more than Hit knows
	}
	if base := e.snap.Load(); base != c.base {
		c.base, c.snap = base, base
		if c.state != nil {
			c.snap = base.Over(c.state.ServerName)
		}
	}
	clock := time.Now()
	now := clock
	if e.ownClock {
		now = e.now()
	}
	v := c.turnAt(d, now)
	if v != endIt && c.flush(nil) != nil {
		return endIt
	}
	if v != waitMore {
		return v
	}
	if len(d.buf) > 0 {
		c.begins(clock)
	} else if !c.rests(clock) {
		return endIt
	}
	return waitMore
}

func (c *conn) turnAt(d *desk, now time.Time) course {
	for {
		d.buf = skipEmptyLine(d.buf)
		if len(d.buf) == 0 || c.looked && d.buf[len(d.buf)-1] != '\n' && len(d.buf) < maxHeadBytes {
			return waitMore // no head, or no end of one, can have come
		}
		n, err := d.head.parse(d.buf)
		if c.looked = err == errHeadIncomplete; c.looked {
			return waitMore
		}
		if err != nil {
			errors.As(err, &c.bad) // parse returns no other
			return refuseHead
		}
		c.begun = time.Time{}
		if !d.head.repeats {
			c.remember(&d.head)
		}
		if ok, err := c.answer(d, now); err != nil {
			return endIt
		} else if !ok && d.head.takes() {
			return byAllRules
		} else if !ok {
			return leaveIt
		}
		d.buf = d.buf[n:]
		if c.last {
			c.lingers = c.flush(nil) == nil
			return endIt
		}
	}
}

// remember keeps what a head says, for the next one: of the second on a connection and
// those after it, since many who ask once do not ask again, and rest.
func (c *conn) remember(h *head) {
	switch {
	case c.same != nil:
		c.same.keep(h)
	case c.asked:
		c.same = new(repeated)
		c.same.keep(h)
		h.same = c.same
	default:
		c.asked = true
	}
}

// answer tries Hit with the head on the desk. It reports whether the request has
// been answered, or is with the next flush.
func (c *conn) answer(d *desk, now time.Time) (bool, error) {
	e := c.s.e
	snap := c.snap
	if e.tellsAny() && e.tells(e.clientOf(c.peer, &d.head)) {
		snap = snap.telling()
	}
	body := &d.body
	*body = Body{}
	out, ok := hit(d.out, &d.head, snap, now, body)
	if !ok {
		return false, nil
	}
	defer body.Close()
	if c.last = c.last || c.s.last(); c.last {
		out = append(out[:len(out)-2], "Connection: close\r\n\r\n"...)
	}
	long := body.file != nil || body.size > copiedBody
	end := int64(len(out)) + body.size
	if !long {
		out = body.appendTo(out)
	}
	d.out = out
	d.done = slices.Grow(d.done, 1)[:len(d.done)+1]
	a := &d.done[len(d.done)-1]
	a.stats, a.end = e.statsOf(body.Site), end
	a.rec.Time, a.rec.Status, a.rec.Bytes, a.rec.Cache = now, body.Status, body.size, body.Cache
	if e.access != nil {
		c.record(d, body)
	}
	switch {
	case long:
		return true, c.flush(body)
	case len(out) >= gatherBytes:
		return true, c.flush(nil)
	}
	return true, nil
}

// record completes the record of the answer that has just been made. Its strings
// point into the desk.
func (c *conn) record(d *desk, body *Body) {
	e, h, r := c.s.e, &d.head, &d.done[len(d.done)-1].rec
	r.TLS, r.Client, r.Site, r.Method, r.Host = c.state, e.clientOf(c.peer, h), body.Site.Name, h.method, body.target.host
	r.plain = true
	r.Path, r.Release, r.Proto = e.secrets.path(body.target.path, body.target.query), body.Release, "HTTP/1.1"
	r.Referer, r.UserAgent = e.secrets.reference(h.value1("Referer")), h.value1("User-Agent")
	status := d.out[body.status[0]:body.status[1]]
	r.CacheStatus = loggedStatus(unsafe.String(unsafe.SliceData(status), len(status))) // flush empties out, and nothing else
}

// flush writes the answers on the desk, the last one's body behind them if it is
// not among them, and then counts and logs them.
func (c *conn) flush(body *Body) error {
	d := c.desk
	if len(d.out) == 0 {
		return nil
	}
	c.writing = true
	n, err := c.send(d.out, body)
	c.writing = err != nil
	c.account(d, n)
	d.out, d.done = d.out[:0], d.done[:0]
	return err
}

// account counts and logs the answers on the desk, of which n octets were
// written.
func (c *conn) account(d *desk, n int64) {
	e := c.s.e
	var took time.Duration // since the first of them came
	if e.access != nil && len(d.done) > 0 {
		if first := d.done[0].rec.Time; e.ownClock {
			took = e.now().Sub(first)
		} else {
			took = time.Since(first) // which reads one clock, and not two
		}
	}
	var last lastLine
	var sum tally
	for i := range d.done {
		a := &d.done[i]
		r := &a.rec
		r.Bytes = min(r.Bytes, max(0, n-(a.end-r.Bytes)))
		sum.add(c.shard, a.stats, r)
		if e.access == nil {
			continue
		}
		r.Duration = took - r.Time.Sub(d.done[0].rec.Time)
		if e.lines != nil {
			d.line = e.lines.form(d.line, r, &last)
		} else {
			e.access.Log(r.clone())
		}
	}
	sum.flush(c.shard)
	if len(d.line) > 0 {
		e.lines.lines.Put(d.line, len(d.done))
		d.line = d.line[:0]
	}
}

// send writes out, and then body if it is not nil. It returns how many octets
// went.
func (c *conn) send(out []byte, body *Body) (int64, error) {
	if c.raw != nil {
		return c.rawSend(out, body)
	}
	n, err := c.Write(out)
	if err != nil || body == nil {
		return int64(n), err
	}
	m, err := body.WriteTo(c)
	return int64(n) + m, err
}

// gathered lists what follows the first skip octets of out and a body in memory,
// as much as one call sends.
func (d *desk) gathered(out []byte, body *Body, skip int64) [][]byte {
	list := d.list[:0]
	if skip < int64(len(out)) {
		list = append(list, out[skip:])
		skip = 0
	} else {
		skip -= int64(len(out))
	}
	return body.slices(list, skip, sendBytes)
}
