package mmsg

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// socket opens a UDP socket and takes it out of the poller.
func socket(t *testing.T, address string) (*net.UDPAddr, *Socket) {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("no socket at %s: %v", address, err)
	}
	raw, err := pc.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := pc.Close(); err != nil {
		t.Fatal(err)
	}
	return pc.LocalAddr().(*net.UDPAddr), s
}

// echo answers n datagrams with themselves, upper case, in batches.
func echo(t *testing.T, s *Socket, b *Batch, n int, seen map[netip.AddrPort]int) {
	t.Helper()
	for n > 0 {
		got, err := b.Recv(s)
		if errors.Is(err, syscall.EAGAIN) {
			s.Wait(time.Second)
			continue
		}
		if err != nil || got == 0 || got > Size {
			t.Fatalf("recv with %d to come: %d, %v", n, got, err)
		}
		for i := range got {
			seen[b.From(i)]++
			b.Reply(i, bytes.ToUpper(b.Packet(i)), nil)
		}
		if sent, err := b.Send(s); sent != got || err != nil {
			t.Fatalf("sent %d of %d: %v", sent, got, err)
		}
		n -= got
	}
}

// Every datagram of several senders is answered to who sent it, over IPv4, IPv6
// and IPv4 in IPv6, in more than one batch.
func TestEcho(t *testing.T) {
	if !Supported {
		t.Skip("no recvmmsg here")
	}
	for _, c := range []struct{ listen, from string }{
		{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.1"}, {"[::]:0", "::1"},
	} {
		t.Run(c.listen+" from "+c.from, func(t *testing.T) {
			const each = 3 * Size / 2
			at, s := socket(t, c.listen)
			to := net.JoinHostPort(c.from, fmt.Sprint(at.Port))
			var clients []net.Conn
			for range 2 {
				client, err := net.Dial("udp", to)
				if err != nil {
					t.Skip(err)
				}
				defer client.Close()
				clients = append(clients, client)
				for i := range each {
					if _, err := fmt.Fprintf(client, "packet %d", i); err != nil {
						t.Fatal(err)
					}
				}
			}
			seen := map[netip.AddrPort]int{}
			echo(t, s, New(512, 0), len(clients)*each, seen)
			for _, client := range clients {
				if got := seen[client.LocalAddr().(*net.UDPAddr).AddrPort()]; got != each {
					t.Errorf("%d datagrams from %s, want %d: %v", got, client.LocalAddr(), each, seen)
				}
				buf := make([]byte, 512)
				for i := range each {
					n, err := client.Read(buf)
					if want := fmt.Sprintf("PACKET %d", i); err != nil || string(buf[:n]) != want {
						t.Fatalf("%q, %v, want %q", buf[:n], err, want)
					}
				}
			}
		})
	}
}

// A datagram longer than the room is cut, an empty one is one, and a reply that
// cannot be sent does not keep the next from going out.
func TestOddSizes(t *testing.T) {
	if !Supported {
		t.Skip("no recvmmsg here")
	}
	at, s := socket(t, "127.0.0.1:0")
	client, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sizes := []int{0, 1, 599, 600, 601, 1000}
	for _, n := range sizes {
		if _, err := client.Write(pattern(n)); err != nil {
			t.Fatal(err)
		}
	}
	b := New(600, 0)
	if got, err := b.Recv(s); err != nil || got != len(sizes) {
		t.Fatalf("%d datagrams, %v", got, err)
	}
	for i, n := range sizes {
		if got := b.Packet(i); !bytes.Equal(got, pattern(n)[:min(n, 600)]) {
			t.Errorf("datagram %d of %d octets came as %d", i, n, len(got))
		}
	}
	b.Reply(0, make([]byte, 70_000), nil) // more than UDP can carry
	b.Reply(1, nil, nil)
	b.Reply(2, []byte("ok"), nil)
	b.Reply(3, make([]byte, 70_000), nil)
	b.Reply(5, []byte("the last"), nil)
	if sent, err := b.Send(s); sent != 2 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("sent %d, %v", sent, err)
	}
	buf := make([]byte, 16)
	for _, want := range []string{"ok", "the last"} {
		if n, err := client.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v, want %q", buf[:n], err, want)
		}
	}
}

// pattern is n octets that tell their place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// A reader with nothing to read is told so, one that waits comes back in time,
// and is woken by a datagram.
func TestRecvWaits(t *testing.T) {
	if !Supported {
		t.Skip("no recvmmsg here")
	}
	at, s := socket(t, "127.0.0.1:0")
	b := New(512, 0)
	if n, err := b.Recv(s); n != 0 || !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("%d, %v", n, err)
	}
	s.Wait(time.Millisecond)
	client, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	got := make(chan int)
	go func() {
		for {
			n, err := b.Recv(s)
			if !errors.Is(err, syscall.EAGAIN) {
				got <- n
				return
			}
			s.Wait(time.Hour)
		}
	}()
	if _, err := client.Write([]byte("wake")); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 1 || string(b.Packet(0)) != "wake" {
		t.Fatalf("%d datagrams, %q", n, b.Packet(0))
	}
}
