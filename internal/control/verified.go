package control

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"perigee.example/origin"
)

// verifiedPiece is how much of a blob waits until the next comes: the last waits until
// the digest of all is known.
const verifiedPiece = 32 << 10

// verified hands on what it reads, but for the end of it, unless it is the blob.
type verified struct {
	r    io.ReadCloser
	want origin.Blob
	end  func(error) // hears at its end whether it was the blob: then nil
	h    hash.Hash
	n    int64
	buf  [2 * verifiedPiece]byte
	held int    // bytes at the beginning of buf that wait
	out  []byte // what may go out
	err  error  // after out
}

func newVerified(r io.ReadCloser, want origin.Blob, end func(error)) *verified {
	return &verified{r: r, want: want, end: end, h: sha256.New()}
}

func (v *verified) Read(p []byte) (int, error) {
	for len(v.out) == 0 {
		if v.err != nil {
			return 0, v.err
		}
		v.fill()
	}
	n := copy(p, v.out)
	v.out = v.out[n:]
	return n, nil
}

// fill reads the next piece, and lets the one before it go out.
func (v *verified) fill() {
	if v.n > 0 && v.held > verifiedPiece { // what went out last lies before what waits
		v.held = copy(v.buf[:], v.buf[verifiedPiece:v.held])
	}
	n, err := io.ReadFull(v.r, v.buf[v.held:v.held+verifiedPiece])
	v.h.Write(v.buf[v.held : v.held+n])
	v.n += int64(n)
	v.held += n
	switch {
	case err == nil && v.n <= v.want.Size:
		v.out = v.buf[:v.held-verifiedPiece]
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		v.err = err
	default:
		if got := origin.Digest(v.h.Sum(nil)); v.n != v.want.Size || got != v.want.Digest {
			mismatch := &origin.MismatchError{Want: v.want, Size: v.n}
			if v.n == v.want.Size {
				mismatch.Got = got
			}
			v.err = mismatch
			v.end(mismatch)
			return
		}
		v.out, v.err = v.buf[:v.held], io.EOF
		v.end(nil)
	}
}

func (v *verified) Close() error { return v.r.Close() }
