package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// option is one integer socket option.
type option struct {
	name              string
	level, key, value int
}

// setOptions sets options on a socket; one that is missing does not keep the
// next from being set.
func setOptions(conn *net.UDPConn, options []option) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var errs []error
	err = raw.Control(func(fd uintptr) {
		for _, o := range options {
			if err := unix.SetsockoptInt(int(fd), o.level, o.key, o.value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", o.name, os.NewSyscallError("setsockopt", err)))
			}
		}
	})
	return errors.Join(append(errs, err)...)
}

// noFragments keeps the kernel from believing path MTUs, which anybody can forge,
// and from cutting replies to fit them. Ours fit every interface of 1,280 octets; a
// smaller one, which only IPv4 allows, refuses the largest with EMSGSIZE, and who
// waits for one comes by TCP. Over IPv4 they carry DF, so that no router cuts them
// either (RFC 9715 §3.1); and what is never cut needs no identification (RFC 6864
// §4.1), which the kernel would hash and count up for each reply: 3 % of what an
// answer costs.
func noFragments(conn *net.UDPConn, local netip.AddrPort) error {
	options := []option{{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE}}
	if local.Addr().Is6() {
		options = append(options, option{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT})
	}
	return setOptions(conn, options)
}

// forceQueue sets the size of the receive queue over the system's limit, which
// takes CAP_NET_ADMIN.
func forceQueue(conn *net.UDPConn) error {
	return setOptions(conn, []option{{"SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpQueue}})
}

// receiveLocal asks for the local address of each datagram. A socket of both
// families gives that of IPv4 in IPv6 form too.
func receiveLocal(conn *net.UDPConn, local netip.AddrPort) error {
	if local.Addr().Is6() {
		return setOptions(conn, []option{{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}})
	}
	return setOptions(conn, []option{{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1}})
}

// Layouts of struct in_pktinfo and in6_pktinfo (ip(7), RFC 3542 §6.1).
const (
	pktinfo4Len   = 12 // ifindex, local address, address in the header
	pktinfo4Local = 4
	pktinfo6Len   = 20 // address, ifindex
	pktinfo6Index = 16
)

// replyFrom reads the local address from received control messages and turns
// them, in place, into one that sends from it. The interface is left to the
// routing table, which may know a better one than the query came by, except for
// link-local addresses, which mean nothing without it.
func replyFrom(control []byte) (netip.Addr, []byte) {
	for rest := control; len(rest) > 0; {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			break
		}
		message := rest[:len(rest)-len(next)]
		rest = next
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= pktinfo4Len:
			clear(data[:pktinfo4Local])
			return netip.AddrFrom4([4]byte(data[pktinfo4Local : pktinfo4Local+4])), message
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= pktinfo6Len:
			addr := netip.AddrFrom16([16]byte(data[:pktinfo6Index]))
			if !addr.IsLinkLocalUnicast() {
				clear(data[pktinfo6Index:pktinfo6Len])
			}
			return addr.Unmap(), message
		}
	}
	return netip.Addr{}, nil
}
