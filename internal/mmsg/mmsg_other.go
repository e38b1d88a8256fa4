//go:build !linux || !(amd64 || arm64 || riscv64)

package mmsg

import (
	"errors"
	"net/netip"
	"syscall"
	"time"
)

// Supported says whether Recv and Send work here.
const Supported = false

// Socket is not usable here.
type Socket struct{}

// Open fails.
func Open(syscall.RawConn) (*Socket, error) { return nil, errors.ErrUnsupported }

// Wait and Close do nothing.
func (*Socket) Wait(time.Duration) {}
func (*Socket) Close() error       { return nil }

// Batch is not usable here.
type Batch struct{}

// New makes a batch that cannot be used.
func New(_, _ int) *Batch { return &Batch{} }

// Free does nothing.
func (*Batch) Free() {}

// Recv fails.
func (*Batch) Recv(*Socket) (int, error) { return 0, errors.ErrUnsupported }

// Packet, From, Control, Reply and Send do nothing.
func (*Batch) Packet(int) []byte         { return nil }
func (*Batch) From(int) netip.AddrPort   { return netip.AddrPort{} }
func (*Batch) Control(int) []byte        { return nil }
func (*Batch) Reply(int, []byte, []byte) {}
func (*Batch) Send(*Socket) (int, error) { return 0, errors.ErrUnsupported }
