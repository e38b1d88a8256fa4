package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// tool is a program that signs zones.
type tool uint8

const (
	byNobody tool = iota
	byBIND
	byLDNS
	byKnot
)

func (s tool) String() string { return [...]string{"nobody", "bind", "ldns", "knot"}[s] }

// signing is how a zone is signed.
type signing struct {
	by     tool
	nsec3  bool
	optOut bool
	salt   string // hex; with it some iterations more than none
}

// saltIterations go with a salt: few enough that every validator takes them.
const saltIterations = 5

func (s signing) iterations() string {
	if s.salt == "" {
		return "0"
	}
	return strconv.Itoa(saltIterations)
}

// signingTools are the programs that sign.
var signingTools = []string{"dnssec-keygen", "dnssec-signzone", "ldns-keygen", "ldns-signzone", "kzonesign", "keymgr"}

// sign signs a zone with a tool that operators use and returns the signed
// zone, and the DS that its parent is to have.
func sign(t *testing.T, z zone, how signing) (zone, *dns.DS) {
	t.Helper()
	dir := t.TempDir()
	file := zoneFile(z.origin)
	z.plain = z.text
	if err := os.WriteFile(filepath.Join(dir, file), []byte(z.text), 0o600); err != nil {
		t.Fatal(err)
	}
	var signed string
	switch how.by {
	case byBIND:
		signed = signByBIND(t, dir, file, z.origin, how)
	case byLDNS:
		signed = signByLDNS(t, dir, file, z.origin, how)
	case byKnot:
		signed = signByKnot(t, dir, file, z.origin, how)
	default:
		return z, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, signed))
	if err != nil {
		t.Fatal(err)
	}
	z.text = string(text)
	return z, trustedKey(t, z).ToDS(dns.SHA256)
}

func signByBIND(t *testing.T, dir, file, origin string, how signing) string {
	keygen := []string{"dnssec-keygen", "-q", "-a", "ECDSAP256SHA256"}
	ksk := strings.TrimSpace(run(t, dir, append(keygen, "-f", "KSK", origin)...))
	zsk := strings.TrimSpace(run(t, dir, append(keygen, origin)...))
	args := []string{"dnssec-signzone", "-q", "-S", "-x", "-P", "-n", "1", "-o", origin, "-f", "signed"}
	if how.nsec3 {
		salt := how.salt
		if salt == "" {
			salt = "-"
		}
		args = append(args, "-3", salt, "-H", how.iterations())
	}
	if how.optOut {
		args = append(args, "-A")
	}
	run(t, dir, append(args, file, ksk, zsk)...)
	return "signed"
}

func signByLDNS(t *testing.T, dir, file, origin string, how signing) string {
	ksk := strings.TrimSpace(run(t, dir, "ldns-keygen", "-a", "ECDSAP256SHA256", "-k", origin))
	zsk := strings.TrimSpace(run(t, dir, "ldns-keygen", "-a", "ECDSAP256SHA256", origin))
	args := []string{"ldns-signzone", "-o", origin, "-f", "signed"}
	if how.nsec3 {
		args = append(args, "-n", "-t", how.iterations())
	}
	if how.salt != "" {
		args = append(args, "-s", how.salt)
	}
	if how.optOut {
		args = append(args, "-p")
	}
	run(t, dir, append(args, file, ksk, zsk)...)
	return "signed"
}

func signByKnot(t *testing.T, dir, file, origin string, how signing) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server:\n  rundir: %[1]s\ndatabase:\n  storage: %[1]s/db\n", dir)
	fmt.Fprintf(&b, "policy:\n  - id: p\n    algorithm: ecdsap256sha256\n    nsec3: %v\n    nsec3-opt-out: %v\n    nsec3-iterations: %s\n    nsec3-salt-length: %d\n    zone-max-ttl: 86400\n    propagation-delay: 0\n",
		how.nsec3, how.optOut, how.iterations(), len(how.salt)/2)
	fmt.Fprintf(&b, "zone:\n  - domain: %s\n    storage: %s\n    file: %s\n    dnssec-signing: on\n    dnssec-policy: p\n", origin, dir, file)
	if err := os.WriteFile(filepath.Join(dir, "knot.conf"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"out", "db"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, use := range []string{"ksk=yes", "zsk=yes"} {
		run(t, dir, "keymgr", "-c", "knot.conf", origin, "generate", "algorithm=ECDSAP256SHA256", use)
	}
	run(t, dir, "kzonesign", "-c", "knot.conf", "-o", "out", origin)
	return filepath.Join("out", file)
}

// trustedKey is the key of a signed zone that a trust anchor or a DS names.
func trustedKey(t *testing.T, z zone) *dns.DNSKEY {
	t.Helper()
	p := dns.NewZoneParser(strings.NewReader(z.text), z.origin, "")
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		if key, is := rr.(*dns.DNSKEY); is && key.Flags&dns.SEP != 0 {
			return key
		}
	}
	t.Fatalf("%s has no key signing key after signing: %v\n%s", z.origin, p.Err(), z.text)
	return nil
}
