package origin

import (
	"net"
	"syscall"
	"unsafe"
)

// glanceAt returns how to look at a connection, or nil when that cannot tell: it is
// TLS, which speaks by itself, or not the system's.
func glanceAt(c net.Conn) *glance {
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
	return newGlance(raw)
}

// glance looks at a connection, and does what takes no wait. It is made once, since
// who calls Control must have a function in memory.
type glance struct {
	raw   syscall.RawConn
	look  func(fd uintptr)
	waits bool
	push  func(fd uintptr)
	out   []byte
	sent  int
}

func newGlance(raw syscall.RawConn) *glance {
	g := &glance{raw: raw}
	g.push = func(fd uintptr) {
		for {
			n, err := syscall.Write(int(fd), g.out) // which the race detector knows of
			if err == nil {
				g.sent = n
			}
			if err != syscall.EINTR {
				return
			}
		}
	}
	g.look = func(fd uintptr) {
		var octet [1]byte
		for {
			_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&octet)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
			if errno != syscall.EINTR {
				g.waits = errno == syscall.EAGAIN
				return
			}
		}
	}
	return g
}

// quiet reports that the connection is open, and nothing has come on it.
func (g *glance) quiet() bool {
	g.waits = false
	return g.raw.Control(g.look) == nil && g.waits
}

// send sends what there is room for now, which for the head of a request is all: that
// spares it a deadline. What is wrong with the connection, who sends the rest learns.
func (g *glance) send(p []byte) (n int) {
	g.out, g.sent = p, 0
	if g.raw.Control(g.push) != nil {
		g.sent = 0
	}
	g.out = nil
	return g.sent
}
