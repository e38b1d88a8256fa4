// Package logqueue writes records to a file or a pipe without ever holding up
// who makes them: there is a bounded queue, and what finds no room in it is
// dropped and counted.
package logqueue

import (
	"bufio"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Length bounds the records that wait to be written: about a tenth of a
	// second of a busy edge.
	Length = 8192
	// buffer is what is written at once.
	buffer = 64 << 10
	// closeTimeout is how long what is queued at the end may take to be written:
	// ample for a disk, and no reason for a process to stay when nobody reads
	// the pipe that it logs to.
	closeTimeout = 2 * time.Second
)

// Queue is a log of records of one type.
type Queue[T any] struct {
	queue   chan T
	done    chan struct{}
	dropped atomic.Uint64
	failed  atomic.Uint64
}

// New starts a queue whose records go to w, each as line appends it, from one
// goroutine, until Close.
func New[T any](w io.Writer, line func(dst []byte, record *T) []byte) *Queue[T] {
	q := &Queue[T]{queue: make(chan T, Length), done: make(chan struct{})}
	go q.write(w, line)
	return q
}

// Put never blocks: with a full queue the record is dropped and counted.
func (q *Queue[T]) Put(record T) {
	select {
	case q.queue <- record:
	default:
		q.dropped.Add(1)
	}
}

// Dropped counts the records that are missing from the log: those for which
// the queue had no room, and those whose writing failed.
func (q *Queue[T]) Dropped() uint64 { return q.dropped.Load() + q.failed.Load() }

// Close writes what is queued and ends the log; a writer that does not take it
// within closeTimeout is left alone. Nothing may be put after it.
func (q *Queue[T]) Close() {
	close(q.queue)
	select {
	case <-q.done:
	case <-time.After(closeTimeout):
	}
}

func (q *Queue[T]) write(w io.Writer, line func([]byte, *T) []byte) {
	defer close(q.done)
	out := bufio.NewWriterSize(w, buffer)
	var text []byte
	unflushed := uint64(0)
	flush := func() {
		if err := out.Flush(); err != nil {
			q.failed.Add(unflushed)
			out.Reset(w)
		}
		unflushed = 0
	}
	for r := range q.queue {
		text = line(text[:0], &r)
		if out.Available() < len(text) {
			flush() // so that a file is rotated between two lines
		}
		out.Write(text) // an error stays until the flush
		unflushed++
		if len(q.queue) == 0 || unflushed == Length {
			flush()
		}
	}
	flush()
}

// File is a log file that can be opened anew, for those who rotate it.
type File struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

// OpenFile opens a file for appending, and makes it if there is none.
func OpenFile(path string) (*File, error) {
	f := &File{path: path}
	return f, f.Reopen()
}

// Reopen opens the path again; on error the file that is open goes on.
func (f *File) Reopen() error {
	next, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f != nil {
		f.f.Close()
	}
	f.f = next
	return nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Write(p)
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Close()
}
