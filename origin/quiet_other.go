//go:build !linux

package origin

import (
	"net"
	"syscall"
)

// rawOf says that a connection cannot be looked at: it is watched.
func rawOf(net.Conn) syscall.RawConn { return nil }

func quiet(syscall.RawConn) bool { return false }
