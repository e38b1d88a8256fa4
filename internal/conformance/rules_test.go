package conformance

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// rule explains a difference between perigee and another server. It changes
// two replies that differ for its reason, and for no other, into equal ones.
type rule struct {
	name   string
	clause string // why both are right, or theirs is not
	peers  []string
	apply  func(c *comparison)
	rare   bool // that a run does not meet it says nothing: only some zones of random shape do
}

// comparison is one question to one peer. Rules change the replies.
type comparison struct {
	ours, theirs *reply
	peer, self   *asker
	zones        []string // origins of all zones that are served
	err          error
}

// zoneOf is the zone of ours that a name is in, or "".
func (c *comparison) zoneOf(name string) string {
	best := ""
	for _, origin := range c.zones {
		if dns.IsSubDomain(origin, name) && len(origin) > len(best) {
			best = origin
		}
	}
	return best
}

var all = []string{"knot", "nsd", "bind"}

var rules = []rule{
	{"the zone's NS", "RFC 1034 §4.3.2 3a adds none to a positive answer; to add them is the server's choice", []string{"nsd", "bind"}, zoneNS, false},
	{"additional addresses", "RFC 1034 §4.3.2 6, RFC 9460 §4.1, RFC 9471 §2: what is not glue may be left out", all, additionalAddresses, false},
	{"addresses beside the cut", "RFC 9471 §3.2: glue of sibling names may be left out, and so may what is no glue", all, besideCut, false},
	{"ANY", "RFC 8482 §4.1: one RRset, and any will do", all, anyOne, false},
	{"ANY below a DNAME", "RFC 6672 §3.2 3c goes on at the target whatever is asked for; theirs stops", []string{"bind"}, anyBelowDNAME, false},
	{"NSEC at an alias", "RFC 1034 §4.3.2 3a follows it where there is none; theirs says NODATA, which RFC 5155 §8.5 has validators refuse", []string{"knot", "bind"}, func(c *comparison) { c.atAlias(dns.TypeNSEC, dns.TypeRRSIG) }, false},
	{"NSEC3 at an alias", "RFC 1034 §4.3.2 3a follows it; theirs says NODATA, which RFC 5155 §8.5 has validators refuse", []string{"nsd"}, func(c *comparison) { c.atAlias(dns.TypeNSEC3) }, false},
	{"NSEC at a cut", "RFC 4035 §3.1.4.1 names DS alone as what the parent answers at a cut; theirs answers NSEC too", []string{"bind"}, nsecAtCut, false},
	{"some signatures", "RFC 4035 §3.1: which signatures a question for RRSIG gets is not said; theirs leaves some out", []string{"knot"}, someSignatures, false},
	{"other zone", "RFC 1034 §4.3.2 3a: theirs leaves an alias into another of its zones to the resolver", []string{"knot", "bind"}, func(c *comparison) { c.follow(acrossZones) }, false},
	{"long chain", "RFC 1034 §5.2.2: how many aliases a reply follows is the server's limit; the resolver asks on", all, func(c *comparison) { c.follow(beyondLimit) }, false},
	{"alias loop", "RFC 1034 §3.6.2: a loop is an error of the data; theirs says SERVFAIL", []string{"bind"}, loopFails, false},
	{"growing name", "RFC 6672 §2.2: a DNAME that leads below itself makes longer and longer names; when to stop is the server's limit", all, growingName, false},
	{"more proof", "RFC 5155 §7.2: theirs sends NSEC3 that the proof does not need", []string{"nsd"}, moreProof, false},
	{"less proof", "RFC 4035 §3.1.3.2 and §3.1.3.4, RFC 5155 §7.2.5: theirs leaves a part of the denial out", all, lessProof, false},
	{"wrong proof", "RFC 4035 §3.1.3.3: a DNAME leads to a wildcard, and theirs sends another NSEC than the one that covers the name", []string{"nsd"}, wrongProof, true},
	{"SOA left out", "RFC 2308 §3, RFC 2181 §9: where the SOA does not fit, theirs leaves it out without TC; by TCP both say the same", []string{"knot"}, soaLeftOut, false},
	{"lost encloser", "RFC 5155 §7.1, §7.2.2: an empty non-terminal that only opted-out cuts make has no NSEC3; theirs says NXDOMAIN without AA and proof", []string{"knot"}, lostEncloser, true},
	{"hashed owner", "RFC 5155 §7.2.8: an owner of NSEC3 does not exist; to theirs it does", []string{"nsd"}, hashedOwner, false},
}

// passes is how often the rules are gone through: one may make room for another.
const passes = 3

// explain applies the rules for as long as replies differ. It returns those
// that took a difference away, and the differences that are left.
func (c *comparison) explain() (used []string, left []string) {
	left = differences(c.ours, c.theirs)
	for i := range passes * len(rules) {
		r := &rules[i%len(rules)]
		if len(left) == 0 {
			break
		}
		if !slices.Contains(r.peers, c.peer.name) {
			continue
		}
		try := *c
		try.ours, try.theirs = c.ours.clone(), c.theirs.clone()
		r.apply(&try)
		if try.err != nil {
			c.err = try.err
			return used, left
		}
		if now := differences(try.ours, try.theirs); len(now) < len(left) || strings.Join(now, "\n") != strings.Join(left, "\n") {
			if !slices.Contains(used, r.name) {
				used = append(used, r.name)
			}
			c.ours, c.theirs, left = try.ours, try.theirs, now
		}
	}
	return used, left
}
