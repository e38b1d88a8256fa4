package feed

import (
	"os"
	"syscall"
)

// datasync makes what was written to f durable: its size does not change.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}
