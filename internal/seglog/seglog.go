// Package seglog is a cache of values on disk: a log of records in large files,
// its segments, and an index of them in memory. The oldest segment makes way
// whole, after what of it is in use has been written again.
//
// It may lose anything at any time, and it never gives out a wrong byte: each
// record's head, and each block of its body, has a checksum that is verified
// before the first byte of it is given out. It does not fail for want of disk,
// memory or luck: what cannot be written is not kept, and the log says so once.
//
//	l, err := seglog.Open(seglog.Config{Dir: dir, Budget: 10 << 30})
//	l.Put(seglog.Item{Key: k, Head: head, Body: [][]byte{body}})
//	if o := l.Get(k, func(head []byte) bool { … }); o != nil {
//		defer o.Close()
//		o.WriteRange(w, 0, o.Size())
//	}
//
// Nothing is synced on the way in. A segment is synced when it is full, and its
// part of the index saved beside it; Open reads those, and scans what segments
// have none. What Remove or Note said stays said after a kill of the process,
// and after a loss of power wherever Suspect does not tell otherwise.
//
// It is not a database: there is no order, no iteration, and no promise to keep.
package seglog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// minSegmentBytes and maxSegmentBytes bound a segment. Small ones are many
	// files to hold open; of large ones much goes at once.
	minSegmentBytes = 64 << 20
	maxSegmentBytes = 256 << 20
	// segmentsWanted is how many segments a budget is cut into between the bounds.
	segmentsWanted = 64
	// maxSegments bounds the segments, each of which is an open file. Beyond
	// what 256 MiB give, segments become larger.
	maxSegments = 4096
	// minSegments is how many a budget must have room for: one that fills, one
	// that makes way, and two that are read.
	minSegments = 4
	// bytesPerEntry is the least budget for a record: the index holds one entry
	// of 40 bytes (80 while it grows) for each, in memory.
	bytesPerEntry = 2 << 10
	// minEntries is what the smallest log may hold all the same.
	minEntries = 1 << 16
	// objectShare is the part of the budget that one value may take.
	objectShare = 4
	// maxQueued bounds the bytes that wait to be written.
	maxQueued = 16 << 20
	// maxWait is how long a writer that may wait does, for room among those. A
	// disk that is slower holds nobody up: what it cannot take is not kept.
	maxWait = time.Second
	// maxStreams bounds the values that come in pieces at a time: each has a
	// buffer of partBytes.
	maxStreams = 16
)

// Config is what a Log is made from.
type Config struct {
	Dir    string // made if it is missing; this log's alone
	Budget int64  // bytes of files, at most
	// SegmentBytes is the size of a segment; 0 takes one that suits Budget.
	SegmentBytes int64
	// Live reports whether a value with this head is worth writing again when its
	// segment makes way. It must say no to whatever a Note has made unusable: the
	// note does not outlive its own segment. Nil: always.
	Live func(head []byte) bool
	Log  *slog.Logger     // events; nil discards
	Now  func() time.Time // for expiry; nil is time.Now
}

// Log is a cache on disk. It is safe for concurrent use.
type Log struct {
	dir      string
	budget   int64
	segBytes int64
	entries  int // most in the index
	live     func([]byte) bool
	log      *slog.Logger
	now      func() time.Time
	sys      system
	lock     *os.File

	idx  index
	segs segments

	work    chan job
	wake    chan struct{} // the writing goroutine has to look at tainted
	flushes chan chan struct{}
	queued  atomic.Int64 // bytes in work
	// inFlight counts records that are handed over and cannot be found yet.
	inFlight atomic.Int64

	removals sync.Mutex
	removing map[uint64]int // keys that Remove is about
	streams  atomic.Int32
	seals    chan *segment
	quit     chan struct{}
	sealed   chan struct{}
	closing  sync.Once
	closed   atomic.Bool
	tainted  atomic.Bool   // a removal or note may be lost: everything must go
	reads    chan struct{} // one for each that runs
	overdue  atomic.Int32  // reads that somebody has given up waiting for, and that still run
	// forgone counts the times that tainted was set. What was handed over before
	// must go too, though it is written later.
	forgone atomic.Uint64
	w       writer // the writing goroutine's own
	retry   time.Duration

	suspect   atomic.Bool
	stateFile sync.Mutex
	notes     [][]byte
	count     counters
	why       atomic.Pointer[string] // why it does not write, or nil
}

type counters struct {
	corrupt, deadFiles, dropped, evicted, again, wiped, written, overdue atomic.Uint64
}

// Stats is what a log has and has been through.
type Stats struct {
	Bytes    int64  // of files, those included that only readers hold
	Budget   int64  // of the same
	Records  int    // in the index; a large value has several
	Segments int    // files
	Corrupt  uint64 // records found damaged; each was dropped
	Dead     uint64 // files given up after an error of the disk
	Dropped  uint64 // records that were not kept: the disk was too slow, or failing
	Evicted  uint64 // segments that made way
	Again    uint64 // records that were written again then
	Overdue  uint64 // reads that were given up, or not tried, since the disk did not answer
	Wiped    uint64 // times that everything was dropped for safety
	Written  uint64 // bytes
	Why      string // why nothing is written, or read; "" when it is
}

var (
	// ErrLocked says that another process has the log open.
	ErrLocked = errors.New("another process has it open")
	errClosed = errors.New("the log is closed")
)

// Open opens the log in c.Dir, or makes it. What it cannot read it drops, and
// counts. An error means that the folder cannot be used now: nothing in it has
// been touched, and a later call may do.
func Open(c Config) (*Log, error) { return open(c, osSystem{}) }

func open(c Config, sys system) (*Log, error) {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = SegmentBytes(c.Budget)
	}
	if c.SegmentBytes < 2*maxRecordBytes || c.Budget < minSegments*c.SegmentBytes {
		return nil, fmt.Errorf("seglog: a budget of %d bytes has no room for %d segments of %d", c.Budget, minSegments, c.SegmentBytes)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &Log{
		dir: c.Dir, budget: c.Budget, segBytes: c.SegmentBytes, entries: int(max(minEntries, c.Budget/bytesPerEntry)),
		live: c.Live, log: c.Log, now: c.Now, sys: sys,
		work: make(chan job, 1<<10), wake: make(chan struct{}, 1), flushes: make(chan chan struct{}), seals: make(chan *segment, 1<<7),
		reads: make(chan struct{}, maxReads), quit: make(chan struct{}), sealed: make(chan struct{}), retry: firstRetry,
	}
	l.segs.m = map[uint32]*segment{}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("seglog: %w", err)
	}
	var err error
	if l.lock, err = lockDir(filepath.Join(c.Dir, lockName)); err != nil {
		return nil, fmt.Errorf("seglog: %s: %w", c.Dir, err)
	}
	if err := l.load(); err != nil {
		l.segs.closeAll()
		l.lock.Close()
		return nil, fmt.Errorf("seglog: %w", err)
	}
	go l.write()
	go l.seal()
	return l, nil
}

// SegmentBytes is the size of the segments that a budget is cut into.
func SegmentBytes(budget int64) int64 {
	n := min(max(budget/segmentsWanted, minSegmentBytes), maxSegmentBytes)
	n = max(n, budget/maxSegments)
	return n &^ (1<<20 - 1)
}

// MinBudget is the least Config.Budget.
const MinBudget = minSegments * minSegmentBytes

// Suspect reports that what Remove and Note said before Open may be lost in
// part: the machine went down, or the files are damaged. Whoever depends on
// them should trust nothing that is older than Open without asking.
func (l *Log) Suspect() bool { return l.suspect.Load() }

// Notes returns what was noted, oldest first, and lets go of it.
func (l *Log) Notes() [][]byte {
	n := l.notes
	l.notes = nil
	return n
}

// MaxValue is the size of the largest body that is kept.
func (l *Log) MaxValue() int64 { return l.budget / objectShare }

// Stats returns what the log has and has been through.
func (l *Log) Stats() Stats {
	s := Stats{
		Budget: l.budget, Records: int(l.idx.n.Load()), Corrupt: l.count.corrupt.Load(), Dead: l.count.deadFiles.Load(),
		Dropped: l.count.dropped.Load(), Evicted: l.count.evicted.Load(), Again: l.count.again.Load(),
		Wiped: l.count.wiped.Load(), Written: l.count.written.Load(), Overdue: l.count.overdue.Load(),
	}
	s.Segments, s.Bytes = l.segs.size()
	if why := l.why.Load(); why != nil {
		s.Why = *why
	} else if l.overdue.Load() > 0 {
		s.Why = "a read does not come back"
	}
	return s
}

// Close writes what waits, syncs, and lets go of the files. Values that Get
// gave out may be read until they are closed.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.closed.Store(true)
		close(l.quit)
	})
	<-l.sealed
	return nil
}
