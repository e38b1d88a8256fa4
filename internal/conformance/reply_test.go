package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// setKey names an RRset; signatures belong to the type that they cover.
type setKey struct {
	owner   string // lower case
	rrtype  uint16
	covered uint16 // of RRSIG
}

func (k setKey) String() string {
	if k.covered != 0 {
		return "RRSIG of " + dns.Type(k.covered).String()
	}
	return dns.Type(k.rrtype).String()
}

// section is what a section of a reply says, without the order of its records
// and the case of names, which are the server's to choose.
type section map[setKey][]string

const (
	answer = iota
	authority
	additional
)

var sectionNames = [...]string{"answer", "authority", "additional"}

// reply is a reply as far as servers must agree on it.
type reply struct {
	q        question
	rcode    int
	aa, tc   bool
	sections [3]section
	msg      *dns.Msg
}

func newReply(q question, m *dns.Msg) *reply {
	r := &reply{q: q, rcode: m.Rcode, aa: m.Authoritative, tc: m.Truncated, msg: m}
	for i, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		r.sections[i] = section{}
		for _, rr := range rrs {
			h := rr.Header()
			if h.Rrtype == dns.TypeOPT {
				continue
			}
			k := setKey{owner: strings.ToLower(h.Name), rrtype: h.Rrtype}
			if sig, ok := rr.(*dns.RRSIG); ok {
				k.covered = sig.TypeCovered
			}
			r.sections[i][k] = append(r.sections[i][k], strings.ToLower(rr.String()))
		}
		for _, set := range r.sections[i] {
			slices.Sort(set)
		}
		for k, set := range r.sections[i] {
			r.sections[i][k] = slices.Compact(set)
		}
	}
	return r
}

// clone copies what rules may change.
func (r *reply) clone() *reply {
	c := *r
	for i := range c.sections {
		c.sections[i] = maps.Clone(c.sections[i])
	}
	return &c
}

// drop takes RRsets out of a section.
func (r *reply) drop(where int, gone func(k setKey) bool) {
	maps.DeleteFunc(r.sections[where], func(k setKey, _ []string) bool { return gone(k) })
}

// has reports whether a section has an RRset of a type.
func (r *reply) has(where int, rrtype uint16) bool {
	for k := range r.sections[where] {
		if k.rrtype == rrtype {
			return true
		}
	}
	return false
}

// kind is what sort of answer a reply is, to count what was asked.
func (r *reply) kind() string {
	var alias string
	for _, rr := range r.msg.Answer {
		if t := rr.Header().Rrtype; t == dns.TypeDNAME && r.q.qtype != t {
			alias = "DNAME, "
			break
		} else if t == dns.TypeCNAME && r.q.qtype != t && r.q.qtype != dns.TypeANY {
			alias = "CNAME, "
		}
	}
	rcode := dns.RcodeToString[r.rcode]
	switch {
	case r.rcode != dns.RcodeSuccess:
		return alias + rcode
	case r.has(authority, dns.TypeSOA):
		return alias + "NODATA"
	case r.has(authority, dns.TypeNS) && !r.hasAnswer():
		if r.has(authority, dns.TypeDS) {
			return alias + "secure referral"
		}
		return alias + "referral"
	case !r.hasAnswer():
		return alias + "end"
	case wildcard(r):
		return alias + "wildcard answer"
	case r.q.qtype == dns.TypeANY:
		return alias + "ANY"
	}
	return alias + "answer"
}

// hasAnswer reports whether the answer has more than aliases on the way.
func (r *reply) hasAnswer() bool {
	for k := range r.sections[answer] {
		if k.rrtype == r.q.qtype || r.q.qtype == dns.TypeANY || k.rrtype != dns.TypeCNAME && k.rrtype != dns.TypeDNAME && k.rrtype != dns.TypeRRSIG {
			return true
		}
	}
	return false
}

// wildcard reports whether signatures show that a wildcard was expanded.
func wildcard(r *reply) bool {
	for _, rr := range r.msg.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok && int(sig.Labels) < dns.CountLabel(sig.Hdr.Name) && !strings.HasPrefix(sig.Hdr.Name, "*.") {
			return true
		}
	}
	return false
}

// differences names what ours and theirs do not share, one line for each.
func differences(ours, theirs *reply) []string {
	var list []string
	if ours.rcode != theirs.rcode {
		list = append(list, fmt.Sprintf("rcode: %s, theirs %s", dns.RcodeToString[ours.rcode], dns.RcodeToString[theirs.rcode]))
	}
	if ours.aa != theirs.aa {
		list = append(list, fmt.Sprintf("AA: %v, theirs %v", ours.aa, theirs.aa))
	}
	for i, name := range sectionNames {
		a, b := ours.sections[i], theirs.sections[i]
		var lines []string
		for k, set := range a {
			switch other, ok := b[k]; {
			case !ok:
				lines = append(lines, fmt.Sprintf("%s: only ours has %s", name, k))
			case !slices.Equal(set, other):
				lines = append(lines, fmt.Sprintf("%s: another %s", name, k))
			}
		}
		for k := range b {
			if _, ok := a[k]; !ok {
				lines = append(lines, fmt.Sprintf("%s: only theirs has %s", name, k))
			}
		}
		slices.Sort(lines)
		list = append(list, slices.Compact(lines)...)
	}
	return list
}

// sound checks what every reply of ours must be, whatever others say: the
// question as it came, byte for byte (RFC 4343 §4.1), no flag that is not ours
// to set, an OPT exactly when one came (RFC 6891 §6.1.1), no more octets than
// the sender takes, and aliases in an order that can be followed.
func sound(q question, m *dns.Msg, size int) error {
	switch {
	case len(m.Question) != 1 || m.Question[0].Name != q.name || m.Question[0].Qtype != q.qtype:
		return fmt.Errorf("the question came back as %v", m.Question)
	case m.AuthenticatedData || m.CheckingDisabled || m.RecursionAvailable || m.RecursionDesired || m.Zero:
		return fmt.Errorf("AD, CD, RA, RD or Z is set")
	case (m.IsEdns0() != nil) != (q.by != overUDP512):
		return fmt.Errorf("OPT in the reply: %v", m.IsEdns0() != nil)
	case q.do != (m.IsEdns0() != nil && m.IsEdns0().Do()):
		return fmt.Errorf("DO is not copied")
	case q.by == overUDP && size > 1232 || q.by == overUDP512 && size > 512:
		return fmt.Errorf("%d octets", size)
	case m.Truncated && q.by == overTCP:
		return fmt.Errorf("TC by TCP")
	}
	seen := map[string]bool{}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if seen[rr.String()] {
			return fmt.Errorf("it says twice: %s", rr)
		}
		seen[rr.String()] = true
	}
	return inOrder(q, m)
}

// redirected reports whether a DNAME in the answer stands above a name: then a
// CNAME there was made from it.
func redirected(m *dns.Msg, name string) bool {
	for _, rr := range m.Answer {
		if d, ok := rr.(*dns.DNAME); ok && !strings.EqualFold(d.Hdr.Name, name) && dns.IsSubDomain(d.Hdr.Name, name) {
			return true
		}
	}
	return false
}

// inOrder follows the aliases of an answer from the front to the back.
func inOrder(q question, m *dns.Msg) error {
	name := strings.ToLower(q.name)
	for _, rr := range m.Answer {
		h := rr.Header()
		owner := strings.ToLower(h.Name)
		switch rr := rr.(type) {
		case *dns.RRSIG:
		case *dns.DNAME:
			if !dns.IsSubDomain(owner, name) {
				return fmt.Errorf("DNAME %s stands before what leads to it", owner)
			}
		case *dns.CNAME:
			if owner != name {
				return fmt.Errorf("CNAME %s stands before what leads to it", owner)
			}
			if q.qtype != dns.TypeCNAME && (q.qtype != dns.TypeANY || redirected(m, owner)) {
				name = strings.ToLower(rr.Target)
			}
		default:
			if owner != name {
				return fmt.Errorf("%s %s is not where the aliases lead", owner, dns.Type(h.Rrtype))
			}
		}
	}
	return nil
}
