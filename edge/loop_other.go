//go:build !(linux && (amd64 || arm64 || riscv64 || loong64))

package edge

import (
	"net"
	"syscall"
)

// Where the loop makes no system calls of its own, netLoop serves every
// connection.

func rawOf(net.Conn) syscall.RawConn { return nil }

func (c *conn) rawLoop() (v course, ok bool) { return endIt, false }

func (c *conn) rawSend([]byte, *Body) (int64, error) { panic("edge: there is no raw loop") }
