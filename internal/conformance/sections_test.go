package conformance

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// zoneNS drops the NS RRset of the zone that answered.
func zoneNS(c *comparison) {
	if len(c.theirs.sections[answer]) > 0 {
		c.theirs.drop(authority, func(k setKey) bool {
			_, had := c.ours.sections[authority][k]
			return !had && slices.Contains(c.zones, k.owner) && (k.rrtype == dns.TypeNS || k.covered == dns.TypeNS)
		})
	}
}

// additionalAddresses drops the addresses that only theirs has from a reply
// that is no referral, and those that ours has for the target of an alias.
func additionalAddresses(c *comparison) {
	if c.ours.has(authority, dns.TypeNS) && !c.apexNS(c.ours) {
		return
	}
	ours, theirs := c.ours.sections[additional], c.theirs.sections[additional]
	if q := c.ours.q.qtype; q == dns.TypeHTTPS || q == dns.TypeSVCB {
		maps.DeleteFunc(ours, func(k setKey, _ []string) bool {
			_, both := theirs[k]
			return !both && isAddress(k)
		})
	}
	maps.DeleteFunc(theirs, func(k setKey, _ []string) bool {
		_, both := ours[k]
		return !both && (isAddress(k) || isDenial(k.rrtype) || isDenial(k.covered)) // knot proves a family's absence as well
	})
}

// besideCut drops, from a referral, the addresses of names that are not below
// the cut and that only one of the two has.
func besideCut(c *comparison) {
	cut := ""
	for k := range c.ours.sections[authority] {
		if k.rrtype == dns.TypeNS {
			cut = k.owner
		}
	}
	if cut == "" {
		return
	}
	a, b := c.ours.sections[additional], c.theirs.sections[additional]
	for _, pair := range [][2]section{{a, b}, {b, a}} {
		maps.DeleteFunc(pair[0], func(k setKey, _ []string) bool {
			_, both := pair[1][k]
			return !both && isAddress(k) && !dns.IsSubDomain(cut, k.owner)
		})
	}
}

// nsecAtCut takes ours when theirs answered with the NSEC that our referral has.
func nsecAtCut(c *comparison) {
	k := setKey{owner: strings.ToLower(c.ours.q.name), rrtype: dns.TypeNSEC}
	if set := c.theirs.sections[answer][k]; c.ours.q.qtype == dns.TypeNSEC && len(set) > 0 && c.ours.has(authority, dns.TypeNS) &&
		(!c.ours.q.do || slices.Equal(set, c.ours.sections[authority][k]) || c.ours.has(authority, dns.TypeDS)) {
		c.theirs = c.ours.clone()
	}
}

// someSignatures drops from the answer to a question for RRSIG what theirs does
// not have of it.
func someSignatures(c *comparison) {
	if c.ours.q.qtype != dns.TypeRRSIG {
		return
	}
	for k := range c.theirs.sections[answer] {
		if k.rrtype == dns.TypeRRSIG {
			c.ours.drop(answer, func(k setKey) bool { _, has := c.theirs.sections[answer][k]; return !has })
			return
		}
	}
}

// lessProof drops denial of ours when theirs has a part of it.
func lessProof(c *comparison) {
	some := c.theirs.has(authority, dns.TypeNSEC) || c.theirs.has(authority, dns.TypeNSEC3)
	if !some && c.ours.q.qtype != dns.TypeNSEC && !redirected(c.ours.msg, c.ours.q.name) {
		return
	}
	c.ours.drop(authority, func(k setKey) bool {
		_, has := c.theirs.sections[authority][k]
		return !has && (isDenial(k.rrtype) || isDenial(k.covered))
	})
}

// wrongProof drops the denial of both when a DNAME leads to a wildcard.
func wrongProof(c *comparison) {
	if redirected(c.ours.msg, c.ours.q.name) {
		for _, r := range []*reply{c.ours, c.theirs} {
			r.drop(authority, func(k setKey) bool { return k.rrtype == dns.TypeNSEC || k.covered == dns.TypeNSEC })
		}
	}
}

// lostEncloser takes ours when theirs is NXDOMAIN with nothing in it.
func lostEncloser(c *comparison) {
	empty := true
	for _, s := range c.theirs.sections {
		empty = empty && len(s) == 0
	}
	if empty && c.theirs.rcode == dns.RcodeNameError && !c.theirs.aa && c.ours.rcode == dns.RcodeNameError && c.ours.q.do {
		c.theirs = c.ours.clone()
	}
}

func isDenial(t uint16) bool { return t == dns.TypeNSEC || t == dns.TypeNSEC3 }

// soaLeftOut asks both again by TCP.
func soaLeftOut(c *comparison) {
	if c.ours.q.by == overTCP || !c.ours.has(authority, dns.TypeSOA) || c.theirs.has(authority, dns.TypeSOA) || c.theirs.tc {
		return
	}
	q := c.ours.q
	q.by = overTCP
	if c.ours, _, c.err = c.self.reply(q); c.err == nil {
		c.theirs, _, c.err = c.peer.reply(q)
	}
}

// moreProof drops denial of theirs, when ours has the rest of it.
func moreProof(c *comparison) {
	for k := range c.ours.sections[authority] {
		if _, both := c.theirs.sections[authority][k]; !both {
			return
		}
	}
	c.theirs.drop(authority, func(k setKey) bool {
		_, had := c.ours.sections[authority][k]
		return !had && (k.rrtype == dns.TypeNSEC3 || k.covered == dns.TypeNSEC3)
	})
}

var hashOwner = regexp.MustCompile(`^([^.]+\.)?[0-9a-v]{32}\.`)

func hashedOwner(c *comparison) {
	if hashOwner.MatchString(strings.ToLower(c.ours.q.name)) {
		c.theirs = c.ours.clone()
	}
}

func isAddress(k setKey) bool {
	return k.rrtype == dns.TypeA || k.rrtype == dns.TypeAAAA || k.covered == dns.TypeA || k.covered == dns.TypeAAAA
}

// apexNS reports whether the NS in the authority section is that of a zone.
func (c *comparison) apexNS(r *reply) bool {
	for k := range r.sections[authority] {
		if k.rrtype == dns.TypeNS && slices.Contains(c.zones, k.owner) {
			return true
		}
	}
	return false
}

// anyOne asks the peer for the type that ours chose, which must be the same.
func anyOne(c *comparison) {
	if c.ours.q.qtype != dns.TypeANY || c.ours.rcode != dns.RcodeSuccess || len(c.theirs.sections[answer]) == 0 {
		return
	}
	var chosen uint16
	for k := range c.ours.sections[answer] {
		if k.rrtype != dns.TypeRRSIG {
			if chosen != 0 {
				return
			}
			chosen = k.rrtype
		}
	}
	if chosen != 0 {
		q := c.theirs.q
		q.qtype, q.by = chosen, overTCP
		if !c.theirs.q.do {
			q.do = false
		}
		c.theirs, _, c.err = c.peer.reply(q)
	}
}

const (
	acrossZones why = iota // the next name is in another zone
	beyondLimit            // the server stopped though the next name is in the same zone
)

// proofsOnly reports whether the authority section has nothing but the denial
// that goes with a wildcard on the way.
func proofsOnly(r *reply) bool {
	for k := range r.sections[authority] {
		if !isDenial(k.rrtype) && !isDenial(k.covered) {
			return false
		}
	}
	return true
}
