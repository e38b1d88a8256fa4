package dnsserver_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perigee.example/internal/txtest"
)

// hogs is how many connections the floods hold: more than the server takes in
// all, maxStreams.
const hogs = 4500

// patience is the client's own time-out: no test waits for it to pass.
const patience = time.Minute

// dialFrom opens a TCP connection from an address of 127.0.0.0/8.
func dialFrom(t testing.TB, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	return d.DialContext(t.Context(), "tcp", to.String())
}

// askTCP asks on a new connection from an address.
func askTCP(t testing.TB, from netip.Addr, to netip.AddrPort, text string) (string, error) {
	t.Helper()
	c, err := dialFrom(t, from, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	q, err := txtest.ParseQuery(text)
	if err != nil {
		return "", err
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q.Wire))), q.Wire...)); err != nil {
		return "", err
	}
	return readFramed(c)
}

// affordable is how many connections of n this process can hold both ends of.
func affordable(t *testing.T, n int) int {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	const rest = 1000 // for the good clients and the test's own
	if most := (int(files.Cur) - rest) / 2; most < n {
		t.Logf("%d descriptors: %d connections instead of %d (ulimit -n)", files.Cur, most, n)
		return max(most, 10)
	}
	return n
}

// TestTCPHogs holds 4,500 connections of 90 addresses, a third idle, a third
// with half a length prefix and a third with half a query, and goes on opening
// more. UDP and new TCP clients are answered as if there were none of them.
func TestTCPHogs(t *testing.T) {
	_, at := onSockets(t, "127.0.0.1:0")
	const each = 50
	query := framed(t, "static.example.test")
	n := affordable(t, hogs)
	var mu sync.Mutex
	var held []net.Conn
	t.Cleanup(func() {
		for _, c := range held {
			c.Close()
		}
	})
	hog := func(i int) error {
		c, err := dialFrom(t, netip.AddrFrom4([4]byte{127, 66, byte(i / each), 1}), at)
		if err != nil {
			return err
		}
		mu.Lock()
		held = append(held, c)
		mu.Unlock()
		_, err = c.Write(query[:[]int{0, 1, 20}[i%3]])
		return err
	}
	var wg sync.WaitGroup
	const hands = 4
	for h := range hands {
		wg.Go(func() {
			for i := h; i < n; i += hands {
				if err := hog(i); err != nil {
					t.Errorf("hog %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	wg.Go(func() {
		for i := range n / 10 {
			hog(n + i) // it may be let go before it has written
		}
	})
	for i := range 20 {
		wg.Go(func() {
			good := netip.AddrFrom4([4]byte{127, 1, byte(i), 53})
			for range 5 {
				if got, err := askTCP(t, good, at, "static.example.test"); err != nil || !wellAnswered(got) {
					t.Errorf("new TCP client %v: %q, %v", good, got, err)
				}
				r := &resolver{local: good}
				if m, err := r.ask(at, "static.example.test."); err != nil || len(m.Answer) != 2 {
					t.Errorf("UDP client %v: %v, %v", good, m, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d connections were opened", len(held))
}

func wellAnswered(reply string) bool {
	return strings.Contains(reply, "\nanswer: static.example.test. 300 IN A 192.0.2.1\n")
}

// TestTCPClientBudget floods from each of eight addresses. Each gets its 64
// connections and no more, and takes none from the others.
func TestTCPClientBudget(t *testing.T) {
	_, at := onSockets(t, "127.0.0.1:0")
	const clients, tries, budget = 8, 120, 64
	open := map[byte][]net.Conn{}
	for i := range tries {
		for client := range byte(clients) {
			c, err := dialFrom(t, netip.AddrFrom4([4]byte{127, 66, client, 1}), at)
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			defer c.Close()
			open[client] = append(open[client], c)
		}
	}
	query := framed(t, "static.example.test")
	for client, conns := range open {
		answered := 0
		for _, c := range conns {
			c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write(query); err != nil {
				continue
			}
			if got, err := readFramed(c); err == nil && wellAnswered(got) {
				answered++
			}
		}
		if answered != budget {
			t.Errorf("client %d: %d of %d connections are served, want %d", client, answered, tries, budget)
		}
	}
	for i := range 50 {
		good := netip.AddrFrom4([4]byte{127, 1, byte(i), 53})
		if got, err := askTCP(t, good, at, "static.example.test"); err != nil || !wellAnswered(got) {
			t.Errorf("client %v: %q, %v", good, got, err)
		}
	}
}

// TestPipelinedFlood puts 10,000 queries into one write. All are answered, by
// one goroutine (the stream's), while another client is served.
func TestPipelinedFlood(t *testing.T) {
	_, at := onSockets(t, "127.0.0.1:0")
	const queries = 10_000
	var all []byte
	for i := range queries {
		m := new(dns.Msg)
		m.SetQuestion([]string{"static.example.test.", "text.example.test.", "x.empty.example.test.", "chain.example.test."}[i%4], dns.TypeA)
		m.Id = uint16(i)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(wire))), wire...)
	}
	c, err := dialFrom(t, netip.MustParseAddr("127.66.0.1"), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(all)
		wrote <- err
	}()
	seen := make([]bool, queries)
	for i := range queries {
		var head [2]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			t.Fatalf("after %d replies: %v", i, err)
		}
		b := make([]byte, binary.BigEndian.Uint16(head[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("after %d replies: %v", i, err)
		}
		id := int(binary.BigEndian.Uint16(b))
		if id >= queries || seen[id] || b[2]&0x80 == 0 {
			t.Fatalf("reply %d has ID %d: % x", i, id, b[:12])
		}
		seen[id] = true
		if rcode := int(b[3] & 0xF); rcode != []int{0, 0, dns.RcodeNameError, 0}[id%4] {
			t.Fatalf("reply %d: rcode %d", id, rcode)
		}
		if i == queries/2 {
			if got, err := askTCP(t, netip.MustParseAddr("127.1.0.53"), at, "static.example.test"); err != nil || !wellAnswered(got) {
				t.Errorf("another client meanwhile: %q, %v", got, err)
			}
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// TestHalfSentQuery: on a stream of its own it keeps nobody waiting (RFC 7766
// §6.2.1), and what came before it on the same stream is answered at once.
func TestHalfSentQuery(t *testing.T) {
	_, at := onSockets(t, "127.0.0.1:0")
	c, err := dialFrom(t, netip.MustParseAddr("127.66.0.1"), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	query := framed(t, "static.example.test")
	if _, err := c.Write(append(append(slices.Clone(query), query...), query[:9]...)); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got, err := readFramed(c); err != nil || !wellAnswered(got) {
			t.Errorf("query %d before the half one: %q, %v", i, got, err)
		}
	}
	if got, err := askTCP(t, netip.MustParseAddr("127.66.0.1"), at, "static.example.test"); err != nil || !wellAnswered(got) {
		t.Errorf("another stream of the same client: %q, %v", got, err)
	}
	if _, err := c.Write(query[9:]); err != nil {
		t.Fatal(err)
	}
	if got, err := readFramed(c); err != nil || !wellAnswered(got) {
		t.Errorf("the half one, when its rest has come: %q, %v", got, err)
	}
}

// TestStreamMemory: streams that are idle after having asked hold no room for
// replies.
func TestStreamMemory(t *testing.T) {
	_, at := onSockets(t, "127.0.0.1:0")
	n := affordable(t, 500)
	var open []net.Conn
	for i := range n {
		c, err := dialFrom(t, netip.AddrFrom4([4]byte{127, 66, byte(i / 50), 1}), at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	query := framed(t, "static.example.test")
	before := heap()
	for _, c := range open {
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
		if got, err := readFramed(c); err != nil || !wellAnswered(got) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	grown := heap() - before
	t.Logf("%d octets more for each of %d streams", grown/int64(n), n)
	if grown > int64(n)*4096 {
		t.Errorf("%d streams hold %d KiB more after their first query", n, grown>>10)
	}
}

// heap is the live heap after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what was in pools goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
