package dnsserver

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"perigee.example/internal/txtest"
)

// BenchmarkReaders has one reader a processor answer, count and limit as behind a
// socket. With -cpu 1,2 it tells what they wait for in each other: apart from the
// rate limit nothing is shared that is written, so that "networks" costs half with
// two of them, and "network", in which all replies count as one, does not.
func BenchmarkReaders(b *testing.B) {
	for _, c := range []struct {
		name  string
		apart byte // what the networks of two readers differ by
	}{{"networks", 1}, {"network", 0}} {
		b.Run(c.name, func(b *testing.B) {
			s := tortured(b)
			s.SetRateLimit(RateLimit{Rate: 1_000_000})
			q, err := txtest.ParseQuery("www.example.test")
			if err != nil {
				b.Fatal(err)
			}
			var readers atomic.Uint32
			b.RunParallel(func(pb *testing.PB) {
				a := s.newAsker()
				defer a.done()
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, c.apart * byte(readers.Add(1)), 1}), 5353)
				room := make([]byte, 0, udpReply)
				for i := 0; pb.Next(); i++ {
					if i%64 == 0 {
						a.begin(UDP, time.Duration(time.Now().UnixNano()))
					}
					a.limit(room, a.answerTo(room, q.Wire, from, from), q.Wire)
					a.report()
				}
			})
			if n := s.Stats().Queries[QueryKind{UDP, rcodeNoError}]; n+uint64(s.Stats().Limited[Dropped]) != uint64(b.N) {
				b.Errorf("%d of %d replies were counted", n, b.N)
			}
		})
	}
}

// What one reader counts is on lines of the cache that no other writes to,
// wherever the allocator puts it.
func TestCountersShareNoLine(t *testing.T) {
	const line = 128 // two of 64, which are fetched in pairs
	var c counters
	if last := unsafe.Offsetof(c.retired) + unsafe.Sizeof(c.retired); unsafe.Sizeof(c) < last+line {
		t.Errorf("%d octets behind the last field, want %d", unsafe.Sizeof(c)-last, line)
	}
}
