package dnsserver

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// TestRateLimit walks one network over its rate and back, by a clock of its own.
func TestRateLimit(t *testing.T) {
	l := newLimiter(RateLimit{Rate: 10, Slip: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}}, [16]byte{1})
	now := 1000 * time.Hour
	judge := func(addr string, class byte) Verdict { return l.judge(netip.MustParseAddr(addr), class, now) }
	for i := range 10 {
		if v := judge("192.0.2.1", classAnswer); v != Passed {
			t.Fatalf("reply %d: %v", i, v)
		}
	}
	for i, want := range []Verdict{Dropped, Slipped, Dropped, Slipped} {
		if v := judge("192.0.2.2", classAnswer); v != want {
			t.Errorf("reply %d over the rate, to another address of the network: %v, want %v", i, v, want)
		}
	}
	for _, c := range []struct {
		what, addr string
		class      byte
	}{
		{"another network", "192.0.3.1", classAnswer}, {"another class", "192.0.2.1", classEmpty}, {"errors", "192.0.2.1", classError},
		{"an exempt network", "192.0.2.129", classAnswer}, {"the same, in IPv6 form", "::ffff:192.0.2.129", classAnswer},
	} {
		if v := judge(c.addr, c.class); v != Passed {
			t.Errorf("%s: %v", c.what, v)
		}
	}
	now += 99 * time.Millisecond
	if v := judge("192.0.2.1", classAnswer); v != Dropped {
		t.Errorf("just before the next one is due: %v", v)
	}
	now += time.Millisecond
	if v := judge("::ffff:192.0.2.1", classAnswer); v != Passed {
		t.Errorf("when the next one is due: %v", v)
	}
	if v := judge("192.0.2.1", classAnswer); v == Passed {
		t.Error("two passed when one was due")
	}
	now -= 300 * time.Millisecond // another reader's clock, read a little earlier, opens nothing
	if v := judge("192.0.2.1", classAnswer); v == Passed {
		t.Error("a reply passed by an earlier reading of the clock")
	}
	now -= 500 * time.Hour // the clock is set back: nobody waits for it
	if v := judge("192.0.2.1", classAnswer); v != Passed {
		t.Errorf("after the clock was set back: %v", v)
	}
	for range 20 {
		judge("2001:db8:0:ff::1", classAnswer)
	}
	if v := judge("2001:db8::2", classAnswer); v == Passed {
		t.Error("another address of the /56 has a rate of its own")
	}
	if v := judge("2001:db8:0:100::1", classAnswer); v != Passed {
		t.Errorf("another /56: %v", v)
	}
	var none *limiter
	if newLimiter(RateLimit{Slip: 2}, [16]byte{}) != nil || none.judge(netip.MustParseAddr("192.0.2.1"), classAnswer, now) != Passed {
		t.Error("no rate is a limit")
	}
}

// TestRateLimitSlip: 0 lets none of them out, 1 each.
func TestRateLimitSlip(t *testing.T) {
	for slip, want := range map[int]Verdict{0: Dropped, 1: Slipped} {
		l := newLimiter(RateLimit{Rate: 1, Slip: slip}, [16]byte{})
		for i := range 10 {
			if v := l.judge(netip.MustParseAddr("192.0.2.1"), classAnswer, time.Hour); i > 0 && v != want {
				t.Errorf("slip %d, reply %d: %v, want %v", slip, i, v, want)
			}
		}
	}
}

// TestRateLimitTable floods from random networks. The table stays as large as
// it is; the network under attack stays limited, whatever comes between; and
// who asks now and then is not taken for a part of it.
func TestRateLimitTable(t *testing.T) {
	const seed1, seed2 = 24, 56
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	l := newLimiter(RateLimit{Rate: 100}, [16]byte{7})
	target := netip.MustParseAddr("198.51.100.1")
	start := time.Hour
	passed, refused := 0, 0
	const packets = 200_000
	for i := range packets { // 20,000 packets a second, each tenth to the target
		now := start + time.Duration(i)*10*time.Second/packets
		if i%10 == 0 {
			if l.judge(target, classAnswer, now) == Passed {
				passed++
			}
			continue
		}
		from := netip.AddrFrom4([4]byte{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), 1})
		if l.judge(from, classAnswer, now) != Passed && from.As4() != target.As4() {
			refused++
		}
	}
	if passed < 1000 || passed > 1101 {
		t.Errorf("the target got %d replies in ten seconds, want 100 a second and the first burst (seed %d, %d)", passed, seed1, seed2)
	}
	if refused != 0 {
		t.Errorf("%d replies to networks that ask once were held back (seed %d, %d)", refused, seed1, seed2)
	}
	if len(l.sets) != limitSets {
		t.Errorf("the table has grown to %d sets", len(l.sets))
	}
}

func TestRateLimitAllocatesNothing(t *testing.T) {
	l := newLimiter(RateLimit{Rate: 1, Slip: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, [16]byte{})
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() { l.judge(a, 0, time.Hour); l.judge(b, 1, time.Hour) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOutcomeClass(t *testing.T) {
	for want, list := range map[byte][]Outcome{
		classAnswer: {{Answers: 1}, {TC: true}, {Rcode: rcodeNXDomain, Answers: 1}},
		classEmpty:  {{}, {Rcode: rcodeNXDomain}},
		classError:  {{Rcode: rcodeRefused}, {Rcode: rcodeFormErr}, {Rcode: rcodeBadVers}, {Rcode: rcodeServFail, Answers: 1}},
	} {
		for _, o := range list {
			if got := o.class(); got != want {
				t.Errorf("%+v: class %d, want %d", o, got, want)
			}
		}
	}
}

func BenchmarkRateLimit(b *testing.B) {
	l := newLimiter(RateLimit{Rate: 100, Slip: 2}, [16]byte{})
	addr := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.judge(addr, classAnswer, time.Hour+time.Duration(i)*time.Microsecond)
	}
}
