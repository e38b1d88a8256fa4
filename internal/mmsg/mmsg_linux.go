//go:build linux && (amd64 || arm64 || riscv64)

package mmsg

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"perigee.example/internal/bigmem"
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
//
// A reply takes the header of a datagram that has been looked at, as the echo of
// the benchmarks does: 5 KiB less for each batch to pull through a cache of 48.
type Batch struct {
	headers  [Size]header
	vecs     [Size]unix.Iovec
	names    [Size]unix.RawSockaddrInet6
	memory   *bigmem.Region // of packets; nil when they are Go memory
	packets  []byte
	controls []byte
	size     int // of one packet
	stride   int // from one packet to the next
	control  int // of one control message
	used     int // headers that are not as Recv needs them
	replies  int // in headers
}

// spread is what lies between two packets: with a power of two from one to the
// next, all of them would compete for one set of the cache's lines.
const spread = 128

// New makes a Batch for packets of up to size octets, and control messages of
// up to control octets; 0 asks for none. Free gives it back.
func New(size, control int) *Batch {
	b := &Batch{size: size, stride: size + spread, control: control, controls: make([]byte, Size*control), used: Size}
	if Size*b.stride <= hugePage {
		if m, err := bigmem.Reserve(hugePage, true); err == nil {
			b.memory, b.packets = m, m.Bytes() // one entry of the TLB in place of Size
		}
	}
	if b.packets == nil {
		b.packets = make([]byte, Size*b.stride)
	}
	for i := range b.headers {
		h := &b.headers[i].msg
		h.Iov = &b.vecs[i]
		h.SetIovlen(1)
	}
	return b
}

// hugePage is the size of one, and room for Size packets of 30 KiB.
const hugePage = 2 << 20

// Free gives the memory of the packets back; the Batch is of no use then.
func (b *Batch) Free() {
	if b.memory != nil {
		b.packets, b.vecs = nil, [Size]unix.Iovec{} // nothing leads there any more
		b.memory.Free()
	}
}

// Recv takes the datagrams that wait, at most Size, and forgets the replies. It
// is syscall.EAGAIN when none do.
func (b *Batch) Recv(s *Socket) (int, error) {
	for i := range b.headers[:b.used] {
		h := &b.headers[i].msg
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
		h.Control = nil
		h.SetControllen(b.control)
		if b.control > 0 {
			h.Control = &b.controls[i*b.control]
		}
		b.vecs[i].Base = &b.packets[i*b.stride]
		b.vecs[i].SetLen(b.size)
	}
	b.used, b.replies = 0, 0
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.headers[0])), Size, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			b.used = int(n)
			return int(n), nil
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}

// Packet is the i-th datagram, cut to the size of New.
func (b *Batch) Packet(i int) []byte {
	n := min(int(b.headers[i].len), b.size)
	return b.packets[i*b.stride : i*b.stride+n : i*b.stride+b.size]
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
	n := min(int(b.headers[i].msg.Controllen), b.control)
	return b.controls[i*b.control : i*b.control+n]
}

// Reply puts a reply to the i-th datagram in line, with a control message or
// nil. Both must stay as they are until Send. Datagrams are replied to in order,
// each once at the most, and nothing but From is asked of one that has its reply.
func (b *Batch) Reply(i int, packet, control []byte) {
	if len(packet) == 0 {
		return
	}
	namelen := b.headers[i].msg.Namelen // before it is the header of a reply
	vec, h := &b.vecs[b.replies], &b.headers[b.replies].msg
	vec.Base = &packet[0]
	vec.SetLen(len(packet))
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), namelen
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
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.headers[at])), uintptr(b.replies-at), unix.MSG_DONTWAIT, 0, 0)
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
