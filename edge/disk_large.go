package edge

import (
	"context"
	"errors"
	"io"
	"time"

	"perigee.example/internal/seglog"
)

// farBody is the body of a response that is on disk alone: it is larger than
// what memory keeps. It is given out while it is fresh; once stale it is fetched anew.
type farBody struct{ at *seglog.Object }

func (b farBody) size() int64 { return b.at.Size() }

func (b farBody) writeRange(_ context.Context, w io.Writer, start, length int64) (int64, error) {
	if length < 0 {
		length = b.size() - start
	}
	return b.at.WriteRange(w, start, length)
}

// fromFar uses a response that stays on disk, if it is fresh.
func (x *exchange) fromFar(f found, o *stored, at *seglog.Object) found {
	far := x.snap.judge(x.site, o, x.q.fields(), x.e.now())
	if far.use != useFresh {
		at.Close()
		return f
	}
	x.far = append(x.far, at)
	x.e.disk.Load().hits.Add(1)
	x.status.detail = "disk"
	o.far, far.ahead = at, false
	return far
}

// sound reports whether the first octets of a range of a body on disk are right.
// What is damaged is then a miss, of which the client has not heard yet.
func (b farBody) sound(start, length int64) bool { return b.at.Verify(start, length) == nil }

// farKeeper writes a response that is too large for memory to disk, as it passes
// through to its client.
type farKeeper struct {
	d      *disk
	obj    *stored
	stream *seglog.Stream
	flight *flight // by which it comes: nobody leaves it before the end
	length int64
}

// takesFar reports whether a response of n octets, too large for memory, may be
// kept on disk.
func (d *disk) takesFar(n int64) bool {
	if d == nil {
		return false
	}
	log := d.log.Load()
	return log != nil && n <= log.MaxValue()
}

// keepFar prepares to write what fl brings to disk; nil is that it is not to be.
func (e *Edge) keepFar(fl *flight, length int64) *farKeeper {
	d, o := e.disk.Load(), fl.outcome.far
	if d == nil || o == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log.Load()
	if log == nil || d.filling[o.key] {
		return nil
	}
	k := &farKeeper{d: d, obj: o, flight: fl, length: length, stream: log.Create(diskKey(o.key), diskVariant(o.sel))}
	if k.stream == nil {
		return nil
	}
	d.filling[o.key] = true
	return k
}

// add takes down what goes to the client. It does nothing on nil.
func (k *farKeeper) add(p []byte) {
	if k != nil {
		k.stream.Write(p) // it remembers an error
	}
}

// end keeps the response if whole says that it is all there, and it was neither
// invalidated nor purged meanwhile.
func (k *farKeeper) end(whole bool) {
	if k == nil {
		return
	}
	e := k.d.e
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	delete(k.d.filling, k.obj.key)
	invalidated := e.isDoomed(k.flight)
	hard, _ := e.purges.check(&k.obj.scopes, k.obj.asOf)
	if !whole || hard || invalidated || k.stream.Size() != k.length {
		k.stream.Abort()
		return
	}
	k.obj.size = k.length
	k.obj.pack()
	if err := k.stream.Commit(appendRecord(nil, k.obj, &k.d.boot), time.Time{}); err != nil && !errors.Is(err, seglog.ErrTooLarge) {
		e.log.Debug("a large response is not kept", "why", err)
	}
}
