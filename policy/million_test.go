package policy_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"perigee.example/internal/geo"
	"perigee.example/policy"
)

// millionSet is geo over weighted, as most fleets have it: a few countries and
// continents, each with weights of its own.
func millionSet(t testing.TB) (*policy.Set, policy.Name, *policy.State) {
	t.Helper()
	db, err := geo.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := realFleet(t)
	weights := func(name string, of ...uint32) {
		p := policy.Policy{Name: name, Kind: policy.Weighted, TTL: 30 * time.Second}
		for i, w := range of {
			p.Choices = append(p.Choices, policy.Choice{To: c.Endpoints[i].Name, Weight: w})
		}
		c.Policies = append(c.Policies, p)
	}
	weights("w-europe", 70, 20, 10)
	weights("w-america", 10, 80, 5, 5)
	weights("w-asia", 10, 10, 60, 0, 20)
	weights("w-rest", 30, 30, 40)
	m := policy.Policy{Name: "www", Kind: policy.Geo}
	for _, rule := range []struct{ match, to string }{
		{"DE", "w-europe"}, {"europe", "w-europe"}, {"RU", "w-rest"}, {"north-america", "w-america"}, {"MX", "w-rest"},
		{"asia", "w-asia"}, {"JP", "w-rest"}, {"CN", "w-rest"}, {"oceania", "w-asia"}, {"default", "w-rest"},
	} {
		sel, err := policy.ParseSelector(rule.match)
		if err != nil {
			t.Fatal(err)
		}
		m.Map = append(m.Map, policy.Rule{Match: sel, To: rule.to})
	}
	c.Policies = append(c.Policies, m)
	set, err := policy.Compile(c, []string{"www"}, db)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := set.Root("www")
	st := set.NewState()
	for i := range st.Endpoints {
		st.Endpoints[i].Health = policy.Up
	}
	st.Endpoints[1].Health = policy.Down
	set.Prepare(st)
	return set, root, st
}

// million are distinct client networks, /24 in the space that is in use, or
// /56, in random order, so that tables are seldom in a cache.
func million(six bool) []netip.Prefix {
	rnd := rand.New(rand.NewPCG(4, 4))
	seen := make(map[netip.Prefix]bool, 1<<20)
	list := make([]netip.Prefix, 0, 1<<20)
	for len(list) < 1<<20 {
		var p netip.Prefix
		if six {
			var b [16]byte
			high := []uint16{0x2001, 0x2400, 0x2600, 0x2804, 0x2a00, 0x2a02, 0x2a01, 0x2a03, 0x2408, 0x2409}[rnd.IntN(10)]
			binary.BigEndian.PutUint16(b[:], high)
			binary.BigEndian.PutUint32(b[2:], rnd.Uint32())
			p = netip.PrefixFrom(netip.AddrFrom16(b), 56)
		} else {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], (1<<24+rnd.Uint32N(223<<24))&^0xFF)
			p = netip.PrefixFrom(netip.AddrFrom4(b), 24)
		}
		if !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	return list
}

// cpuTime is what this process has used, so that what else runs on the machine
// does not count.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecideMillion decides for a million distinct client networks in
// turn, so that misses of the caches count.
func BenchmarkDecideMillion(b *testing.B) {
	set, root, st := millionSet(b)
	for _, family := range []struct {
		name string
		six  bool
	}{{"IPv4", false}, {"IPv6", true}} {
		clients := million(family.six)
		b.Run(family.name, func(b *testing.B) {
			var d policy.Decision
			q := policy.Query{Draw: 12345, Now: time.Hour}
			b.ReportAllocs()
			began, n := cpuTime(b), 0
			for b.Loop() {
				q.Client = clients[n&(len(clients)-1)]
				set.Decide(root, &q, st, &d)
				n++
			}
			b.ReportMetric(float64(cpuTime(b)-began)/float64(n), "cpu-ns/op")
		})
	}
}
