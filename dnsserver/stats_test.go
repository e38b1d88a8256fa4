package dnsserver

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"perigee.example/policy"
)

// TestStats: what several goroutines count comes out in one sum, also while it is
// read and after a change of policies.
func TestStats(t *testing.T) {
	set := func() *policy.Set {
		s, err := policy.Compile(policy.Config{Endpoints: []policy.Endpoint{{Name: "fra1"}, {Name: "iad1"}}}, []string{"fra1", "iad1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sets := []*policy.Set{set(), set()}
	s := NewServer(ServerConfig{})
	const goroutines, rounds = 4, 1000
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			a := s.newAsker()
			defer a.done()
			for i := range rounds {
				use := sets[i*2/rounds]
				root, _ := use.Root([]string{"fra1", "iad1"}[g%2])
				o := Outcome{Action: Reply, Zone: "a.test.", Steered: true, Policies: use, Root: root, Decision: policy.Decision{Endpoints: []int{g % 2, 0}}}
				a.count.count(UDP, &o)
				a.count.count(TCP, &Outcome{Action: Reply, Zone: fmt.Sprintf("%d.test.", i), Rcode: 3})
				a.count.count(UDP, &Outcome{Action: Drop})
				a.count.count(UDP, &Outcome{Action: Drop, Limit: Dropped, Zone: "a.test."})
				a.count.count(UDP, &Outcome{Action: Reply, Limit: Slipped, Rcode: 4000})
			}
		})
	}
	s.Stats() // beside them
	wg.Wait()
	st := s.Stats()
	const n = goroutines * rounds
	want := map[QueryKind]uint64{{UDP, 0}: n, {TCP, 3}: n, {UDP, lastRcode + 1}: n}
	if fmt.Sprint(st.Queries) != fmt.Sprint(want) || st.Dropped != n || st.Limited[Dropped] != n || st.Limited[Slipped] != n {
		t.Errorf("%+v", st)
	}
	if st.Zones["a.test."] != 2*n || len(st.Zones) > maxZoneStats+1 {
		t.Errorf("%d zones, a.test. %d", len(st.Zones), st.Zones["a.test."])
	}
	sum := uint64(0)
	for _, v := range st.Zones {
		sum += v
	}
	if sum != 3*n || st.Zones[otherStats] == 0 {
		t.Errorf("%d queries in zones, %d of them other", sum, st.Zones[otherStats])
	}
	if len(st.Steered) != 2 || st.Steered[Steering{"fra1", "fra1"}] != n/2 || st.Steered[Steering{"iad1", "iad1"}] != n/2 {
		t.Errorf("steered %v", st.Steered)
	}
	a := s.newAsker()
	o := Outcome{Action: Reply, Zone: "a.test.", Steered: true, Policies: sets[1], Decision: policy.Decision{Endpoints: []int{0}}}
	if got := testing.AllocsPerRun(100, func() { a.count.count(UDP, &o) }); got != 0 {
		t.Errorf("counting allocates %v times", got)
	}
	if len(s.tally.all) > goroutines {
		t.Errorf("%d counters for %d goroutines: those that were given back are not used again", len(s.tally.all), goroutines)
	}
}

func BenchmarkCount(b *testing.B) {
	s := NewServer(ServerConfig{})
	a := s.newAsker()
	o := Outcome{Action: Reply, Zone: "a.test."}
	for b.Loop() {
		a.count.count(UDP, &o)
	}
}

// Streams that ask in turns share their counters: those of each know up to a
// thousand zones, and thousands of streams may be open.
func TestStreamsShareCounters(t *testing.T) {
	s := NewServer(ServerConfig{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeTCP(ln)
	defer s.Shutdown(t.Context())
	query := []byte{0, 17, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1} // of the root: refused
	for range 50 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, len(query))); err != nil {
			t.Fatal(err)
		}
	}
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	if n := len(s.tally.all); n == 0 || n > cap(s.turns) {
		t.Errorf("%d counters for 50 open streams, want at most %d", n, cap(s.turns))
	}
}

// A stream whose client does not read holds no counters while its write waits:
// its turn is over, and the next stream counts with them.
func TestSlowReaderHoldsNoCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(ServerConfig{})
		ours, theirs := net.Pipe()
		defer theirs.Close()
		w := replies{conn: ours, turn: turn{turns: s.turns}}
		if err := w.add(make([]byte, tcpReplies-1)); err != nil { // so that the next reply has it written
			t.Fatal(err)
		}
		query := []byte{0, 17, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
		a := asker{s: s}
		go a.serveMessage(bufio.NewReaderSize(bytes.NewReader(query), tcpBuffer), &w, len(query)-2, netip.AddrPort{}, netip.AddrPort{})
		synctest.Wait()
		if len(s.turns) != 0 || len(s.tally.all) != 1 || len(s.tally.free) != 1 {
			t.Errorf("%d turns held, %d counters of which %d are free", len(s.turns), len(s.tally.all), len(s.tally.free))
		}
		theirs.Close()
		synctest.Wait()
	})
}
