//go:build linux && (amd64 || arm64 || riscv64)

package mmsg

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a descriptor of a socket that the runtime's poller does not know.
// One that it knows has a sleeper on it, whom the kernel looks after each time
// a reply has left: a tenth of what an answer costs.
type Socket struct{ fd int }

// Open takes a descriptor of its own for the socket behind raw. The caller
// closes what raw is of: until then the poller still knows the socket.
func Open(raw syscall.RawConn) (*Socket, error) {
	s := &Socket{}
	var failed error
	err := raw.Control(func(fd uintptr) { s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil && failed != nil {
		err = os.NewSyscallError("dup", failed)
	}
	if err != nil {
		return nil, fmt.Errorf("socket for batches: %w", err)
	}
	return s, nil
}

// Wait waits for a datagram, up to patience. It promises nothing: Recv tells.
func (s *Socket) Wait(patience time.Duration) {
	p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	_, _ = unix.Poll(p, int(patience.Milliseconds())) // EINTR is a short wait
}

// Close closes the descriptor. Nobody may be reading it.
func (s *Socket) Close() error { return unix.Close(s.fd) }
