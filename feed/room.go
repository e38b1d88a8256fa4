package feed

import (
	"fmt"
	"syscall"
)

// minFree is the room on the disk, in bytes, below which Append refuses. The
// embedded server does not get over a failed write (it goes on refusing after
// room was made, until it is restarted), so a write that may fail is not tried.
// Its blocks and indexes grow by less than this between two commands.
const minFree = 8 << 20

// readOnly is the flag of a file system that can only be read: ST_RDONLY, and
// MNT_RDONLY elsewhere.
const readOnly = 1

// freeBytes is how much an ordinary user may still write in dir.
func freeBytes(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("room in %s: %w", dir, err)
	}
	if st.Flags&readOnly != 0 {
		return 0, fmt.Errorf("feed: %w: %s (nothing was written)", syscall.EROFS, dir)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// room refuses when the disk is as good as full.
func (l *Log) room() error {
	free, err := l.free(l.dir)
	if err != nil {
		return err
	}
	if free < minFree {
		return fmt.Errorf("feed: %w on %s: %d bytes left, %d needed (make room; nothing was written)", syscall.ENOSPC, l.dir, free, minFree)
	}
	return nil
}
