package conformance

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// everyShape is a zone with one of each shape that an answer can depend on.
// OTHER is another zone of ours, KID a zone of ours that this one delegates.
const everyShape = `$TTL 300
@ SOA ns1 hostmaster 7 3600 900 604800 60
@ NS ns1
@ NS ns2.OTHER
@ A 127.0.0.1
@ MX 10 mx1
@ TXT "apex"
@ CAA 0 issue "ca.example"
ns1 A 127.0.0.53
ns1 AAAA ::1
mx1 A 127.0.0.25
; each type, alone and in sets
a A 127.0.1.1
a A 127.0.1.2
a A 127.0.1.3
aaaa AAAA ::1
aaaa AAAA ::2
both 60 A 127.0.1.4
both 120 AAAA ::3
mx MX 10 mx1
mx MX 20 a.b.ent
mx MX 30 mx.OTHER
ptr PTR a
txt TXT "one" "two"
txt TXT "three"
srv SRV 0 5 5060 a
srv SRV 1 5 5060 cname
naptr NAPTR 100 10 "u" "sip+E2U" "!^.*$!sip:a@b!" .
hinfo HINFO "cpu" "os"
rp RP mbox txt
afsdb AFSDB 1 a
loc LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
sshfp SSHFP 1 1 0123456789abcdef0123456789abcdef01234567
tlsa TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
uri URI 10 1 "https://a.example/"
https HTTPS 1 . alpn=h2
https HTTPS 2 a alpn=h2
alias HTTPS 0 a
svcb SVCB 1 a alpn=h2 port=8443
unknown TYPE65400 \# 4 01020304
unknown TYPE65400 \# 4 01020305
empty TYPE65401 \# 0
cds CDS 0 0 0 00
big TXT "0123456789012345678901234567890123456789012345678901234567890123456789" "a"
; names: case, octets, length
MiXeD A 127.0.1.5
dot\.ted A 127.0.1.6
sp\032ace TXT "space"
nul\000 TXT "nul"
high\255 TXT "high"
_under._tcp SRV 0 0 80 MIXED
x.x.x.x.x.x.x.x.x.x.x.x.deep A 127.0.1.7
012345678901234567890123456789012345678901234567890123456789012 A 127.0.1.8
; empty non-terminals and wildcards
a.b.ent A 127.0.2.1
*.w A 127.0.2.2
*.w TXT "wild"
x.w TXT "beside the wildcard"
a.y.w TXT "y is an empty non-terminal"
*.wc CNAME a
*.wn CNAME nothing
*.wo CNAME a.OTHER
*.wmx MX 10 x.w
a.*.mid TXT "below an asterisk"
*.ww A 127.0.2.3
*.*.ww TXT "two asterisks"
; aliases
cname CNAME a
chain1 CNAME chain2
chain2 CNAME chain3
chain3 CNAME a
nothing CNAME gone
nodata CNAME txt
toent CNAME b.ent
towild CNAME q.w
todname CNAME a.dn
tocut CNAME www.cut
atcut CNAME cut
tokid CNAME www.KID
other CNAME a.OTHER
othernx CNAME gone.OTHER
othernodata CNAME txt.OTHER
otherwild CNAME q.w.OTHER
otherchain CNAME chain1.OTHER
othercut CNAME www.cut.OTHER
outside CNAME www.example.org.
loop1 CNAME loop2
loop2 CNAME loop1
self CNAME self
LONG
dn DNAME w2
a.w2 A 127.0.3.1
b.w2 CNAME a
dnself DNAME dnself
dngrow DNAME *.dngrow
dnchain DNAME dn
dnother DNAME OTHER
dnout DNAME example.org.
dndata DNAME w
dndata TXT "beside the DNAME"
dnlong DNAME 012345678901234567890123456789012345678901234567890123456789012.012345678901234567890123456789012345678901234567890123456789012.012345678901234567890123456789012345678901234567890123456789012.b
dncut DNAME cut
dnkid DNAME KID
; delegations: glue below, beside, elsewhere, of another cut, none; DS
cut NS ns.cut
cut NS ns1
ns.cut A 127.0.4.1
ns.cut AAAA ::4
beside NS ns1
beside NS a
elsewhere NS ns.example.org.
sibling NS ns.cut
bothcut NS ns.bothcut
bothcut NS ns.cut
ns.bothcut A 127.0.4.2
none NS ns.none
other2 NS ns1.OTHER
six NS ns.six
ns.six AAAA ::6
wildglue NS x.ww
aliasns NS cname
secure NS ns.secure
secure DS 12345 13 2 0123456789012345678901234567890123456789012345678901234567890123
ns.secure A 127.0.4.3
deep1.only NS ns1
deep2.only NS ns1
deepcut.d.e NS ns.deepcut.d.e
ns.deepcut.d.e A 127.0.4.4
many NS ns1.many
many NS ns2.many
many NS ns3.many
many NS ns4.many
ns1.many A 127.0.4.11
ns2.many A 127.0.4.12
ns3.many A 127.0.4.13
ns4.many A 127.0.4.14
`

// chainLength is that of the longest chain of aliases in everyShape, beyond
// what any server follows.
const chainLength = 14

// shaped is everyShape for one zone; kid is empty for one without.
func shaped(origin, other, kid string) string {
	var long strings.Builder
	for i := range chainLength {
		fmt.Fprintf(&long, "long%d CNAME long%d\n", i, i+1)
	}
	fmt.Fprintf(&long, "long%d A 127.0.3.9\n", chainLength)
	text := strings.NewReplacer("OTHER", other, "LONG\n", long.String()).Replace(everyShape)
	if kid != "" {
		text += "KID NS ns1.KID\nns1.KID A 127.0.0.53\nns1.KID AAAA ::1\n"
	} else {
		kid = "kid." + other
	}
	return strings.ReplaceAll("$ORIGIN "+origin+"\n"+text, "KID", kid)
}

// labels that random owners are made of: few, so that names meet.
var words = []string{"a", "b", "c", "*", "xyz", "0"}

func randomOwner(rng *rand.Rand, most int) string {
	var list []string
	for range 1 + rng.IntN(most) {
		list = append(list, words[rng.IntN(len(words))])
	}
	return strings.Join(list, ".")
}

// randomZone is a zone of shapes that nobody thought of. Owners of aliases and
// cuts have nothing beside or, but for glue, below them: servers refuse that
// at load, each in its own way.
func randomZone(rng *rand.Rand, origin string, others []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s\n$TTL 300\n@ SOA ns1 hostmaster 1 3600 900 604800 60\n@ NS ns1\nns1 A 127.0.0.53\n", origin)
	var owners []string
	for range 5 + rng.IntN(20) {
		owner := randomOwner(rng, 3)
		if !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	slices.SortFunc(owners, func(a, b string) int { return strings.Count(a, ".") - strings.Count(b, ".") })
	closed := map[string]bool{} // owners with nothing below them
	for _, owner := range owners {
		if slices.ContainsFunc(owners, func(up string) bool { return closed[up] && strings.HasSuffix(owner, "."+up) }) {
			continue
		}
		target := randomOwner(rng, 2)
		if rng.IntN(3) == 0 {
			target += "." + others[rng.IntN(len(others))]
		}
		wild := strings.HasPrefix(owner, "*")
		switch k := rng.IntN(10); {
		case k < 4 || wild && k < 6:
			fmt.Fprintf(&b, "%s A 127.1.0.%d\n", owner, 1+rng.IntN(250))
			if k%2 == 0 {
				fmt.Fprintf(&b, "%s 600 TXT \"text\"\n", owner)
			}
		case k < 6 || wild:
			fmt.Fprintf(&b, "%s CNAME %s\n", owner, target)
		case k < 7:
			closed[owner] = true
			fmt.Fprintf(&b, "%s NS ns1\n%s NS ns.%s\nns.%s AAAA ::7\n", owner, owner, owner, owner)
		case k < 9:
			closed[owner] = true
			fmt.Fprintf(&b, "%s NS ns.%s\n%s DS 12345 13 2 %064d\nns.%s A 127.1.4.1\n", owner, owner, owner, k, owner)
		default:
			closed[owner] = true
			fmt.Fprintf(&b, "%s DNAME %s\n", owner, target)
		}
	}
	return b.String()
}

// transport is how a question travels.
type transport uint8

const (
	overTCP transport = iota
	overUDP
	overUDP512 // without EDNS
)

// question is one query to ask of every server.
type question struct {
	name  string
	qtype uint16
	do    bool
	by    transport
}

func (q question) String() string {
	s := q.name + " " + dns.Type(q.qtype).String()
	if q.do {
		s += " +do"
	}
	return s + [...]string{" +tcp", "", " +noedns"}[q.by]
}

// msg is the query in wire form, of a sender who expects no recursion.
func (q question) msg(id uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.qtype)
	m.Id, m.RecursionDesired = id, false
	if q.by != overUDP512 {
		m.SetEdns0(1232, q.do)
	}
	return m
}

// askedTypes are asked of every name, beside those that it has.
var askedTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME, dns.TypeDNAME, dns.TypeMX, dns.TypeTXT, dns.TypeDS, dns.TypeDNSKEY,
	dns.TypeANY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeHTTPS, dns.TypeSRV, dns.TypeCDS, 65400, 65500}

const (
	// nearTypes is how many types are asked of a name that only stands near one
	// of the zone's: most of them do not exist, and say so in the same words.
	nearTypes = 5
	// hashNames is how many owners of NSEC3 are asked for in each zone.
	hashNames = 3
)

// apexTypes are asked of every apex, also when few questions are.
var apexTypes = []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeDS, dns.TypeDNSKEY, dns.TypeANY, dns.TypeTLSA}

// questions are all that can be asked about zones, in an order that the seed
// alone decides: each name of a zone, those around it, each type, with and
// without DO, by each transport, in mixed case. Those about an apex and about
// owners of NSEC3 come first.
func questions(rng *rand.Rand, zones []zone) []question {
	var list, first []question
	for _, z := range zones {
		types := typesOf(z.plain, z.origin)
		for _, name := range slices.Sorted(maps.Keys(types)) {
			for _, t := range slices.Concat(askedTypes, types[name]) {
				list = append(list, question{name: name, qtype: t})
			}
			for _, near := range around(rng, name, z.origin) {
				for range nearTypes {
					list = append(list, question{name: near, qtype: askedTypes[rng.IntN(len(askedTypes))]})
				}
			}
		}
		for _, t := range apexTypes {
			first = append(first, question{z.origin, t, true, overUDP})
		}
		hashes := 0
		for name, t := range typesOf(z.text, z.origin) {
			if slices.Contains(t, dns.TypeNSEC3) && hashes < hashNames { // any: they depend on the salt
				first = append(first, question{name, dns.TypeNSEC3, true, overUDP}, question{"x." + name, dns.TypeA, true, overTCP})
				hashes++
			}
		}
	}
	slices.SortFunc(list, func(a, b question) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.qtype, b.qtype))
	})
	list = slices.Compact(list)
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for i := range list {
		q := &list[i]
		q.by = []transport{overTCP, overUDP, overUDP, overUDP512}[rng.IntN(4)]
		q.do = q.by != overUDP512 && rng.IntN(3) > 0
		if rng.IntN(4) == 0 {
			q.name = mixCase(rng, q.name)
		}
	}
	return append(first, list...)
}

// typesOf is the types of each owner name of a master file.
func typesOf(text, origin string) map[string][]uint16 {
	types := map[string][]uint16{}
	p := dns.NewZoneParser(strings.NewReader(text), origin, "")
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		h := rr.Header()
		name := strings.ToLower(asOnWire(h.Name))
		if !slices.Contains(types[name], h.Rrtype) {
			types[name] = append(types[name], h.Rrtype)
		}
	}
	return types
}

// asOnWire is a name as it is written when it comes out of a message: one can
// be written in several ways.
func asOnWire(name string) string {
	var wire [255]byte
	n, err := dns.PackDomainName(name, wire[:], 0, nil, false)
	if err != nil {
		return name
	}
	text, _, err := dns.UnpackDomainName(wire[:n], 0)
	if err != nil {
		return name
	}
	return text
}

// around is names near a name of a zone: below, beside, above, and the
// wildcard there, as far as a name may be long.
func around(rng *rand.Rand, name, origin string) []string {
	var list []string
	parent := name
	if name != origin {
		if at, end := dns.NextLabel(name, 0); !end {
			parent = name[at:]
		}
	}
	for _, near := range []string{parent, words[rng.IntN(len(words))] + "." + name, "x.y." + name, "*." + name, "zz-gone." + parent} {
		if _, ok := dns.IsDomainName(near); ok {
			list = append(list, near)
		}
	}
	return list
}

// mixCase changes the case of letters outside escapes.
func mixCase(rng *rand.Rand, name string) string {
	b := []byte(name)
	for i, c := range b {
		if rng.IntN(2) == 0 && 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
