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
	"sync"
	"time"
)

// Blobs is a folder of blobs by digest, in 256 folders by their first two hex
// digits. Every write is hashed while it is written to a temporary file,
// synced, renamed, and its folder synced. Large ones may come in parts (Append). Methods are safe for concurrent use;
// one process uses a folder at a time (the state folder's lock sees to it).
type Blobs struct {
	root *os.Root
	disk disk
	dir  string
	// mu is held for writing around each unlink of a sweep, and for reading
	// around each renewal, so that a blob that was called stored a moment ago
	// is not swept.
	mu sync.RWMutex
	// appending are the parts that are being added to, by name.
	appending sync.Map
}

// MismatchError is content that is not what its digest and size say.
type MismatchError struct {
	Want Blob
	Got  Digest // zero when the size already differed
	Size int64  // bytes seen; reading stops one byte past the wanted size
}

func (e *MismatchError) Error() string {
	if e.Size != e.Want.Size {
		more := ""
		if e.Size > e.Want.Size {
			more = " or more"
		}
		return fmt.Sprintf("blob %s: %d bytes%s, want %d", e.Want.Digest, e.Size, more, e.Want.Size)
	}
	return fmt.Sprintf("blob %s: the content has digest %s", e.Want.Digest, e.Got)
}

// OpenBlobs opens or makes the folder, and sweeps temporary files.
func OpenBlobs(dir string) (*Blobs, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blobs in %s: %w", dir, err)
	}
	b := &Blobs{root: root, disk: rootDisk{root}, dir: dir}
	// All folders are made here and synced at once, so that no Put has to
	// wonder whether the folder it renames into is itself durable.
	for i := range 256 {
		if err := root.Mkdir(fmt.Sprintf("%02x", i), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			root.Close()
			return nil, fmt.Errorf("blobs in %s: %w", dir, explainDisk(err))
		}
	}
	if err := root.Mkdir(partialDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		root.Close()
		return nil, fmt.Errorf("blobs in %s: %w", dir, explainDisk(err))
	}
	if err := b.SweepPartials(time.Now().Add(-partialAge)); err != nil {
		root.Close()
		return nil, err
	}
	if err := b.disk.syncDir("."); err != nil {
		root.Close()
		return nil, fmt.Errorf("blobs in %s: %w", dir, explainDisk(err))
	}
	return b, nil
}

// Close releases the folder. Files that Open returned stay readable.
func (b *Blobs) Close() error { return b.root.Close() }

// blobName is where a blob lies, relative to the root.
func blobName(d Digest) string {
	var name [3 + 2*len(d)]byte
	hex.Encode(name[:2], d[:1])
	name[2] = '/'
	hex.Encode(name[3:], d[:])
	return string(name[:])
}

// Put stores r, which must have this digest and size; it reads at most one
// byte past size. On any mismatch nothing is kept and the error is a
// *MismatchError. After a nil error the blob survives a power loss. A blob
// that is already there is written again: that heals a rotten one, and does
// not tell who sends it that it was there.
func (b *Blobs) Put(d Digest, size int64, r io.Reader) error {
	if size < 0 {
		return fmt.Errorf("blob %s: size %d", d, size)
	}
	name := blobName(d)
	had, ok := b.Has(d)
	if !ok {
		had = -1
	}
	renamed := false
	err := save(b.disk, name, func(w io.Writer) error {
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, size+1))
		if err != nil {
			return err
		}
		if n != size {
			return &MismatchError{Want: Blob{d, size}, Size: n}
		}
		if got := Digest(h.Sum(nil)); got != d {
			return &MismatchError{Want: Blob{d, size}, Got: got, Size: n}
		}
		renamed = true // from here on the name may come to exist
		return nil
	})
	if err == nil {
		return nil
	}
	if mismatch := (*MismatchError)(nil); errors.As(err, &mismatch) {
		return mismatch
	}
	if renamed && had != size {
		// The name may be there but not durable; Has must not vouch for it. A
		// blob that was there before is as durable as it was: leave it.
		_ = b.disk.remove(name)
	}
	return fmt.Errorf("blobs in %s: %w", b.dir, err)
}

// Has reports whether the blob is stored, and its size in bytes.
func (b *Blobs) Has(d Digest) (size int64, ok bool) {
	st, err := b.root.Stat(blobName(d))
	if err != nil || !st.Mode().IsRegular() {
		return 0, false
	}
	return st.Size(), true
}

// Keep reports whether the blob is stored with this size, and if so makes it
// young again, so that the next Sweep spares it. Use it to say that a blob
// need not be sent.
func (b *Blobs) Keep(d Digest, size int64) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if have, ok := b.Has(d); !ok || have != size {
		return false
	}
	return b.root.Chtimes(blobName(d), time.Time{}, time.Now()) == nil
}

// Missing returns the blobs of m that are not stored with their size, in the
// order of digests, and makes those that are young again (see Keep).
func (b *Blobs) Missing(m *Manifest) []Blob {
	var missing []Blob
	for _, blob := range m.Blobs() {
		if !b.Keep(blob.Digest, blob.Size) {
			missing = append(missing, blob)
		}
	}
	return missing
}

// Open opens a blob for reading. The error is fs.ErrNotExist when it is not
// stored. The content is not hashed again: see Verify.
func (b *Blobs) Open(d Digest) (*os.File, error) {
	f, err := b.root.Open(blobName(d))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return f, nil
}

// Remove removes a blob, which somebody else has now. One that is not there is
// removed already.
func (b *Blobs) Remove(d Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.disk.remove(blobName(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blobs in %s: %w", b.dir, err)
	}
	return nil
}

// Verify reads a blob and compares it with its digest. A blob that has rotted
// is removed, so that it is missing rather than wrong, and the error is a
// *MismatchError.
func (b *Blobs) Verify(d Digest) error {
	f, err := b.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	got := Digest(h.Sum(nil))
	if got == d {
		return nil
	}
	err = &MismatchError{Want: Blob{d, n}, Got: got, Size: n}
	if rmErr := b.disk.remove(blobName(d)); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("and it could not be removed: %w", rmErr))
	}
	return err
}

// read returns the whole content of a blob, checked against its digest.
func (b *Blobs) read(d Digest, limit int64) ([]byte, error) {
	f, err := b.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("blob %s: more than %d bytes", d, limit)
	}
	if got := DigestOf(content); got != d {
		return nil, &MismatchError{Want: Blob{d, int64(len(content))}, Got: got, Size: int64(len(content))}
	}
	return content, nil
}

// Swept is what a sweep did.
type Swept struct {
	Kept    int   // blobs that are referenced or young
	Removed int   // blobs
	Bytes   int64 // freed
}

// Sweep removes the blobs that are not referenced and were last written or
// kept before olderThan. referenced is called from this goroutine, with the
// renewal lock held: it must be quick and must not call b.
func (b *Blobs) Sweep(referenced func(Digest) bool, olderThan time.Time) (Swept, error) {
	var s Swept
	for i := range 256 {
		shard := fmt.Sprintf("%02x", i)
		f, err := b.root.Open(shard)
		if err != nil {
			return s, fmt.Errorf("blobs in %s: sweep: %w", b.dir, err)
		}
		names, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return s, fmt.Errorf("blobs in %s: sweep: %w", b.dir, err)
		}
		for _, name := range names {
			d, err := ParseDigest(digestPrefix + name)
			if err != nil {
				continue // not ours: never remove what we did not write
			}
			if err := b.sweepOne(d, path.Join(shard, name), referenced, olderThan, &s); err != nil {
				return s, fmt.Errorf("blobs in %s: sweep: %w", b.dir, err)
			}
		}
	}
	return s, nil
}

func (b *Blobs) sweepOne(d Digest, name string, referenced func(Digest) bool, olderThan time.Time, s *Swept) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	st, err := b.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if referenced(d) || !st.ModTime().Before(olderThan) {
		s.Kept++
		return nil
	}
	if err := b.disk.remove(name); err != nil {
		return err
	}
	s.Removed++
	s.Bytes += st.Size()
	return nil
}
