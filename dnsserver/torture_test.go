package dnsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

// tortured is a server of one zone, without sockets.
func tortured(t testing.TB) *Server {
	t.Helper()
	const text = "$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\nwww IN A 192.0.2.1\n"
	zone, findings := zones.Parse("example.test.zone", []byte(text), zones.Options{Origin: "example.test"})
	if zone == nil {
		t.Fatalf("%+v", findings)
	}
	v, err := NewView(ViewConfig{Zones: []*zones.Zone{zone}})
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerConfig{})
	s.SetView(v)
	s.SetCookies(&CookieSecrets{Make: [16]byte{1}})
	return s
}

// TestWaterTorture asks for 200,000 names that do not exist, from all over the
// world. Nothing is remembered of any name or client: not one octet is allocated.
// A resolver that asks for good names meanwhile gets each answer.
func TestWaterTorture(t *testing.T) {
	const seed1, seed2 = 8020, 2308
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	s := tortured(t)
	s.SetRateLimit(RateLimit{Rate: 500, Slip: 2})
	a := s.newAsker()
	room := make([]byte, 0, udpReply)
	bad, err := txtest.ParseQuery("xxxxxxxxxxxx.example.test")
	if err != nil {
		t.Fatal(err)
	}
	good, err := txtest.ParseQuery("www.example.test")
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	nowhere, answered, asked := 0, 0, 0
	for i := range 200_000 {
		for j := range 12 {
			bad.Wire[headerLen+1+j] = byte('a' + rnd.IntN(26))
		}
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(200)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}), 4000)
		if reply := a.limit(room, a.answer(room, bad.Wire, from, netip.AddrPort{}, UDP), bad.Wire); len(reply) > 0 && a.out.Rcode == rcodeNXDomain {
			nowhere++
		}
		if i%1000 == 0 {
			asked++
			if reply := a.limit(room, a.answer(room, good.Wire, good.From, netip.AddrPort{}, UDP), good.Wire); len(reply) > 0 && a.out.Answers == 1 {
				answered++
			}
		}
	}
	runtime.ReadMemStats(&after)
	if answered != asked {
		t.Errorf("%d of %d good queries answered (seed %d, %d)", answered, asked, seed1, seed2)
	}
	if nowhere == 0 {
		t.Error("no NXDOMAIN: this test shows nothing")
	}
	// The test's own runtime allocates something now and then.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<10 {
		t.Errorf("%d octets allocated, of which nothing is needed", grown)
	}
}

// scripted is a connection that brings octets in pieces and keeps what is
// written.
type scripted struct {
	net.Conn // nil: what is not below is not called
	in       []byte
	piece    int
	out      []byte
	waiting  func() // called when the stream waits for its client
}

func (c *scripted) Read(b []byte) (int, error) {
	c.wait()
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), max(c.piece, 1))], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *scripted) Write(b []byte) (int, error) {
	c.wait()
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *scripted) wait() {
	if c.waiting != nil {
		c.waiting()
	}
}

func (c *scripted) Close() error        { return nil }
func (c *scripted) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 53), Port: 53} }
func (c *scripted) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 4000}
}
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

// frames cuts a stream into its messages; what is not whole at the end is left.
func frames(b []byte) (list [][]byte, rest []byte) {
	for len(b) >= 2 {
		n := 2 + int(binary.BigEndian.Uint16(b))
		if n > len(b) {
			break
		}
		list = append(list, b[2:n])
		b = b[n:]
	}
	return list, b
}

// checkStream serves a stream of these octets and compares the replies with
// those that the same messages get one by one.
func checkStream(s *Server, in []byte, piece int) error {
	held := 0
	c := &scripted{in: in, piece: piece, waiting: func() { held = max(held, len(s.turns)) }}
	s.serveStream(&stream{conn: c})
	if held += len(s.turns); held != 0 {
		return errors.New("a stream keeps others from answering while it waits for its client, or for ever")
	}
	got, rest := frames(c.out)
	if len(rest) > 0 {
		return fmt.Errorf("%d octets that are no message: %x", len(rest), rest)
	}
	queries, _ := frames(in)
	a := s.newAsker()
	a.idle = s.idle()
	from, local := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	for i, q := range queries {
		if len(q) == 0 {
			continue
		}
		want := a.answer(nil, q, from, local, TCP)
		if len(want) == 0 {
			continue
		}
		if len(got) == 0 {
			return fmt.Errorf("query %d has no reply", i)
		}
		// A cookie has the second it was made in: compare what is before it.
		n := min(len(want), len(got[0]))
		if len(want) != len(got[0]) || string(want[:min(n, 40)]) != string(got[0][:min(n, 40)]) {
			return fmt.Errorf("query %d: got %x, want %x", i, got[0], want)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		return errors.New("more replies than queries")
	}
	return nil
}

// FuzzStream serves streams of any octets, in pieces of any size.
func FuzzStream(f *testing.F) {
	var all []byte
	for _, text := range oracleSeeds {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			f.Fatal(err)
		}
		one := append(binary.BigEndian.AppendUint16(nil, uint16(len(q.Wire))), q.Wire...)
		f.Add(one, uint16(1))
		all = append(all, one...)
	}
	f.Add(all, uint16(2000))
	f.Add(append([]byte{0, 0, 0, 0}, all...), uint16(7))
	f.Add(append(all, 0xFF, 0xFF, 1, 2, 3), uint16(100))
	s := tortured(f)
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		if err := checkStream(s, in, int(piece)); err != nil {
			t.Error(err)
		}
	})
}

// TestStreamsOfAnySize puts many queries into one stream, whole or in pieces,
// with long ones among them, so that replies are gathered and written in every
// way.
func TestStreamsOfAnySize(t *testing.T) {
	const seed1, seed2 = 7766, 8
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	s := tortured(t)
	for i := range 200 {
		var in []byte
		for range rnd.IntN(200) {
			text := []string{"www.example.test", "no.example.test +do", "example.org", "www.example.test +qr", ". +questions=0"}[rnd.IntN(5)]
			q, err := txtest.ParseQuery(text)
			if err != nil {
				t.Fatal(err)
			}
			q.Wire = append(q.Wire, make([]byte, rnd.IntN(5)*rnd.IntN(2)*rnd.IntN(900))...) // octets behind it are nobody's
			in = append(binary.BigEndian.AppendUint16(in, uint16(len(q.Wire))), q.Wire...)
			if rnd.IntN(9) == 0 {
				in = append(in, 0, 0)
			}
		}
		if err := checkStream(s, in, 1+rnd.IntN(5000)); err != nil {
			t.Fatalf("stream %d of seed %d, %d: %v", i, seed1, seed2, err)
		}
	}
}

// TestTurns: streams full of queries leave half of the cores to UDP, and one that
// waits for its client keeps no other from answering.
func TestTurns(t *testing.T) {
	s := tortured(t)
	if want := max(runtime.GOMAXPROCS(0)/2, 1); cap(s.turns) != want {
		t.Fatalf("%d streams may answer at once, want %d", cap(s.turns), want)
	}
	q, err := txtest.ParseQuery("www.example.test")
	if err != nil {
		t.Fatal(err)
	}
	one := append(binary.BigEndian.AppendUint16(nil, uint16(len(q.Wire))), q.Wire...)
	many := bytes.Repeat(one, 500)
	if err := checkStream(s, many, len(many)); err != nil {
		t.Error(err)
	}
	answering := 0
	s.config.OnOutcome = func(*Context, *Outcome) { answering = max(answering, len(s.turns)) }
	s.serveStream(&stream{conn: &scripted{in: one, piece: len(one)}})
	if answering != 1 {
		t.Errorf("%d turns were held while one stream answered", answering)
	}
	// With every turn taken nobody answers; with one given back, somebody does.
	for range cap(s.turns) {
		s.turns <- struct{}{}
	}
	done := make(chan struct{})
	c := &scripted{in: one, piece: len(one)}
	go func() {
		s.serveStream(&stream{conn: c})
		close(done)
	}()
	<-s.turns
	<-done
	if len(c.out) == 0 {
		t.Error("no answer when there was a turn")
	}
}
