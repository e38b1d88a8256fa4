package dnsserver_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
)

// many is how many resolvers, or client networks, ask.
const many = 10_000

// share is what fra1 is given by the weights 70 and 30.
const share = 0.7

// openWeighted is a View in which www is steered 70:30, by one policy for
// everybody, and blocks by two, in turn for one /24 after the other from
// 11.0.0.0 on: so each is a block of its own, with a draw of its own.
func openWeighted(t *testing.T) *talk {
	t.Helper()
	var world strings.Builder
	for i := range many {
		fmt.Fprintf(&world, "%s %s\n", network(i), []string{"EU DE", "NA US"}[i%2])
	}
	k := newTalk(t, map[string][]byte{
		"example.test.zone": []byte("$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n" +
			"www IN A 192.0.2.99\nwww IN AAAA 2001:db8::99\nblocks IN A 192.0.2.99\nblocks IN AAAA 2001:db8::99\n"),
		"geo": []byte(world.String()),
		"perigee.toml": []byte(`
[edge.fra1]
addresses = ["192.0.2.10", "2001:db8::10"]
listen    = ["127.0.0.1:8080"]
[edge.iad1]
addresses = ["192.0.2.20", "2001:db8::20"]
listen    = ["127.0.0.1:8081"]
[policy.canary]
by      = "weighted"
ttl     = "5s"
weights = { fra1 = 70, iad1 = 30 }
[policy.canary-us]
by      = "weighted"
ttl     = "5s"
weights = { fra1 = 70, iad1 = 30 }
[policy.map]
by = "geo"
[policy.map.map]
DE      = "canary"
US      = "canary-us"
default = "canary"
[zone."example.test"]
file = "example.test.zone"
[zone."example.test".steer]
www    = "canary"
blocks = "map"
`),
	})
	if k.err != nil {
		t.Fatal(k.err)
	}
	return k
}

// network is the i-th /24 of those that ask.
func network(i int) netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 11<<24|uint32(i)<<8)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// within4Sigma checks a share of n independent draws.
func within4Sigma(t *testing.T, what string, hits int, asked int, draws float64) {
	t.Helper()
	got := float64(hits) / float64(asked)
	sigma := math.Sqrt(share * (1 - share) / draws)
	t.Logf("%s: %.4f of %d, %.1f sigma off", what, got, asked, (got-share)/sigma)
	if math.Abs(got-share) > 4*sigma {
		t.Errorf("%s: share %.4f, want %.2f within %.4f", what, got, share, 4*sigma)
	}
}

// first says whether a reply's first answer is fra1's address of its family.
func first(t *testing.T, reply []byte) bool {
	t.Helper()
	text, err := txtest.Print(reply)
	if err != nil {
		t.Fatal(err)
	}
	_, answer, ok := strings.Cut(text, "\nanswer: ")
	answer, _, _ = strings.Cut(answer, "\n")
	fields := strings.Fields(answer)
	if !ok || len(fields) != 5 {
		t.Fatalf("no answer in %s", text)
	}
	switch fields[4] {
	case "192.0.2.10", "2001:db8::10":
		return true
	case "192.0.2.20", "2001:db8::20":
		return false
	}
	t.Fatalf("neither edge: %s", text)
	return false
}

func TestWeightsOverResolvers(t *testing.T) {
	k := openWeighted(t)
	q, err := txtest.ParseQuery("www.example.test +noedns")
	if err != nil {
		t.Fatal(err)
	}
	six, err := txtest.ParseQuery("www.example.test AAAA +ecs=0.0.0.0/0")
	if err != nil {
		t.Fatal(err)
	}
	c := &dnsserver.Context{Transport: dnsserver.UDP, State: k.state, Seed: [16]byte{1, 2, 3}}
	out := new(dnsserver.Outcome)
	room := make([]byte, 0, 2048)
	start := 1_700_000_000 * time.Second
	overall := 0
	for second := range 30 {
		hits := 0
		c.Now = start + time.Duration(second)*time.Second
		for i := range many {
			c.From = netip.AddrPortFrom(network(i).Addr().Next(), 5353)
			reply := k.view.Answer(room, q.Wire, c, out)
			if len(out.Decision.Endpoints) != 1 || out.Scope != 0 {
				t.Fatalf("resolver %d: %+v", i, out)
			}
			fra := out.Decision.Endpoints[0] == 0
			if fra {
				hits++
			}
			if i%100 == 0 { // what is on the wire is what was decided, by TCP and for AAAA too
				c.Transport = dnsserver.TCP
				wire := first(t, reply)
				if wire != fra || first(t, k.view.Answer(nil, six.Wire, c, out)) != fra {
					t.Errorf("resolver %v: decision, A and AAAA differ", c.From)
				}
				c.Transport = dnsserver.UDP
			}
		}
		if second == 0 {
			within4Sigma(t, "resolvers in one epoch", hits, many, many)
		}
		overall += hits
	}
	// 30 s are six epochs of 5 s for each resolver, so six draws.
	within4Sigma(t, "resolvers over 30 s", overall, 30*many, 6*many)
}

func TestWeightsOverBlocksByUDP(t *testing.T) {
	k := openWeighted(t)
	s := dnsserver.NewServer(dnsserver.ServerConfig{Seed: [16]byte{4, 5, 6}})
	s.SetView(k.view)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeUDP(pc)
	defer s.Shutdown(t.Context())
	conn, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	hits := 0
	b := make([]byte, 2048)
	for i := range many {
		q, err := txtest.ParseQuery(fmt.Sprintf("blocks.example.test +ecs=%s +id=%d", network(i), i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(q.Wire); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if b[n-4] != 24 { // SCOPE stands before the three octets of the address
			t.Fatalf("block %v: scope %d, want 24", network(i), b[n-4])
		}
		if first(t, b[:n]) {
			hits++
		}
	}
	within4Sigma(t, "blocks by UDP", hits, many, many)
	t.Run("over 30 s", func(t *testing.T) { blocksOver30s(t, k) })
}

func blocksOver30s(t *testing.T, k *talk) {
	c := &dnsserver.Context{From: txtest.DefaultFrom, Transport: dnsserver.UDP, State: k.state, Seed: [16]byte{7}}
	out := new(dnsserver.Outcome)
	room := make([]byte, 0, 2048)
	overall := 0
	for i := range many {
		q, err := txtest.ParseQuery(fmt.Sprintf("blocks.example.test +ecs=%s", network(i)))
		if err != nil {
			t.Fatal(err)
		}
		for second := range 30 {
			c.Now = 1_700_000_000*time.Second + time.Duration(second)*time.Second
			k.view.Answer(room, q.Wire, c, out)
			if out.Scope != 24 || len(out.Decision.Endpoints) != 1 {
				t.Fatalf("block %v: %+v", network(i), out)
			}
			if out.Decision.Endpoints[0] == 0 {
				overall++
			}
		}
	}
	within4Sigma(t, "blocks over 30 s", overall, 30*many, 6*many)
}
