package seglog

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// allocate reserves the blocks of a file, so that a write into it does not find
// the disk full. A file system that cannot gives a file with holes.
func allocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return f.Truncate(size)
		}
		return err
	}
}

// bootID names this run of the machine: a kill of a process leaves it as it is,
// a loss of power does not. "" is unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
