package conformance

import (
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// atAlias asks the peer for each CNAME that it did not follow, and in the end
// for what was asked, if that is one of types.
func (c *comparison) atAlias(types ...uint16) {
	q := c.theirs.q
	if !slices.Contains(types, q.qtype) || !c.ours.has(answer, dns.TypeCNAME) {
		return
	}
	if c.followOne(c.ours, c.self, beyondLimit); c.err != nil {
		return
	}
	q.by, q.name = overTCP, strings.ToLower(q.name)
	whole := newReply(c.theirs.q, c.theirs.msg)
	whole.sections = [3]section{{}, {}, {}}
	seen := map[string]bool{}
	for seen[q.name] = true; ; seen[q.name] = true {
		target := ""
		q.qtype = c.theirs.q.qtype
		if _, followed := c.ours.sections[answer][setKey{owner: q.name, rrtype: dns.TypeCNAME}]; followed {
			q.qtype = dns.TypeCNAME
		}
		next, _, err := c.peer.reply(q)
		if err != nil {
			c.err = err
			return
		}
		if alias, ok := last(next.msg.Answer, dns.TypeCNAME).(*dns.CNAME); ok && q.qtype == dns.TypeCNAME {
			target = strings.ToLower(alias.Target)
		}
		whole.rcode = next.rcode
		for i := range whole.sections {
			maps.Copy(whole.sections[i], next.sections[i])
		}
		if target == "" || seen[target] || c.zoneOf(target) == "" {
			break
		}
		q.name = target
	}
	whole.drop(authority, func(k setKey) bool {
		return slices.Contains(c.zones, k.owner) && (k.rrtype == dns.TypeNS || k.covered == dns.TypeNS)
	})
	if !whole.has(authority, dns.TypeNS) {
		whole.sections[additional] = section{}
	}
	c.theirs = whole
}

// last is the last record of a type, but for signatures, or nil.
func last(rrs []dns.RR, rrtype uint16) dns.RR {
	for _, rr := range slices.Backward(rrs) {
		if rr.Header().Rrtype == rrtype {
			return rr
		}
	}
	return nil
}

// anyBelowDNAME asks the peer on where it stopped, for the type that ours chose there.
func anyBelowDNAME(c *comparison) {
	if c.ours.q.qtype != dns.TypeANY || !redirected(c.ours.msg, c.ours.q.name) {
		return
	}
	for range chainLength {
		_, target, _ := lastAlias(c.theirs)
		if target == "" || c.zoneOf(target) == "" {
			return
		}
		chosen := uint16(dns.TypeANY)
		for k := range c.ours.sections[answer] {
			if k.owner == target && k.rrtype != dns.TypeRRSIG {
				chosen = k.rrtype
			}
		}
		c.theirs.drop(authority, func(k setKey) bool { return !isDenial(k.rrtype) && !isDenial(k.covered) })
		c.theirs.sections[additional] = section{}
		if c.goOn(c.theirs, c.peer, target, chosen); c.err != nil {
			return
		}
	}
}

// why a chain of aliases is followed further.
type why uint8

// leastLimit is the least number of aliases that a server follows at most.
const leastLimit = 5

// follow asks on where a reply ends with an alias: the server that gave it, and
// adds what it says. What both say in the end must be the same.
func (c *comparison) follow(w why) {
	c.followOne(c.theirs, c.peer, w)
	if w == beyondLimit {
		c.followOne(c.ours, c.self, w)
	}
}

func (c *comparison) followOne(r *reply, who *asker, w why) {
	for range chainLength {
		owner, target, n := lastAlias(r)
		if target == "" {
			return
		}
		c.undelegate(r, target)
		if !proofsOnly(r) {
			return
		}
		from, to := c.zoneOf(owner), c.zoneOf(target)
		if to == "" || (from != to) != (w == acrossZones) || w == beyondLimit && n < leastLimit {
			return
		}
		if r.rcode != dns.RcodeSuccess && r.rcode != dns.RcodeServerFailure {
			return
		}
		if c.goOn(r, who, target, r.q.qtype); c.err != nil {
			return
		}
	}
}

// goOn adds to a reply what its server says of another name.
func (c *comparison) goOn(r *reply, who *asker, name string, qtype uint16) {
	q := r.q
	q.name, q.qtype, q.by = name, qtype, overTCP
	next, _, err := who.reply(q)
	if err != nil {
		c.err = err
		return
	}
	r.rcode = next.rcode
	r.msg = r.msg.Copy()
	r.msg.Answer = append(r.msg.Answer, next.msg.Answer...)
	for i := range r.sections {
		maps.Copy(r.sections[i], next.sections[i])
	}
}

// undelegate takes the referral out of a reply that leads to another zone of
// the server's own.
func (c *comparison) undelegate(r *reply, target string) {
	zone := c.zoneOf(target)
	if _, ok := r.sections[authority][setKey{owner: zone, rrtype: dns.TypeNS}]; !ok || !r.delegates(zone) {
		return
	}
	r.sections[additional] = section{}
	r.drop(authority, func(k setKey) bool { return k.owner == zone })
}

// delegates reports whether the NS of a zone in the authority section are a referral.
func (r *reply) delegates(zone string) bool {
	return !r.has(authority, dns.TypeSOA) && !dns.IsSubDomain(zone, strings.ToLower(r.q.name))
}

// lastAlias is the alias at which a reply ends without more, and how many lead
// to it; the target is empty when it does not end so, or leads back into itself.
func lastAlias(r *reply) (owner, target string, n int) {
	name := strings.ToLower(r.q.name)
	aliases := map[string]string{}
	for _, rr := range r.msg.Answer {
		if a, ok := rr.(*dns.CNAME); ok {
			aliases[strings.ToLower(a.Hdr.Name)] = strings.ToLower(a.Target)
		}
	}
	seen := map[string]bool{}
	for aliases[name] != "" && !seen[name] {
		seen[name] = true
		owner, name = name, aliases[name]
		n++
	}
	if n == 0 || seen[name] || r.q.qtype == dns.TypeCNAME || r.q.qtype == dns.TypeANY && !redirected(r.msg, owner) {
		return "", "", n
	}
	for k := range r.sections[answer] {
		if k.owner == name && k.rrtype != dns.TypeRRSIG {
			return "", "", n
		}
	}
	return owner, name, n
}

// loopFails takes the SERVFAIL from a loop.
func loopFails(c *comparison) {
	if c.theirs.rcode == dns.RcodeServerFailure && proofsOnly(c.ours) {
		if _, target, n := lastAlias(c.ours); target == "" && n > 0 {
			c.theirs.rcode = c.ours.rcode
		}
	}
}

// growingName drops the aliases that only one of the two has, after as many
// made from DNAMEs as every server follows.
func growingName(c *comparison) {
	made := 0
	for _, rr := range c.ours.msg.Answer {
		if a, ok := rr.(*dns.CNAME); ok && redirected(c.ours.msg, a.Hdr.Name) {
			made++
		}
	}
	if made < leastLimit {
		return
	}
	a, b := c.ours.sections[answer], c.theirs.sections[answer]
	for _, pair := range [][2]section{{a, b}, {b, a}} {
		maps.DeleteFunc(pair[0], func(k setKey, _ []string) bool {
			_, both := pair[1][k]
			return !both && k.rrtype == dns.TypeCNAME
		})
	}
	c.theirs.rcode = c.ours.rcode
	c.theirs.sections[authority], c.theirs.sections[additional] = c.ours.sections[authority], c.ours.sections[additional]
}
