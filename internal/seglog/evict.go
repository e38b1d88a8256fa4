package seglog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// evict lets a segment go. Of what is in use it writes up to quota bytes again,
// and returns how many.
func (l *Log) evict(seg *segment, quota int64) (again int64) {
	seg.refs.Add(1) // the log has one, for nobody else lets go of it
	defer seg.release()
	l.count.evicted.Add(1)
	entries, _, err := l.readIndex(seg)
	if err != nil {
		entries = l.scan(seg).entries
	}
	for i := range entries {
		e := &entries[i]
		if e.kind != kindValue && e.kind != kindPart {
			continue
		}
		e.seg = seg.id
		forgone := l.forgone.Load()
		hot, ok := l.idx.remove(e)
		if !ok || !hot || again+int64(e.size) > quota || l.w.cur == nil {
			continue
		}
		if j, ok := l.reread(seg, e); ok {
			again += int64(e.size)
			l.count.again.Add(1)
			l.inFlight.Add(1)
			j.at = forgone
			l.put(j)
		}
	}
	l.unlink(seg)
	return again
}

// reread makes a job of a record that is there, unless it is not worth it.
func (l *Log) reread(seg *segment, e *entry) (job, bool) {
	rec := make([]byte, e.size)
	if err := l.sys.readAt(seg.f, rec, e.offset()); err != nil {
		l.count.corrupt.Add(1)
		return job{}, false
	}
	h, ok := checkLead(rec, seg.nonce)
	if !ok || h.size() != len(rec) || !checkBody(rec, &h) {
		l.count.corrupt.Add(1)
		return job{}, false
	}
	if h.expires != 0 && h.expires <= l.now().Unix() || h.kind == kindValue && l.live != nil && !l.live(rec[headerBytes:][:h.head]) {
		return job{}, false
	}
	mixNonce(rec, seg.nonce)
	return job{rec: rec, h: h}, true
}

// checkBody verifies the body of a whole record.
func checkBody(rec []byte, h *header) bool {
	lead := h.lead()
	for i := range h.blocks() {
		if !checkBlock(rec, h, i, rec[lead+i*blockBytes:][:h.blockLen(i)]) {
			return false
		}
	}
	return true
}

// unlink removes a segment's files. Who reads it may go on.
func (l *Log) unlink(seg *segment) error {
	l.segs.drop(seg)
	err := l.sys.remove(seg.path + segmentExt)
	if err2 := l.sys.remove(seg.path + indexExt); err == nil && !errors.Is(err2, fs.ErrNotExist) {
		err = err2
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// wipe drops everything: what must not be used any more cannot be told from the
// rest.
func (l *Log) wipe() {
	w := &l.w
	waiting, _ := l.dropPending()
	w.cur = nil
	l.idx.clear()
	if !l.empty() {
		l.count.wiped.Add(1)
		l.log.Warn("disk cache: everything is dropped, since what has become unusable could not be written down", "dir", l.dir)
		w.unwiped = true
		l.unlinkAll()
	}
	l.tainted.Store(false)
	if w.unwiped && !w.failing {
		w.failing, w.retry = true, l.retry
		w.timer.Reset(w.retry)
	}
	tell(waiting, errNotWriting)
}

// unlinkAll removes every file, the oldest first, so that no kill in between
// leaves a value without what was said of it later. It reports whether all are gone.
func (l *Log) unlinkAll() bool {
	for seg := l.segs.oldest(nil); seg != nil; seg = l.segs.oldest(nil) {
		l.unlink(seg)
	}
	names, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	slices.SortFunc(names, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, n := range names {
		if ext := filepath.Ext(n.Name()); ext != segmentExt && ext != indexExt {
			continue
		}
		if err := l.sys.remove(filepath.Join(l.dir, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	l.w.unwiped = false
	if !l.suspect.Load() && !l.closed.Load() {
		l.putState(stateOpen)
	}
	return true
}
