//go:build linux && (amd64 || arm64 || riscv64)

package mmsg

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Supported says whether Recv and Send work here.
const Supported = true

// header is struct mmsghdr.
type header struct {
	msg unix.Msghdr
	len uint32
	_   [4]byte
}

// Batch is room for Size datagrams and the replies to them.
type Batch struct {
	in, out  [Size]header
	inVec    [Size]unix.Iovec
	outVec   [Size]unix.Iovec
	names    [Size]unix.RawSockaddrInet6
	packets  []byte
	controls []byte
	size     int // of one packet
	control  int // of one control message
	replies  int // in out
}

// New makes a Batch for packets of up to size octets, and control messages of
// up to control octets; 0 asks for none.
func New(size, control int) *Batch {
	b := &Batch{size: size, control: control, packets: make([]byte, Size*size), controls: make([]byte, Size*control)}
	for i := range b.in {
		b.inVec[i].Base = &b.packets[i*size]
		b.inVec[i].SetLen(size)
		h := &b.in[i].msg
		h.Iov, h.Name = &b.inVec[i], (*byte)(unsafe.Pointer(&b.names[i]))
		h.SetIovlen(1)
		if control > 0 {
			h.Control = &b.controls[i*control]
		}
		o := &b.out[i].msg
		o.Iov = &b.outVec[i]
		o.SetIovlen(1)
	}
	return b
}

// Recv takes the datagrams that wait, at most Size, and forgets the replies. It
// is syscall.EAGAIN when none do.
func (b *Batch) Recv(s *Socket) (int, error) {
	for i := range b.in {
		h := &b.in[i].msg
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(b.control)
	}
	b.replies = 0
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.in[0])), Size, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}

// Packet is the i-th datagram, cut to the size of New.
func (b *Batch) Packet(i int) []byte {
	n := min(int(b.in[i].len), b.size)
	return b.packets[i*b.size : i*b.size+n : (i+1)*b.size]
}

// From is where the i-th datagram came from. IPv4 that came in IPv6 form is IPv4.
func (b *Batch) From(i int) netip.AddrPort {
	name := &b.names[i]
	raw := (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(name))
	port := binary.BigEndian.Uint16(raw[2:])
	switch name.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port)
	case unix.AF_INET6:
		addr := netip.AddrFrom16(name.Addr).Unmap()
		if addr.Is6() && addr.IsLinkLocalUnicast() && name.Scope_id != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
		}
		return netip.AddrPortFrom(addr, port)
	}
	return netip.AddrPort{}
}

// Control is the control message of the i-th datagram.
func (b *Batch) Control(i int) []byte {
	n := min(int(b.in[i].msg.Controllen), b.control)
	return b.controls[i*b.control : i*b.control+n]
}

// Reply puts a reply to the i-th datagram in line, with a control message or
// nil. Both must stay as they are until Send.
func (b *Batch) Reply(i int, packet, control []byte) {
	if len(packet) == 0 || b.replies == Size {
		return
	}
	vec, h := &b.outVec[b.replies], &b.out[b.replies].msg
	vec.Base = &packet[0]
	vec.SetLen(len(packet))
	h.Name, h.Namelen = b.in[i].msg.Name, b.in[i].msg.Namelen
	h.Control = nil
	h.SetControllen(len(control))
	if len(control) > 0 {
		h.Control = &control[0]
	}
	b.replies++
}

// Send sends the replies in line. One that the kernel refuses, or has no room
// for, is passed over: its client asks again. It returns how many were sent,
// and the last refusal.
func (b *Batch) Send(s *Socket) (sent int, err error) {
	for at := 0; at < b.replies; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.out[at])), uintptr(b.replies-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			at += int(n)
			sent += int(n)
		case syscall.EINTR:
		default:
			err = errno
			at++ // the first of those left was refused
		}
	}
	b.replies = 0
	return sent, err
}
