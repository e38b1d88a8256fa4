package dnsserver_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signing is how a zone of a test is signed. The tools that operators use sign
// the zones of signed_test.go; this signer gives the same octets each time,
// which conversations need, and signs thousands of zones in a second.
type signing struct {
	nsec3      bool
	optOut     bool
	salt       string // hex
	iterations uint16
}

// parseSigning reads "nsec", or "nsec3" with "optout", "salt=HEX", "iterations=N".
func parseSigning(words []string) (signing, error) {
	var how signing
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "nsec":
		case "nsec3":
			how.nsec3 = true
		case "optout":
			how.optOut = true
		case "salt":
			how.salt = value
		case "iterations":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return how, err
			}
			how.iterations = uint16(n)
		default:
			return how, fmt.Errorf("sign: %q is no way to sign", w)
		}
	}
	return how, nil
}

// zoneKey is the one key of a zone, made from its name.
func zoneKey(origin string) (*dns.DNSKEY, ed25519.PrivateKey) {
	seed := sha256.Sum256([]byte(origin))
	private := ed25519.NewKeyFromSeed(seed[:])
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: 257, Protocol: 3, Algorithm: dns.ED25519}
	key.PublicKey = base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	return key, private
}

// signer signs one zone.
type signer struct {
	t       testing.TB
	origin  string
	how     signing
	sets    map[string]map[uint16][]dns.RR // by owner in lower case
	names   []string                       // of sets, in canonical order
	least   uint32                         // the TTL of NSEC and NSEC3
	private ed25519.PrivateKey
	key     *dns.DNSKEY
}

// signZone returns the text of a zone with DNSKEY, signatures and a chain.
func signZone(t testing.TB, origin string, text []byte, how signing) []byte {
	t.Helper()
	s := &signer{t: t, origin: dns.Fqdn(origin), how: how, sets: map[string]map[uint16][]dns.RR{}}
	p := dns.NewZoneParser(bytes.NewReader(text), s.origin, origin+".zone")
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		s.add(rr)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	soa := s.sets[s.origin][dns.TypeSOA][0].(*dns.SOA)
	s.least = min(soa.Minttl, soa.Hdr.Ttl)
	s.key, s.private = zoneKey(s.origin)
	s.add(s.key)
	if how.nsec3 {
		s.add(&dns.NSEC3PARAM{Hdr: s.header(s.origin, dns.TypeNSEC3PARAM, 0), Hash: dns.SHA1,
			Iterations: how.iterations, SaltLength: uint8(len(how.salt) / 2), Salt: how.salt})
	}
	for name := range s.sets {
		s.names = append(s.names, name)
	}
	slices.SortFunc(s.names, compareCanonical)
	if how.nsec3 {
		s.chainNSEC3()
	} else {
		s.chainNSEC()
	}
	return s.write()
}

func (s *signer) header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func (s *signer) add(rr dns.RR) {
	name := strings.ToLower(rr.Header().Name)
	if s.sets[name] == nil {
		s.sets[name] = map[uint16][]dns.RR{}
	}
	s.sets[name][rr.Header().Rrtype] = append(s.sets[name][rr.Header().Rrtype], rr)
}

// cut reports whether a name is a zone cut.
func (s *signer) cut(name string) bool { return name != s.origin && s.sets[name][dns.TypeNS] != nil }

// occluded reports whether a name is below a zone cut or a DNAME.
func (s *signer) occluded(name string) bool {
	for up := parentOf(name); dns.IsSubDomain(s.origin, up); up = parentOf(up) {
		if s.cut(up) || s.sets[up][dns.TypeDNAME] != nil {
			return true
		}
		if up == "." {
			break
		}
	}
	return false
}

// types is the bit map of a name: what its zone answers for there, and RRSIG.
func (s *signer) types(name string, more ...uint16) []uint16 {
	var list []uint16
	for rrtype := range s.sets[name] {
		if !s.cut(name) || rrtype == dns.TypeNS || rrtype == dns.TypeDS {
			list = append(list, rrtype)
		}
	}
	list = append(list, more...)
	if !s.cut(name) || s.sets[name][dns.TypeDS] != nil || slices.Contains(more, dns.TypeNSEC) {
		list = append(list, dns.TypeRRSIG)
	}
	slices.Sort(list)
	return list
}

func (s *signer) chainNSEC() {
	var chain []string
	for _, name := range s.names {
		if !s.occluded(name) {
			chain = append(chain, name)
		}
	}
	for i, name := range chain {
		next := chain[(i+1)%len(chain)]
		defer s.add(&dns.NSEC{Hdr: s.header(name, dns.TypeNSEC, s.least), NextDomain: next, TypeBitMap: s.types(name, dns.TypeNSEC)})
	}
}

func (s *signer) chainNSEC3() {
	bitmaps := map[string][]uint16{} // by hash, in the order of base32hex
	for _, name := range s.names {
		if s.occluded(name) || s.how.optOut && s.cut(name) && s.sets[name][dns.TypeDS] == nil {
			continue
		}
		bitmaps[s.hash(name)] = s.types(name)
		for up := parentOf(name); name != s.origin && up != s.origin; up = parentOf(up) {
			if s.sets[up] == nil {
				bitmaps[s.hash(up)] = nil // an empty non-terminal
			}
		}
	}
	var hashes []string
	for h := range bitmaps {
		hashes = append(hashes, h)
	}
	slices.Sort(hashes)
	flags := uint8(0)
	if s.how.optOut {
		flags = 1
	}
	for i, h := range hashes {
		s.add(&dns.NSEC3{Hdr: s.header(h+"."+strings.TrimPrefix(s.origin, "."), dns.TypeNSEC3, s.least), Hash: dns.SHA1, Flags: flags,
			Iterations: s.how.iterations, SaltLength: uint8(len(s.how.salt) / 2), Salt: s.how.salt,
			HashLength: 20, NextDomain: hashes[(i+1)%len(hashes)], TypeBitMap: bitmaps[h]})
	}
}

func (s *signer) hash(name string) string {
	return dns.HashName(name, dns.SHA1, s.how.iterations, s.how.salt)
}

// write signs what the zone answers for and returns the text.
func (s *signer) write() []byte {
	var out bytes.Buffer
	for name, sets := range s.sets {
		for rrtype, rrs := range sets {
			for _, rr := range rrs {
				fmt.Fprintln(&out, rr)
			}
			if s.occluded(name) || s.cut(name) && rrtype != dns.TypeDS && rrtype != dns.TypeNSEC {
				continue
			}
			sig := &dns.RRSIG{Hdr: s.header(rrs[0].Header().Name, dns.TypeRRSIG, rrs[0].Header().Ttl), Algorithm: dns.ED25519, KeyTag: s.key.KeyTag(), SignerName: s.origin,
				Inception: uint32(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Unix()), Expiration: uint32(time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC).Unix())}
			if err := sig.Sign(s.private, rrs); err != nil {
				s.t.Fatalf("signing %s %s: %v", name, dns.Type(rrtype), err)
			}
			fmt.Fprintln(&out, sig)
		}
	}
	return out.Bytes()
}

// parentOf is a name without its first label; the root's is the root.
func parentOf(name string) string {
	at, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[at:]
}

// compareCanonical is the order of RFC 4034 §6.1, for names without escapes.
func compareCanonical(a, b string) int {
	x, y := dns.SplitDomainName(strings.ToLower(a)), dns.SplitDomainName(strings.ToLower(b))
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}
