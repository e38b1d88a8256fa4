package conformance

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/internal/txtest"
)

var whole = flag.Bool("whole", false, "have delv validate every answer of every zone")

// signedZone has one name for each kind of answer that a signed zone gives.
// HOST is the address that perigee listens on, NEXT another signed zone.
const signedZone = `$TTL 300
@ SOA ns1 hostmaster 7 3600 900 604800 60
@ NS ns1
@ MX 10 www
ns1 A HOST
www A 127.0.1.1
www AAAA ::1
a.ent TXT "below an empty non-terminal"
*.wild A 127.0.1.2
b.wild TXT "beside the wildcard"
*.alias CNAME www
chain CNAME chain2
chain2 CNAME www
old DNAME new
www.new A 127.0.1.3
across CNAME www.NEXT
acrossold CNAME www.old.NEXT
acrossnx CNAME gone.NEXT
toplain CNAME www.plain
kid NS ns1.kid
ns1.kid A HOST
plain NS ns1.plain
ns1.plain A HOST
`

// kidZone is delegated from a signed zone.
const kidZone = `$TTL 300
@ SOA ns1 hostmaster 1 3600 900 604800 60
@ NS ns1
ns1 A HOST
www A 127.0.2.1
`

// holds is what a validator must hold of an answer.
type holds uint8

const (
	secure   holds = iota
	insecure       // below an insecure delegation
	optOut         // insecure where the proof rests on a span that opts out, else secure
	nextOut        // the same of the next zone
	wildOut        // the same, of an expansion: insecure to delv as well
	cutOut         // the same, of a proof that ldns-signzone gives an NSEC3 of its own
)

// asked is every kind of answer, and what it must be.
var asked = []struct {
	name, qtype string
	rcode       int
	holds       holds
}{
	{"gone", "A", dns.RcodeNameError, optOut},
	{"a.b.gone", "TXT", dns.RcodeNameError, optOut},
	{"gone.ent", "A", dns.RcodeNameError, optOut},
	{"gone.www", "A", dns.RcodeNameError, optOut},
	{"ent", "A", dns.RcodeSuccess, secure},
	{"www", "MX", dns.RcodeSuccess, secure},
	{"www", "A", dns.RcodeSuccess, secure},
	{"www", "AAAA", dns.RcodeSuccess, secure},
	{"www", "ANY", dns.RcodeSuccess, secure},
	{"www", "TYPE65500", dns.RcodeSuccess, secure},
	{"", "SOA", dns.RcodeSuccess, secure},
	{"", "NS", dns.RcodeSuccess, secure},
	{"", "MX", dns.RcodeSuccess, secure},
	{"", "DNSKEY", dns.RcodeSuccess, secure},
	{"", "DS", dns.RcodeSuccess, secure},
	{"", "TXT", dns.RcodeSuccess, secure},
	{"x.wild", "A", dns.RcodeSuccess, wildOut},
	{"x.y.wild", "A", dns.RcodeSuccess, wildOut},
	{"x.wild", "MX", dns.RcodeSuccess, optOut},
	{"b.wild", "A", dns.RcodeSuccess, secure},
	{"*.wild", "A", dns.RcodeSuccess, secure},
	{"x.alias", "A", dns.RcodeSuccess, optOut},
	{"x.alias", "MX", dns.RcodeSuccess, optOut},
	{"chain", "A", dns.RcodeSuccess, secure},
	{"chain", "MX", dns.RcodeSuccess, secure},
	{"www.old", "A", dns.RcodeSuccess, secure},
	{"www.old", "MX", dns.RcodeSuccess, secure},
	{"gone.old", "A", dns.RcodeNameError, optOut},
	{"old", "DNAME", dns.RcodeSuccess, secure},
	{"old", "A", dns.RcodeSuccess, secure},
	{"across", "A", dns.RcodeSuccess, secure},
	{"across", "MX", dns.RcodeSuccess, secure},
	{"acrossold", "A", dns.RcodeSuccess, secure},
	{"acrossnx", "A", dns.RcodeNameError, nextOut},
	{"toplain", "A", dns.RcodeSuccess, insecure},
	{"kid", "DS", dns.RcodeSuccess, secure},
	{"www.kid", "A", dns.RcodeSuccess, secure},
	{"gone.kid", "A", dns.RcodeNameError, secure},
	{"kid", "SOA", dns.RcodeSuccess, secure},
	{"plain", "DS", dns.RcodeSuccess, cutOut},
	{"www.plain", "A", dns.RcodeSuccess, insecure},
	{"gone.plain", "A", dns.RcodeNameError, insecure},
}

// tree is the zones of the test: test., which holds the trust anchor, one zone
// for each tool and way to sign, two below each of them, and bogus.test., whose
// DS is wrong.
type tree struct {
	zones  []zone
	signed []string           // origins of those in asked
	how    map[string]signing // by origin
	anchor *dns.DNSKEY        // of test.
	host   string
	port   string
}

func plantTree(t *testing.T) *tree {
	t.Helper()
	tr := &tree{how: map[string]signing{"bogus.test.": {by: byLDNS}}}
	tr.host, tr.port = nameServerAddress(t)
	for _, by := range []tool{byBIND, byLDNS, byKnot} {
		for _, how := range []signing{{by: by}, {by: by, nsec3: true}, {by: by, nsec3: true, salt: "aabbccdd"}, {by: by, nsec3: true, optOut: true}} {
			origin := fmt.Sprintf("%s-%s.test.", by, how.word())
			tr.signed = append(tr.signed, origin)
			tr.how[origin] = how
		}
	}
	top := "$TTL 300\n@ SOA ns1 hostmaster 1 3600 900 604800 60\n@ NS ns1\nns1 A " + tr.host + "\n"
	for i, origin := range tr.signed {
		ds := tr.plant(t, origin, tr.next(i))
		top += fmt.Sprintf("%[1]s NS ns1.%[1]s\nns1.%[1]s A %[2]s\n%[3]s\n", origin, tr.host, ds)
	}
	ds := tr.plant(t, "bogus.test.", tr.signed[0])
	ds.Digest = strings.Repeat("0", len(ds.Digest))
	top += fmt.Sprintf("bogus NS ns1.bogus\nns1.bogus A %s\n%s\n", tr.host, ds)
	z, _ := sign(t, zone{origin: "test.", text: "$ORIGIN test.\n" + top}, signing{by: byLDNS})
	tr.zones = append(tr.zones, z)
	tr.anchor = trustedKey(t, z)
	return tr
}

// next is the zone that aliases of zone i lead to: of the next tool, signed in
// another way.
func (tr *tree) next(i int) string { return tr.signed[(i+5)%len(tr.signed)] }

func (s signing) word() string {
	switch {
	case s.optOut:
		return "optout"
	case s.salt != "":
		return "salt"
	case s.nsec3:
		return "nsec3"
	}
	return "nsec"
}

// plant adds a signed zone and the two below it.
func (tr *tree) plant(t *testing.T, origin, next string) *dns.DS {
	fill := strings.NewReplacer("HOST", tr.host, "NEXT", next)
	kid := "kid." + origin
	signedKid, kidDS := sign(t, zone{origin: kid, text: "$ORIGIN " + kid + "\n" + fill.Replace(kidZone)}, signing{by: byLDNS})
	plain := zone{origin: "plain." + origin, text: "$ORIGIN plain." + origin + "\n" + fill.Replace(kidZone)}
	z, ds := sign(t, zone{origin: origin, text: "$ORIGIN " + origin + "\n" + fill.Replace(signedZone) + kidDS.String() + "\n"}, tr.how[origin])
	tr.zones = append(tr.zones, z, signedKid, plain)
	return ds
}

// nameServerAddress is port 53 of a loopback address where that may be opened,
// so that resolvers can follow referrals; else any port.
func nameServerAddress(t *testing.T) (host, port string) {
	t.Helper()
	host, port = freeAddress(t, "")
	l, err := net.Listen("tcp", net.JoinHostPort(host, "53"))
	if err != nil {
		return host, port
	}
	l.Close()
	return host, "53"
}

// anchorFile writes the trust anchor in the form of a tool and returns its name.
func (tr *tree) anchorFile(t *testing.T, format string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "anchor")
	k := tr.anchor
	text := fmt.Sprintf(format, k.Hdr.Name, k.Flags, k.Protocol, k.Algorithm, k.PublicKey)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// startUnbound starts a validating resolver that knows where test. is, and
// follows referrals from there when perigee has port 53.
func startUnbound(t *testing.T, tr *tree, aggressive string) (s *server, config string) {
	t.Helper()
	stubs := []string{"test."}
	if tr.port != "53" {
		stubs = origins(tr.zones)
	}
	anchor := tr.anchorFile(t, "%s 300 IN DNSKEY %d %d %d %s\n")
	s = start(t, program{
		name: "unbound",
		files: func(dir, host, port string) map[string]string {
			config = filepath.Join(dir, "unbound.conf")
			var b strings.Builder
			fmt.Fprintf(&b, "server:\n  interface: %s@%s\n  port: %s\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: %q\n  pidfile: \"\"\n", host, port, port, dir)
			b.WriteString("  use-syslog: no\n  logfile: \"\"\n  val-log-level: 2\n  do-ip6: no\n  do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n  num-threads: 1\n")
			fmt.Fprintf(&b, "  module-config: \"validator iterator\"\n  trust-anchor-file: %q\n  local-zone: \"test.\" nodefault\n  extended-statistics: yes\n", anchor)
			fmt.Fprintf(&b, "  aggressive-nsec: %s\n", aggressive)
			fmt.Fprintf(&b, "remote-control:\n  control-enable: yes\n  control-interface: %q\n  control-use-cert: no\n", filepath.Join(dir, "control"))
			for _, origin := range stubs {
				fmt.Fprintf(&b, "stub-zone:\n  name: %q\n  stub-addr: %s@%s\n", origin, tr.host, tr.port)
			}
			return map[string]string{"unbound.conf": b.String()}
		},
		args: func(dir string) []string { return []string{"unbound", "-d", "-c", filepath.Join(dir, "unbound.conf")} },
		ready: func(addr string) bool {
			r, err := resolve(addr, "test.", dns.TypeSOA)
			return err == nil && r.Rcode == dns.RcodeSuccess
		},
	})
	return s, config
}

func resolve(addr, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, true)
	c := dns.Client{Timeout: askWithin}
	r, _, err := c.Exchange(q, addr)
	if err == nil && r.Truncated {
		c.Net = "tcp"
		r, _, err = c.Exchange(q, addr)
	}
	return r, err
}

// isSecure is what must be held of a question about zone i.
func (tr *tree) isSecure(h holds, i int) bool {
	switch h {
	case insecure:
		return false
	case optOut, wildOut:
		return !tr.how[tr.signed[i]].optOut
	case cutOut:
		how := tr.how[tr.signed[i]]
		return !how.optOut || how.by == byLDNS
	case nextOut:
		return !tr.how[tr.next(i)].optOut
	}
	return true
}

// TestResolvers has zones that three tools signed in four ways each served by
// perigee, and every kind of answer validated by resolvers that follow its
// referrals from the trust anchor down: Unbound, with aggressive use of NSEC
// (RFC 8198) and without, and delv.
func TestResolvers(t *testing.T) {
	txtest.Need(t, append([]string{"unbound", "unbound-control", "delv"}, signingTools...)...)
	tr := plantTree(t)
	startPerigeeAt(t, tr.zones, tr.host, tr.port)
	for _, aggressive := range []string{"no", "yes"} {
		t.Run("unbound aggressive-nsec "+aggressive, func(t *testing.T) { tr.unbound(t, aggressive) })
	}
	t.Run("delv", tr.delv)
}

// rounds is how often Unbound is asked everything: the second time it knows
// every proof, and makes what it can of them.
const rounds = 2

func (tr *tree) unbound(t *testing.T, aggressive string) {
	u, config := startUnbound(t, tr, aggressive)
	for round := range rounds {
		for i, origin := range tr.signed {
			for _, q := range asked {
				name := join(q.name, origin)
				r, err := resolve(u.addr, name, typeOf(t, q.qtype))
				if err != nil {
					t.Fatal(err)
				}
				if want := tr.isSecure(q.holds, i); r.Rcode != q.rcode || r.AuthenticatedData != want {
					t.Errorf("round %d, %s %s: %s, AD %v; want %s, AD %v\n%s", round, name, q.qtype,
						dns.RcodeToString[r.Rcode], r.AuthenticatedData, dns.RcodeToString[q.rcode], want, r)
				}
			}
			for n := range 5 { // what proofs that are known already deny
				name := join(fmt.Sprintf("gone%d", n+round*5), origin)
				if r, err := resolve(u.addr, name, dns.TypeA); err != nil || r.Rcode != dns.RcodeNameError {
					t.Errorf("%s: %v, %v", name, err, r)
				}
			}
		}
	}
	stats := run(t, ".", "unbound-control", "-c", config, "stats_noreset")
	made := statistic(t, stats, "num.query.aggressive.NXDOMAIN") + statistic(t, stats, "num.query.aggressive.NOERROR")
	if (made > 0) != (aggressive == "yes") {
		t.Errorf("aggressive-nsec %s, and %d answers were made from proofs", aggressive, made)
	}
	if bogus := statistic(t, stats, "num.answer.bogus"); bogus != 0 {
		t.Errorf("%d answers were bogus", bogus)
	}
	if r, err := resolve(u.addr, "www.bogus.test.", dns.TypeA); err != nil || r.Rcode != dns.RcodeServerFailure {
		t.Errorf("a zone that is signed by another key than its DS says: %v, %v: does this resolver validate?", err, r)
	}
	t.Logf("%d questions, %d answered from proofs", statistic(t, stats, "total.num.queries"), made)
}

func join(name, origin string) string {
	if name == "" {
		return origin
	}
	return name + "." + origin
}

func typeOf(t *testing.T, text string) uint16 {
	t.Helper()
	if v, ok := dns.StringToType[text]; ok {
		return v
	}
	v, err := strconv.ParseUint(strings.TrimPrefix(text, "TYPE"), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(v)
}

// statistic reads one number of what unbound-control prints.
func statistic(t *testing.T, stats, name string) int {
	t.Helper()
	for line := range strings.Lines(stats) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in\n%s", name, stats)
	return 0
}

// delv validates by itself, asking perigee for keys and DS on the way. It is a
// process for each question, so without -whole it has those of a zone with NSEC
// and of one with NSEC3 and opt-out. To it a proof that rests on opt-out is as good as any.
func (tr *tree) delv(t *testing.T) {
	anchor := tr.anchorFile(t, "trust-anchors { %q static-key %d %d %d %q; };\n")
	for i, origin := range tr.signed {
		if !*whole && origin != "bind-nsec.test." && origin != "knot-optout.test." {
			continue
		}
		for _, q := range asked {
			if q.qtype == "ANY" {
				continue // delv has no way to validate it
			}
			name := join(q.name, origin)
			out, err := exec.CommandContext(t.Context(), "delv", "@"+tr.host, "-p", tr.port, "-a", anchor, "+root=test.", name, q.qtype).CombinedOutput()
			text := string(out)
			want := "fully validated"
			if q.holds == insecure || q.holds == wildOut && !tr.isSecure(q.holds, i) {
				want = "unsigned answer"
			}
			if err != nil || !strings.Contains(text, want) || strings.Contains(text, "ncache nxdomain") != (q.rcode == dns.RcodeNameError) {
				t.Errorf("delv %s %s: %v, want %s, %s\n%s", name, q.qtype, err, dns.RcodeToString[q.rcode], want, text)
			}
		}
	}
}
