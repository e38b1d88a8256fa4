package feed

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// relay stands between a follower and the door, and can hold what passes.
type relay struct {
	net.Listener
	mu   sync.Mutex // held while nothing passes
	wg   sync.WaitGroup
	open []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: ln}
	r.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.open = append(r.open, in, out)
			r.mu.Unlock()
			r.wg.Go(func() { r.pass(in, out) })
			r.wg.Go(func() { r.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for _, c := range r.open {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		if err == nil {
			_, err = to.Write(b[:n])
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Heartbeats that come late are no loss: a machine with too much to do would have
// its nodes come back again and again. A door that answers nothing is one.
func TestLateHeartbeatsAreNoLoss(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "fra1")
	r := newRelay(t, f.Addr().String())
	const beat = 500 * time.Millisecond // the least that there is
	fo, err := Dial(bounded(t), DialConfig{ID: "fra1", Addr: r.Addr().String(), TLS: f.ca.node(t, "fra1"), heartbeat: beat})
	if err != nil {
		t.Fatal(err)
	}
	defer fo.Close()
	f.append(t, 1)
	at := read(t, fo, Position{}, 1)

	r.mu.Lock()
	time.AfterFunc(3*beat, r.mu.Unlock) // two beats are missed, and the question waits, too
	got := make(chan error, 1)
	next := make(chan Entry, 1)
	go func() {
		e, err := fo.Next(bounded(t))
		next <- e
		got <- err
	}()
	f.append(t, 1)
	if e, err := <-next, <-got; err != nil || Verify(at, e).Kind != Next {
		t.Fatalf("after heartbeats that were late: %+v, %v", e, err)
	}

	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fo.Next(ctx); !errors.Is(err, ErrLost) {
		t.Fatalf("behind a door that answers nothing: %v, want ErrLost", err)
	}
}
