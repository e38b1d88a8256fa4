package seglog

import (
	"errors"
	"sync/atomic"
	"time"
)

const (
	// maxReadWait is how long a request waits for one read. A disk that takes longer
	// hangs: what it has is a miss until the read that hangs comes back.
	maxReadWait = 5 * time.Second
	// maxReads bounds the reads at a time, each with a goroutine and a buffer of a
	// record at most; one more waits as long as for a read.
	maxReads = 128
	// maxSyncWait is how long a note waits for its sync.
	maxSyncWait = 10 * time.Second
)

// errOverdue says that the disk does not answer. Nothing is known to be damaged.
var errOverdue = errors.New("the disk does not answer")

// What becomes of a read.
const (
	readRuns = iota
	readDone
	readOverdue
)

// readAt reads a segment that the caller holds, and returns in maxReadWait. After
// errOverdue the buffer is not the caller's any more: the read may still come back.
func (l *Log) readAt(seg *segment, b []byte, off int64) error {
	if l.overdue.Load() > 0 {
		l.count.overdue.Add(1)
		return errOverdue
	}
	timer := time.NewTimer(maxReadWait)
	defer timer.Stop()
	select {
	case l.reads <- struct{}{}:
	case <-timer.C:
		l.count.overdue.Add(1)
		return errOverdue
	}
	seg.refs.Add(1)
	var state atomic.Int32
	done := make(chan error, 1)
	go func() {
		err := l.sys.readAt(seg.f, b, off)
		if !state.CompareAndSwap(readRuns, readDone) && l.overdue.Add(-1) == 0 {
			l.log.Info("disk cache: the disk answers again", "dir", l.dir)
		}
		seg.release()
		<-l.reads
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	l.overdue.Add(1)
	if !state.CompareAndSwap(readRuns, readOverdue) { // it has just come back
		l.overdue.Add(-1)
		return <-done
	}
	l.count.overdue.Add(1)
	if l.overdue.Load() == 1 {
		l.log.Error("disk cache: a read does not come back; requests go on without the disk until it does", "dir", l.dir, "waited", maxReadWait)
	}
	return errOverdue
}

// syncIn is a sync that takes no longer than a while.
func (l *Log) syncIn(seg *segment, wait time.Duration) error {
	done := make(chan error, 1)
	seg.refs.Add(1)
	go func() {
		done <- l.sys.sync(seg.f)
		seg.release()
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errOverdue
	}
}
