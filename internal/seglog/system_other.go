//go:build !linux

package seglog

import "os"

func allocate(f *os.File, size int64) error { return f.Truncate(size) }

// bootID is unknown: each end of the process that was no orderly one is then
// taken for a loss of power.
func bootID() string { return "" }
