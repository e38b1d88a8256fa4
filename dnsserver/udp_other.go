//go:build !linux

package dnsserver

import (
	"errors"
	"net"
	"net/netip"
)

// noFragments does nothing here: replies of at most 1232 octets cross every
// common path in one piece.
func noFragments(*net.UDPConn, netip.AddrPort) error { return nil }

// receiveLocal is for Linux only.
func receiveLocal(*net.UDPConn, netip.AddrPort) error {
	return errors.New("replies may leave from another address than the query came to: listen on each address instead of the wildcard")
}

// forceQueue is for Linux only.
func forceQueue(*net.UDPConn) error { return errors.ErrUnsupported }

func replyFrom([]byte) (netip.Addr, []byte) { return netip.Addr{}, nil }
