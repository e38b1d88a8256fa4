package dnsserver_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/policy"
	"perigee.example/zones"
)

// small is a zone with www at an address, and an alias.
func small(t testing.TB, origin, address string) *zones.Zone {
	t.Helper()
	return parseZone(t, origin, []byte("$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n"+
		"www IN A "+address+"\nalias IN CNAME www\n"))
}

// answers asks v and returns the data of the answers.
func answers(t testing.TB, v *dnsserver.View, query string) string {
	t.Helper()
	q, err := txtest.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}
	text, err := txtest.Print(v.Answer(nil, q.Wire, c, new(dnsserver.Outcome)))
	if err != nil {
		t.Fatal(err)
	}
	var data []string
	status, _, _ := strings.Cut(strings.TrimPrefix(text, "status: "), " ")
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); f[0] == "answer:" {
			data = append(data, f[len(f)-1])
		}
	}
	return strings.Join(append([]string{status}, data...), " ")
}

// oneEdge is a fleet of one edge.
func oneEdge(t testing.TB, e dnsserver.Endpoint, steer ...dnsserver.Binding) dnsserver.ViewConfig {
	t.Helper()
	set, err := policy.Compile(policy.Config{Endpoints: []policy.Endpoint{{Name: "fra1"}}}, []string{"fra1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dnsserver.ViewConfig{Policies: set, Endpoints: []dnsserver.Endpoint{e}, Steer: steer}
}

var fra1 = dnsserver.Endpoint{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("::ffff:192.0.2.11")}}

func TestWith(t *testing.T) {
	c := oneEdge(t, fra1, dnsserver.Binding{Zone: "A.test", Name: "WWW.a.test", Policy: "fra1"})
	c.Zones = []*zones.Zone{small(t, "a.test", "192.0.2.1"), small(t, "b.test", "192.0.2.2")}
	v, err := dnsserver.NewView(c)
	if err != nil {
		t.Fatal(err)
	}
	want := func(v *dnsserver.View, query, want string) {
		t.Helper()
		if got := answers(t, v, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	// A mapped address is IPv4, and the same address twice is one record.
	want(v, "www.a.test", "NOERROR 192.0.2.10 192.0.2.11")
	want(v, "www.b.test", "NOERROR 192.0.2.2")

	w, err := v.With(small(t, "b.test", "192.0.2.22"), small(t, "c.test", "192.0.2.3"), small(t, "a.test", "192.0.2.4"))
	if err != nil {
		t.Fatal(err)
	}
	want(w, "www.a.test", "NOERROR 192.0.2.10 192.0.2.11")
	want(w, "www.b.test", "NOERROR 192.0.2.22")
	want(w, "www.c.test", "NOERROR 192.0.2.3")
	want(v, "www.b.test", "NOERROR 192.0.2.2") // the old View stands
	want(v, "www.c.test", "REFUSED")
	if w.Zone("c.test") == nil || v.Zone("c.test") != nil || w.Zone("a.test") == v.Zone("a.test") {
		t.Error("Zone does not tell the Views apart")
	}

	x, err := w.Without("b.test.")
	if err != nil {
		t.Fatal(err)
	}
	want(x, "www.b.test", "REFUSED")
	want(x, "www.a.test", "NOERROR 192.0.2.10 192.0.2.11")

	// What is steered must stay steerable.
	var wrong *dnsserver.BindingError
	bare := parseZone(t, "a.test", []byte("$TTL 300\n@ IN SOA ns1 hostmaster 8 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\n"))
	if _, err := v.With(bare); !errors.As(err, &wrong) || wrong.Binding.Name != "WWW.a.test" || wrong.Hint == "" {
		t.Errorf("a zone without the steered name: %v", err)
	}
	if _, err := v.Without("a.test"); !errors.As(err, &wrong) {
		t.Errorf("without the zone of a steered name: %v", err)
	}
}

// TestSignedFallback: a zone that is signed from one day on answers with what
// is signed, and the View says so; unsigned again, it is steered again.
func TestSignedFallback(t *testing.T) {
	plain := small(t, "a.test", "192.0.2.1")
	signed := parseZone(t, "a.test", signZone(t, "a.test.", []byte("$TTL 300\n@ IN SOA ns1 hostmaster 8 3600 900 604800 60\n@ IN NS ns1\nns1 IN A 127.0.0.53\nwww IN A 192.0.2.1\n"), signing{}))
	c := oneEdge(t, fra1, dnsserver.Binding{Zone: "a.test", Name: "www.a.test", Policy: "fra1"})
	c.Zones, c.SignedFallback = []*zones.Zone{plain}, true
	v, err := dnsserver.NewView(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		zone   *zones.Zone
		answer string
		rests  int
	}{
		{plain, "NOERROR 192.0.2.10 192.0.2.11", 0},
		{signed, "NOERROR 192.0.2.1", 1},
		{plain, "NOERROR 192.0.2.10 192.0.2.11", 0},
	} {
		if v, err = v.With(step.zone); err != nil {
			t.Fatal(err)
		}
		if got := answers(t, v, "www.a.test"); got != step.answer {
			t.Errorf("%s, want %s", got, step.answer)
		}
		rests := v.Unsteered()
		if len(rests) != step.rests {
			t.Errorf("%d names are not steered: %v", len(rests), rests)
		}
		var why *dnsserver.BindingError
		if step.rests > 0 && (!errors.As(rests[0], &why) || why.Binding.Name != "www.a.test" || why.Hint == "") {
			t.Errorf("not steered: %v", rests)
		}
	}
	c.Zones, c.SignedFallback = []*zones.Zone{signed}, false
	if _, err := dnsserver.NewView(c); err == nil {
		t.Error("without SignedFallback the signed zone is taken")
	}
}

func TestNewViewRefuses(t *testing.T) {
	a := small(t, "a.test", "192.0.2.1")
	bind := func(name, to string) dnsserver.Binding {
		return dnsserver.Binding{Zone: "a.test", Name: name, Policy: to}
	}
	for _, c := range []struct {
		text   string
		config dnsserver.ViewConfig
		zones  []*zones.Zone
	}{
		{"is given twice", oneEdge(t, fra1), []*zones.Zone{a, a}},
		{"is steered twice", oneEdge(t, fra1, bind("www.a.test", "fra1"), bind("WWW.A.test.", "fra1")), []*zones.Zone{a}},
		{"no policy, edge or endpoint is called fra9", oneEdge(t, fra1, bind("www.a.test", "fra9")), []*zones.Zone{a}},
		{"is not in zone a.test.", oneEdge(t, fra1, bind("www.b.test", "fra1")), []*zones.Zone{a}},
		{"not a domain name", oneEdge(t, fra1, bind("www..a.test", "fra1")), []*zones.Zone{a}},
		{"zero netip.Addr", oneEdge(t, dnsserver.Endpoint{Addresses: make([]netip.Addr, 1)}), []*zones.Zone{a}},
		{"target", oneEdge(t, dnsserver.Endpoint{Target: "a..b"}), []*zones.Zone{a}},
		{"give one for each", dnsserver.ViewConfig{Policies: oneEdge(t, fra1).Policies}, []*zones.Zone{a}},
		{"there are no policies", dnsserver.ViewConfig{Steer: []dnsserver.Binding{bind("www.a.test", "fra1")}}, []*zones.Zone{a}},
		{"NSID has 200 octets", dnsserver.ViewConfig{NSID: make([]byte, 200)}, nil},
	} {
		c.config.Zones = c.zones
		if _, err := dnsserver.NewView(c.config); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("error %v, want %q", err, c.text)
		}
	}
}

// manyZones is a View of n zones that share one file's text.
func manyZones(b testing.TB, n int) (*dnsserver.View, []*zones.Zone) {
	b.Helper()
	list := make([]*zones.Zone, n)
	for i := range list {
		list[i] = small(b, fmt.Sprintf("zone-%d.test", i), "192.0.2.1")
	}
	v, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: list})
	if err != nil {
		b.Fatal(err)
	}
	return v, list
}

func TestManyZones(t *testing.T) {
	v, list := manyZones(t, 2000)
	for i := range list {
		if got := answers(t, v, fmt.Sprintf("alias.zone-%d.test", i)); got != fmt.Sprintf("NOERROR www.zone-%d.test. 192.0.2.1", i) {
			t.Fatalf("zone %d: %s", i, got)
		}
	}
	if got := answers(t, v, "www.zone-2000.test"); got != "REFUSED" {
		t.Error(got)
	}
}

func BenchmarkWith(b *testing.B) {
	v, list := manyZones(b, 20_000)
	next := small(b, list[77].Origin(), "192.0.2.2")
	for b.Loop() {
		if _, err := v.With(next); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	k := openEverything(b)
	s := dnsserver.NewServer(dnsserver.ServerConfig{})
	s.SetView(k.view)
	s.SetState(k.state) // which prepares it
	for _, text := range []string{"static.example.test", "www.example.test +ecs=198.18.1.0/24", "x.empty.example.test", "chain.example.test", "www.sub.example.test"} {
		b.Run(strings.Fields(text)[0], func(b *testing.B) {
			q, err := txtest.ParseQuery(text)
			if err != nil {
				b.Fatal(err)
			}
			c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP, State: k.state}
			out := new(dnsserver.Outcome)
			room := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				k.view.Answer(room, q.Wire, c, out)
			}
		})
	}
}

// RFC 2181 §5: what two endpoints of one answer share comes once.
func TestSharedAddress(t *testing.T) {
	set, err := policy.Compile(policy.Config{
		Endpoints: []policy.Endpoint{{Name: "fra1"}, {Name: "iad1"}},
		Policies: []policy.Policy{{Name: "both", Kind: policy.Multivalue, TTL: 20 * time.Second,
			Choices: []policy.Choice{{To: "fra1"}, {To: "iad1"}}}},
	}, []string{"both"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	one, two, shared := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.20"), netip.MustParseAddr("192.0.2.1")
	v, err := dnsserver.NewView(dnsserver.ViewConfig{
		Zones:     []*zones.Zone{small(t, "a.test", "192.0.2.99")},
		Policies:  set,
		Endpoints: []dnsserver.Endpoint{{Addresses: []netip.Addr{one, shared}}, {Addresses: []netip.Addr{two, shared}}},
		Steer:     []dnsserver.Binding{{Zone: "a.test", Name: "www.a.test", Policy: "both"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"www.a.test", "alias.a.test"} { // the question's owner, and one further on
		got := strings.Fields(answers(t, v, query))
		if query == "alias.a.test" {
			got = got[1:]
		}
		slices.Sort(got[1:])
		if want := []string{"192.0.2.1", "192.0.2.10", "192.0.2.20"}; !slices.Equal(got[1:], want) {
			t.Errorf("%s: %v, want %v", query, got[1:], want)
		}
	}
}
