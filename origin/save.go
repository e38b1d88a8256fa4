package origin

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
)

// disk is the part of a file system that durable writing needs. Names are
// relative to its root and cannot leave it.
type disk interface {
	// create makes a new file; it fails when name exists.
	create(name string) (writeSyncer, error)
	rename(from, to string) error
	remove(name string) error
	// syncDir makes the names in a folder durable.
	syncDir(name string) error
}

// writeSyncer is a file being written.
type writeSyncer interface {
	io.WriteCloser
	Sync() error
}

// rootDisk is the disk of an *os.Root.
type rootDisk struct{ *os.Root }

func (d rootDisk) create(name string) (writeSyncer, error) {
	return d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
func (d rootDisk) rename(from, to string) error { return d.Rename(from, to) }
func (d rootDisk) remove(name string) error     { return d.Remove(name) }

func (d rootDisk) syncDir(name string) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// tempDir is the folder, below each root, of files that are being written.
const tempDir = "tmp"

// save writes a file so that after a crash or a power loss name is either what
// it was or all of what write wrote, and after a nil error it is the latter.
// It is the one way in which this package writes what must survive.
//
// A failed sync is never tried again on the same file: the kernel may have
// dropped the pages and report success the second time. When the last step
// fails, name may be either version; the caller must not count on it.
func save(d disk, name string, write func(io.Writer) error) error {
	temp := path.Join(tempDir, rand.Text())
	f, err := d.create(temp)
	if err != nil {
		return fmt.Errorf("create %s: %w", temp, explainDisk(err))
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = d.remove(temp) // else the sweep at the next open takes it
		return fmt.Errorf("write %s: %w", name, explainDisk(err))
	}
	if err := d.rename(temp, name); err != nil {
		_ = d.remove(temp)
		return fmt.Errorf("rename to %s: %w", name, explainDisk(err))
	}
	if err := d.syncDir(path.Dir(name)); err != nil {
		return fmt.Errorf("sync the folder of %s: %w", name, explainDisk(err))
	}
	return nil
}

// explainDisk adds the cure to errors that an operator can cure.
func explainDisk(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w (make room on this disk; nothing was changed)", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w (mount it writable; nothing was changed)", err)
	}
	return err
}

// openRoot opens dir, makes it and its folder for temporary files when they
// are not there, and sweeps what an earlier process left half written.
func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	err = root.Mkdir(tempDir, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		root.Close()
		return nil, err
	}
	if err := sweepTemp(root); err != nil {
		root.Close()
		return nil, fmt.Errorf("sweep %s: %w", path.Join(dir, tempDir), err)
	}
	return root, nil
}

func sweepTemp(root *os.Root) error {
	f, err := root.Open(tempDir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := root.Remove(path.Join(tempDir, name)); err != nil {
			return err
		}
	}
	return nil
}
