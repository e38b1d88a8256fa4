package logqueue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// gate is a writer that waits, and then fails or keeps what it gets.
type gate struct {
	open chan struct{}
	err  error
	text strings.Builder
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	if g.err != nil {
		return 0, g.err
	}
	return g.text.Write(p)
}

func number(b []byte, n *int) []byte { return fmt.Appendf(b, "%d\n", *n) }

// TestQueueDrops: a writer that does not take its lines holds nobody up; each
// record is written or counted.
func TestQueueDrops(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	q := New(g, number)
	const n = 3 * Length
	for i := range n {
		q.Put(i)
	}
	if q.Dropped() < Length {
		t.Errorf("%d of %d dropped, with a queue of %d", q.Dropped(), n, Length)
	}
	close(g.open)
	q.Close()
	lines := strings.Count(g.text.String(), "\n")
	if lines == 0 || lines+int(q.Dropped()) != n {
		t.Errorf("%d lines and %d dropped are not %d", lines, q.Dropped(), n)
	}
}

// TestQueueClosesOnStuckWriter: a pipe that nobody reads keeps no process from
// ending.
func TestQueueClosesOnStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		q := New(g, number)
		q.Put(1)
		synctest.Wait()
		q.Put(2)
		q.Close()
		close(g.open) // so that its goroutine ends
		<-q.done
		if got := g.text.String(); got != "1\n2\n" {
			t.Errorf("a writer that goes on gets %q", got)
		}
	})
}

// TestQueueFails: records that a full disk swallowed count as dropped.
func TestQueueFails(t *testing.T) {
	g := &gate{open: make(chan struct{}), err: errors.New("no space")}
	close(g.open)
	q := New(g, number)
	for i := range 100 {
		q.Put(i)
	}
	q.Close()
	if q.Dropped() != 100 {
		t.Errorf("%d dropped, want 100", q.Dropped())
	}
}

// TestFileReopen: after a rename, Reopen makes a new file; no line is lost or
// torn.
func TestFileReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	q := New(f, number)
	for i := range 5000 {
		if i == 2500 {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			if err := f.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
		q.Put(i)
	}
	q.Close()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 5000 {
		fmt.Fprintln(&want, i)
	}
	old, _ := os.ReadFile(path + ".1")
	new, err := os.ReadFile(path)
	if err != nil || len(new) == 0 || string(old)+string(new) != want.String() || q.Dropped() != 0 {
		t.Errorf("%d + %d octets, want %d; %d dropped; %v", len(old), len(new), want.Len(), q.Dropped(), err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := OpenFile(filepath.Join(path, "x")); err == nil {
		t.Error("a file below a file was opened")
	}
}
