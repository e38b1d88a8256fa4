package logqueue

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// LinesBytes bounds the lines that wait to be written: about a tenth of a
	// second of a busy edge.
	LinesBytes = 4 << 20
	// gather is how long lines gather before they are written: a busy edge's then
	// cost it a write a hundred times a second, and a quiet one's are not late for
	// who watches.
	gather = 10 * time.Millisecond
)

// Lines is a log of lines that those who log write down themselves: the cheapest
// way where there are a hundred thousand a second.
type Lines struct {
	mu      sync.Mutex
	text    []byte
	lines   int
	spare   []byte // what was text before, empty
	closed  bool
	some    chan struct{} // there is text, or the end
	done    chan struct{}
	dropped atomic.Uint64
}

// NewLines starts a log that writes to w, from one goroutine, until Close.
func NewLines(w io.Writer) *Lines {
	l := &Lines{some: make(chan struct{}, 1), done: make(chan struct{})}
	go l.write(w)
	return l
}

// Put takes n whole lines. It never blocks: without room they are dropped and
// counted.
func (l *Lines) Put(text []byte, n int) {
	l.mu.Lock()
	if len(l.text)+len(text) > LinesBytes || l.closed {
		l.mu.Unlock()
		l.dropped.Add(uint64(n))
		return
	}
	first := len(l.text) == 0
	l.text = append(l.text, text...)
	l.lines += n
	l.mu.Unlock()
	if first {
		l.wake()
	}
}

func (l *Lines) wake() {
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// Dropped counts the lines that are missing from the log: those for which there
// was no room, and those whose writing failed.
func (l *Lines) Dropped() uint64 { return l.dropped.Load() }

// Close writes what has gathered and ends the log; a writer that does not take it
// within closeTimeout is left alone. What is put after it is dropped.
func (l *Lines) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wake()
	select {
	case <-l.done:
	case <-time.After(closeTimeout):
	}
}

func (l *Lines) write(w io.Writer) {
	defer close(l.done)
	for {
		<-l.some
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if !closed {
			time.Sleep(gather)
		}
		l.mu.Lock()
		text, n := l.text, l.lines
		l.text, l.lines, l.spare = l.spare[:0], 0, nil
		closed = l.closed
		l.mu.Unlock()
		if len(text) > 0 {
			if _, err := w.Write(text); err != nil {
				l.dropped.Add(uint64(n))
			}
		}
		l.mu.Lock()
		l.spare = text
		rest := len(l.text)
		l.mu.Unlock()
		if closed && rest == 0 {
			return
		}
		if closed {
			l.wake()
		}
	}
}
