package origin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// partialDir is the folder, below the root of Blobs, of blobs that came in part.
const partialDir = "partial"

// partialAge is how long a part is kept after its last byte came.
const partialAge = 24 * time.Hour

// ErrBusy is a part that somebody else is adding to.
var ErrBusy = errors.New("it is being received already")

// OffsetError is a part that does not begin where the one that is there ends.
type OffsetError struct{ Have, Got int64 }

func (e *OffsetError) Error() string {
	return fmt.Sprintf("it goes on at byte %d, not at %d", e.Have, e.Got)
}

// partialName is where an owner's part of a blob lies. Each owner has its own:
// nobody learns what others have sent.
func partialName(owner string, d Digest) string {
	h := sha256.Sum256([]byte(owner))
	return path.Join(partialDir, hex.EncodeToString(d[:])+"-"+hex.EncodeToString(h[:8]))
}

// Partial returns how many bytes of a blob have come from an owner by Append.
func (b *Blobs) Partial(owner string, d Digest) int64 {
	st, err := b.root.Stat(partialName(owner, d))
	if err != nil {
		return 0
	}
	return st.Size()
}

// Append takes the rest of a blob, from offset on, where Partial says that it
// goes on; offset 0 begins anew. When r ends early or fails, what came is kept
// for the next Append. When all is there, it is hashed from the disk: a nil
// error is that of Put, and on a mismatch nothing is kept.
//
// It is for large blobs: unlike Put, it reads them twice.
func (b *Blobs) Append(owner string, d Digest, size, offset int64, r io.Reader) error {
	name := partialName(owner, d)
	if _, busy := b.appending.LoadOrStore(name, true); busy {
		return fmt.Errorf("blob %s: %w", d, ErrBusy)
	}
	defer b.appending.Delete(name)
	flags := os.O_RDWR | os.O_CREATE
	if offset == 0 {
		flags |= os.O_TRUNC
	}
	f, err := b.root.OpenFile(name, flags, 0o600)
	if err != nil {
		return fmt.Errorf("blobs in %s: %w", b.dir, explainDisk(err))
	}
	defer f.Close()
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("blobs in %s: %w", b.dir, err)
	}
	if have != offset {
		return &OffsetError{Have: have, Got: offset}
	}
	n, err := io.Copy(f, io.LimitReader(r, size-offset+1))
	switch {
	case err != nil:
		return fmt.Errorf("blobs in %s: %w", b.dir, explainDisk(err))
	case offset+n < size:
		return fmt.Errorf("blob %s: %d of %d bytes are here: %w", d, offset+n, size, io.ErrUnexpectedEOF)
	case offset+n > size:
		err = &MismatchError{Want: Blob{d, size}, Size: offset + n}
	default:
		err = b.complete(f, name, d, size)
	}
	if mismatch := (*MismatchError)(nil); errors.As(err, &mismatch) {
		return errors.Join(err, b.disk.remove(name))
	}
	return err
}

// complete makes a whole part the blob.
func (b *Blobs) complete(f *os.File, name string, d Digest, size int64) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return fmt.Errorf("blobs in %s: %w", b.dir, err)
	}
	if got := Digest(h.Sum(nil)); n != size || got != d {
		return &MismatchError{Want: Blob{d, size}, Got: got, Size: n}
	}
	if err := f.Sync(); err != nil {
		// It is never tried again on the same file: see save.
		return errors.Join(fmt.Errorf("blobs in %s: %w", b.dir, explainDisk(err)), b.disk.remove(name))
	}
	to := blobName(d)
	had, there := b.Has(d)
	if err := b.disk.rename(name, to); err != nil {
		return fmt.Errorf("blobs in %s: %w", b.dir, explainDisk(err))
	}
	if err := b.disk.syncDir(path.Dir(to)); err != nil {
		if !there || had != size {
			_ = b.disk.remove(to) // it may not be durable: nobody must count on it
		}
		return fmt.Errorf("blobs in %s: %w", b.dir, explainDisk(err))
	}
	return nil
}

// SweepPartials removes parts to which nothing was added since olderThan.
func (b *Blobs) SweepPartials(olderThan time.Time) error {
	f, err := b.root.Open(partialDir)
	if err != nil {
		return fmt.Errorf("blobs in %s: %w", b.dir, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("blobs in %s: %w", b.dir, err)
	}
	for _, name := range names {
		name = path.Join(partialDir, name)
		st, err := b.root.Stat(name)
		if _, busy := b.appending.Load(name); err != nil || busy || !st.ModTime().Before(olderThan) {
			continue
		}
		if err := b.disk.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("blobs in %s: %w", b.dir, err)
		}
	}
	return nil
}
