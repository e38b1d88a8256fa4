package dnsserver_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
)

// floodRate is the limit in these tests: low, so that a flood that two cores can
// make is far over it.
const floodRate = 50

// attackPace is how many packets an attack sends in a millisecond: some fifty
// times the rate, and not so many that the kernel's queue overflows on a slow
// machine, which would be another test.
const attackPace = 3

// attack sends query from sockets at each of the local addresses in turn until
// ctx ends, counts, and reads nothing.
func attack(ctx context.Context, t *testing.T, locals []string, to netip.AddrPort, query []byte, sent *atomic.Int64) {
	t.Helper()
	var conns []net.Conn
	for _, local := range locals {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(local), 0))}
		c, err := d.DialContext(ctx, "udp", to.String())
		if err != nil {
			t.Skipf("no socket at %s: %v", local, err)
		}
		conns = append(conns, c)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range attackPace {
				if _, err := conns[i%len(conns)].Write(query); err == nil {
					sent.Add(1)
				}
				i++
			}
		}
	}()
}

// resolver asks as one does: with three tries, and by TCP after TC. cookie is
// the COOKIE option's data; BADCOOKIE and every reply refresh it.
type resolver struct {
	local  netip.Addr
	cookie string // hex; empty: it speaks none
}

func (r *resolver) ask(to netip.AddrPort, name string) (*dns.Msg, error) {
	var last error
	for range 3 {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		m.SetEdns0(1232, false)
		if r.cookie != "" {
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: r.cookie})
		}
		c := dns.Client{Timeout: time.Second, Dialer: &net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.local, 0))}}
		reply, _, err := c.Exchange(m, to.String())
		if err != nil {
			last = err
			continue
		}
		if opt := reply.IsEdns0(); opt != nil {
			for _, o := range opt.Option {
				if k, ok := o.(*dns.EDNS0_COOKIE); ok {
					r.cookie = k.Cookie
				}
			}
		}
		switch {
		case reply.Rcode == dns.RcodeBadCookie:
			last = fmt.Errorf("BADCOOKIE")
			continue
		case reply.Truncated:
			tcp := dns.Client{Net: "tcp", Timeout: time.Second, Dialer: &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.local, 0))}}
			reply, _, err = tcp.Exchange(m, to.String())
			return reply, err
		}
		return reply, nil
	}
	return nil, last
}

// TestFlood attacks from one /24 and from a thousand others at once. Resolvers
// of networks that take no part are answered; so is one of the attacked network
// that speaks cookies, and one that does not, by TCP.
func TestFlood(t *testing.T) {
	k := openEverything(t)
	var passed, small, held atomic.Int64 // replies to the attacked network
	s := dnsserver.NewServer(dnsserver.ServerConfig{OnOutcome: func(c *dnsserver.Context, o *dnsserver.Outcome) {
		if a := c.From.Addr().As4(); c.Transport != dnsserver.UDP || a[1] != 66 || a[3] > 100 || o.ValidCookie {
			return
		}
		switch o.Limit {
		case dnsserver.Passed:
			passed.Add(1)
		case dnsserver.Slipped:
			small.Add(1)
		case dnsserver.Dropped:
			held.Add(1)
		}
	}})
	s.SetView(k.view)
	s.SetState(k.state)
	s.SetCookies(cookieSecrets)
	s.SetRateLimit(dnsserver.RateLimit{Rate: floodRate, Slip: 2}) // nothing is exempt, loopback least of all
	pc, ln := samePort(t, "127.0.0.1:0")
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	go s.ServeUDP(pc)
	go s.ServeTCP(ln)
	q, err := txtest.ParseQuery("big.example.test TXT")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sent, sentWide atomic.Int64
	one, wide := []string{}, []string{}
	for i := range 32 {
		one = append(one, fmt.Sprintf("127.66.6.%d", i+1))
	}
	for i := range 1000 {
		wide = append(wide, fmt.Sprintf("127.%d.%d.9", 100+i/250, i%250))
	}
	start := time.Now()
	attack(ctx, t, one, at, q.Wire, &sent)
	attack(ctx, t, wide, at, q.Wire, &sentWide)

	var wg sync.WaitGroup
	for i := range 40 { // each of a network of its own
		wg.Go(func() {
			r := &resolver{local: netip.AddrFrom4([4]byte{127, 1, byte(i), 53})}
			for range 5 {
				if m, err := r.ask(at, "static.example.test."); err != nil || len(m.Answer) != 2 {
					t.Errorf("resolver %v: %v, %v", r.local, m, err)
				}
			}
		})
	}
	for i, cookie := range []string{"2464c4abcf10c957", ""} { // within the attacked network
		wg.Go(func() {
			r := &resolver{local: netip.AddrFrom4([4]byte{127, 66, 6, byte(201 + i)}), cookie: cookie}
			answered := 0
			for range 10 {
				if m, err := r.ask(at, "static.example.test."); err == nil && len(m.Answer) == 2 {
					answered++
				}
			}
			// Of its first tries one may be lost: half of what is over the rate is dropped.
			if want := 7; answered < want {
				t.Errorf("resolver %v, cookie %q: %d of 10 answered, want %d", r.local, cookie, answered, want)
			}
		})
	}
	wg.Wait()
	// A busy machine may take a while to flood.
	bystander := &resolver{local: netip.AddrFrom4([4]byte{127, 1, 200, 53})}
	for tries := 0; tries < 5_000 && (held.Load() == 0 || small.Load() == 0); tries++ {
		if _, err := bystander.ask(at, "static.example.test."); err != nil {
			t.Errorf("bystander: %v", err)
			break
		}
	}
	stop()
	took := time.Since(start)
	most := int64(floodRate * (took.Seconds() + 2))
	t.Logf("in %v: %d from one /24, %d from 1000 others; to the one: %d whole, %d small, %d held back", took, sent.Load(), sentWide.Load(), passed.Load(), small.Load(), held.Load())
	if passed.Load() > most {
		t.Errorf("%d whole replies to the attacked network, want at most %d", passed.Load(), most)
	}
	if held.Load() == 0 || small.Load() == 0 {
		t.Error("the flood was not over the rate: this test shows nothing")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLimitedReplies looks at what goes out over the rate: it is small.
func TestLimitedReplies(t *testing.T) {
	k := openEverything(t)
	s := dnsserver.NewServer(dnsserver.ServerConfig{})
	s.SetView(k.view)
	s.SetRateLimit(dnsserver.RateLimit{Rate: 1, Slip: 1})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeUDP(pc)
	defer s.Shutdown(t.Context())
	to := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	if got := ask(t, "127.0.0.1:0", to, "static.example.test"); !strings.Contains(got, "192.0.2.1") {
		t.Errorf("within the rate: %s", got)
	}
	for _, text := range []string{"static.example.test", "static.example.test +noedns"} {
		got := ask(t, "127.0.0.1:0", to, text)
		if !strings.HasPrefix(got, "status: NOERROR flags: qr tc rd\n") || strings.Contains(got, "answer:") {
			t.Errorf("%s over the rate: %s", text, got)
		}
	}
	s.SetRateLimit(dnsserver.RateLimit{})
	if got := ask(t, "127.0.0.1:0", to, "static.example.test"); !strings.Contains(got, "192.0.2.1") {
		t.Errorf("without a rate: %s", got)
	}
}
