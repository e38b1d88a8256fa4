package dnsserver_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

// randomZone writes a zone of every shape: wildcards, empty non-terminals, cuts
// with and without DS and glue, aliases, and what stands below cuts.
func randomZone(rng *rand.Rand, origin string) string {
	var b strings.Builder
	b.WriteString("$TTL 300\n@ SOA ns1 hostmaster 1 3600 900 604800 60\n@ NS ns1\nns1 A 127.0.0.53\n")
	used := map[string]bool{"ns1": true}
	for range 3 + rng.IntN(12) {
		name := randomOwner(rng, 3)
		if used[name] {
			continue
		}
		used[name] = true
		target := randomOwner(rng, 2)
		wild := strings.HasPrefix(name, "*")
		switch k := rng.IntN(10); {
		case k < 4 || wild && k < 7:
			fmt.Fprintf(&b, "%s A 192.0.2.%d\n", name, rng.IntN(250))
			if k%2 == 0 {
				fmt.Fprintf(&b, "%s 600 TXT \"some text\"\n", name)
			}
		case k < 5 || wild:
			fmt.Fprintf(&b, "%s CNAME %s\n", name, target)
		case k < 7:
			fmt.Fprintf(&b, "%s NS ns1\n", name)
		case k < 9:
			fmt.Fprintf(&b, "%s NS ns.%s\n%s DS 12345 13 2 %064d\nns.%s A 127.0.0.54\n", name, name, name, k, name)
		default:
			fmt.Fprintf(&b, "%s DNAME %s\n", name, target)
		}
	}
	return b.String()
}

// randomOwner is a relative name of few labels, so that names meet.
func randomOwner(rng *rand.Rand, most int) string {
	words := []string{"a", "b", "c", "*", "xyz", "0"}
	var labels []string
	for range 1 + rng.IntN(most) {
		labels = append(labels, words[rng.IntN(len(words))])
	}
	return strings.Join(labels, ".")
}

// TestRandomSignedZones: whatever is asked of whatever signed zone, a validator
// that knows only its key accepts the reply.
func TestRandomSignedZones(t *testing.T) {
	const seed1, seed2 = 4035, 5155
	rng := rand.New(rand.NewPCG(seed1, seed2))
	rounds := 120
	if testing.Short() {
		rounds = 30
	}
	denied, insecure := 0, 0
	for round := range rounds {
		origin := "example.test."
		how := signing{nsec3: round%3 > 0, optOut: round%3 == 2}
		if how.nsec3 && round%2 == 0 {
			how.salt, how.iterations = "AABB", uint16(rng.IntN(3))
		}
		text := randomZone(rng, origin)
		signed := signZone(t, origin, []byte(text), how)
		zone, findings := zones.Parse("example.test.zone", signed, zones.Options{Origin: origin})
		if zone == nil {
			t.Fatalf("round %d: %v\n%s", round, findings, text)
		}
		view, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{zone}})
		if err != nil {
			t.Fatal(err)
		}
		key, _ := zoneKey(origin)
		v := &validator{keys: map[string]*dns.DNSKEY{origin: key}}
		types := []string{"A", "TXT", "DS", "NS", "CNAME", "ANY", "NSEC", "MX", "DNAME"}
		for range 40 {
			question := randomOwner(rng, 4) + "." + origin + " " + types[rng.IntN(len(types))]
			reply := askDO(t, view, question)
			got, err := v.check(reply)
			if err == nil && got.insecure && !how.optOut {
				err = fmt.Errorf("opt-out in a zone without it")
			}
			if err != nil {
				t.Fatalf("round %d of seed %d, %d (%+v), %s: %v\n%s\nzone:\n%s", round, seed1, seed2, how, question, err, reply, text)
			}
			if got.denied {
				denied++
			}
			if err := eachNeeded(v, reply, how); err != nil {
				t.Fatalf("round %d of seed %d, %d (%+v), %s: %v\n%s\nzone:\n%s", round, seed1, seed2, how, question, err, reply, text)
			}
			if got.insecure {
				insecure++
			}
		}
	}
	if denied < rounds*10 || insecure < rounds/3 {
		t.Errorf("%d replies denied something and %d rested on opt-out in %d rounds: the zones are too plain", denied, insecure, rounds)
	}
}

// eachNeeded demands that no proof of a reply can be left out. With opt-out the
// validator lets more pass, so there it says nothing.
func eachNeeded(v *validator, reply *dns.Msg, how signing) error {
	for _, drop := range reply.Ns {
		t := drop.Header().Rrtype
		if how.optOut || t != dns.TypeNSEC && t != dns.TypeNSEC3 && t != dns.TypeDS {
			continue
		}
		less := reply.Copy()
		less.Ns = slices.DeleteFunc(less.Ns, func(rr dns.RR) bool {
			sig, ok := rr.(*dns.RRSIG)
			return rr.Header().Name == drop.Header().Name && (rr.Header().Rrtype == t || ok && sig.TypeCovered == t)
		})
		if _, err := v.check(less); err == nil {
			return fmt.Errorf("it is as good without %s", drop)
		}
	}
	return nil
}

// everyShape is a zone with one of each shape.
const everyShape = `
$TTL 300
@ IN SOA ns1 hostmaster 7 3600 900 604800 60
@ IN NS ns1
@ IN MX 10 www
ns1 IN A 127.0.0.53
www IN A 192.0.2.1
www IN AAAA 2001:db8::1
* IN TXT "wildcard"
a.empty IN A 192.0.2.4
*.wild IN A 192.0.2.3
*.alias IN CNAME www
chain IN CNAME x.alias
away IN CNAME www.example.org.
old IN DNAME new
www.new IN A 192.0.2.5
secure IN NS ns.secure
secure IN NS ns1
secure IN DS 12345 13 2 0123456789012345678901234567890123456789012345678901234567890123
ns.secure IN A 127.0.0.54
plain IN NS ns.plain
ns.plain IN A 127.0.0.54
`

// waysToSign are those of signZone that matter to an answer.
var waysToSign = map[string]signing{
	"nsec":         {},
	"nsec3":        {nsec3: true},
	"nsec3-salt":   {nsec3: true, salt: "AABBCCDD", iterations: 5},
	"nsec3-optout": {nsec3: true, optOut: true},
}

// everyAnswer is a question for each kind of answer that everyShape can give.
var everyAnswer = []string{
	"www A", "www ANY", " SOA", " DNSKEY", " NS", " MX", " NSEC3PARAM", " NSEC", "www RRSIG", "www MX", "empty A", "nothing A", "no.thing.empty A", "a.b.c TXT", "x.wild A", "x.y.wild A",
	"x.wild MX", "*.wild A", "*.wild MX", "chain A", "x.alias MX", "away A", "www.old A", "no.old A", "old DNAME", "old A", "secure NS", "x.secure A", "secure DS", "plain A", "x.plain MX", "plain DS", "ns.plain A", " DS",
}

func signedView(t testing.TB, how signing) *dnsserver.View {
	t.Helper()
	zone := parseZone(t, "example.test", signZone(t, "example.test.", []byte(everyShape), how))
	view, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{zone}})
	if err != nil {
		t.Fatal(err)
	}
	return view
}

func TestEveryAnswerValidates(t *testing.T) {
	key, _ := zoneKey("example.test.")
	v := &validator{keys: map[string]*dns.DNSKEY{"example.test.": key}}
	for how, s := range waysToSign {
		view := signedView(t, s)
		for _, question := range everyAnswer {
			name, qtype, _ := strings.Cut(question, " ")
			reply := askDO(t, view, strings.TrimPrefix(name+".example.test. ", ".")+qtype)
			if _, err := v.check(reply); err != nil {
				t.Errorf("%s, %s: %v\n%s", how, question, err, reply)
			}
		}
	}
}

func TestSignedAnswersAllocateNothing(t *testing.T) {
	for how, s := range waysToSign {
		view := signedView(t, s)
		dst := make([]byte, 0, 4096)
		out := new(dnsserver.Outcome)
		for _, question := range everyAnswer {
			name, qtype, _ := strings.Cut(question, " ")
			q, err := txtest.ParseQuery(strings.TrimPrefix(name+".example.test. ", ".") + qtype + " +do")
			if err != nil {
				t.Fatal(err)
			}
			c := &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}
			if n := testing.AllocsPerRun(100, func() { view.Answer(dst, q.Wire, c, out) }); n != 0 {
				t.Errorf("%s, %s: %v allocations", how, question, n)
			}
		}
	}
}

// TestWithoutDO: who does not ask for DNSSEC gets of it what is asked for by
// type, and no more (RFC 4035 §3.1).
func TestWithoutDO(t *testing.T) {
	for how, s := range waysToSign {
		view := signedView(t, s)
		for _, question := range everyAnswer {
			name, qtype, _ := strings.Cut(question, " ")
			for _, words := range []string{"", " +noedns", " +ad +cd"} {
				q, err := txtest.ParseQuery(strings.TrimPrefix(name+".example.test. ", ".") + qtype + words)
				if err != nil {
					t.Fatal(err)
				}
				m := new(dns.Msg)
				if err := m.Unpack(view.Answer(nil, q.Wire, &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}, new(dnsserver.Outcome))); err != nil {
					t.Fatal(err)
				}
				if m.AuthenticatedData || m.CheckingDisabled {
					t.Errorf("%s, %s: AD or CD is set", how, question)
				}
				for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
					switch typ := rr.Header().Rrtype; typ {
					case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeDS:
						if typ != m.Question[0].Qtype {
							t.Errorf("%s, %s%s: %s", how, question, words, rr)
						}
					}
				}
			}
		}
	}
}

// TestTruncationKeepsProofs: at every size a reply has each RRset with its
// signatures and every proof, or TC; only addresses beside the cut, and their
// signatures before them, may be left out.
func TestTruncationKeepsProofs(t *testing.T) {
	key, _ := zoneKey("example.test.")
	v := &validator{keys: map[string]*dns.DNSKEY{"example.test.": key}}
	whole, cut := 0, 0
	for how, s := range waysToSign {
		view := signedView(t, s)
		for _, question := range everyAnswer {
			name, qtype, _ := strings.Cut(question, " ")
			for size := 512; size <= 1232; size += 16 {
				q, err := txtest.ParseQuery(strings.TrimPrefix(name+".example.test. ", ".") + qtype + fmt.Sprintf(" +do +bufsize=%d", size))
				if err != nil {
					t.Fatal(err)
				}
				wire := view.Answer(nil, q.Wire, &dnsserver.Context{From: q.From, Transport: dnsserver.UDP}, new(dnsserver.Outcome))
				m := new(dns.Msg)
				if err := m.Unpack(wire); err != nil || len(wire) > size {
					t.Fatalf("%s, %s: %d octets of %d, %v", how, question, len(wire), size, err)
				}
				if m.Truncated {
					cut++
					continue
				}
				whole++
				if _, err := v.check(m); err != nil {
					t.Fatalf("%s, %s at %d octets: %v\n%s", how, question, size, err, m)
				}
			}
		}
	}
	if whole < 1000 || cut < 100 {
		t.Errorf("%d whole, %d cut: too few of one", whole, cut)
	}
}

// askDO asks by TCP with DO and parses the reply.
func askDO(t testing.TB, view *dnsserver.View, question string) *dns.Msg {
	t.Helper()
	q, err := txtest.ParseQuery(question + " +do +tcp")
	if err != nil {
		t.Fatal(err)
	}
	out := new(dnsserver.Outcome)
	wire := view.Answer(nil, q.Wire, &dnsserver.Context{From: q.From, Transport: dnsserver.TCP}, out)
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	if m.Truncated || m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused {
		t.Fatalf("%s: %s", question, m)
	}
	return m
}
