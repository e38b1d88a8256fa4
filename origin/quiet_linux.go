package origin

import (
	"net"
	"syscall"
)

// rawOf returns what quiet needs of a connection, or nil when quiet cannot tell:
// it is TLS, which speaks by itself, or not the system's.
func rawOf(c net.Conn) syscall.RawConn {
	if b, ok := c.(*boundConn); ok {
		c = b.Conn
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// quiet reports that a connection is open, and nothing has come on it.
func quiet(raw syscall.RawConn) bool {
	waits := false
	err := raw.Control(func(fd uintptr) {
		var octet [1]byte
		_, _, err := syscall.Recvfrom(int(fd), octet[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waits = err == syscall.EAGAIN
	})
	return err == nil && waits
}
