package seglog

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// bufferBytes is how much is written at a time.
	bufferBytes = 1 << 20
	// flushAfter is how long a record waits for others. Until then a kill loses it.
	flushAfter = 200 * time.Millisecond
	// firstRetry and lastRetry bound how often a log that cannot write tries again.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// maxMakeRoom bounds the segments that make way for one: more than that is
	// not the log's fault, but that of readers who hold what has made way.
	maxMakeRoom = 2
)

var (
	errNotWriting = errors.New("nothing is written now")
	errNoRoom     = errors.New("readers hold the files that have made way")
	errBusy       = errors.New("the disk does not keep up")
)

// job is a record to be written.
type job struct {
	rec  []byte // without nonce
	h    header
	said bool       // Open must know it: if it is lost, everything must be
	at   uint64     // Log.forgone when it was handed over
	done chan error // buffered; nil: nobody waits
}

// writer is the state of the one goroutine that writes.
type writer struct {
	cur     *segment // nil: none is open
	buf     []byte   // what is still to be written, after cur.end
	pending []pending
	failing bool
	unwiped bool // files are still to be removed
	retry   time.Duration
	timer   *time.Timer // flush, or retry
}

// pending is a record in the buffer.
type pending struct {
	e    entry
	said bool
	done chan error
}

// enqueue hands a record to the writing goroutine. It waits as long as wait for
// room.
func (l *Log) enqueue(j job, wait time.Duration) error {
	n := int64(len(j.rec))
	j.at = l.forgone.Load()
	for l.queued.Add(n) > maxQueued {
		l.queued.Add(-n)
		if wait <= 0 {
			l.count.dropped.Add(1)
			return errBusy
		}
		step := min(wait, 5*time.Millisecond) // a buffer is written in less
		wait -= step
		time.Sleep(step)
	}
	l.inFlight.Add(1)
	err := l.hand(j, wait)
	if err != nil {
		l.inFlight.Add(-1)
		l.queued.Add(-n)
		l.count.dropped.Add(1)
	}
	return err
}

func (l *Log) hand(j job, wait time.Duration) error {
	select {
	case <-l.quit:
		return errClosed
	case l.work <- j:
		return nil
	default:
	}
	if wait <= 0 {
		return errBusy
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case l.work <- j:
		return nil
	case <-t.C:
		return errBusy
	case <-l.quit:
		return errClosed
	}
}

// write is the writing goroutine.
func (l *Log) write() {
	w := &l.w
	w.buf = make([]byte, 0, bufferBytes+maxRecordBytes)
	w.timer = time.NewTimer(flushAfter)
	defer w.timer.Stop()
	for {
		select {
		case j := <-l.work:
			l.queued.Add(-int64(len(j.rec)))
			l.do(j)
		case <-w.timer.C:
			l.tick()
		case <-l.wake:
			l.wipe()
		case c := <-l.flushes:
			l.flushAll(c)
		case <-l.quit:
			l.finish()
			return
		}
	}
}

// finish writes what was handed over, and ends.
func (l *Log) finish() {
	l.drain()
	l.sealCurrent()
	close(l.seals)
}

// drain writes what has been handed over.
func (l *Log) drain() {
	for {
		select {
		case j := <-l.work:
			l.queued.Add(-int64(len(j.rec)))
			l.do(j)
			continue
		default:
		}
		l.flush()
		return
	}
}

func (l *Log) flushAll(done chan struct{}) {
	l.drain()
	close(done)
}

// Flush returns when all that was handed over before can be found, or is given up.
func (l *Log) Flush() {
	done := make(chan struct{})
	select {
	case l.flushes <- done:
		<-done
	case <-l.quit:
	}
}

// tick does what is due: write what has waited, or try again to write at all.
func (l *Log) tick() {
	w := &l.w
	if !w.failing {
		l.flush()
		return
	}
	l.recover()
	if w.failing {
		w.retry = min(2*w.retry, lastRetry)
		w.timer.Reset(w.retry)
	}
}

// do writes one record, or drops it.
func (l *Log) do(j job) {
	if l.tainted.Load() {
		l.wipe()
	}
	if l.w.failing && j.said && !l.empty() {
		l.recover()
	}
	l.put(j)
	if j.said {
		l.flush()
	}
}

// empty reports that no file holds anything that could come back.
func (l *Log) empty() bool {
	files, _ := l.segs.size()
	return files == 0 && !l.w.unwiped
}

// drop gives up a record. One that says what is no longer to be used cannot be
// given up: what it is about may come back at the next start, unless all goes.
func (l *Log) drop(j *job) {
	l.inFlight.Add(-1)
	l.count.dropped.Add(1)
	if j.said && j.at == l.forgone.Load() { // else all has gone since
		l.wipe()
	}
	if j.done != nil {
		j.done <- errNotWriting
	}
}

// put adds a record to the buffer.
func (l *Log) put(j job) {
	w := &l.w
	if len(w.buf)+len(j.rec) > cap(w.buf) {
		l.flush()
	}
	if !w.failing && (w.cur == nil || w.cur.end+int64(len(w.buf)+len(j.rec)) > l.segBytes) {
		if err := l.rotate(); err != nil && !w.failing {
			l.fail("cannot begin a file", err)
		}
	}
	if w.failing || j.at != l.forgone.Load() {
		l.drop(&j)
		return
	}
	at := w.cur.end + int64(len(w.buf))
	if len(w.buf) == 0 {
		w.timer.Reset(flushAfter)
	}
	w.buf = append(w.buf, j.rec...)
	mixNonce(w.buf[len(w.buf)-len(j.rec):], w.cur.nonce)
	w.pending = append(w.pending, pending{done: j.done, said: j.said, e: entry{
		key: j.h.key, variant: j.h.variant, seg: w.cur.id, off: uint32(at / align), size: uint32(len(j.rec)),
		lead: uint32(j.h.lead()), kind: j.h.kind,
	}})
	if len(w.buf) >= bufferBytes {
		l.flush()
	}
}

// flush writes the buffer, and then lets its records be found.
func (l *Log) flush() {
	w := &l.w
	if len(w.buf) == 0 {
		return
	}
	if err := l.sys.writeAt(w.cur.f, w.buf, w.cur.end); err != nil {
		l.fail("cannot write", err)
		return
	}
	if l.tainted.Load() {
		l.wipe()
		return
	}
	w.cur.end += int64(len(w.buf))
	l.count.written.Add(uint64(len(w.buf)))
	w.buf = w.buf[:0]
	for _, p := range w.pending {
		w.cur.entries = append(w.cur.entries, p.e)
		w.cur.said = w.cur.said || p.said
		l.apply(&p.e)
		if p.done != nil {
			p.done <- nil
		}
	}
	l.inFlight.Add(-int64(len(w.pending)))
	w.pending = w.pending[:0]
	for n := 0; l.idx.n.Load() > int64(l.entries) && n < maxMakeRoom; n++ {
		if old := l.segs.oldest(w.cur); old != nil {
			l.evict(old, 0)
		}
	}
}

// apply does to the index what a record says.
func (l *Log) apply(e *entry) {
	switch e.kind {
	case kindValue, kindPart:
		l.removals.Lock()
		defer l.removals.Unlock()
		if l.removing[e.key] == 0 {
			l.idx.put(*e)
		}
	case kindRemove, kindRemoveKey:
		l.idx.removeKey(e.key, e.variant, e.kind == kindRemoveKey)
	}
}

// fail ends the writing until recover. The file is not written to again: after
// an error nobody knows what of it is on the disk. What was written stays
// readable, since each read is verified.
func (l *Log) fail(what string, err error) {
	w := &l.w
	if w.cur != nil {
		l.count.deadFiles.Add(1)
		if w.cur.f.Truncate(w.cur.end) == nil {
			l.segs.shrink(w.cur, w.cur.end)
		}
		w.cur.synced.Store(true) // it never will be
		w.cur.entries, w.cur = nil, nil
	}
	waiting, lost := l.dropPending()
	why := fmt.Sprintf("%s: %v", what, err)
	l.why.Store(&why)
	if !w.failing {
		w.failing, w.retry = true, l.retry
		w.timer.Reset(w.retry)
		l.log.Error("disk cache: writing has stopped; requests go on without it", "dir", l.dir, "why", why)
	}
	if lost {
		l.wipe()
	}
	tell(waiting, err)
}

// dropPending gives up what is in the buffer, and reports whether something said
// was among it. It returns those who wait.
func (l *Log) dropPending() (waiting []chan error, lost bool) {
	w := &l.w
	for _, p := range w.pending {
		l.count.dropped.Add(1)
		lost = lost || p.said
		if p.done != nil {
			waiting = append(waiting, p.done)
		}
	}
	l.inFlight.Add(-int64(len(w.pending)))
	w.pending, w.buf = w.pending[:0], w.buf[:0]
	return waiting, lost
}

func tell(waiting []chan error, err error) {
	for _, c := range waiting {
		c <- err
	}
}

// recover tries to write again.
func (l *Log) recover() {
	w := &l.w
	if w.unwiped && !l.unlinkAll() {
		return
	}
	if err := l.rotate(); err != nil {
		if !errors.Is(err, errNotWriting) {
			why := fmt.Sprintf("cannot begin a file: %v", err)
			l.why.Store(&why)
		}
		return
	}
	l.why.Store(nil)
	l.log.Info("disk cache: writing again", "dir", l.dir)
}

// rotate begins a segment, and makes room for the next.
func (l *Log) rotate() error {
	w := &l.w
	was := w.cur
	l.flush()
	if was != w.cur {
		return errNotWriting // the flush failed, and has said so
	}
	l.sealCurrent()
	for n := 0; n < maxMakeRoom && !l.roomFor(l.segBytes); n++ {
		if old := l.segs.oldest(nil); old != nil {
			l.evict(old, 0)
		}
	}
	if !l.roomFor(l.segBytes) {
		return errNoRoom
	}
	seg, err := l.newSegment()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		if old := l.segs.oldest(nil); old != nil {
			l.evict(old, 0)
			seg, err = l.newSegment()
		}
	}
	if err != nil {
		return err
	}
	w.cur = seg
	w.failing = false
	quota := l.segBytes / 2
	for n := 0; n < maxMakeRoom && !l.roomFor(l.segBytes); n++ {
		if old := l.segs.oldest(w.cur); old != nil && !w.failing {
			quota -= l.evict(old, quota)
		}
	}
	if w.failing {
		return errNotWriting // writing what is in use again failed
	}
	return nil
}

// roomFor reports whether n more bytes of files are within the budget.
func (l *Log) roomFor(n int64) bool {
	files, bytes := l.segs.size()
	return bytes+n <= l.budget && files < maxSegments
}

// sealCurrent hands the segment to the goroutine that syncs it.
func (l *Log) sealCurrent() {
	w := &l.w
	if w.cur == nil {
		return
	}
	l.toSeal(w.cur)
	w.cur = nil
}

func (l *Log) toSeal(seg *segment) {
	seg.refs.Add(1) // the log has one
	select {
	case l.seals <- seg:
	default: // the disk is far behind; the next start scans the file
		seg.entries = nil
		seg.release()
	}
}
