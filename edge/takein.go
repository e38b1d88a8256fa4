package edge

import (
	"errors"
	"io"

	"perigee.example/internal/arena"
)

var errNoRoom = errors.New("responses under way take all the memory that they may")

// takeIn makes an extent of the n octets that fill writes, which the caller holds.
// They are written where they stay: as one piece of Go memory, a large one would
// be there twice.
func (s *store) takeIn(n int64, fill func(io.Writer) error) (arena.Extent, error) {
	if !s.reserve(n) {
		return 0, errNoRoom
	}
	defer s.release(n)
	w := taking{build: s.arena.Build(), left: n}
	if err := fill(&w); err != nil {
		w.build.Drop()
		return 0, err
	}
	return w.build.End(n), nil
}

// taking writes an extent whose size is known.
type taking struct {
	build arena.Builder
	free  []byte // of the last block
	left  int64  // octets to come
}

func (t *taking) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if len(t.free) == 0 {
			if t.free = t.build.Next(int(t.left)); t.free == nil {
				return n, errNoRoom
			}
		}
		m := copy(t.free, p[n:])
		t.free, t.left, n = t.free[m:], t.left-int64(m), n+m
	}
	return n, nil
}
