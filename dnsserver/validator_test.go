package dnsserver_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// validator checks replies as RFC 4035 §5 and RFC 5155 §8 tell a resolver to:
// that each RRset is signed, and that what is not there is proved. It shares no
// code with what made the reply, and knows of the zones only their keys.
type validator struct {
	keys map[string]*dns.DNSKEY // by origin
}

// longestChain is how many aliases a reply follows.
const longestChain = 9

// verdict is what a validator holds of a reply.
type verdict struct {
	insecure bool // a proof of opt-out: nothing is known
	denied   bool // something was proved not to exist
}

// check validates the reply to a question with DO.
func (v *validator) check(m *dns.Msg) (verdict, error) {
	if err := v.signatures(m.Answer, m); err != nil {
		return verdict{}, fmt.Errorf("answer: %w", err)
	}
	if err := v.signatures(m.Ns, m); err != nil {
		return verdict{}, fmt.Errorf("authority: %w", err)
	}
	var out verdict
	q := m.Question[0]
	name := strings.ToLower(q.Name)
	for hops := 0; hops <= len(m.Answer); hops++ {
		sets := at(m.Answer, name, q.Qtype)
		if len(sets) == 0 && hops == longestChain {
			return out, nil // the resolver asks again from here
		}
		if len(sets) == 0 {
			if d := dnameAbove(m.Answer, name); d != nil {
				return out, fmt.Errorf("the CNAME that %s makes of %s is missing", d.Hdr.Name, name)
			}
			return out, v.last(m, name, &out)
		}
		if err := v.expansion(m, name, &out); err != nil {
			return out, err
		}
		var alias *dns.CNAME
		for _, rr := range sets {
			if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			} else if rr.Header().Rrtype != dns.TypeRRSIG || q.Qtype == dns.TypeRRSIG {
				return out, nil // the answer
			}
		}
		made := dnameAbove(m.Answer, name) != nil
		if alias == nil || q.Qtype == dns.TypeCNAME || q.Qtype == dns.TypeANY && !made {
			return out, nil
		}
		name = strings.ToLower(alias.Target)
	}
	return out, nil // a loop
}

// at is the records of a name. A DNAME counts for its owner only as an answer
// to the question for it: else it is there for the names below.
func at(rrs []dns.RR, name string, qtype uint16) []dns.RR {
	var list []dns.RR
	for _, rr := range rrs {
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		t := rr.Header().Rrtype
		if sig, ok := rr.(*dns.RRSIG); ok {
			t = sig.TypeCovered
		}
		if t != dns.TypeDNAME || qtype == dns.TypeDNAME || qtype == dns.TypeANY || qtype == dns.TypeRRSIG {
			list = append(list, rr)
		}
	}
	return list
}

func dnameAbove(rrs []dns.RR, name string) *dns.DNAME {
	for _, rr := range rrs {
		if d, ok := rr.(*dns.DNAME); ok && !strings.EqualFold(d.Hdr.Name, name) && dns.IsSubDomain(d.Hdr.Name, name) {
			return d
		}
	}
	return nil
}

// zoneOf is the origin with a key that a name is in.
func (v *validator) zoneOf(name string) string {
	best := ""
	for origin := range v.keys {
		if dns.IsSubDomain(origin, name) && len(origin) > len(best) {
			best = origin
		}
	}
	return best
}

// signatures demands that each RRset of a section is signed by its zone's key,
// with the TTL of the RRset on the signature, but for what is never signed: the
// NS of a cut, and a CNAME that a DNAME made.
func (v *validator) signatures(section []dns.RR, m *dns.Msg) error {
	type key struct {
		name   string
		rrtype uint16
	}
	sets := map[key][]dns.RR{}
	sigs := map[key][]*dns.RRSIG{}
	for _, rr := range section {
		k := key{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
		if sig, ok := rr.(*dns.RRSIG); ok {
			k.rrtype = sig.TypeCovered
			sigs[k] = append(sigs[k], sig)
			if m.Question[0].Qtype == dns.TypeRRSIG {
				continue
			}
		} else {
			sets[k] = append(sets[k], rr)
		}
	}
	for k, list := range sigs {
		if sets[k] == nil && m.Question[0].Qtype != dns.TypeRRSIG {
			return fmt.Errorf("%s %s: %d signatures without the RRset", k.name, dns.Type(k.rrtype), len(list))
		}
	}
	for k, rrs := range sets {
		zone := v.zoneOf(k.name)
		if k.rrtype == dns.TypeDS && v.keys[k.name] != nil {
			zone = v.zoneOf(parentOf(k.name))
		}
		if zone == "" {
			continue // of an unsigned zone
		}
		cut := k.rrtype == dns.TypeNS && k.name != zone
		made := k.rrtype == dns.TypeCNAME && dnameAbove(m.Answer, k.name) != nil
		if (cut || made) && len(sigs[k]) == 0 {
			continue
		}
		if len(sigs[k]) == 0 {
			return fmt.Errorf("%s %s has no signature", k.name, dns.Type(k.rrtype))
		}
		for _, sig := range sigs[k] {
			if err := sig.Verify(v.keys[zone], rrs); err != nil {
				return fmt.Errorf("%s %s: %w", k.name, dns.Type(k.rrtype), err)
			}
			if sig.Hdr.Ttl != rrs[0].Header().Ttl || rrs[0].Header().Ttl > sig.OrigTtl {
				return fmt.Errorf("%s %s: TTL %d, signature %d, original %d", k.name, dns.Type(k.rrtype), rrs[0].Header().Ttl, sig.Hdr.Ttl, sig.OrigTtl)
			}
		}
	}
	return nil
}

// expansion demands, of a name whose signatures have fewer labels than itself,
// the proof that no closer name exists (RFC 4035 §5.3.4, RFC 5155 §8.8).
func (v *validator) expansion(m *dns.Msg, name string, out *verdict) error {
	for _, rr := range m.Answer {
		sig, ok := rr.(*dns.RRSIG)
		if !ok || !strings.EqualFold(sig.Hdr.Name, name) {
			continue
		}
		labels := dns.SplitDomainName(name)
		if len(labels) > 0 && labels[0] == "*" {
			labels = labels[1:]
		}
		if int(sig.Labels) >= len(labels) {
			continue
		}
		encloser := ancestor(name, int(sig.Labels))
		p := v.proofs(m, name)
		if n := p.covering(name); n != nil {
			if common := p.encloser(n, name); dns.CountLabel(common) != dns.CountLabel(encloser) {
				return fmt.Errorf("%s: answered by *.%s, but %s exists", name, encloser, common)
			}
			return nil
		}
		if n := p.covering3(ancestor(name, int(sig.Labels)+1)); n != nil {
			out.insecure = out.insecure || n.Flags&1 != 0
			return nil
		}
		return fmt.Errorf("%s: answered by *.%s without a proof that nothing is closer", name, encloser)
	}
	return nil
}

// ancestor is the last n labels of a name.
func ancestor(name string, n int) string {
	labels := dns.SplitDomainName(name)
	return dns.Fqdn(strings.Join(labels[len(labels)-n:], "."))
}

// last checks how the last name of a chain is not answered.
func (v *validator) last(m *dns.Msg, name string, out *verdict) error {
	var soa, ns string
	for _, rr := range m.Ns {
		switch rr.Header().Rrtype {
		case dns.TypeSOA:
			soa = strings.ToLower(rr.Header().Name)
		case dns.TypeNS:
			ns = strings.ToLower(rr.Header().Name)
		}
	}
	zone := v.zoneOf(name)
	switch {
	case m.Rcode == dns.RcodeYXDomain:
		return nil // the DNAME is signed
	case zone == "" && soa == "" && ns == "":
		return nil // not ours
	case ns != "" && soa == "":
		return v.referral(m, ns, out)
	case soa == "":
		return fmt.Errorf("%s: neither answer, SOA nor referral", name)
	case v.keys[soa] == nil:
		return nil // an unsigned zone
	case m.Rcode == dns.RcodeNameError:
		out.denied = true
		return v.proofs(m, soa).nameError(name, out)
	}
	out.denied = true
	return v.proofs(m, soa).noData(name, m.Question[0].Qtype, out)
}

func (v *validator) referral(m *dns.Msg, cut string, out *verdict) error {
	if v.zoneOf(cut) == "" {
		return nil
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeDS && strings.EqualFold(rr.Header().Name, cut) {
			return nil
		}
	}
	out.denied = true
	return v.proofs(m, parentOf(cut)).noData(cut, dns.TypeDS, out)
}

// proofSet is what of the authority section proves things about one zone.
type proofSet struct {
	nsec  []*dns.NSEC
	nsec3 []*dns.NSEC3
}

func (v *validator) proofs(m *dns.Msg, name string) proofSet {
	zone := v.zoneOf(name)
	var p proofSet
	for _, rr := range m.Ns {
		if v.zoneOf(strings.ToLower(rr.Header().Name)) != zone {
			continue
		}
		switch rr := rr.(type) {
		case *dns.NSEC:
			p.nsec = append(p.nsec, rr)
		case *dns.NSEC3:
			p.nsec3 = append(p.nsec3, rr)
		}
	}
	return p
}

func (p proofSet) matching(name string) *dns.NSEC {
	for _, n := range p.nsec {
		if strings.EqualFold(n.Hdr.Name, name) {
			return n
		}
	}
	return nil
}

// covering is the NSEC between whose owner and next name a name falls, unless
// the owner is a cut or DNAME above it, whose NSEC says nothing about it.
func (p proofSet) covering(name string) *dns.NSEC {
	for _, n := range p.nsec {
		after := compareCanonical(n.Hdr.Name, name) < 0
		before := compareCanonical(name, n.NextDomain) < 0
		lastOne := compareCanonical(n.NextDomain, n.Hdr.Name) <= 0
		if !after || !before && !lastOne {
			continue
		}
		if dns.IsSubDomain(n.Hdr.Name, name) && (isCut(n.TypeBitMap) || slices.Contains(n.TypeBitMap, dns.TypeDNAME)) {
			continue
		}
		return n
	}
	return nil
}

func isCut(types []uint16) bool {
	return slices.Contains(types, dns.TypeNS) && !slices.Contains(types, dns.TypeSOA)
}

// encloser is the closest encloser of a name that an NSEC covers.
func (p proofSet) encloser(n *dns.NSEC, name string) string {
	a, b := dns.CompareDomainName(name, n.Hdr.Name), dns.CompareDomainName(name, n.NextDomain)
	return ancestor(name, max(a, b))
}

func (p proofSet) matching3(name string) *dns.NSEC3 {
	for _, n := range p.nsec3 {
		if n.Match(name) {
			return n
		}
	}
	return nil
}

func (p proofSet) covering3(name string) *dns.NSEC3 {
	for _, n := range p.nsec3 {
		if n.Cover(name) {
			return n
		}
	}
	return nil
}

// encloser3 is the closest provable encloser and the NSEC3 that covers the next
// closer name (RFC 5155 §8.3).
func (p proofSet) encloser3(name string) (encloser string, next *dns.NSEC3, err error) {
	closer := name
	for up := parentOf(name); closer != "."; closer, up = up, parentOf(up) {
		n := p.matching3(up)
		if n == nil {
			continue
		}
		if isCut(n.TypeBitMap) || slices.Contains(n.TypeBitMap, dns.TypeDNAME) {
			return "", nil, fmt.Errorf("%s: the closest encloser %s is a cut or a DNAME", name, up)
		}
		if next = p.covering3(closer); next == nil {
			return "", nil, fmt.Errorf("%s: the next closer name %s is not covered", name, closer)
		}
		return up, next, nil
	}
	return "", nil, fmt.Errorf("%s: no closest encloser is proved", name)
}

func (p proofSet) nameError(name string, out *verdict) error {
	if len(p.nsec3) > 0 {
		encloser, next, err := p.encloser3(name)
		if err != nil {
			return err
		}
		out.insecure = out.insecure || next.Flags&1 != 0
		// Where an empty non-terminal rests on opted-out cuts alone it is in no
		// chain, and the wildcard above it, which does not reach below it, cannot
		// be denied: opt-out cannot do better (RFC 5155 §7.1).
		if p.covering3("*."+encloser) == nil && next.Flags&1 == 0 {
			return fmt.Errorf("%s: *.%s is not denied", name, encloser)
		}
		return nil
	}
	n := p.covering(name)
	switch {
	case n == nil:
		return fmt.Errorf("%s: no NSEC covers it", name)
	case dns.IsSubDomain(name, n.NextDomain):
		return fmt.Errorf("%s: NXDOMAIN, but it is an empty non-terminal", name)
	}
	if star := "*." + p.encloser(n, name); p.covering(star) == nil {
		return fmt.Errorf("%s: %s is not denied", name, star)
	}
	return nil
}

// without checks a bit map for the absence of a type.
func without(name string, types []uint16, qtype uint16) error {
	switch {
	case slices.Contains(types, qtype) || slices.Contains(types, dns.TypeCNAME) && qtype != dns.TypeDS:
		return fmt.Errorf("%s: its bit map has %s or CNAME", name, dns.Type(qtype))
	case qtype != dns.TypeDS && isCut(types):
		return fmt.Errorf("%s: the NSEC of a cut says nothing about %s", name, dns.Type(qtype))
	}
	return nil
}

func (p proofSet) noData(name string, qtype uint16, out *verdict) error {
	if len(p.nsec3) > 0 {
		return p.noData3(name, qtype, out)
	}
	if n := p.matching(name); n != nil {
		return without(name, n.TypeBitMap, qtype)
	}
	n := p.covering(name)
	if n == nil {
		return fmt.Errorf("%s: NODATA without an NSEC", name)
	}
	if dns.IsSubDomain(name, n.NextDomain) {
		return nil // an empty non-terminal
	}
	star := "*." + p.encloser(n, name)
	if w := p.matching(star); w != nil {
		return without(star, w.TypeBitMap, qtype)
	}
	if w := p.covering(star); w != nil && dns.IsSubDomain(star, w.NextDomain) {
		return nil
	}
	return fmt.Errorf("%s: NODATA, but nothing is said of %s", name, star)
}

func (p proofSet) noData3(name string, qtype uint16, out *verdict) error {
	if n := p.matching3(name); n != nil {
		return without(name, n.TypeBitMap, qtype)
	}
	encloser, next, err := p.encloser3(name)
	if err != nil {
		return err
	}
	out.insecure = out.insecure || next.Flags&1 != 0
	star := "*." + encloser
	switch w := p.matching3(star); {
	case next.Flags&1 != 0:
		return nil // as in nameError
	case w != nil:
		return without(star, w.TypeBitMap, qtype)
	default:
		return fmt.Errorf("%s: NODATA, but %s has no NSEC3 and nothing opts out", name, star)
	}
}
