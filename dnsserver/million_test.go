package dnsserver_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/geo"
	"perigee.example/internal/txtest"
	"perigee.example/policy"
	"perigee.example/zones"
)

// BenchmarkAnswerMillion answers for a million distinct client networks with
// ECS: a steered name (geo over weighted, over the built-in data), and one that
// is not.
func BenchmarkAnswerMillion(b *testing.B) {
	db, err := geo.Builtin()
	if err != nil {
		b.Fatal(err)
	}
	cfg := policy.Config{Policies: []policy.Policy{
		{Name: "eu", Kind: policy.Weighted, TTL: 30 * time.Second}, {Name: "us", Kind: policy.Weighted, TTL: 30 * time.Second},
		{Name: "map", Kind: policy.Geo},
	}}
	var ends []dnsserver.Endpoint
	for i, at := range realPlaces[:4] {
		name := fmt.Sprintf("e%d", i)
		cfg.Endpoints = append(cfg.Endpoints, policy.Endpoint{Name: name, Located: true, Lat: at[0], Lon: at[1]})
		ends = append(ends, dnsserver.Endpoint{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}})
		for j := range 2 {
			cfg.Policies[j].Choices = append(cfg.Policies[j].Choices, policy.Choice{To: name, Weight: uint32(1 + (i+j)%4)})
		}
	}
	for _, rule := range [][2]string{{"europe", "eu"}, {"RU", "us"}, {"north-america", "us"}, {"CN", "us"}, {"JP", "us"}, {"default", "eu"}} {
		sel, err := policy.ParseSelector(rule[0])
		if err != nil {
			b.Fatal(err)
		}
		cfg.Policies[2].Map = append(cfg.Policies[2].Map, policy.Rule{Match: sel, To: rule[1]})
	}
	set, err := policy.Compile(cfg, []string{"map"}, db)
	if err != nil {
		b.Fatal(err)
	}
	v, err := dnsserver.NewView(dnsserver.ViewConfig{
		Zones:    []*zones.Zone{parseZone(b, "example.test", []byte("$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\nsteer IN A 192.0.2.99\nplain IN A 192.0.2.99\n"))},
		Policies: set, Endpoints: ends, Steer: []dnsserver.Binding{{Zone: "example.test", Name: "steer.example.test", Policy: "map"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	st := set.NewState()
	for i := range st.Endpoints {
		st.Endpoints[i].Health = policy.Up
	}
	rnd := rand.New(rand.NewPCG(4, 4))
	clients := make([][3]byte, 1<<20)
	for i := range clients {
		n := 1<<16 + rnd.Uint32N(223<<16)
		clients[i] = [3]byte{byte(n >> 16), byte(n >> 8), byte(n)}
	}
	set.Prepare(st)
	for _, name := range []string{"plain", "steer"} {
		q, err := txtest.ParseQuery(name + ".example.test +ecs=193.99.144.0/24")
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			c := &dnsserver.Context{From: netip.MustParseAddrPort("202.156.1.16:40053"), Transport: dnsserver.UDP, State: st, Now: 1_700_000_000 * time.Second}
			out := new(dnsserver.Outcome)
			dst := make([]byte, 0, 2048)
			b.ReportAllocs()
			began, n := cpuTime(b), 0
			for b.Loop() {
				copy(q.Wire[len(q.Wire)-3:], clients[n&(len(clients)-1)][:])
				v.Answer(dst, q.Wire, c, out)
				n++
			}
			b.ReportMetric(float64(cpuTime(b)-began)/float64(n), "cpu-ns/op")
			if out.Steered != (name == "steer") {
				b.Errorf("%+v", out)
			}
		})
	}
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
