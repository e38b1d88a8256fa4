package dnsserver

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReceiveQueue: the kernel holds more datagrams for us than for others, so
// that a burst while the machine is busy is not lost.
func TestReceiveQueue(t *testing.T) {
	size := func(c *net.UDPConn) (n int) {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := size(c)
	newUDPSocket(c, func(err error) { t.Error(err) })
	if after := size(c); after <= before {
		t.Errorf("the receive queue has %d octets, as before", after)
	}
}

// TestDontFragment: replies by IPv4 carry DF, and the kernel believes no path MTU
// (ip(7), IP_PMTUDISC_PROBE), from a socket of both families too.
func TestDontFragment(t *testing.T) {
	for _, network := range []string{"udp4", "udp"} {
		c, err := net.ListenUDP(network, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		newUDPSocket(c, func(err error) { t.Error(err) })
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER) })
		if err != nil || got != unix.IP_PMTUDISC_PROBE {
			t.Errorf("%s: IP_MTU_DISCOVER %d, %v", network, got, err)
		}
	}
}
