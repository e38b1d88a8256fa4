package durable

import (
	"os"
	"syscall"
)

// DataSync makes what was written to f durable, and its size, but not its times.
func DataSync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}
