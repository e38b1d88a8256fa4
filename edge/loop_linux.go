//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package edge

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// The loop's own system calls. A connection spends its life inside one call of
// RawConn.Read, which waits for readiness whenever the function that it was given
// returns false: a request costs a read and a write. net.Conn, which always tries
// before it waits, costs three calls, and two passes through its locks.

const (
	// rawBytes bounds what is written by a system call that the scheduler is not
	// told of: that is some 30 µs, in which nobody else runs on this processor, and
	// the collector waits. When it is told, a call that takes more than 20 µs loses
	// its processor to another thread and must get one again: with 100 KiB that was
	// a seventh of the cost.
	rawBytes = 256 << 10
)

// rawOf returns how to make system calls on a connection, or nil when only its
// methods will do: it is TLS, or not the system's.
func rawOf(c net.Conn) syscall.RawConn {
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

// rawLoop is the loop over system calls; ok is false when there is no raw.
func (c *conn) rawLoop() (v course, ok bool) {
	if c.raw == nil {
		return endIt, false
	}
	for {
		v = endIt
		err := c.raw.Read(func(fd uintptr) bool {
			v = c.ready(fd)
			return v != waitMore
		})
		if err == nil {
			return v, true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.goesOn() {
			return endIt, true
		}
	}
}

// ready reads and answers until there is nothing to read.
func (c *conn) ready(fd uintptr) course {
	c.fd = fd
	for {
		room := c.take().room()
		n, errno := readNow(fd, room)
		if errno == syscall.EAGAIN {
			c.drop()
			return waitMore
		}
		if errno != 0 || n == 0 {
			return endIt
		}
		c.desk.buf = c.desk.in[:len(c.desk.buf)+n]
		// What filled the room may not be all. And who asks but once often ends its
		// stream at once, which gives no sign of its own (see lookAgain).
		again := n == len(room) || c.phase.Load() == silent
		c.wakes()
		v := c.turn()
		if v != waitMore {
			return v
		}
		c.drop()
		if !again {
			return waitMore
		}
	}
}

func readNow(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

// writeNow writes what there is room for. more says that more follows at once.
func writeNow(fd uintptr, p []byte, more bool) (int, syscall.Errno) {
	flags := uintptr(syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL)
	if more {
		flags |= syscall.MSG_MORE
	}
	for {
		var n uintptr
		var errno syscall.Errno
		if len(p) <= rawBytes {
			n, _, errno = syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		} else {
			n, _, errno = syscall.Syscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		}
		if errno != syscall.EINTR {
			return sent(n, errno)
		}
	}
}

// sent is what a call sent; on error nothing.
func sent(n uintptr, errno syscall.Errno) (int, syscall.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// rawSend is send by system calls. What the kernel has no room for waits by the
// client's pace.
func (c *conn) rawSend(out []byte, body *Body) (int64, error) {
	lent := body != nil && body.file == nil && lends(body)
	if body != nil && body.file == nil && !lent {
		return c.gather(out, body)
	}
	n, errno := writeNow(c.fd, out, body != nil)
	if errno != 0 && errno != syscall.EAGAIN {
		return 0, errno
	}
	c.pace.took(n)
	if n < len(out) {
		m, err := c.Write(out[n:])
		if n += m; err != nil {
			return int64(n), err
		}
	}
	if body == nil {
		return int64(n), nil
	}
	send := c.sendFile
	if lent {
		send = c.sendLent
	}
	m, err := send(body)
	return int64(n) + m, err
}

// push has try send something, at once or when there is room.
func (c *conn) push(try func(fd uintptr) (int, syscall.Errno)) (int, error) {
	n, errno := try(c.fd)
	if errno == 0 {
		c.pace.took(n)
		return n, nil
	}
	for errno == syscall.EAGAIN {
		now := time.Now()
		c.Conn.SetWriteDeadline(c.pace.deadline(now, writeTick))
		err := c.raw.Write(func(fd uintptr) bool {
			n, errno = try(fd)
			return errno != syscall.EAGAIN
		})
		goesOn := c.pace.moved(n, time.Since(now), minTakeRate)
		if err != nil && (!goesOn || !errors.Is(err, os.ErrDeadlineExceeded)) {
			if !goesOn {
				dropUnsent(c.Conn)
			}
			return 0, err
		}
	}
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// sendFile sends a body that is a file, without a copy of it here.
func (c *conn) sendFile(body *Body) (int64, error) {
	from, end := body.start, body.start+body.size
	in := body.file.Fd()
	try := func(fd uintptr) (int, syscall.Errno) {
		for {
			n, _, errno := syscall.Syscall6(syscall.SYS_SENDFILE, fd, in, uintptr(unsafe.Pointer(&from)), uintptr(min(end-from, sendBytes)), 0, 0)
			if errno != syscall.EINTR {
				return sent(n, errno)
			}
		}
	}
	for from < end {
		n, err := c.push(try) // the call moves from
		if err != nil {
			return from - body.start, err
		}
		if n == 0 {
			return from - body.start, errShortFile
		}
	}
	return body.size, nil
}

// gather writes out and a body in memory in as few calls as it takes.
func (c *conn) gather(out []byte, body *Body) (int64, error) {
	want := int64(len(out)) + body.size
	n, errno := writeParts(c.fd, c.desk.gathered(out, body, 0))
	if errno != 0 && errno != syscall.EAGAIN {
		return 0, errno
	}
	c.pace.took(n)
	total := int64(n)
	if total == want {
		return total, nil
	}
	return c.gatherRest(out, body, total, want)
}

func (c *conn) gatherRest(out []byte, body *Body, total, want int64) (int64, error) {
	try := func(fd uintptr) (int, syscall.Errno) { return writeParts(fd, c.desk.gathered(out, body, total)) }
	for total < want {
		n, err := c.push(try)
		if err != nil {
			return total, err
		}
		total += int64(n)
	}
	return total, nil
}

func writeParts(fd uintptr, parts [][]byte) (int, syscall.Errno) {
	var vectors [maxParts]syscall.Iovec
	total := 0
	for i, p := range parts {
		vectors[i].Base = unsafe.SliceData(p)
		vectors[i].SetLen(len(p))
		total += len(p)
	}
	for {
		var n uintptr
		var errno syscall.Errno
		if total <= rawBytes {
			n, _, errno = syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&vectors)), uintptr(len(parts)))
		} else {
			n, _, errno = syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&vectors)), uintptr(len(parts)))
		}
		if errno != syscall.EINTR {
			return sent(n, errno)
		}
	}
}
