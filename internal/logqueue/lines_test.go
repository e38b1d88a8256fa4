package logqueue

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestLinesGather: many lines are few writes, all of them in order, and none is
// late.
func TestLinesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &counted{}
		l := NewLines(w)
		for range 5 {
			for range 1000 {
				l.Put([]byte("line\n"), 1)
			}
			time.Sleep(2 * gather)
		}
		if text, writes := w.seen(); writes != 5 || text != strings.Repeat("line\n", 5000) {
			t.Errorf("%d writes, %d octets", writes, len(text))
		}
		l.Put([]byte("a\nb\n"), 2)
		l.Close()
		if text, _ := w.seen(); !strings.HasSuffix(text, "line\na\nb\n") || l.Dropped() != 0 {
			t.Errorf("after the end %q, %d dropped", text[len(text)-10:], l.Dropped())
		}
		if l.Put([]byte("late\n"), 1); l.Dropped() != 1 {
			t.Error("a line after the end is not counted")
		}
	})
}

type counted struct {
	mu     sync.Mutex
	text   strings.Builder
	writes int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.text.Write(p)
}

func (c *counted) seen() (string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String(), c.writes
}

// TestLinesDrop: a stuck writer holds nobody up; each line is written or
// counted, and one whose writing failed is counted too.
func TestLinesDrop(t *testing.T) {
	for _, failure := range []error{nil, errors.New("the disk is full")} {
		synctest.Test(t, func(t *testing.T) {
			g := &gate{open: make(chan struct{}), err: failure}
			l := NewLines(g)
			const n = 3 * LinesBytes / 1000
			line := []byte(strings.Repeat("x", 999) + "\n")
			for range n {
				l.Put(line, 1)
			}
			if l.Dropped() < n/2 {
				t.Errorf("%d of %d dropped", l.Dropped(), n)
			}
			close(g.open)
			l.Close()
			if lines := strings.Count(g.text.String(), "\n"); lines+int(l.Dropped()) != n || (lines == 0) != (failure != nil) {
				t.Errorf("%d lines and %d dropped are not %d", lines, l.Dropped(), n)
			}
		})
	}
}

// TestLinesCloseOnStuckWriter: a pipe that nobody reads keeps no process from
// ending.
func TestLinesCloseOnStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		l := NewLines(g)
		l.Put([]byte("1\n"), 1)
		time.Sleep(2 * gather)
		l.Put([]byte("2\n"), 1)
		l.Close()
		close(g.open) // so that its goroutine ends
		<-l.done
		if got := g.text.String(); got != "1\n2\n" {
			t.Errorf("a writer that goes on gets %q", got)
		}
	})
}
