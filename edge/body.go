package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"perigee.example/internal/arena"
)

const (
	// chunkBytes is the size of a body's chunks, but for a short last one.
	chunkBytes = 64 << 10
	// firstChunkBytes is the first chunk of a body of unknown length; each
	// next one is twice as large, up to chunkBytes. It is a page, so that a large
	// body can be lent (arena.Lend).
	firstChunkBytes = 4 << 10
	// maxLag bounds how far a body that is no longer kept whole runs ahead of its
	// fastest reader, and, twice, how far another reader may stay behind that one;
	// beyond it that reader is cut off, and holds up nobody.
	maxLag = 1 << 20
)

var (
	errTooSlow  = errors.New("the client reads too slowly for a response too large to keep")
	errNoReader = errors.New("every client has gone")
)

// chunk is a part of a body on its way. Chunks form a list, so that a body too
// large to keep can be let go from its start while it is still being read. The
// octets are the arena's while the body is kept, else Go memory.
type chunk struct {
	data []byte
	next *chunk
}

// growing is a body on its way from the origin, which any number of readers
// follow. The store keeps it when it has ended well.
//
// Its octets are held for who has it: at first the one who fills it and the
// flight that it came by, then each follower too. Each lets go of it once.
type growing struct {
	mu      sync.Mutex
	build   arena.Builder // of what is kept
	holders int           // who have not let go
	first   *chunk        // nil once it is no longer kept
	last    *chunk
	size    int64
	front   int64 // how far the fastest reader has come
	length  int64 // as the origin declared it, or -1
	done    bool
	err     error
	resp    *http.Response // for its trailer, once the body has been read
	changed chan struct{}  // closed at the next change; nil: no reader waits
	moved   chan struct{}  // closed when a reader moves; nil: the writer does not wait
	readers map[*follower]struct{}
	// expected: whose request this is will read it, and has not begun. Till then
	// its start is kept, room or not.
	expected bool
}

// newGrowing makes a body that two have: who fills it, and its flight.
func newGrowing(length int64, a *arena.Arena) *growing {
	c := &chunk{}
	return &growing{first: c, last: c, length: length, build: a.Build(), holders: 2}
}

// letGoOf says that one who had the body reads it no more.
func (g *growing) letGoOf() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop()
}

func (g *growing) drop() {
	if g.holders--; g.holders == 0 {
		g.first, g.last = nil, nil
		g.build.Drop()
	}
}

// follower reads a growing body from its start.
type follower struct {
	g   *growing
	at  *chunk
	off int
	pos int64
	cut bool // it was too far behind
}

// expect says that who leads the fetch is going to follow; then it must, or
// call dismiss.
func (g *growing) expect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expected = true
}

// dismiss says that who leads the fetch does not follow, or no longer.
func (g *growing) dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expected = false
	g.wakeWriter()
}

// follow returns a reader, or nil when the start is gone.
func (g *growing) follow(leader bool) *follower {
	g.mu.Lock()
	defer g.mu.Unlock()
	if leader && g.expected {
		g.expected = false
		g.wakeWriter()
	}
	if g.first == nil {
		return nil
	}
	f := &follower{g: g, at: g.first}
	if g.readers == nil {
		g.readers = map[*follower]struct{}{}
	}
	g.readers[f] = struct{}{}
	g.holders++
	return f
}

func (f *follower) close() {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	delete(f.g.readers, f)
	f.g.wakeWriter()
	f.g.drop()
}

// next waits for more octets and returns them; io.EOF is the proper end.
func (f *follower) next(ctx context.Context) ([]byte, error) {
	g := f.g
	for {
		g.mu.Lock()
		if f.cut {
			g.mu.Unlock()
			return nil, errTooSlow
		}
		for f.off == len(f.at.data) && f.at.next != nil {
			f.at, f.off = f.at.next, 0
		}
		if f.off < len(f.at.data) {
			b := f.at.data[f.off:]
			f.off = len(f.at.data)
			f.pos += int64(len(b))
			if f.pos > g.front {
				g.front = f.pos
				g.cutOff()
			}
			g.wakeWriter()
			slow := g.first == nil && g.front-f.pos > 2*maxLag
			g.mu.Unlock()
			if slow {
				return nil, errTooSlow
			}
			return b, nil
		}
		done, err := g.done, g.err
		if !done && g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		if done {
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// cutOff cuts off the readers that stay too far behind, those too that are in a
// long write and do not ask: what comes after their place would be kept for them. mu
// is held.
func (g *growing) cutOff() {
	if g.first != nil {
		return
	}
	for f := range g.readers {
		if g.front-f.pos > 2*maxLag {
			f.cut, f.at, f.off = true, &chunk{}, 0
		}
	}
}

// isWhole reports that the whole body has come.
func (g *growing) isWhole() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done && g.err == nil
}

// cutShort reports that the rest of the body does not come.
func (g *growing) cutShort() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done && g.err != nil
}

func (g *growing) wakeWriter() {
	if g.moved != nil {
		close(g.moved)
		g.moved = nil
	}
}

func (g *growing) wakeReaders() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// move returns what is closed when a reader moves next; mu is held.
func (g *growing) move() chan struct{} {
	if g.moved == nil {
		g.moved = make(chan struct{})
	}
	return g.moved
}

// fill reads body to its end. keep is asked before each chunk, of n octets,
// whether the whole is still to be kept; once it says no, octets are let go
// when the readers have had them, and the reading waits for the fastest.
func (g *growing) fill(ctx context.Context, body io.Reader, keep func(n int64) bool) error {
	size, allowed := int64(firstChunkBytes), int64(0)
	for {
		n := size
		if g.length >= 0 {
			n = min(g.length-g.size, chunkBytes)
		}
		var err error
		var buf []byte
		if g.first != nil && n > 0 {
			if allowed >= n || keep(n-allowed) {
				allowed = max(allowed, n)
				buf = g.build.Next(int(n))
				allowed -= int64(len(buf))
			}
			if buf == nil {
				err = g.letGo(ctx)
			}
		}
		if buf == nil {
			buf = make([]byte, max(n, 1)) // one octet more than declared shows that there is none
		}
		if err == nil {
			err = g.fillChunk(ctx, body, buf)
		}
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			g.finish(err)
			return err
		}
		size = min(2*size, chunkBytes)
	}
}

// letGo stops keeping the body from its start, once the leader reads it: else
// it would find the start gone, and have to fetch anew, and again.
func (g *growing) letGo(ctx context.Context) error {
	for {
		g.mu.Lock()
		expected, moved := g.expected, g.move()
		if !expected {
			g.first = nil
		}
		g.mu.Unlock()
		if !expected {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fillChunk reads until buf is full, handing on each read as it comes.
func (g *growing) fillChunk(ctx context.Context, body io.Reader, buf []byte) error {
	c := (*chunk)(nil)
	for off := 0; off < len(buf); {
		if err := g.pace(ctx); err != nil {
			return err
		}
		n, err := body.Read(buf[off:])
		if n > 0 {
			off += n
			g.mu.Lock()
			if c == nil {
				c = &chunk{}
				g.last.next, g.last = c, c
			}
			c.data = buf[:off:off]
			g.size += int64(n)
			g.wakeReaders()
			g.mu.Unlock()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pace waits, once the body is no longer kept, until some reader is near.
func (g *growing) pace(ctx context.Context) error {
	for {
		g.mu.Lock()
		if g.first != nil {
			g.mu.Unlock()
			return nil
		}
		near := false
		for f := range g.readers {
			near = near || g.size-f.pos <= maxLag
		}
		some, moved := len(g.readers) > 0, g.move()
		g.mu.Unlock()
		switch {
		case near:
			return nil
		case !some:
			return errNoReader
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// trailer returns the trailer fields of a body that has been read to its end.
func (g *growing) trailer() http.Header {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done || g.err != nil || g.resp == nil {
		return nil
	}
	return g.resp.Trailer
}

func (g *growing) finish(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done, g.err = true, err
	g.wakeReaders()
}

// whole returns the body when it has been kept from its start, and ended well.
// It is to be called once; the extent is the body's for as long as the caller
// has that, unless it retains it.
func (g *growing) whole() (body arena.Extent, size int64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done || g.err != nil || g.first == nil || g.length >= 0 && g.size != g.length {
		return 0, 0, false
	}
	return g.build.Finish(g.size), g.size, true
}

// writeExtent writes length octets from start of an extent to w. The caller
// holds the extent.
func writeExtent(w io.Writer, a *arena.Arena, e arena.Extent, start, length int64) (int64, error) {
	var sent int64
	for at := e.First(); at != 0 && length > 0; {
		var b []byte
		b, at = a.Read(at)
		if start >= int64(len(b)) {
			start -= int64(len(b))
			continue
		}
		b = b[start:]
		start = 0
		if int64(len(b)) > length {
			b = b[:length]
		}
		n, err := w.Write(b)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
		length -= int64(n)
	}
	return sent, nil
}
