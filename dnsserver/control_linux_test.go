package dnsserver

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

// FuzzControlMessages reads what the kernel says beside a datagram, and more
// than it would: no octets panic, and what is sent back is part of them.
func FuzzControlMessages(f *testing.F) {
	// What comes with a datagram to a wildcard socket of each kind.
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenUDP(network, nil)
		if err != nil {
			continue // no IPv6 here
		}
		defer c.Close()
		s := newUDPSocket(c, func(err error) { f.Error(err) })
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.local.Port())
		if network == "udp6" {
			to = netip.AddrPortFrom(netip.IPv6Loopback(), s.local.Port())
		}
		if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			continue
		}
		control := make([]byte, maxControl)
		_, cn, _, _, err := c.ReadMsgUDPAddrPort(make([]byte, 10), control)
		if err != nil {
			f.Fatal(err)
		}
		if addr, _ := replyFrom(bytes.Clone(control[:cn])); addr != to.Addr() {
			f.Errorf("%s: the datagram came to %v, want %v", network, addr, to.Addr())
		}
		f.Add(control[:cn])
	}
	f.Fuzz(func(t *testing.T, control []byte) {
		given := len(control)
		addr, reply := replyFrom(control)
		if addr.IsValid() != (reply != nil) || len(reply) > given {
			t.Errorf("%v with %d octets of %d", addr, len(reply), given)
		}
	})
}
