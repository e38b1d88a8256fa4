package dnsserver_test

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
)

// onSockets serves everything on a UDP and a TCP socket of one port.
func onSockets(t *testing.T, address string) (*dnsserver.Server, netip.AddrPort) {
	t.Helper()
	k := openEverything(t)
	s := dnsserver.NewServer(dnsserver.ServerConfig{})
	s.SetView(k.view)
	s.SetState(k.state)
	pc, ln := samePort(t, address)
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	go s.ServeUDP(pc)
	go s.ServeTCP(ln)
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return s, at
}

// samePort opens UDP and TCP at one free port: the kernel picks it for UDP, and
// another program may have it for TCP.
func samePort(t *testing.T, address string) (net.PacketConn, net.Listener) {
	t.Helper()
	var last error
	for range 10 {
		pc, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Skipf("no UDP socket at %s: %v", address, err)
		}
		ln, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, ln
		}
		last = err
		pc.Close()
	}
	t.Fatalf("no port that is free for UDP and TCP: %v", last)
	return nil, nil
}

// ask sends a query from a new connected socket, which takes a reply only from
// the address that it asked.
func ask(t *testing.T, local string, server netip.AddrPort, text string) string {
	t.Helper()
	q, err := txtest.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))}
	c, err := d.Dial("udp", server.String())
	if err != nil {
		t.Skipf("no socket at %s: %v", local, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(q.Wire); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("%s from %s: %v", text, server, err)
	}
	reply, err := txtest.Print(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// A socket bound to the wildcard answers from the address that was asked: every
// address of 127.0.0.0/8 is ours on Linux, and the kernel's own choice would be
// 127.0.0.1.
func TestRepliesFromTheAddressAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: elsewhere one listens on each address")
	}
	for _, wildcard := range []string{"0.0.0.0:0", "[::]:0"} {
		t.Run(wildcard, func(t *testing.T) {
			_, at := onSockets(t, wildcard)
			for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.3.2.1"} {
				got := ask(t, "127.0.0.1:0", netip.AddrPortFrom(netip.MustParseAddr(addr), at.Port()), "static.example.test")
				if !strings.Contains(got, "192.0.2.1") {
					t.Errorf("%s: %s", addr, got)
				}
			}
			if at.Addr().Is6() {
				got := ask(t, "[::1]:0", netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()), "static.example.test")
				if !strings.Contains(got, "192.0.2.1") {
					t.Errorf("::1: %s", got)
				}
			}
		})
	}
}

// TestDig asks with the two common tools over UDP and TCP.
func TestDig(t *testing.T) {
	txtest.Need(t, "dig", "kdig")
	_, at := onSockets(t, "127.0.0.1:0")
	port := fmt.Sprint(at.Port())
	run := func(tool string, args ...string) string {
		t.Helper()
		args = append([]string{"@127.0.0.1", "-p", port}, args...)
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", tool, args, err, out)
		}
		return string(out)
	}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"static.example.test +short", []string{"192.0.2.1", "192.0.2.2"}},
		{"static.example.test +short +tcp", []string{"192.0.2.1", "192.0.2.2"}},
		{"www.example.test +subnet=198.18.1.0/24", []string{"192.0.2.10", "198.18.1.0/24/20"}},
		{"www.example.test AAAA +subnet=198.19.0.0/16 +tcp", []string{"2001:db8::20", "198.19.0.0/16/16"}},
		{"big.example.test TXT +bufsize=512 +ignore", []string{"flags: qr aa tc rd"}},
		{"www.example.org", []string{"REFUSED"}},
		{"x.empty.example.test", []string{"NXDOMAIN", "hostmaster.example.test."}},
		{"chain.example.test", []string{"chain2.example.test."}},
		{"www.sub.example.test", []string{"ns.sub.example.test.", "127.0.0.54"}},
		{"static.example.test +nsid", []string{"ns1"}},
	} {
		for _, tool := range []string{"dig", "kdig"} {
			got := run(tool, strings.Fields(c.args)...)
			for _, want := range c.want {
				if !strings.Contains(strings.ToLower(got), strings.ToLower(want)) {
					t.Errorf("%s %s: no %q in\n%s", tool, c.args, want, got)
				}
			}
			if strings.Contains(got, "malformed") || strings.Contains(got, "WARNING") && !strings.Contains(got, "recursion") {
				t.Errorf("%s %s complains:\n%s", tool, c.args, got)
			}
		}
	}
	if got := run("dig", "www.example.test", "+subnet=0"); !strings.Contains(got, "NOERROR") || !strings.Contains(got, "CLIENT-SUBNET") {
		t.Errorf("dig +subnet=0:\n%s", got)
	}
}
