package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	errAddressInUse   = syscall.EADDRINUSE
	errAddressNotHere = syscall.EADDRNOTAVAIL
	errPermission     = syscall.EACCES
)

// maxHolderLines bounds the walk over the kernel's socket tables.
const maxHolderLines = 100_000

// holder names the process that listens on addr, as far as /proc tells: empty
// on other systems, and for processes of others when we are not root.
func holder(network string, addr netip.AddrPort) string {
	inodes := map[string]bool{}
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open("/proc/net/" + table)
		if err != nil {
			continue
		}
		in := bufio.NewScanner(f)
		for n := 0; in.Scan() && n < maxHolderLines; n++ {
			if fields := strings.Fields(in.Text()); len(fields) > 9 && listens(fields[1], fields[3], addr) {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && inodes[target] {
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("%s, pid %s", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}

// listens reports whether a line of the kernel's table is a socket that keeps
// us from addr: the same port, and the same address or a wildcard. The table
// has addresses as hexadecimal words in host order, and states as numbers:
// 0A listens (TCP), 07 is open (UDP).
func listens(local, state string, addr netip.AddrPort) bool {
	if state != "0A" && state != "07" {
		return false
	}
	host, port, ok := strings.Cut(local, ":")
	if !ok || port != fmt.Sprintf("%04X", addr.Port()) {
		return false
	}
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return false
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return ok && (a.IsUnspecified() || addr.Addr().IsUnspecified() || a.Unmap() == addr.Addr().Unmap())
}
