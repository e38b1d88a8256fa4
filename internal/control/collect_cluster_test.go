package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"perigee.example/origin"
)

// pushesUnderWay are when the pushes that go on began: a collection takes nothing that is
// as young as the oldest of them, as none takes what is younger than blobAge.
type pushesUnderWay struct {
	mu    sync.Mutex
	began map[int]time.Time
}

func (p *pushesUnderWay) begin(n int) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began[n] = time.Now()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.began, n)
	}
}

// oldest is before all that they have sent. The file system's clock may be a tick behind.
func (p *pushesUnderWay) oldest() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now()
	for _, b := range p.began {
		if b.Before(at) {
			at = b
		}
	}
	return at.Add(-tick)
}

// TestThreeControlNodesCollect: all three collect at the same time, among deploys and
// rollbacks at each of them, with clocks that run so fast that everything not in use is
// always old. No release that may be activated lacks a blob everywhere, and in the end each
// has all of them.
func TestThreeControlNodesCollect(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := newTrio(t)
	for _, s := range f.servers {
		s.SetKnown(knownKeepsLittle())
	}
	ctx, stop := patient(t), make(chan struct{})
	way := &pushesUnderWay{began: map[int]time.Time{}}
	var collectors, pushers sync.WaitGroup
	var removed, forgot [3]int
	for i, s := range f.servers {
		collectors.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				old := way.oldest() // what was sealed before that is read now
				swept, err := s.collectAfter(ctx, old)
				removed[i] += swept.Removed
				if err != nil {
					t.Errorf("ctl%d collects: %v", i+1, err)
					return
				}
			}
		})
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		pushers.Go(func() {
			for range 4 {
				forgot[i] += f.deploy(t, ctx, r, i, way)
			}
		})
	}
	pushers.Wait()
	close(stop)
	collectors.Wait()
	if removed[0]+removed[1]+removed[2] == 0 {
		t.Error("nothing was ever removed: this tests nothing")
	}
	t.Logf("removed at each: %v; releases forgotten before they were activated: %v", removed, forgot)
	for i, s := range f.servers {
		f.everywhere(t, fmt.Sprintf("every release, by what ctl%d knows", i+1), func(other *Server) bool { return lacking(s, []*Server{other}) == nil })
	}
}

// collectAfter collects when what other control nodes have written is known.
func (s *Server) collectAfter(ctx context.Context, old time.Time) (origin.Swept, error) {
	if err := s.readOn(ctx); err != nil {
		return origin.Swept{}, err
	}
	return s.collectAt(ctx, time.Now().Add(2*MinRetain), old)
}

// deploy pushes a folder whose files are drawn from a few, and looks whether all that may
// be activated is whole. It returns 1 when the release was forgotten meanwhile.
func (f *trio) deploy(t *testing.T, ctx context.Context, r *rand.Rand, i int, way *pushesUnderWay) (forgotten int) {
	dir, err := os.MkdirTemp("", "deploy")
	if err != nil {
		t.Error(err)
		return 0
	}
	defer os.RemoveAll(dir)
	files := map[string]string{"index.html": fmt.Sprint("page ", r.IntN(4)), "who.txt": fmt.Sprint("deployer ", r.IntN(2))}
	for i := range 3 {
		files[fmt.Sprint(i, ".txt")] = fmt.Sprint("text ", r.IntN(6))
	}
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	if err != nil {
		t.Error(err)
		return 0
	}
	end := way.begin(i)
	_, err = f.clients[i].Push(ctx, PushOptions{Site: "www", Dir: dir})
	end()
	var e *Error
	switch {
	case err == nil:
	case errors.As(err, &e) && e.Status == 404: // clocks run so fast that it was old at once
		forgotten = 1
	case errors.As(err, &e) && e.Status == 409 && e.Missing == nil: // others were activated one after the other
	default:
		t.Errorf("push at ctl%d: %v", i+1, err)
		return forgotten
	}
	if err := lacking(f.servers[i], f.servers[:]); err != nil {
		t.Errorf("after a push at ctl%d: %v", i+1, err)
	}
	_, _, err = f.clients[(i+1)%3].Rollback(ctx, "www", "")
	if code := statusOf(err); err != nil && code != 404 && code != 409 && code != 0 {
		t.Errorf("rollback at ctl%d: %v", (i+1)%3+1, err)
	}
	return forgotten
}

// lacking says what is stored nowhere of the releases that may be activated, as s knows them.
func lacking(s *Server, at []*Server) error {
	s.mu.Lock()
	var list []origin.Digest
	if st := s.state.Sites["www"]; st != nil {
		for _, r := range st.Releases {
			list = append(list, r.Release.Release)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, release := range list {
		var m *origin.Manifest
		err := errors.New("no manifest")
		for _, other := range at {
			if m, err = other.manifest(release); err == nil {
				break
			}
		}
		if err == nil {
			for _, b := range m.Blobs() {
				if !storedAt(b, at) {
					err = errors.Join(err, fmt.Errorf("blob %s is gone", b.Digest))
				}
			}
		}
		s.mu.Lock()
		kept := s.state.Sites["www"].find(release) != nil
		s.mu.Unlock()
		if kept && err != nil {
			errs = append(errs, fmt.Errorf("release %s may be activated: %w", release, err))
		}
	}
	return errors.Join(errs...)
}

func storedAt(b origin.Blob, at []*Server) bool {
	for _, s := range at {
		if size, ok := s.blobs.Has(b.Digest); ok && size == b.Size {
			return true
		}
	}
	return false
}
