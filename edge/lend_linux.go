//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package edge

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"perigee.example/internal/arena"
)

// Long bodies in memory are lent to the kernel: their pages go by reference into
// a pipe (vmsplice), and from there to the socket (splice). A copy took twice the
// processor time for 10 MiB. What makes it safe is arena.Lend: pages that have
// been lent are never written again.

const (
	// pipeBytes is the size of a pipe, and the most that the kernel gives to who
	// is not root; what may start and end within a page takes one page more.
	pipeBytes = 1 << 20
	lentBytes = pipeBytes - 4<<10
	// leastLent is what is offered at first to a socket that took only a part.
	leastLent = 128 << 10
	// idlePipes bounds the pipes that are kept: one is in use for two system
	// calls, in which nobody else runs on that processor.
	idlePipes = 16

	spliceNonblock = 2 // SPLICE_F_NONBLOCK and SPLICE_F_MORE of linux/splice.h; package syscall lacks them
	spliceMore     = 4
	fcntlSetPipe   = 1031 // F_SETPIPE_SZ
)

// pipe is one that is empty.
type pipe struct{ from, to int }

var pipes struct {
	mu   sync.Mutex
	idle []pipe
	null int // /dev/null, open as long as the process lives; 0: it is not open
	// refused: this system does not let us (a sandbox, say). Bodies are copied then.
	refused atomic.Bool
}

func takePipe() (pipe, bool) {
	pipes.mu.Lock()
	if n := len(pipes.idle); n > 0 {
		p := pipes.idle[n-1]
		pipes.idle = pipes.idle[:n-1]
		pipes.mu.Unlock()
		return p, true
	}
	if pipes.null == 0 {
		pipes.null, _ = syscall.Open(os.DevNull, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	}
	pipes.mu.Unlock()
	var fds [2]int
	if syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK) != nil {
		return pipe{}, false // for want of descriptors
	}
	p := pipe{fds[0], fds[1]}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(p.to), fcntlSetPipe, pipeBytes); errno != 0 {
		p.close() // this user has had enough of them
		return pipe{}, false
	}
	return p, true
}

func (p pipe) close() {
	syscall.Close(p.from)
	syscall.Close(p.to)
}

// drop takes back a pipe that still holds left octets of pages: where the client
// is slower than we are, that is usual.
func (p pipe) drop(left int) {
	if left > 0 && pipes.null > 0 {
		if n, errno := p.empty(uintptr(pipes.null), left, false); errno == 0 {
			left -= n
		}
	}
	if left == 0 {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		if len(pipes.idle) < idlePipes {
			pipes.idle = append(pipes.idle, p)
			return
		}
	}
	p.close()
}

// lends reports whether a body is to be lent.
func lends(b *Body) bool {
	return b.size >= arena.LendFrom && !pipes.refused.Load() && b.arena.Lend(b.octets)
}

// sendLent sends a body in memory, without a copy of it. It sends by at most what
// the socket took lately: what it does not take has been looked up for nothing.
func (c *conn) sendLent(body *Body) (int64, error) {
	most := int64(lentBytes)
	for total := int64(0); ; {
		n, want, errno := c.lend(body, total, most)
		if errno != 0 && errno != syscall.EAGAIN {
			return total, errno
		}
		if errno == syscall.EAGAIN {
			var err error
			if n, want, err = c.lendLater(body, total, most); err != nil {
				return total, err
			}
		} else {
			c.pace.took(n)
		}
		if total += int64(n); total == body.size {
			return total, nil
		}
		if n == want {
			most = min(2*most, lentBytes)
		} else {
			most = max(leastLent, int64(n))
		}
	}
}

// lendLater is lend once there is room. It is a function of its own, so that what
// it allocates is allocated for who is slow alone.
func (c *conn) lendLater(body *Body, skip, most int64) (n, want int, err error) {
	n, err = c.push(func(uintptr) (n int, errno syscall.Errno) {
		n, want, errno = c.lend(body, skip, most)
		return n, errno
	})
	return n, want, err
}

// lend sends what there is room for of a body from its octet skip, most octets at
// most; want is what it tried to send.
func (c *conn) lend(body *Body, skip, most int64) (n, want int, errno syscall.Errno) {
	parts := body.slices(c.desk.list[:0], skip, most)
	for _, p := range parts {
		want += len(p)
	}
	p, ok := takePipe()
	if !ok {
		n, errno = writeParts(c.fd, parts)
		return n, want, errno
	}
	filled, errno := p.fill(parts)
	if errno == 0 {
		n, errno = p.empty(c.fd, filled, skip+int64(filled) < body.size)
	}
	p.drop(filled - n)
	refused := errno == syscall.ENOSYS || errno == syscall.EPERM || errno == syscall.EACCES || errno == syscall.EINVAL
	if refused {
		pipes.refused.Store(true)
	}
	if refused || filled == 0 {
		n, errno = writeParts(c.fd, parts)
	}
	return n, want, errno
}

// fill puts pages into an empty pipe: parts, or as much of them as it holds.
func (p pipe) fill(parts [][]byte) (int, syscall.Errno) {
	var vectors [maxParts]syscall.Iovec
	for i, part := range parts {
		vectors[i].Base = unsafe.SliceData(part)
		vectors[i].SetLen(len(part))
	}
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_VMSPLICE, uintptr(p.to), uintptr(unsafe.Pointer(&vectors)), uintptr(len(parts)), spliceNonblock, 0, 0)
		if errno != syscall.EINTR {
			return sent(n, errno)
		}
	}
}

// empty sends n octets of a pipe. It takes some 40 µs at most, so that the scheduler
// is not told of it, as with rawBytes.
func (p pipe) empty(fd uintptr, n int, more bool) (int, syscall.Errno) {
	flags := uintptr(spliceNonblock)
	if more {
		flags |= spliceMore
	}
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(p.from), 0, fd, 0, uintptr(n), flags)
		if errno != syscall.EINTR {
			return sent(n, errno)
		}
	}
}
