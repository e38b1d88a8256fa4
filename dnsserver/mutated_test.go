package dnsserver_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
)

// TestMutatedPackets asks with broken copies of good queries, 100,000 of them
// or as many as $PERIGEE_PACKETS says: "make packets" asks ten million. What
// checkReply says must hold of each.
func TestMutatedPackets(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	if text := os.Getenv("PERIGEE_PACKETS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("PERIGEE_PACKETS: %v", err)
		}
	}
	const seed1, seed2 = 53, 1987
	m := newMutator(t, seed1, seed2)
	k := openEverything(t)
	tally := map[string]int{}
	for i := range n {
		k.limited = i%8 == 0
		out := checkReply(t, k, m.next(), dnsserver.Transport(1+m.rnd.IntN(2)))
		tally[outcomeWord(out)]++
		if t.Failed() {
			t.Fatalf("packet %d of seed %d, %d", i, seed1, seed2)
		}
	}
	t.Logf("%d packets of seed %d, %d: %v", n, seed1, seed2, tally)
	// Were they all FORMERR, the test would show nothing.
	for _, word := range []string{"dropped", "NOERROR", "answered", "truncated", "FORMERR", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS", "BADCOOKIE"} {
		if tally[word] < n/1000 {
			t.Errorf("%d of %d packets were %s: the mutations are too strong or too weak", tally[word], n, word)
		}
	}
}

func outcomeWord(out *dnsserver.Outcome) string {
	switch {
	case out.Action == dnsserver.Drop:
		return "dropped"
	case out.TC:
		return "truncated"
	case out.Answers > 0:
		return "answered"
	case out.Rcode == dns.RcodeBadVers:
		return "BADVERS"
	}
	return dns.RcodeToString[int(out.Rcode)]
}

// mutator makes broken queries from good ones.
type mutator struct {
	rnd   *rand.Rand
	seeds [][]byte
	buf   []byte
}

func newMutator(t testing.TB, seed1, seed2 uint64) *mutator {
	t.Helper()
	m := &mutator{rnd: rand.New(rand.NewPCG(seed1, seed2))}
	for _, text := range queries {
		q, err := txtest.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		m.seeds = append(m.seeds, q.Wire)
	}
	return m
}

// next returns another packet, good until the next one.
func (m *mutator) next() []byte {
	m.buf = append(m.buf[:0], m.seeds[m.rnd.IntN(len(m.seeds))]...)
	for range 1 + m.rnd.IntN(4)*m.rnd.IntN(2) {
		m.buf = m.mutate(m.buf)
	}
	return m.buf
}

func (m *mutator) mutate(p []byte) []byte {
	if len(p) == 0 {
		return p
	}
	rnd := m.rnd
	at := rnd.IntN(len(p))
	switch rnd.IntN(12) {
	case 0:
		p[at] ^= 1 << rnd.IntN(8)
	case 1:
		p[at] = byte(rnd.Uint32())
	case 2:
		p = p[:at]
	case 3:
		p = append(p[:at], append([]byte{byte(rnd.Uint32())}, p[at:]...)...)
	case 4:
		p = append(p[:at], p[at+1:]...)
	case 5:
		other := m.seeds[rnd.IntN(len(m.seeds))]
		p = append(p[:at], other[rnd.IntN(len(other)):]...)
	case 6: // another type, the extremes more often than by chance
		if end := bytes.IndexByte(p[min(12, len(p)):], 0); end >= 0 && 12+end+3 <= len(p) {
			types := []uint16{0, 41, 64, 65, 128, 249, 250, 251, 252, 253, 254, 255, 256, 32768, 32769, 65280, 65535, uint16(rnd.Uint32())}
			binary.BigEndian.PutUint16(p[12+end+1:], types[rnd.IntN(len(types))])
		}
	case 7: // counts that lie
		if len(p) >= 12 {
			counts := []uint16{0, 1, 2, 15, 16, 17, 255, 65535, uint16(rnd.Uint32())}
			binary.BigEndian.PutUint16(p[4+2*rnd.IntN(4):], counts[rnd.IntN(len(counts))])
		}
	case 8: // a pointer, to itself, forwards or backwards
		if at+2 <= len(p) {
			binary.BigEndian.PutUint16(p[at:], 0xC000|uint16(max(at+rnd.IntN(5)-2, 0)))
		}
	case 9: // a length that lies
		p[at] = byte([]int{0, 1, 63, 64, 127, 128, 191, 192, 255}[rnd.IntN(9)])
	case 10: // an option more
		code := []uint16{1, 3, 8, 9, 10, 11, 12, 15, 65535}[rnd.IntN(9)]
		size := rnd.IntN(44)
		p = binary.BigEndian.AppendUint16(p, code)
		p = binary.BigEndian.AppendUint16(p, uint16(size))
		for range size {
			p = append(p, byte(rnd.Uint32()))
		}
		if end := bytes.Index(p, []byte{0, 0, 41}); end >= 0 && end+11 <= len(p) {
			binary.BigEndian.PutUint16(p[end+9:], uint16(len(p)-end-11))
		}
	case 11: // another record at the end
		p = append(p, 0, 0, byte([]int{1, 2, 24, 41, 46, 64, 65, 250}[rnd.IntN(8)]), 0, 1, 0, 0, 0, 0, 0, byte(rnd.IntN(5)))
		if len(p) >= 12 {
			p[11]++
		}
	}
	return p
}
