package dnsserver_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/policy"
	"perigee.example/zones"
)

// realWorld is a random fleet over the built-in country data, made from one
// seed.
type realWorld struct {
	seed  uint64
	rnd   *rand.Rand
	cfg   policy.Config
	set   *policy.Set
	view  *dnsserver.View
	names int // n0.example.test is steered by the first policy, and so on
	ends  []dnsserver.Endpoint
}

var (
	realPlaces = [][2]float64{{50.11, 8.68}, {38.95, -77.45}, {1.35, 103.82}, {-23.43, -46.47}, {-33.95, 151.18}, {-26.13, 28.24}}
	realRules  = []string{"DE", "US", "SG", "NO", "BR", "CN", "GB", "FR", "ZA", "IN", "europe", "asia", "north-america", "south-america", "africa", "oceania"}
)

func newRealWorld(t testing.TB, seed uint64) *realWorld {
	t.Helper()
	db, err := realGeography()
	if err != nil {
		t.Fatal(err)
	}
	w := &realWorld{seed: seed, rnd: rand.New(rand.NewPCG(seed, 37))}
	for i, at := range realPlaces[:2+w.rnd.IntN(len(realPlaces)-1)] {
		w.cfg.Endpoints = append(w.cfg.Endpoints, policy.Endpoint{Name: fmt.Sprintf("e%d", i), Located: w.rnd.IntN(5) > 0, Lat: at[0], Lon: at[1]})
		var e dnsserver.Endpoint
		for j := range 1 + w.rnd.IntN(2) {
			e.Addresses = append(e.Addresses,
				netip.AddrFrom4([4]byte{192, 0, 2, byte(i*10 + j)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i), 15: byte(j)}))
		}
		w.ends = append(w.ends, e)
	}
	for range 6 {
		w.cfg.Policies = append(w.cfg.Policies, w.policy(t))
	}
	var roots []string
	v := dnsserver.ViewConfig{Endpoints: w.ends}
	text := "$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n"
	for i, p := range w.cfg.Policies {
		roots = append(roots, p.Name)
		text += fmt.Sprintf("n%d IN A 192.0.2.250\nn%d IN AAAA 2001:db8::ff\nn%d IN HTTPS 1 .\n", i, i, i)
		v.Steer = append(v.Steer, dnsserver.Binding{Zone: "example.test", Name: fmt.Sprintf("n%d.example.test", i), Policy: p.Name})
	}
	w.names = len(roots)
	if w.set, err = policy.Compile(w.cfg, roots, db); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	v.Policies = w.set
	v.Zones = []*zones.Zone{parseZone(t, "example.test", []byte(text))}
	if w.view, err = dnsserver.NewView(v); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	return w
}

// target is an endpoint or an earlier policy, so that there are no loops.
func (w *realWorld) target() string {
	if n := len(w.cfg.Policies); n > 0 && w.rnd.IntN(2) == 0 {
		return w.cfg.Policies[w.rnd.IntN(n)].Name
	}
	return w.cfg.Endpoints[w.rnd.IntN(len(w.cfg.Endpoints))].Name
}

func (w *realWorld) policy(t testing.TB) policy.Policy {
	kinds := []policy.Kind{policy.Geo, policy.Geo, policy.Latency, policy.Weighted, policy.Failover, policy.Multivalue}
	p := policy.Policy{Name: fmt.Sprintf("p%d", len(w.cfg.Policies)), Kind: kinds[w.rnd.IntN(len(kinds))], TTL: time.Duration(w.rnd.IntN(4)*15) * time.Second}
	if p.Kind == policy.Geo {
		p.Map = []policy.Rule{{To: w.target()}}
		seen := map[policy.Selector]bool{}
		for range 1 + w.rnd.IntN(6) {
			sel, err := policy.ParseSelector(realRules[w.rnd.IntN(len(realRules))])
			if err != nil {
				t.Fatal(err)
			}
			if w.rnd.IntN(4) == 0 {
				sel = policy.Selector{Prefix: w.network(policy.MaxBits4, policy.MaxBits6)}
			}
			if !seen[sel] {
				seen[sel] = true
				p.Map = append(p.Map, policy.Rule{Match: sel, To: w.target()})
			}
		}
		return p
	}
	for range 1 + w.rnd.IntN(4) {
		to := w.target()
		if !slices.ContainsFunc(p.Choices, func(c policy.Choice) bool { return c.To == to }) {
			p.Choices = append(p.Choices, policy.Choice{To: to})
		}
	}
	switch p.Kind {
	case policy.Weighted:
		for i := range p.Choices {
			p.Choices[i].Weight = uint32(w.rnd.IntN(4))
		}
		p.Choices[0].Weight++
	case policy.Multivalue:
		p.Answers = w.rnd.IntN(4)
	}
	return p
}

// network is a random network of the parts of the space that are in use.
func (w *realWorld) network(max4, max6 int) netip.Prefix {
	if w.rnd.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{byte(1 + w.rnd.IntN(223)), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(256))})
		return netip.PrefixFrom(a, 8+w.rnd.IntN(max4-7)).Masked()
	}
	high := []uint16{0x2001, 0x2400, 0x2600, 0x2804, 0x2a00, 0x2a02, 0x2c0f, 0x2620}[w.rnd.IntN(8)]
	b := [16]byte{byte(high >> 8), byte(high), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(256)), byte(w.rnd.IntN(4)), byte(w.rnd.IntN(4))}
	return netip.PrefixFrom(netip.AddrFrom16(b), 26+w.rnd.IntN(max6-25)).Masked()
}

// inside is a random SOURCE inside p, or anywhere when p is everything.
func (w *realWorld) inside(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return w.network(32, 64)
	}
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		if w.rnd.IntN(2) == 0 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b) // the length is that of an address
	return netip.PrefixFrom(a, p.Bits()+w.rnd.IntN(a.BitLen()-p.Bits()+1)).Masked()
}

func (w *realWorld) state() *policy.State {
	st := w.set.NewState()
	sick := w.rnd.IntN(4)
	for i := range st.Endpoints {
		e := &st.Endpoints[i]
		e.Health = policy.Health(w.rnd.IntN(2))
		if w.rnd.IntN(4) < sick {
			e.Health = policy.Down
		}
		e.Draining = w.rnd.IntN(6) < sick-1
		e.Force = policy.Force(max(0, w.rnd.IntN(12)-9))
	}
	return st
}

// wireReply is what a resolver reads.
type wireReply struct {
	addresses []netip.Addr
	ttl       uint32
	scope     int
}

func (r wireReply) equal(o wireReply) bool {
	return slices.Equal(r.addresses, o.addresses) && r.ttl == o.ttl && r.scope == o.scope
}

// ask puts a query with a client subnet option (RFC 7871 §6) and reads the
// answer section. It fails when the option's echo is wrong.
func (w *realWorld) ask(t *testing.T, name int, qtype uint16, client netip.Prefix, c *dnsserver.Context) wireReply {
	t.Helper()
	reply, scope := w.exchange(t, name, qtype, client, c)
	return w.read(t, reply, reply.Answer, scope)
}

// askHTTPS asks for the HTTPS RRset and reads what of rrtype comes beside it.
func (w *realWorld) askHTTPS(t *testing.T, name int, rrtype uint16, client netip.Prefix, c *dnsserver.Context) wireReply {
	t.Helper()
	reply, scope := w.exchange(t, name, dns.TypeHTTPS, client, c)
	var beside []dns.RR
	for _, rr := range reply.Extra {
		if rr.Header().Rrtype == rrtype {
			beside = append(beside, rr)
		}
	}
	if len(beside) == 0 {
		t.Fatalf("seed %d: n%d for %v: nothing beside HTTPS: %v", w.seed, name, client, reply)
	}
	return w.read(t, reply, beside, scope)
}

func (w *realWorld) exchange(t *testing.T, name int, qtype uint16, client netip.Prefix, c *dnsserver.Context) (*dns.Msg, int) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(fmt.Sprintf("n%d.example.test.", name), qtype)
	m.Id = uint16(w.rnd.Uint32())
	m.SetEdns0(1232, false)
	sub := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(client.Bits()), Address: client.Addr().AsSlice()}
	if client.Addr().Is6() {
		sub.Family = 2
	}
	m.IsEdns0().Option = append(m.IsEdns0().Option, sub)
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var out dnsserver.Outcome
	var reply dns.Msg
	if err := reply.Unpack(w.view.Answer(nil, query, c, &out)); err != nil {
		t.Fatalf("seed %d: %v", w.seed, err)
	}
	echo, ok := reply.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
	if !ok || reply.Id != m.Id || reply.Rcode != dns.RcodeSuccess || len(reply.Answer) == 0 ||
		echo.Family != sub.Family || echo.SourceNetmask != sub.SourceNetmask || !echo.Address.Equal(sub.Address) {
		t.Fatalf("seed %d: n%d for %v: %v", w.seed, name, client, &reply)
	}
	return &reply, int(echo.SourceScope)
}

// read takes addresses over, which must have one TTL.
func (w *realWorld) read(t *testing.T, reply *dns.Msg, records []dns.RR, scope int) wireReply {
	t.Helper()
	r := wireReply{scope: scope, ttl: records[0].Header().Ttl}
	for _, rr := range records {
		var a netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			a, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if !a.IsValid() || rr.Header().Ttl != r.ttl {
			t.Fatalf("seed %d: %v", w.seed, reply)
		}
		r.addresses = append(r.addresses, a)
	}
	return r
}

// wanted is what a decision should look like on the wire.
func (w *realWorld) wanted(d *policy.Decision, qtype uint16) wireReply {
	r := wireReply{ttl: uint32(d.TTL / time.Second), scope: d.Scope}
	for _, i := range d.Endpoints {
		for _, a := range w.ends[i].Addresses {
			if a.Is4() == (qtype == dns.TypeA) {
				r.addresses = append(r.addresses, a)
			}
		}
	}
	return r
}

// chosen is the endpoints that the addresses of a reply belong to, in order.
func (w *realWorld) chosen(r wireReply) []int {
	var list []int
	for _, a := range r.addresses {
		i := slices.IndexFunc(w.ends, func(e dnsserver.Endpoint) bool { return slices.Contains(e.Addresses, a) })
		list = append(list, i)
	}
	return slices.Compact(list)
}

// blind reports whether no policy that name reaches looks at the client.
func (w *realWorld) blind(name string) bool {
	i := slices.IndexFunc(w.cfg.Policies, func(p policy.Policy) bool { return p.Name == name })
	if i < 0 {
		return true
	}
	p := w.cfg.Policies[i]
	return p.Kind != policy.Geo && p.Kind != policy.Latency &&
		!slices.ContainsFunc(p.Choices, func(c policy.Choice) bool { return !w.blind(c.To) })
}

// TestSteeredReplies asks random fleets over the built-in country data 2,000
// times and holds every reply against the rules as written (Explain), against
// AAAA and TCP, and against those of twenty clients in its scope.
func TestSteeredReplies(t *testing.T) {
	const fleets, questions, neighbours = 5, 400, 20
	short, compared, explained := 0, 0, 0
	scopes := map[int]int{}
	for seed := range uint64(fleets) {
		w := newRealWorld(t, seed)
		for i := range questions {
			name, client, st := w.rnd.IntN(w.names), w.network(32, 64), w.state()
			c := &dnsserver.Context{From: netip.AddrPortFrom(w.network(32, 64).Addr(), 53), Transport: dnsserver.UDP, State: st}
			c.Now = 1_700_000_000*time.Second + time.Duration(w.rnd.Int64N(int64(time.Hour)))
			binary.LittleEndian.PutUint64(c.Seed[:], w.rnd.Uint64())
			root, _ := w.set.Root(w.cfg.Policies[name].Name)
			says := func() string {
				return fmt.Sprintf("seed %d, question %d: n%d for %v through %v", seed, i, name, client, c.From)
			}
			got, six := w.ask(t, name, dns.TypeA, client, c), w.ask(t, name, dns.TypeAAAA, client, c)
			if !slices.Equal(w.chosen(got), w.chosen(six)) || got.ttl != six.ttl || got.scope != six.scope {
				t.Fatalf("%s\nA    %+v\nAAAA %+v", says(), got, six)
			}
			c.Transport = dnsserver.TCP
			if tcp := w.ask(t, name, dns.TypeA, client, c); !tcp.equal(got) {
				t.Fatalf("%s\nby UDP %+v\nby TCP %+v", says(), got, tcp)
			}
			c.Transport = dnsserver.UDP
			if i%4 == 0 {
				if beside := w.askHTTPS(t, name, dns.TypeA, client, c); !beside.equal(got) {
					t.Fatalf("%s\nA            %+v\nbeside HTTPS %+v", says(), got, beside)
				}
				if beside := w.askHTTPS(t, name, dns.TypeAAAA, client, c); !beside.equal(six) {
					t.Fatalf("%s\nAAAA         %+v\nbeside HTTPS %+v", says(), six, beside)
				}
			}
			scopes[got.scope]++
			// Explain walks all of a large block, up to a second: a part of them will do.
			if got.scope >= 10 || w.blind(w.cfg.Policies[name].Name) || w.rnd.IntN(200) == 0 {
				explained++
				var d policy.Decision
				w.set.Explain(root, policy.Query{Client: client, Draw: policy.ResolverDraw(c.Seed, c.From.Addr()), Now: c.Now}, st, &d)
				if want := w.wanted(&d, dns.TypeA); !got.equal(want) {
					t.Fatalf("%s\non the wire %+v\nas written  %+v\n%+v", says(), got, want, d.Why)
				}
			}
			if got.scope > client.Bits() {
				short++ // it says: send a longer SOURCE
				continue
			}
			block, err := client.Addr().Prefix(got.scope)
			if err != nil {
				t.Fatalf("%s: scope %d: %v", says(), got.scope, err)
			}
			for range neighbours {
				other := w.inside(block)
				compared++
				if near := w.ask(t, name, dns.TypeA, other, c); !near.equal(got) {
					t.Fatalf("%s\ngets        %+v\nin scope %v %+v", says(), got, other, near)
				}
			}
		}
	}
	t.Logf("%d explained, %d clients in scopes compared, %d SOURCEs too short; scopes %v", explained, compared, short, scopes)
	if explained < 1200 || compared < 25_000 || short < 50 || len(scopes) < 20 {
		t.Error("too little was tried")
	}
}

// steeredQuestion is a question whose answer depends on the client, over the
// built-in data.
func steeredQuestion(t testing.TB) (*realWorld, []byte, *dnsserver.Context) {
	w := newRealWorld(t, 1)
	c := &dnsserver.Context{From: netip.MustParseAddrPort("202.156.1.16:40053"), Transport: dnsserver.UDP, State: w.set.NewState(), Now: 1_700_000_000 * time.Second}
	w.set.Prepare(c.State)
	for i := range w.names {
		q, err := txtest.ParseQuery(fmt.Sprintf("n%d.example.test +ecs=193.99.144.0/24", i))
		if err != nil {
			t.Fatal(err)
		}
		var out dnsserver.Outcome
		if w.view.Answer(nil, q.Wire, c, &out); out.Scope > 0 {
			return w, q.Wire, c
		}
	}
	t.Fatal("no name of this fleet tells clients apart")
	return nil, nil, nil
}

func TestSteeredAnswerAllocatesNothing(t *testing.T) {
	w, query, c := steeredQuestion(t)
	out := new(dnsserver.Outcome)
	dst := make([]byte, 0, 2048)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
		query := slices.Clone(query)
		binary.BigEndian.PutUint16(query[12+len("\x02n0\x07example\x04test\x00"):], qtype)
		if n := testing.AllocsPerRun(1000, func() { w.view.Answer(dst, query, c, out) }); n != 0 {
			t.Errorf("type %d: %v allocations", qtype, n)
		}
		if !out.Steered || out.Scope == 0 || out.QType != qtype {
			t.Errorf("not the answer that was meant: %+v", out)
		}
	}
}

// BenchmarkAnswerSteered answers for a name that the built-in country data
// steer, with a client subnet option.
func BenchmarkAnswerSteered(b *testing.B) {
	w, query, c := steeredQuestion(b)
	out := new(dnsserver.Outcome)
	dst := make([]byte, 0, 2048)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		// Clients all over the space, as the caches see them.
		binary.BigEndian.PutUint16(query[len(query)-3:], uint16(i*40503))
		w.view.Answer(dst, query, c, out)
	}
}
