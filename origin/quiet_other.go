//go:build !linux

package origin

import "net"

type glance struct{}

// glanceAt says that a connection cannot be looked at: it is watched.
func glanceAt(net.Conn) *glance { return nil }

func (*glance) quiet() bool { return false }

func (*glance) send([]byte) int { return 0 }
